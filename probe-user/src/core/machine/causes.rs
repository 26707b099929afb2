//! Who should read, as far as the machine needs it: asked for once a stall is reported or its
//! rule's time has come, for all such stalls together; and looked at again right before anything
//! is done by a rule that a stopped reader holds back.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Effect, Fate, Machine};
use crate::core::{
    chain::{self, Cause},
    kill::{Kill, KillId},
    model::{Channel, Mono, Process, Stall},
    reader::{Person, Readership, State},
    report::{KillReport, Skipped},
};

/// How soon a reader that holds a rule back is looked at again.
pub(super) const HOLD_FOR: Duration = Duration::from_secs(1);

/// What is known of readers, and what was asked.
#[derive(Debug, Default)]
pub(super) struct Causes {
    readership: Readership,
    /// What [`Effect::FindReaders`] has asked and is to be answered.
    finding: Option<Vec<Channel>>,
    /// Nobody could be asked, and is before this.
    again: Option<Mono>,
    /// Whom [`Effect::CheckReaders`] has asked about and not told of yet.
    checking: BTreeSet<Process>,
    /// Who was looked at since the last look.
    fresh: BTreeSet<Process>,
    /// A stall is over since causes were worked out, so that others may have another.
    stale: bool,
    /// The kills that the last look may move on, once nobody is left in [`Self::checking`].
    waiting: BTreeSet<KillId>,
    /// When readers were last looked at only because rules ask for their states.
    polled: Option<Mono>,
}

impl Causes {
    /// Whether an answer is awaited without which nothing is decided.
    pub(super) const fn is_finding(&self) -> bool {
        self.finding.is_some() || self.again.is_some()
    }

    /// When the question is asked again that could not be answered.
    pub(super) const fn again(&self) -> Option<Mono> {
        self.again
    }
}

impl Machine {
    /// Takes in who should read from the channels that were asked for.
    pub fn handle_readers(&mut self, mut found: Readership, now: Mono) {
        // It held the end a moment ago. To search again at once would find the same.
        for person in found.people.values_mut() {
            if person.state == State::Gone {
                person.state = State::Unknown;
            }
        }
        let mut news: BTreeSet<_> = found.ends.keys().copied().collect();
        self.causes.fresh.extend(found.people.keys());
        self.causes.readership.merge(found);
        // Of whom nothing is said, nobody was found.
        for channel in self.causes.finding.take().into_iter().flatten() {
            if news.insert(channel) {
                self.causes.readership.ends.insert(channel, Vec::new());
            }
        }
        let channels: Vec<_> = self.tracker.stalls().map(|stall| stall.last.channel).collect();
        self.causes.readership.keep(channels);
        self.link(&news);
        self.judge_all(now);
        self.admit(now);
    }

    /// Nobody could be looked for: nothing that waits for it is decided until somebody can.
    pub fn handle_no_readers(&mut self, now: Mono) {
        self.causes.finding = None;
        self.causes.again = Some(now.after(HOLD_FOR));
    }

    /// Takes in what those do now who were `asked` about; who is left out is gone.
    pub fn handle_people(&mut self, asked: &[Process], people: Vec<(Process, Person)>, now: Mono) {
        let asked: BTreeSet<_> = asked.iter().copied().collect();
        self.causes.checking.retain(|process| !asked.contains(process));
        let known = &mut self.causes.readership.people;
        let mut changed = false;
        let told: BTreeSet<_> = people.iter().map(|(process, _)| *process).collect();
        for (process, person) in people {
            if let Some(known) = known.get_mut(&process) {
                let same = (known.state, &known.sleeps_in) == (person.state, &person.sleeps_in);
                changed |= !same;
                *known = person;
            }
        }
        for process in asked.difference(&told) {
            if let Some(person) = known.get_mut(process) {
                changed |= person.state != State::Gone;
                person.state = State::Gone;
            }
        }
        self.causes.fresh.extend(asked);
        if changed {
            self.link(&BTreeSet::new());
        }
        if self.causes.checking.is_empty() {
            let waiting = std::mem::take(&mut self.causes.waiting);
            self.move_kills_on(waiting, now);
        }
        self.judge_all(now);
        self.admit(now);
    }

    /// Works all causes out anew, with what was just found of some channels. Where a reader is
    /// gone, somebody else may read now: that is asked for again.
    fn link(&mut self, found: &BTreeSet<Channel>) {
        self.next_stall = None;
        let stalls = self.tracker.stalls().filter(|stall| stall.missing.is_none());
        // What was found in the name of an earlier stall may not be so any more.
        let known = |stall: &&Stall| stall.cause.is_some() || found.contains(&stall.last.channel);
        let stalls: Vec<_> = stalls.filter(known).collect();
        let writers: HashMap<_, _> = stalls
            .iter()
            .map(|stall| (stall.id, (stall.last.writer, stall.last.channel)))
            .collect();
        let is_over = |state: State| matches!(state, State::Gone | State::Zombie);
        for (id, cause) in chain::causes(stalls, &self.causes.readership) {
            let Some((writer, channel)) = writers.get(&id) else {
                continue;
            };
            let lost = cause.parties().any(|reader| is_over(reader.person.state));
            let holds_on = !lost || found.contains(channel);
            let cause = holds_on.then(|| Arc::new(cause));
            if let Some(stall) = self.tracker.explain(*writer, cause) {
                self.choose_again(&stall);
            }
        }
    }

    /// What rules ask of readers has changed: another rule may be the first that matches.
    fn choose_again(&mut self, stall: &Stall) {
        let policy = &self.settings.policy;
        if !policy.asks_about_readers() || self.targets.contains_key(&stall.last.writer.process) {
            return;
        }
        let rule = policy.rule_for(stall);
        let case = self.cases.entry(stall.id).or_default();
        if rule != case.rule {
            case.rule = rule;
            (case.hold, case.crossed) = (None, None);
            // A rule decides once about a stall.
            let again = rule.is_some_and(|rule| case.done.contains(&rule));
            case.fate = if again { Fate::Decided } else { Fate::Open };
        }
    }

    /// Asks who should read from the channels of which that is not known, if any stall that is
    /// due waits for it.
    pub(super) fn find_readers(&mut self, now: Mono) {
        if self.causes.finding.is_some() || self.causes.again.is_some_and(|again| now < again) {
            return;
        }
        self.causes.again = None;
        let waits = |stall: &&Stall| {
            let case = self.cases.get(&stall.id);
            let is_open = case.is_some_and(|case| !(case.reported && case.fate == Fate::Decided));
            stall.facts.is_some() && is_open && stall.cause.is_none() && self.is_due(stall)
        };
        if self.stalls().find(waits).is_none() {
            return;
        }
        // All that are old enough to matter soon.
        let unknown = self.stalls().filter(|stall| stall.cause.is_none());
        let channels: BTreeSet<_> = unknown
            .filter(|stall| self.cases.contains_key(&stall.id))
            .map(|stall| stall.last.channel)
            .collect();
        let channels: Vec<_> = channels.into_iter().collect();
        self.causes.finding = Some(channels.clone());
        self.effects.push_back(Effect::FindReaders(channels));
    }

    /// A look was taken: what is known of readers is older than it, and who waited for a stall
    /// that it ended waits for somebody else.
    pub(super) fn age_readers(&mut self) {
        self.causes.fresh.clear();
        if std::mem::take(&mut self.causes.stale) {
            self.link(&BTreeSet::new());
        }
    }

    /// A stall is over: whoever reads there does not wait in it any more.
    pub(super) fn forget_write(&mut self, stall: &Stall) {
        let process = stall.last.writer.process;
        self.causes.stale |= self.causes.readership.people.contains_key(&process);
        self.causes.readership.writing.remove(&process);
    }

    /// Moves on the kills that waited for a look, once it is known what their readers do; no other
    /// kill that comes so far meanwhile.
    pub(super) fn move_confirmed_on(&mut self, now: Mono) {
        let moves = |kill: &Kill| kill.step.after_look(now).is_some();
        let kills = self.kills.iter().filter(|(_, kill)| moves(kill));
        let kills: BTreeSet<_> = kills.map(|(id, _)| *id).collect();
        if self.check_for(&kills) {
            self.causes.waiting = kills;
        } else {
            self.move_kills_on(kills, now);
        }
    }

    /// Asks what the readers of kills do. Says whether the kills have to wait for that.
    fn check_for(&mut self, kills: &BTreeSet<KillId>) -> bool {
        let kills = kills.iter().filter_map(|id| self.kills.get(id));
        let stalls = kills.filter_map(|kill| {
            let rule = self
                .settings
                .policy
                .rules
                .iter()
                .find(|rule| rule.name == kill.rule.name)?;
            let stall = self.tracker.get(kill.stall.last.writer)?;
            (rule.hold_when_reader_stopped || rule.matches.asks_about_readers()).then_some(stall)
        });
        let wanted: Vec<_> = stalls.filter_map(|stall| stall.cause.clone()).collect();
        self.check(wanted.iter())
    }

    /// Where rules ask for it, looks now and then at what all known readers do.
    pub(super) fn poll_readers(&mut self, now: Mono) {
        let due = self.causes.polled.is_none_or(|last| now.since(last) >= HOLD_FOR);
        if !due || !self.settings.policy.asks_about_readers() {
            return;
        }
        self.causes.polled = Some(now);
        let wanted: Vec<_> = self.stalls().filter_map(|stall| stall.cause.clone()).collect();
        self.check(wanted.iter());
    }

    /// Asks what those do now whom causes name, unless that was asked since the last look.
    fn check<'a>(&mut self, causes: impl Iterator<Item = &'a Arc<Cause>>) -> bool {
        let parties = causes
            .flat_map(|cause| cause.parties())
            .map(|reader| reader.process);
        let wanted: BTreeSet<_> = parties
            .filter(|process| !self.causes.fresh.contains(process))
            .filter(|process| !self.causes.checking.contains(process))
            .collect();
        if !wanted.is_empty() {
            self.effects
                .push_back(Effect::CheckReaders(wanted.iter().copied().collect()));
            self.causes.checking.extend(wanted);
        }
        !self.causes.checking.is_empty()
    }

    /// Whether a stall's readers were looked at since the last look; if not, that is asked for.
    pub(super) fn are_readers_fresh(&mut self, stall: &Stall) -> bool {
        let Some(cause) = &stall.cause else {
            // The one that was known is gone: who reads now is asked for before anything is done.
            return false;
        };
        let fresh = |process| self.causes.fresh.contains(&process);
        if cause.parties().all(|reader| fresh(reader.process)) {
            return true;
        }
        self.check(std::iter::once(cause));
        false
    }

    /// Why a stopped reader holds a rule back from a stall, if it does.
    pub(super) fn held_back(stall: &Stall) -> Option<&'static str> {
        let Some(cause) = stall.cause.as_deref() else {
            return Some("its reader is gone, and nobody has looked yet who reads now");
        };
        let reader = cause.held()?;
        Some(match reader.person.state {
            State::Stopped => "a reader is stopped (T), and may go on when it is continued",
            State::Traced => "a reader is held by a tracer (t), and may go on when that lets go",
            State::Unknown => "what a reader does cannot be read, so that it may be stopped",
            State::Frozen => "a reader is frozen with its control group, and may go on when that is thawed",
            State::Running | State::Sleeping | State::Uninterruptible | State::Zombie | State::Gone => {
                return None;
            }
        })
    }

    /// Lets go of a process whose reader has been stopped meanwhile; the rule takes it up again
    /// once the reader runs.
    pub(super) fn hold_kill(&mut self, id: KillId, why: &'static str, now: Mono) {
        let Some(kill) = self.kills.get(&id) else { return };
        let case = self.cases.entry(kill.stall.id).or_default();
        case.fate = Fate::Wanted;
        // Said each time: the record has a plan that comes to nothing.
        case.hold_until(Skipped::ReaderStopped, now.after(HOLD_FOR));
        self.finish(id, KillReport::Skipped(Skipped::ReaderStopped, Some(why)), now);
    }
}
