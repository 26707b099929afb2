//! What the agent counts of its own doing, in a bounded amount of memory.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    api::Kills,
    core::{
        model::Mono,
        report::{KillReport, Report, Skipped},
    },
};

/// Upper bounds of the histogram of look durations, in seconds.
pub const LOOK_BOUNDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

const MINUTE: Duration = Duration::from_mins(1);
const MINUTES: usize = 60;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Reported stalls.
    pub stalls: u64,
    /// By rule.
    pub rules: BTreeMap<String, RuleCounts>,
    /// Durations of looks, one count a bound of [`LOOK_BOUNDS`] and one for what is above.
    pub looks: [u64; LOOK_BOUNDS.len() + 1],
    /// All looks' durations together.
    pub looking: Duration,
    /// The last look's duration.
    pub last_look: Duration,
    hour: Hour,
}

/// What has come of a rule's decisions.
#[derive(Clone, Debug, Default)]
pub struct RuleCounts {
    /// Kills by outcome; of those skipped, all reasons together.
    pub kills: Kills,
    /// Those that were skipped, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
}

/// Kills by minute, of the last hour.
#[derive(Clone, Debug)]
struct Hour {
    minutes: [(u64, Kills); MINUTES],
}

impl Default for Hour {
    fn default() -> Self {
        Self {
            minutes: [(u64::MAX, Kills::default()); MINUTES],
        }
    }
}

impl Counts {
    /// Counts what the machine reports.
    pub fn report(&mut self, report: &Report, now: Mono) {
        match report {
            Report::StallDetected(..) => self.stalls += 1,
            Report::StallEnded(..) | Report::Degraded(_) => {}
            Report::Kill(_, rule, step) => {
                let add: fn(&mut Kills) = match step {
                    KillReport::Planned(_) | KillReport::Sent(_) => return,
                    KillReport::Confirmed { .. } => |kills| kills.confirmed += 1,
                    KillReport::Failed(_) => |kills| kills.failed += 1,
                    KillReport::Skipped(..) => |kills| kills.skipped += 1,
                };
                let counts = self.rules.entry(rule.name.clone()).or_default();
                add(&mut counts.kills);
                if let KillReport::Skipped(reason, _) = step {
                    *counts.skipped.entry(Skipped::as_str(*reason)).or_default() += 1;
                }
                add(self.hour.minute(now));
            }
        }
    }

    /// Counts a look.
    pub fn look(&mut self, took: Duration) {
        let at = LOOK_BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.looks[at] += 1;
        self.looking += took;
        self.last_look = took;
    }

    /// How many looks there were.
    #[must_use]
    pub fn look_count(&self) -> u64 {
        self.looks.iter().sum()
    }

    /// Kills of all rules since the start.
    #[must_use]
    pub fn kills(&self) -> Kills {
        sum(self.rules.values().map(|counts| counts.kills))
    }

    /// Kills of all rules in the last hour, to the minute.
    #[must_use]
    pub fn last_hour(&self, now: Mono) -> Kills {
        let this = minute_of(now);
        let recent = |minute: u64| minute <= this && this - minute < MINUTES as u64;
        sum(self
            .hour
            .minutes
            .iter()
            .filter(|(minute, _)| recent(*minute))
            .map(|(_, kills)| *kills))
    }
}

impl Hour {
    fn minute(&mut self, now: Mono) -> &mut Kills {
        let minute = minute_of(now);
        let slot = usize::try_from(minute % MINUTES as u64).unwrap_or(0);
        let (of, kills) = &mut self.minutes[slot];
        if *of != minute {
            (*of, *kills) = (minute, Kills::default());
        }
        kills
    }
}

fn minute_of(now: Mono) -> u64 {
    now.since(Mono::default()).as_secs() / MINUTE.as_secs()
}

fn sum(kills: impl Iterator<Item = Kills>) -> Kills {
    kills.fold(Kills::default(), |a, b| Kills {
        confirmed: a.confirmed + b.confirmed,
        failed: a.failed + b.failed,
        skipped: a.skipped + b.skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_forgets_by_the_minute_and_the_total_does_not() {
        let mut counts = Counts::default();
        let at = |minutes: u64| Mono::default().after(MINUTE * u32::try_from(minutes).unwrap());
        for minute in [0, 1, 59] {
            counts.hour.minute(at(minute)).confirmed += 1;
        }
        for (now, expected) in [(59, 3), (60, 2), (61, 1), (118, 1), (119, 0), (500, 0)] {
            assert_eq!(counts.last_hour(at(now)).confirmed, expected, "minute {now}");
        }
        // A slot that is used again starts anew.
        counts.hour.minute(at(120)).failed += 1;
        assert_eq!(
            counts.last_hour(at(120)),
            Kills {
                failed: 1,
                ..Kills::default()
            }
        );
    }

    #[test]
    fn looks_are_counted_under_the_first_bound_that_holds_them() {
        let mut counts = Counts::default();
        for micros in [100, 500, 501, 2_000_000] {
            counts.look(Duration::from_micros(micros));
        }
        assert_eq!((counts.looks[0], counts.looks[1], counts.looks[10]), (2, 1, 1));
        assert_eq!(counts.look_count(), 4);
    }
}
