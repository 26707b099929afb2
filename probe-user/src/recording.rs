//! A recording: what an observer saw, kept so that policy can be run over it again.
//!
//! ```text
//! magic (8 bytes)  version (u16, little endian)
//! frame*           length (u32), CRC-32 of length and body (u32), body
//! ```
//! The first frame's body is the [`Header`], each later one's a [`Frame`], both as
//! postcard writes them. Postcard is chosen because it spends no byte on field names
//! and few on small numbers, is kept, and is specified, so that the format does not
//! hang on one crate; a self-describing format such as CBOR makes an incident three
//! times as large. What it lacks, `wire` brings: the types that are written are apart
//! from the core's, and grow only by variants at the end of an enum, so that every
//! later version reads what an earlier one wrote.
//!
//! A look is written as what differs from the look before it: five hundred writers
//! that have not moved cost some twenty bytes. Each frame has a checksum that covers
//! its length too, and the last frame says that it is the last, so that a tail that
//! is cut off or damaged anywhere is noticed, and everything before it is kept.
//!
//! No kernel address is in a recording that [`steady::Steady`] has prepared. This
//! module must not know where the bytes come from or go to, nor what a rule is.

mod read;
pub mod steady;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use self::{
    read::{Loss, OpenError, Recording},
    write::Encoder,
};
use crate::core::{
    machine::Note,
    model::{Facts, Look, Mono, WriterId},
    reader::Readership,
};

/// Opens every recording. Not text, and damaged by whatever takes it for text.
const MAGIC: [u8; 8] = *b"\x89PST\r\n\x1a\n";

/// Goes up with each addition to `wire`; a reader takes all up to its own.
const VERSION: u16 = 2;

/// No frame is longer: a length above it is damage.
const MAX_BODY: u32 = 64 << 20;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// As people tell the time: nanoseconds since 1970, UTC.
    pub wall: i64,
    /// The same moment on the kernel's clock.
    pub mono: Mono,
}

impl Clocks {
    /// What people called a moment of the kernel's clock, in nanoseconds since 1970.
    #[must_use]
    pub const fn wall_at(self, at: Mono) -> i64 {
        let later = at.as_nanos().cast_signed();
        self.wall
            .wrapping_add(later.wrapping_sub(self.mono.as_nanos().cast_signed()))
    }
}

/// Where and how a recording was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The host's name.
    pub node: String,
    /// The kernel's release.
    pub kernel: String,
    /// The version of the program that recorded.
    pub program: String,
    /// Which commands were looked at, as the filter was written.
    pub comm: Vec<String>,
    /// When it began.
    pub began: Clocks,
}

/// One thing that was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Everyone who was blocked, in the order of the writers' ids.
    Look(Look),
    /// What was read of a writer's process.
    Facts(WriterId, Box<Facts>),
    /// What the tracer noted, and when that was heard.
    Note(Mono, Note),
    /// Who should read, as of a look, as far as it differs from what was known before.
    Readers(Mono, Box<Readership>),
    /// The two clocks have come apart: the machine slept, or its time was set.
    Clocks(Clocks),
    /// The recorder stopped on purpose.
    End(Mono),
}
