//! Why what is shown is stalled: readers are searched for once for each stall, for all new ones
//! together, and again where a reader is gone. In between, only what they do is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    core::{
        chain,
        model::{Channel, Process, Stall},
        reader::{Readership, State},
        tracker::Tracker,
    },
    probe::{
        kernel::{Kernel, ProbeError},
        readers::People,
    },
};

/// What is known of readers.
#[derive(Debug, Default)]
pub(super) struct Causes(Readership);

impl Causes {
    /// Files with each shown stall why it lasts.
    ///
    /// # Errors
    /// Readers had to be looked for, and could not be. What was known before is filed all the same.
    pub(super) fn learn(
        &mut self,
        tracker: &mut Tracker,
        is_shown: impl Fn(&Stall) -> bool,
        kernel: &mut Kernel,
    ) -> Result<(), ProbeError> {
        self.0.keep(tracker.stalls().map(|stall| stall.last.channel));
        let gone = self.look_at_people();
        let is_known = |stall: &Stall| {
            let cause = stall.cause.as_deref();
            cause.is_some_and(|cause| cause.parties().all(|reader| !gone.contains(&reader.process)))
        };
        let unknown: BTreeSet<Channel> = tracker
            .stalls()
            .filter(|stall| is_shown(stall) && !is_known(stall))
            .map(|stall| stall.last.channel)
            .collect();
        let searched = if unknown.is_empty() {
            Ok(())
        } else {
            self.search(&unknown.iter().copied().collect::<Vec<_>>(), kernel)
        };
        let news = if searched.is_ok() {
            unknown
        } else {
            BTreeSet::new()
        };
        // What was found in the name of an earlier stall may not be so any more.
        let known = |stall: &&Stall| stall.cause.is_some() || news.contains(&stall.last.channel);
        let stalls: Vec<_> = tracker.stalls().filter(|stall| stall.missing.is_none()).collect();
        let writers: BTreeMap<_, _> = stalls.iter().map(|stall| (stall.id, stall.last.writer)).collect();
        for (id, cause) in chain::causes(stalls.into_iter().filter(known), &self.0) {
            if let Some(writer) = writers.get(&id) {
                tracker.explain(*writer, Some(Arc::new(cause)));
            }
        }
        searched
    }

    /// Takes in what those do now who are known; returns who is gone.
    fn look_at_people(&mut self) -> BTreeSet<Process> {
        let known: Vec<_> = self.0.people.keys().copied().collect();
        let mut gone = BTreeSet::new();
        for (process, person) in People::default().see_all(&known) {
            if matches!(person.state, State::Gone | State::Zombie) {
                gone.insert(process);
            } else {
                self.0.people.insert(process, person);
            }
        }
        gone
    }

    fn search(&mut self, channels: &[Channel], kernel: &mut Kernel) -> Result<(), ProbeError> {
        let mut found = kernel.open_files()?.readership(channels, &mut People::default());
        // It held the end a moment ago. To search again at once would find the same.
        for person in found.people.values_mut() {
            if person.state == State::Gone {
                person.state = State::Unknown;
            }
        }
        // Of whom nothing is said, nobody was found.
        for channel in channels {
            found.ends.entry(*channel).or_default();
        }
        self.0.merge(found);
        Ok(())
    }
}
