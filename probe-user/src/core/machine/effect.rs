//! What crosses between the machine and its caller: what is to be done, and what came of it.

use std::time::Duration;

#[cfg(doc)]
use super::Machine;
use crate::core::{
    kill::KillId,
    model::{Channel, Process, WriterId},
    report::{Report, Signal, Snapshot},
    rule::{Hook, Policy},
};

/// Something for the caller to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Look at all tasks; answer with [`Machine::handle_look`].
    Look,
    /// Read about a process; answer with [`Machine::handle_facts`].
    Identify(Process),
    /// Find out who should read from channels, all at once; answer with [`Machine::handle_readers`],
    /// or with [`Machine::handle_no_readers`] if that cannot be done now.
    FindReaders(Vec<Channel>),
    /// See what known readers do now; answer with [`Machine::handle_people`].
    CheckReaders(Vec<Process>),
    /// Open a handle on a process and check that it is the one; answer with [`Machine::handle_opened`].
    Open(KillId, Process),
    /// Run a rule's own program on what was just seen; answer with [`Machine::handle_hooked`].
    Hook(KillId, Hook, Box<Snapshot>),
    /// Say something.
    Report(Box<Report>),
    /// Make everything reported so far durable; answer with [`Machine::handle_committed`].
    Commit,
    /// Send a signal; answer with [`Machine::handle_signalled`].
    Signal(KillId, Signal),
    /// Close the handle.
    Release(KillId),
}

/// What came of opening a handle on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is open, and the process is the one that was meant.
    Ready,
    /// The process has exited.
    Exited,
    /// The pid belongs to another process.
    OtherProcess,
    /// Not now: the observer is short of descriptors or memory.
    Later,
    /// It could not be done here.
    Unsupported,
}

/// What came of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was sent.
    Yes,
    /// There was no process any more.
    Gone,
    /// It could not be sent.
    Failed(String),
}

/// What the tracer noted between looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A thread exited.
    Exited(WriterId),
    /// A writer that was stalled for long is awake.
    Woke(WriterId),
}

/// How the machine is to behave, besides its rules.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// Look at least this often.
    pub refresh: Option<Duration>,
    /// Why processes must not be signalled here at all, if so.
    pub unsupported: Option<&'static str>,
}
