//! Who should read, as `ps --json` and events show it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Name;
use crate::core::{
    chain::{Cause, Reader},
    model::{Process, Stall, channel_name},
    reader::Client,
};

/// So many clients are shown; how many there are is said beside.
const MAX_CLIENTS: usize = 8;

/// The keys of a stall that tell of its readers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct CauseView {
    /// Everybody who holds the reading end; `null` where nobody could be found.
    pub readers: Option<Vec<ReaderView>>,
    /// Who does not read, at the end of the chain.
    pub culprit: Option<CulpritView>,
    /// From the writer to the culprit; empty where nobody could be found.
    pub chain: Vec<LinkView>,
    /// The members of the deadlock that the writer is part of.
    pub deadlock: Option<Vec<u32>>,
}

/// A process that holds the reading end.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ReaderView {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// What it does: `R`, `S`, `D`, `T`, `t`, `F` for frozen, `Z`, `X` or `?`.
    pub state: Name,
    /// The kernel function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// `reader`, `holder` or `writer`.
    pub kind: Name,
    /// By which descriptor.
    pub fd: u32,
}

/// Who does not read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct CulpritView {
    #[serde(flatten)]
    /// Itself.
    pub reader: ReaderView,
    /// Its TCP connections that are full because the other side does not read.
    pub clients: Vec<ClientView>,
    /// How many there are.
    pub clients_total: usize,
}

/// A TCP connection whose other side does not read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    /// The descriptor of the connection.
    pub fd: u32,
    /// Who does not read.
    pub peer: String,
    /// Sent, or to be sent, and not acknowledged.
    pub queued_bytes: u32,
    /// What the other side would take.
    pub window_bytes: u32,
}

/// One step of a chain.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// What it writes to, and who comes next reads from; `null` for the last.
    pub channel: Option<Name>,
    /// The channel's inode.
    pub inode: Option<u64>,
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
    let who = std::iter::once((stall.last.writer.process.tgid, stall.last.comm.as_str())).chain(
        cause
            .chain
            .iter()
            .map(|link| (link.reader.process.tgid, link.reader.person.comm.as_str())),
    );
    let over = cause.chain.iter().map(|link| Some(link.channel)).chain([None]);
    if cause.chain.is_empty() {
        return Vec::new();
    }
    who.zip(over)
        .map(|((pid, comm), channel)| LinkView {
            pid,
            comm: comm.to_owned(),
            channel: channel.map(|channel| channel_name(channel.kind).into()),
            inode: channel.map(|channel| channel.inode),
        })
        .collect()
}

impl ReaderView {
    fn new(reader: &Reader) -> Self {
        Self {
            pid: reader.process.tgid,
            comm: reader.person.comm.clone(),
            state: reader.person.state.letter().into(),
            sleeps_in: reader.person.sleeps_in.clone(),
            kind: reader.kind.as_str().into(),
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
