//! The types that are written, and their way from and to the core's.
//!
//! Recordings outlive the program: nothing here may be renumbered or retyped. A new
//! fact or frame is a variant at the end of its enum and a higher version.

mod readers;

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub(super) use self::readers::Readers;
use crate::core::{
    machine::Note,
    model::{
        Channel, ChannelKind, Counted, DrainToken, Facts, Group, Mono, Process, Sighting, Stream,
        WriteSyscall, WriterId,
    },
};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) node: String,
    pub(super) kernel: String,
    pub(super) program: String,
    pub(super) comm: Vec<String>,
    pub(super) wall: i64,
    pub(super) mono: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    Look(Look),
    Facts {
        writer: Writer,
        changed: Vec<Fact>,
    },
    Note {
        at: u64,
        kind: Noted,
        writer: Writer,
    },
    Clocks {
        wall: i64,
        mono: u64,
    },
    End {
        at: u64,
    },
    /// Since version 2.
    Counts(Vec<(Writer, Option<Count>)>),
    /// Since version 2.
    Readers {
        at: u64,
        readers: Readers,
    },
}

/// How long a writer of the look that comes next was not blocked, where that is not what it was
/// at the look before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Count {
    since: u64,
    awake: u64,
}

impl From<Counted> for Count {
    fn from(counted: Counted) -> Self {
        Self {
            since: counted.since.as_nanos(),
            awake: u64::try_from(counted.awake.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Count> for Counted {
    fn from(count: Count) -> Self {
        Self {
            since: Mono::from_nanos(count.since),
            awake: Duration::from_nanos(count.awake),
        }
    }
}

/// A look as what differs from the one before it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Look {
    pub(super) at: u64,
    pub(super) traced: bool,
    /// When the writers that have not changed were looked at, counted from `at`.
    pub(super) seen: i64,
    /// Those that are not blocked any more.
    pub(super) gone: Vec<Writer>,
    /// Those that are new, or different in anything but the time.
    pub(super) changed: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Writer {
    tid: u32,
    tgid: u32,
    start: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    writer: Writer,
    /// Counted from the look's `at`.
    at: i64,
    kind: u8,
    dev: u32,
    inode: u64,
    token: [u64; 2],
    entered: Option<u64>,
    token_since: Option<u64>,
    last_ran: Option<u64>,
    untouched: bool,
    exec: u32,
    ppid: u32,
    uid: u32,
    fd: u32,
    syscall: u8,
    stream: Option<StdStream>,
    queued: Option<u64>,
    comm: String,
    thread: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum StdStream {
    Stdin,
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Noted {
    Exited,
    Woke,
}

/// One fact; of a process's, only those are written that the process before it did not have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fact {
    Cmdline(Vec<String>),
    Exe(Option<Vec<u8>>),
    User(Option<String>),
    Parent(Option<String>),
    Cgroup(Option<String>),
    Unit(Option<String>),
    Groups(Vec<(u32, Option<String>)>),
    Ancestors(Vec<String>),
    Container(Option<String>),
    Born(Option<u64>),
    Pod(Option<String>),
}

/// Nanoseconds from `from` to `to`, which may be earlier.
pub(super) const fn offset(from: Mono, to: Mono) -> i64 {
    to.as_nanos().wrapping_sub(from.as_nanos()).cast_signed()
}

/// The moment that is `by` after `from`.
pub(super) const fn moved(from: Mono, by: i64) -> Mono {
    Mono::from_nanos(from.as_nanos().wrapping_add(by.cast_unsigned()))
}

impl From<WriterId> for Writer {
    fn from(id: WriterId) -> Self {
        Self {
            tid: id.tid,
            tgid: id.process.tgid,
            start: id.process.start,
        }
    }
}

impl From<Writer> for WriterId {
    fn from(writer: Writer) -> Self {
        Self {
            tid: writer.tid,
            process: Process {
                tgid: writer.tgid,
                start: writer.start,
            },
        }
    }
}

impl Seen {
    pub(super) fn new(look: Mono, sighting: &Sighting) -> Self {
        // Every field by name, so that none is forgotten here; counts have a frame of their own.
        let Sighting {
            writer,
            at,
            channel: Channel { kind, dev, inode },
            token: DrainToken(token),
            entered,
            token_since,
            last_ran,
            untouched,
            exec,
            ppid,
            uid,
            fd,
            syscall,
            stream,
            queued,
            counted: _,
            comm,
            thread,
        } = sighting;
        Self {
            writer: (*writer).into(),
            at: offset(look, *at),
            kind: *kind as u8,
            dev: *dev,
            inode: *inode,
            token: *token,
            entered: entered.map(Mono::as_nanos),
            token_since: token_since.map(Mono::as_nanos),
            last_ran: last_ran.map(Mono::as_nanos),
            untouched: *untouched,
            exec: *exec,
            ppid: *ppid,
            uid: *uid,
            fd: *fd,
            syscall: *syscall as u8,
            stream: stream.map(|stream| match stream {
                Stream::Stdin => StdStream::Stdin,
                Stream::Stdout => StdStream::Stdout,
                Stream::Stderr => StdStream::Stderr,
            }),
            queued: *queued,
            comm: comm.to_string(),
            thread: thread.to_string(),
        }
    }

    /// `None` if it names a channel or a system call that there is not.
    pub(super) fn sighting(self, look: Mono) -> Option<Sighting> {
        Some(Sighting {
            writer: self.writer.into(),
            at: moved(look, self.at),
            channel: Channel {
                kind: ChannelKind::from_u8(self.kind)?,
                dev: self.dev,
                inode: self.inode,
            },
            token: DrainToken(self.token),
            entered: self.entered.map(Mono::from_nanos),
            token_since: self.token_since.map(Mono::from_nanos),
            last_ran: self.last_ran.map(Mono::from_nanos),
            untouched: self.untouched,
            exec: self.exec,
            ppid: self.ppid,
            uid: self.uid,
            fd: self.fd,
            syscall: WriteSyscall::from_u8(self.syscall)?,
            stream: self.stream.map(|stream| match stream {
                StdStream::Stdin => Stream::Stdin,
                StdStream::Stdout => Stream::Stdout,
                StdStream::Stderr => Stream::Stderr,
            }),
            queued: self.queued,
            counted: None,
            comm: self.comm.into(),
            thread: self.thread.into(),
        })
    }
}

/// What of `facts` differs from those before.
pub(super) fn changed(before: &Facts, facts: &Facts) -> Vec<Fact> {
    // Every field by name, so that none is forgotten here.
    let Facts {
        cmdline,
        exe,
        user,
        parent,
        cgroup,
        unit,
        groups,
        ancestors,
        container,
        pod,
        born,
    } = facts;
    let mut changed = Vec::new();
    if *cmdline != before.cmdline {
        changed.push(Fact::Cmdline(cmdline.clone()));
    }
    if *exe != before.exe {
        let bytes = exe.as_ref().map(|path| path.as_os_str().as_bytes().to_vec());
        changed.push(Fact::Exe(bytes));
    }
    if *user != before.user {
        changed.push(Fact::User(user.clone()));
    }
    if *parent != before.parent {
        changed.push(Fact::Parent(parent.clone()));
    }
    if *cgroup != before.cgroup {
        changed.push(Fact::Cgroup(cgroup.clone()));
    }
    if *unit != before.unit {
        changed.push(Fact::Unit(unit.clone()));
    }
    if *groups != before.groups {
        changed.push(Fact::Groups(
            groups
                .iter()
                .map(|group| (group.gid, group.name.clone()))
                .collect(),
        ));
    }
    if *ancestors != before.ancestors {
        changed.push(Fact::Ancestors(ancestors.clone()));
    }
    if *container != before.container {
        changed.push(Fact::Container(container.clone()));
    }
    if *born != before.born {
        changed.push(Fact::Born(born.map(Mono::as_nanos)));
    }
    if *pod != before.pod {
        changed.push(Fact::Pod(pod.clone()));
    }
    changed
}

/// Brings facts up to what differs.
pub(super) fn change(facts: &mut Facts, fact: Fact) {
    match fact {
        Fact::Cmdline(cmdline) => facts.cmdline = cmdline,
        Fact::Exe(bytes) => facts.exe = bytes.map(|bytes| PathBuf::from(OsString::from_vec(bytes))),
        Fact::User(user) => facts.user = user,
        Fact::Parent(parent) => facts.parent = parent,
        Fact::Cgroup(cgroup) => facts.cgroup = cgroup,
        Fact::Unit(unit) => facts.unit = unit,
        Fact::Groups(groups) => {
            facts.groups = groups
                .into_iter()
                .map(|(gid, name)| Group { gid, name })
                .collect();
        }
        Fact::Ancestors(ancestors) => facts.ancestors = ancestors,
        Fact::Container(container) => facts.container = container,
        Fact::Pod(pod) => facts.pod = pod,
        Fact::Born(born) => facts.born = born.map(Mono::from_nanos),
    }
}

impl Noted {
    pub(super) const fn split(note: Note) -> (Self, WriterId) {
        match note {
            Note::Exited(writer) => (Self::Exited, writer),
            Note::Woke(writer) => (Self::Woke, writer),
        }
    }

    pub(super) const fn of(self, writer: WriterId) -> Note {
        match self {
            Self::Exited => Note::Exited(writer),
            Self::Woke => Note::Woke(writer),
        }
    }
}
