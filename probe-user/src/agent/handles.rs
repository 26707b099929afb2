//! The handles on those who are being ended, and what waits for their exits.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    io::unix::AsyncFd,
    task::{AbortHandle, JoinSet},
};

use super::wake::watch;
use crate::{
    core::{
        kill::KillId,
        machine::{Opened, Sent},
        model::Process,
        report::Signal,
    },
    enforce::{Handle, make_room_for_handles},
};

/// One for each kill that is under way.
pub(super) struct Handles {
    open: BTreeMap<KillId, Watched>,
    /// How many there may be.
    room: usize,
    exits: JoinSet<KillId>,
}

/// A handle, and the task that waits for its process to exit.
struct Watched {
    handle: Arc<AsyncFd<Handle>>,
    waiter: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A process that is let go may live on for years; the descriptor must not.
        self.waiter.abort();
    }
}

impl Handles {
    /// None yet, and room for as many as the system gives.
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            room: make_room_for_handles(),
            exits: JoinSet::new(),
        }
    }

    /// Opens one, and waits for the exit from now on.
    pub(super) fn open(&mut self, id: KillId, process: Process) -> Opened {
        if self.open.len() >= self.room {
            return Opened::Later;
        }
        let handle = match Handle::open(process).map(watch) {
            Ok(Ok(handle)) => Arc::new(handle),
            Ok(Err(_)) => return Opened::Later,
            Err(why) => return why,
        };
        let exit = Arc::clone(&handle);
        let waiter = self.exits.spawn(async move {
            let _ = exit.readable().await;
            id
        });
        self.open.insert(id, Watched { handle, waiter });
        Opened::Ready
    }

    /// Sends a signal to whom a kill is about.
    pub(super) fn signal(&self, id: KillId, signal: Signal) -> Sent {
        match self.open.get(&id) {
            Some(watched) => watched.handle.get_ref().signal(signal),
            None => Sent::Failed("its handle is closed".to_owned()),
        }
    }

    /// Closes one.
    pub(super) fn release(&mut self, id: KillId) {
        self.open.remove(&id);
    }

    /// Whose process has exited by now, whether or not that was heard of.
    pub(super) fn exited(&self) -> Vec<KillId> {
        let handles = self.open.values().map(|watched| watched.handle.get_ref());
        let exited = Handle::have_exited(handles);
        let with_its_kill = self.open.keys().zip(exited);
        with_its_kill
            .filter_map(|(id, exited)| exited.then_some(*id))
            .collect()
    }

    /// Waits for the next to exit; `None` if there is nobody to wait for.
    pub(super) async fn next_exit(&mut self) -> Option<KillId> {
        loop {
            // Who was let go is not waited for any more.
            if let Ok(id) = self.exits.join_next().await? {
                return Some(id);
            }
        }
    }
}
