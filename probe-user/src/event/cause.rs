//! Who should read, as `ps --json` and events show it.

use serde::Serialize;

use crate::core::{
    chain::{Cause, Reader},
    model::{Process, Stall, channel_name},
    reader::Client,
};

/// So many clients are shown; how many there are is said beside.
const MAX_CLIENTS: usize = 8;

/// The keys of a stall that tell of its readers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CauseView {
    /// Everybody who holds the reading end; `null` where nobody could be found.
    readers: Option<Vec<ReaderView>>,
    culprit: Option<CulpritView>,
    /// From the writer to the culprit; empty where nobody could be found.
    chain: Vec<LinkView>,
    /// The members of the deadlock that the writer is part of.
    deadlock: Option<Vec<u32>>,
}

#[derive(Clone, Debug, Serialize)]
struct ReaderView {
    pid: u32,
    comm: String,
    state: &'static str,
    sleeps_in: Option<String>,
    kind: &'static str,
    fd: u32,
}

#[derive(Clone, Debug, Serialize)]
struct CulpritView {
    #[serde(flatten)]
    reader: ReaderView,
    /// Its TCP connections that are full because the other side does not read.
    clients: Vec<ClientView>,
    clients_total: usize,
}

#[derive(Clone, Debug, Serialize)]
struct ClientView {
    fd: u32,
    peer: String,
    queued_bytes: u32,
    window_bytes: u32,
}

#[derive(Clone, Debug, Serialize)]
struct LinkView {
    pid: u32,
    comm: String,
    /// What it writes to, and who comes next reads from; `null` for the last.
    channel: Option<&'static str>,
    inode: Option<u64>,
}

impl CauseView {
    /// Who does not read, in a few words.
    pub(super) fn culprit(&self) -> Option<String> {
        let culprit = self.culprit.as_ref()?;
        let ReaderView { pid, comm, state, .. } = &culprit.reader;
        let what = if self.deadlock.is_some() {
            "deadlock"
        } else {
            "reader"
        };
        let client = match &culprit.clients[..] {
            [client] => format!(",client={}", client.peer),
            _ => String::new(),
        };
        Some(format!("{what}={comm}[{pid},{state}{client}]"))
    }

    pub(super) fn new(stall: &Stall) -> Self {
        let nothing_known = Cause::default();
        let cause = stall.cause.as_deref().unwrap_or(&nothing_known);
        let readers = cause.readers.iter().map(ReaderView::new).collect::<Vec<_>>();
        Self {
            readers: (!readers.is_empty()).then_some(readers),
            culprit: cause.culprit().map(|reader| CulpritView {
                reader: ReaderView::new(reader),
                clients: cause
                    .clients
                    .iter()
                    .take(MAX_CLIENTS)
                    .map(ClientView::new)
                    .collect(),
                clients_total: cause.clients.len(),
            }),
            chain: chain(stall, cause),
            deadlock: (!cause.deadlock.is_empty()).then(|| cause.deadlock.iter().map(pid).collect()),
        }
    }
}

fn pid(process: &Process) -> u32 {
    process.tgid
}

fn chain(stall: &Stall, cause: &Cause) -> Vec<LinkView> {
    let who = std::iter::once((stall.last.writer.process.tgid, &stall.last.comm)).chain(
        cause
            .chain
            .iter()
            .map(|link| (link.reader.process.tgid, &link.reader.person.comm)),
    );
    let over = cause.chain.iter().map(|link| Some(link.channel)).chain([None]);
    if cause.chain.is_empty() {
        return Vec::new();
    }
    who.zip(over)
        .map(|((pid, comm), channel)| LinkView {
            pid,
            comm: comm.clone(),
            channel: channel.map(|channel| channel_name(channel.kind)),
            inode: channel.map(|channel| channel.inode),
        })
        .collect()
}

impl ReaderView {
    fn new(reader: &Reader) -> Self {
        Self {
            pid: reader.process.tgid,
            comm: reader.person.comm.clone(),
            state: reader.person.state.letter(),
            sleeps_in: reader.person.sleeps_in.clone(),
            kind: reader.kind.as_str(),
            fd: reader.fd,
        }
    }
}

impl ClientView {
    fn new(client: &Client) -> Self {
        Self {
            fd: client.fd,
            peer: client.peer.to_string(),
            queued_bytes: client.queued,
            window_bytes: client.window,
        }
    }
}
