//! What a test and a crowd (`stuck crowd`) say to each other, one JSON object a line: orders on
//! the crowd's stdin, reports on its stdout.

use serde::{Deserialize, Serialize};

/// What a test asks of a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Read everything this writer writes from now on.
    Drain {
        /// The writer.
        pid: u32,
    },
    /// Read this many bytes, once.
    Take {
        /// The writer.
        pid: u32,
        /// How many bytes.
        bytes: usize,
    },
    /// Close the reading end.
    Close {
        /// The writer.
        pid: u32,
    },
    /// SIGKILL the writer and reap it at once.
    Kill {
        /// The writer.
        pid: u32,
    },
    /// Send the writer a signal that does not end it.
    Signal {
        /// The writer.
        pid: u32,
        /// Which.
        signal: Disturbance,
    },
    /// Say how many bytes this writer has got rid of.
    Count {
        /// The writer.
        pid: u32,
    },
}

/// A signal that does not end a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    /// SIGTERM, for those that handle it (`stuck write --catch-term`).
    Handled,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
}

/// What a crowd tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A writer was started.
    Started {
        /// The writer.
        pid: u32,
        /// Whether it is drained.
        kind: Kind,
    },
    /// Every stuck writer is blocked, every healthy one was drained.
    Ready,
    /// This many bytes were read in all.
    Drained {
        /// The writer.
        pid: u32,
        /// How many bytes.
        bytes: u64,
    },
    /// A writer is gone and was reaped.
    Exited {
        /// The writer.
        pid: u32,
        /// How.
        exit: Exit,
    },
}

/// Whether a crowd reads what a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Not read.
    Stuck,
    /// Read by a few bytes at each tick, once it is blocked.
    Trickled,
    /// Drained all the time.
    Healthy,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}
