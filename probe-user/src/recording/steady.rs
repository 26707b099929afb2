//! Prepares looks for a recording: nothing changes from one to the next but what
//! the policy may ask about, and no kernel address is left in them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::core::model::{Channel, DrainToken, Look, Mono, WriterId};

/// The scheduler's clock is converted anew at each look, and comes out a little different.
/// Half of what the tracker lets pass, so that what is kept never looks like a run.
const JITTER: Duration = Duration::from_millis(10);

/// Tokens of one channel that are known again.
const KNOWN_TOKENS: usize = 64;

/// How many looks a channel is remembered for that they do not show.
const REMEMBERED_FOR: u64 = 64;

/// Prepares one look after the other.
///
/// - A drain token becomes a number: the same for the same token of a channel, another
///   for another. A unix socket's token holds the address of a kernel buffer, which is
///   nobody's business; the order of two tokens means nothing anyway.
/// - A time of last run that is a few milliseconds off the last one stays what it was.
/// - Every writer counts as seen when the walk was over: milliseconds later than it was,
///   which makes no writer look older or its reader slower.
#[derive(Debug, Default)]
pub struct Steady {
    channels: BTreeMap<(u8, u32, u64), Tokens>,
    ran: BTreeMap<WriterId, Mono>,
    next_token: u64,
    looks: u64,
}

/// The tokens of a channel.
#[derive(Debug, Default)]
struct Tokens {
    known: VecDeque<(DrainToken, u64)>,
    seen: u64,
}

impl Steady {
    /// Prepares the next look.
    #[must_use]
    pub fn prepare(&mut self, mut look: Look) -> Look {
        self.looks += 1;
        let over = look
            .sightings
            .iter()
            .map(|sighting| sighting.at)
            .fold(look.at, Mono::max);
        let ran = std::mem::take(&mut self.ran);
        for sighting in &mut look.sightings {
            sighting.at = over;
            sighting.token = self.renumber(sighting.channel, sighting.token);
            if let Some(now) = &mut sighting.last_ran {
                if let Some(before) = ran.get(&sighting.writer)
                    && now.since(*before).max(before.since(*now)) < JITTER
                {
                    *now = *before;
                }
                self.ran.insert(sighting.writer, *now);
            }
        }
        look.sightings.sort_by_key(|sighting| sighting.writer);
        let looks = self.looks;
        self.channels
            .retain(|_, tokens| looks - tokens.seen < REMEMBERED_FOR);
        look
    }

    fn renumber(&mut self, channel: Channel, token: DrainToken) -> DrainToken {
        let key = (channel.kind as u8, channel.dev, channel.inode);
        let tokens = self.channels.entry(key).or_default();
        tokens.seen = self.looks;
        if let Some((_, number)) = tokens.known.iter().find(|(known, _)| *known == token) {
            return DrainToken([*number, 0]);
        }
        if tokens.known.len() == KNOWN_TOKENS {
            tokens.known.pop_front();
        }
        self.next_token += 1;
        tokens.known.push_back((token, self.next_token));
        DrainToken([self.next_token, 0])
    }
}
