//! What the tracer notes between looks.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{Map, MapData, RingBuf};
use probe_ebpf::record::{self, KIND_EXITED};

use super::{ProbeError, mismatch};
use crate::core::{
    machine::Note,
    model::{Process, WriterId},
};

/// The tracer's notes.
pub struct Notes(RingBuf<MapData>);

impl AsRawFd for Notes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Notes {
    pub(super) fn of(map: Map) -> Option<Self> {
        RingBuf::try_from(map).ok().map(Self)
    }

    /// The next note that has arrived.
    ///
    /// # Errors
    /// The bytes are no note of this version's.
    pub fn next_note(&mut self) -> Result<Option<Note>, ProbeError> {
        let Some(item) = self.0.next() else {
            return Ok(None);
        };
        let note = record::Note::from_bytes(&item).map_err(mismatch)?;
        let writer = WriterId {
            tid: note.pid,
            process: Process {
                tgid: note.tgid,
                start: note.start,
            },
        };
        Ok(Some(if note.kind == KIND_EXITED {
            Note::Exited(writer)
        } else {
            Note::Woke(writer)
        }))
    }
}
