//! A stall as users see it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Name, cause::CauseView, rfc3339};
use crate::{
    clock,
    core::model::{Bound, Facts, Mono, Stall, Stream, channel_name},
};

/// A stall, as `ps --json`, events and the API show it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StallView {
    /// Names the stall for as long as the agent runs.
    pub id: String,
    /// `stalled` or `draining`, where both are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Name>,
    /// The process.
    pub pid: u32,
    /// The thread that writes.
    pub tid: u32,
    /// The process's command.
    pub comm: String,
    /// The thread's name.
    pub thread: String,
    /// The executable's path.
    pub exe: Option<String>,
    /// The command line.
    pub cmdline: Vec<String>,
    /// The user's number.
    pub uid: u32,
    /// The user's name.
    pub user: Option<String>,
    /// The parent's pid.
    pub ppid: u32,
    /// The parent's command.
    pub parent: Option<String>,
    /// The control group's path.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The container's id.
    pub container: Option<String>,
    /// The Kubernetes pod's UID.
    pub pod: Option<String>,
    /// `pipe`, `fifo` or `unix`.
    pub channel: Name,
    /// The channel's inode.
    pub inode: u64,
    /// The descriptor that is written to.
    pub fd: u32,
    /// `stdin`, `stdout` or `stderr`, where it is one.
    pub stream: Option<Name>,
    /// The call that it is blocked in.
    pub syscall: Name,
    /// Since when, RFC 3339.
    pub since: String,
    /// How long.
    pub age_seconds: f64,
    /// Whether it may be older.
    pub age_is_minimum: bool,
    /// Whether it may be younger: it began before the observer did, and its reader may have taken
    /// something since.
    pub age_is_maximum: bool,
    /// Whether it began before the observer did.
    pub preexisting: bool,
    /// What is queued: bytes for pipes, memory in bytes for sockets.
    pub queued_bytes: Option<u64>,
    /// Who should read and does not, and why.
    #[serde(flatten)]
    pub cause: CauseView,
}

/// The stall's name in events and in the API.
#[must_use]
pub fn stall_name(stall: &Stall) -> String {
    let writer = stall.last.writer;
    format!("{}-{:x}-{}", writer.tid, writer.process.start, stall.id)
}

impl StallView {
    /// Shows a stall as of `at`; `now` is the same moment as people tell the time.
    #[must_use]
    pub fn new(stall: &Stall, at: Mono, now: Timestamp) -> Self {
        let nothing_known = Facts::default();
        let facts = stall.facts.as_deref().unwrap_or(&nothing_known);
        let last = &stall.last;
        let process = last.writer.process;
        Self {
            id: stall_name(stall),
            state: None,
            pid: process.tgid,
            tid: last.writer.tid,
            comm: last.comm.to_string(),
            thread: last.thread.to_string(),
            exe: facts.exe.as_ref().map(|path| path.to_string_lossy().into_owned()),
            cmdline: facts.cmdline.clone(),
            uid: last.uid,
            user: facts.user.clone(),
            ppid: last.ppid,
            parent: facts.parent.clone(),
            cgroup: facts.cgroup.clone(),
            unit: facts.unit.clone(),
            container: facts.container.clone(),
            pod: facts.pod.clone(),
            channel: channel_name(last.channel.kind).into(),
            inode: last.channel.inode,
            fd: last.fd,
            stream: last.stream.map(|stream| Stream::as_str(stream).into()),
            syscall: last.syscall.as_str().into(),
            since: rfc3339(before(now, stall.age(at))),
            age_seconds: clock::seconds(stall.age(at)),
            age_is_minimum: stall.bound == Bound::AtLeast,
            age_is_maximum: stall.bound == Bound::AtMost,
            preexisting: stall.preexisting,
            queued_bytes: last.queued,
            cause: CauseView::new(stall),
        }
    }

    /// Adds whether the writer is `stalled` or `draining`, for outputs that show both.
    #[must_use]
    pub fn with_state(mut self, state: &'static str) -> Self {
        self.state = Some(state.into());
        self
    }
}

fn before(now: Timestamp, age: std::time::Duration) -> Timestamp {
    now.checked_sub(age).unwrap_or(now)
}
