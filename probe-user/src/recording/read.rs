//! Bytes to frames, up to the first byte that cannot be trusted.

use std::{collections::BTreeMap, fmt};

use serde::de::DeserializeOwned;

use super::{
    Clocks, Frame, Header, MAGIC, MAX_BODY, VERSION, wire,
    wire::{Look as WireLook, moved},
};
use crate::core::model::{Counted, Facts, Look, Mono, Sighting, WriterId};

/// Length and checksum.
pub(super) const PREFIX: usize = 8;

/// CRC-32 (IEEE) over a frame's length and its body, so that zeros are no frame.
pub(super) fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

/// Why bytes are no recording that can be read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Something else.
    #[error("it is no recording of pipestall's")]
    Foreign,
    /// Written by a later version.
    #[error("it is in version {0} of the format, and this pipestall reads up to {VERSION}: use a newer one")]
    Newer(u16),
    /// Nothing of it can be used.
    #[error("it is cut off or damaged in its header")]
    Header,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    NoEnd,
    CutOff,
    Damaged,
    Unknown,
}

/// Where and why a recording could not be read any further. Everything before is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Bytes that were read.
    pub at: usize,
    flaw: Flaw,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.flaw {
            Flaw::NoEnd => "the recording has no end; its recorder was killed, or still runs",
            Flaw::CutOff => "the frame there is cut off",
            Flaw::Damaged => "the frame there is damaged",
            Flaw::Unknown => "the frame there holds what no pipestall wrote",
        };
        write!(f, "stopped at byte {}: {what}", self.at)
    }
}

/// A recording that is being read: its header, and an iterator over its frames.
#[derive(Clone, Debug)]
pub struct Recording<'a> {
    header: Header,
    bytes: &'a [u8],
    at: usize,
    ended: bool,
    loss: Option<Loss>,
    writers: BTreeMap<WriterId, Sighting>,
    /// Counts of writers of the next look.
    counts: BTreeMap<WriterId, Option<Counted>>,
    facts: Facts,
}

impl<'a> Recording<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let version = bytes.strip_prefix(&MAGIC).ok_or(OpenError::Foreign)?;
        let version = version.first_chunk::<2>().ok_or(OpenError::Header)?;
        match u16::from_le_bytes(*version) {
            0 => return Err(OpenError::Header),
            newer if newer > VERSION => return Err(OpenError::Newer(newer)),
            _ => {}
        }
        let start = MAGIC.len() + version.len();
        let (header, length) = body(&bytes[start..])
            .and_then(|body| Ok((parse::<wire::Header>(body)?, body.len())))
            .map_err(|_| OpenError::Header)?;
        Ok(Self {
            header: Header {
                node: header.node,
                kernel: header.kernel,
                program: header.program,
                comm: header.comm,
                began: Clocks {
                    wall: header.wall,
                    mono: Mono::from_nanos(header.mono),
                },
            },
            bytes,
            at: start + PREFIX + length,
            ended: false,
            loss: None,
            writers: BTreeMap::new(),
            counts: BTreeMap::new(),
            facts: Facts::default(),
        })
    }

    /// Where and how it was made.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What could not be read, once the frames are at their end.
    #[must_use]
    pub const fn loss(&self) -> Option<Loss> {
        self.loss
    }

    fn read(&mut self) -> Result<Frame, Flaw> {
        let start = self.at;
        loop {
            match self.read_one() {
                Ok(None) => {}
                Ok(Some(frame)) => return Ok(frame),
                Err(flaw) => {
                    // What belongs to a frame that is not whole is not either.
                    self.at = start;
                    return Err(flaw);
                }
            }
        }
    }

    /// One frame of the file; `None` for what belongs to the frame after it.
    fn read_one(&mut self) -> Result<Option<Frame>, Flaw> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Err(Flaw::NoEnd);
        }
        let body = body(rest)?;
        let frame = match parse(body)? {
            wire::Frame::Counts(counts) => {
                let known = |(writer, count): (wire::Writer, Option<wire::Count>)| {
                    (writer.into(), count.map(Counted::from))
                };
                self.counts.extend(counts.into_iter().map(known));
                self.at += PREFIX + body.len();
                return Ok(None);
            }
            wire::Frame::Look(look) => Frame::Look(self.look(look).ok_or(Flaw::Unknown)?),
            wire::Frame::Facts { writer, changed } => {
                for fact in changed {
                    wire::change(&mut self.facts, fact);
                }
                Frame::Facts(writer.into(), Box::new(self.facts.clone()))
            }
            wire::Frame::Note { at, kind, writer } => {
                Frame::Note(Mono::from_nanos(at), kind.of(writer.into()))
            }
            wire::Frame::Clocks { wall, mono } => Frame::Clocks(Clocks {
                wall,
                mono: Mono::from_nanos(mono),
            }),
            wire::Frame::Readers { at, readers } => {
                let readers = readers.readership().ok_or(Flaw::Unknown)?;
                Frame::Readers(Mono::from_nanos(at), Box::new(readers))
            }
            wire::Frame::End { at } => Frame::End(Mono::from_nanos(at)),
        };
        self.at += PREFIX + body.len();
        Ok(Some(frame))
    }

    /// `None` if it does not fit the look before.
    fn look(&mut self, look: WireLook) -> Option<Look> {
        let at = Mono::from_nanos(look.at);
        for writer in look.gone {
            self.writers.remove(&writer.into())?;
        }
        for sighting in self.writers.values_mut() {
            sighting.at = moved(at, look.seen);
        }
        for seen in look.changed {
            let sighting = seen.sighting(at)?;
            let counted = self
                .writers
                .get(&sighting.writer)
                .and_then(|before| before.counted);
            self.writers
                .insert(sighting.writer, Sighting { counted, ..sighting });
        }
        for (writer, counted) in std::mem::take(&mut self.counts) {
            self.writers.get_mut(&writer)?.counted = counted;
        }
        Some(Look {
            at,
            traced: look.traced,
            sightings: self.writers.values().cloned().collect(),
            awake: None,
        })
    }
}

impl Iterator for Recording<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.ended || self.loss.is_some() {
            return None;
        }
        match self.read() {
            Ok(frame) => {
                self.ended = matches!(frame, Frame::End(_));
                Some(frame)
            }
            Err(flaw) => {
                self.loss = Some(Loss { at: self.at, flaw });
                None
            }
        }
    }
}

/// The body of the frame at the start of `bytes`.
fn body(bytes: &[u8]) -> Result<&[u8], Flaw> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Flaw::CutOff)?;
    let (sum, rest) = rest.split_first_chunk::<4>().ok_or(Flaw::CutOff)?;
    let size = u32::from_le_bytes(*length);
    if size > MAX_BODY {
        return Err(Flaw::Damaged);
    }
    let size = usize::try_from(size).map_err(|_| Flaw::Damaged)?;
    let body = rest.get(..size).ok_or(Flaw::CutOff)?;
    if checksum(*length, body) != u32::from_le_bytes(*sum) {
        return Err(Flaw::Damaged);
    }
    Ok(body)
}

/// All of a body as a value.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Flaw> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(Flaw::Unknown),
    }
}
