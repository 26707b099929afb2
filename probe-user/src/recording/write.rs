//! Frames to bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Frame, Header, MAGIC, VERSION, wire,
    wire::{Fact, Noted, Seen, offset},
};
use crate::core::model::{Facts, Look, Sighting, WriterId};

/// Turns frames into bytes, each on its own: what was appended to the bytes by one
/// call is whole once it is written.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The look before.
    writers: BTreeMap<WriterId, Sighting>,
    /// The facts before, of whichever process.
    facts: Facts,
}

impl Encoder {
    /// Begins a recording: appends all that stands before its first frame.
    #[must_use]
    pub fn begin(header: &Header, out: &mut Vec<u8>) -> Self {
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        let Header {
            node,
            kernel,
            program,
            comm,
            began,
        } = header.clone();
        append(
            &wire::Header {
                node,
                kernel,
                program,
                comm,
                wall: began.wall,
                mono: began.mono.as_nanos(),
            },
            out,
        );
        Self::default()
    }

    /// Appends a frame. Of several sightings of one writer in a look, the last is kept.
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let frame = match frame {
            Frame::Look(look) => {
                let counts = self.counts(look);
                if !counts.is_empty() {
                    append(&wire::Frame::Counts(counts), out);
                }
                wire::Frame::Look(self.look(look))
            }
            Frame::Facts(writer, facts) => wire::Frame::Facts {
                writer: (*writer).into(),
                changed: self.facts(facts),
            },
            Frame::Note(at, note) => {
                let (kind, writer) = Noted::split(*note);
                wire::Frame::Note {
                    at: at.as_nanos(),
                    kind,
                    writer: writer.into(),
                }
            }
            Frame::Readers(at, readers) => wire::Frame::Readers {
                at: at.as_nanos(),
                readers: readers.as_ref().into(),
            },
            Frame::Clocks(clocks) => wire::Frame::Clocks {
                wall: clocks.wall,
                mono: clocks.mono.as_nanos(),
            },
            Frame::End(at) => wire::Frame::End { at: at.as_nanos() },
        };
        append(&frame, out);
    }

    /// The counts that differ from those of the look before; those of new writers, too.
    fn counts(&self, look: &Look) -> Vec<(wire::Writer, Option<wire::Count>)> {
        let differs = |sighting: &&Sighting| {
            let before = self.writers.get(&sighting.writer);
            before.and_then(|before| before.counted) != sighting.counted
        };
        look.sightings
            .iter()
            .filter(differs)
            .map(|sighting| (sighting.writer.into(), sighting.counted.map(wire::Count::from)))
            .collect()
    }

    fn look(&mut self, look: &Look) -> wire::Look {
        let writers: BTreeMap<_, _> = look
            .sightings
            .iter()
            .map(|sighting| (sighting.writer, sighting.clone()))
            .collect();
        // Nearly all are unchanged and seen at the same moment: that of the first.
        let seen = writers
            .first_key_value()
            .map_or(0, |(_, first)| offset(look.at, first.at));
        let changed = writers
            .values()
            .filter(|sighting| {
                let same = self.writers.get(&sighting.writer).is_some_and(|before| {
                    let mut before = before.clone();
                    before.at = sighting.at;
                    before.counted = sighting.counted;
                    before == **sighting
                });
                !same || offset(look.at, sighting.at) != seen
            })
            .map(|sighting| Seen::new(look.at, sighting))
            .collect();
        let gone = self
            .writers
            .keys()
            .filter(|writer| !writers.contains_key(*writer))
            .map(|writer| (*writer).into())
            .collect();
        self.writers = writers;
        wire::Look {
            at: look.at.as_nanos(),
            traced: look.traced,
            seen,
            gone,
            changed,
        }
    }

    fn facts(&mut self, facts: &Facts) -> Vec<Fact> {
        let changed = wire::changed(&self.facts, facts);
        self.facts.clone_from(facts);
        changed
    }
}

/// Appends length, checksum and body.
fn append(body: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; super::read::PREFIX]);
    // Into memory, of types that have a length: there is nothing that could fail.
    let mut bytes = postcard::to_extend(body, std::mem::take(out)).unwrap_or_default();
    let (prefix, body) = bytes[start..].split_at_mut(super::read::PREFIX);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    prefix[..4].copy_from_slice(&length);
    prefix[4..].copy_from_slice(&super::read::checksum(length, body).to_le_bytes());
    *out = bytes;
}
