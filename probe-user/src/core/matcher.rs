//! What a rule applies to, and why it does or does not apply to a process.
//!
//! There is one implementation: whether a match holds is read from the explanation.

use std::{borrow::Cow, time::Duration};

use super::{
    chain::Cause,
    model::{ChannelKind, Facts, Group, Mono, Sighting, Stall, Stream, channel_name, human},
    pattern::Pattern,
    reader::State,
};

/// What a rule applies to. Every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The group leader's command.
    pub comm: Option<Pattern>,
    /// The name of the thread that writes.
    pub thread: Option<Pattern>,
    /// The executable's path.
    pub exe: Option<Pattern>,
    /// The command line, its arguments joined by single spaces.
    pub cmdline: Option<Pattern>,
    /// The user's name, or its number.
    pub user: Option<Pattern>,
    /// The name or number of a group that the process is in, supplementary ones included.
    pub group: Option<Pattern>,
    /// The parent's command.
    pub parent: Option<Pattern>,
    /// The command of the parent, or of anything that it descends from.
    pub ancestor: Option<Pattern>,
    /// The control group's path.
    pub cgroup: Option<Pattern>,
    /// The systemd unit.
    pub unit: Option<Pattern>,
    /// The container's id, or its first [`SHORT_ID`] characters or more.
    pub container: Option<Pattern>,
    /// What is written to.
    pub channel: Option<ChannelKind>,
    /// Which standard stream the channel is.
    pub stream: Option<Stream>,
    /// The command of whoever does not read, at the end of the chain.
    pub culprit_comm: Option<Pattern>,
    /// What a reader does.
    pub reader_state: Option<State>,
    /// Whether the writer is part of a deadlock.
    pub deadlock: Option<bool>,
    /// How old the process must be: until then the rule waits, it does not pass on to the next.
    pub min_process_age: Option<Duration>,
}

/// So many characters of a container's id name it, as container tools print it.
pub const SHORT_ID: usize = 12;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    Yes,
    /// It will from this moment on.
    From(Mono),
    /// It does not.
    No,
    /// That cannot be known of a process that is not seen writing, or whose readers were not
    /// looked for yet.
    Unknown,
}

/// One condition of a match, and what it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// Its key in the configuration.
    pub key: &'static str,
    /// What is asked for.
    pub pattern: Cow<'a, str>,
    /// What was found; `None` if there is no such thing or it is not known.
    pub found: Option<Cow<'a, str>>,
    /// Whether it holds.
    pub holds: Holds,
}

/// A process, as far as rules ask about it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its pid.
    pub pid: u32,
    /// The group leader's command.
    pub comm: &'a str,
    /// The user's number.
    pub uid: u32,
    /// When it was looked at.
    pub at: Mono,
    /// What was read of it.
    pub facts: &'a Facts,
    /// Its blocked write, if it was seen in one.
    pub write: Option<Write<'a>>,
    /// Who should read, if that was asked.
    pub cause: Option<&'a Cause>,
}

/// A blocked write, as far as rules ask about it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The thread's name.
    pub thread: &'a str,
    /// What is written to.
    pub channel: ChannelKind,
    /// Which standard stream that is, if any.
    pub stream: Option<Stream>,
}

impl<'a> Subject<'a> {
    /// The process of a stall.
    #[must_use]
    pub fn stalled(stall: &'a Stall, facts: &'a Facts) -> Self {
        Self {
            cause: stall.cause.as_deref(),
            ..Self::writing(&stall.last, facts)
        }
    }

    /// The process that was seen writing.
    #[must_use]
    pub fn writing(sighting: &'a Sighting, facts: &'a Facts) -> Self {
        Self {
            pid: sighting.writer.process.tgid,
            comm: &sighting.comm,
            uid: sighting.uid,
            at: sighting.at,
            facts,
            write: Some(Write {
                thread: &sighting.thread,
                channel: sighting.channel.kind,
                stream: sighting.stream,
            }),
            cause: None,
        }
    }

    /// The user for people, by name and number.
    pub(super) fn user_label(&self) -> Cow<'a, str> {
        label(self.facts.user.as_deref(), self.uid).into()
    }

    /// Whether a pattern matches the user's name or number.
    pub(super) fn is_user(&self, pattern: &Pattern) -> bool {
        named(pattern, self.facts.user.as_deref(), self.uid)
    }
}

impl Match {
    /// Whether nothing that is given fails: it holds, or will once the process is old enough,
    /// or cannot be known yet.
    #[must_use]
    pub fn holds(&self, subject: Subject<'_>) -> bool {
        self.conditions(subject)
            .all(|condition| condition.holds != Holds::No)
    }

    /// Whether it asks who should read.
    #[must_use]
    pub const fn asks_about_readers(&self) -> bool {
        self.culprit_comm.is_some() || self.reader_state.is_some() || self.deadlock.is_some()
    }

    /// Whether everything that is given is known to hold, or will once the process is old enough.
    #[must_use]
    pub fn applies(&self, subject: Subject<'_>) -> bool {
        self.conditions(subject)
            .all(|condition| matches!(condition.holds, Holds::Yes | Holds::From(_)))
    }

    /// Each condition that is given, with what it met.
    #[must_use]
    pub fn explain<'a>(&'a self, subject: Subject<'a>) -> Vec<Condition<'a>> {
        self.conditions(subject).collect()
    }

    /// Before this moment the process is too young.
    #[must_use]
    pub fn not_before(&self, facts: &Facts) -> Mono {
        match (self.min_process_age, facts.born) {
            (None, _) => Mono::from_nanos(0),
            (Some(age), Some(born)) => born.after(age),
            (Some(_), None) => Mono::NEVER,
        }
    }

    /// The conditions in the order of the documentation, each evaluated when it is asked for.
    fn conditions<'a>(&'a self, subject: Subject<'a>) -> impl Iterator<Item = Condition<'a>> {
        const TEXTS: [Text; 11] = [
            ("comm", |m| m.comm.as_ref(), comm),
            ("thread", |m| m.thread.as_ref(), thread),
            ("exe", |m| m.exe.as_ref(), exe),
            ("cmdline", |m| m.cmdline.as_ref(), cmdline),
            ("user", |m| m.user.as_ref(), user),
            ("group", |m| m.group.as_ref(), group),
            ("parent", |m| m.parent.as_ref(), parent),
            ("ancestor", |m| m.ancestor.as_ref(), ancestor),
            ("cgroup", |m| m.cgroup.as_ref(), cgroup),
            ("unit", |m| m.unit.as_ref(), unit),
            ("container", |m| m.container.as_ref(), container),
        ];
        let texts = TEXTS.into_iter().filter_map(move |(key, get, ask)| {
            let pattern = get(self)?;
            let (found, holds) = ask(pattern, subject);
            Some(Condition {
                key,
                pattern: pattern.as_str().into(),
                found,
                holds,
            })
        });
        let channel = self.channel.map(|channel| {
            let found = subject.write.map(|write| channel_name(write.channel));
            word("channel", channel_name(channel), found, subject)
        });
        let stream = self.stream.map(|stream| {
            let found = subject.write.and_then(|write| write.stream);
            word("stream", stream.as_str(), found.map(Stream::as_str), subject)
        });
        texts
            .chain(channel)
            .chain(stream)
            .chain(self.about_readers(subject))
            .chain(self.min_process_age.map(|age| self.age_condition(age, subject)))
    }

    fn about_readers<'a>(&'a self, subject: Subject<'a>) -> impl Iterator<Item = Condition<'a>> {
        let condition = move |key, pattern: Cow<'a, str>, ask: &dyn Fn(&'a Cause) -> Answer<'a>| {
            let (found, holds) = subject.cause.map_or((None, Holds::Unknown), ask);
            Condition {
                key,
                pattern,
                found,
                holds,
            }
        };
        let culprit = self.culprit_comm.as_ref().map(|pattern| {
            condition("culprit.comm", pattern.as_str().into(), &|cause| {
                one(
                    pattern,
                    cause.culprit().map(|culprit| culprit.person.comm.as_str()),
                )
            })
        });
        let state = self.reader_state.map(|state| {
            condition("reader.state", state.as_str().into(), &|cause| {
                let states = cause.states().map(|state| state.as_str().to_owned());
                (listed(states), yes(cause.states().any(|found| found == state)))
            })
        });
        let deadlock = self.deadlock.map(|wanted| {
            condition("deadlock", wanted.to_string().into(), &|cause| {
                let found = !cause.deadlock.is_empty();
                (Some(found.to_string().into()), yes(found == wanted))
            })
        });
        culprit.into_iter().chain(state).chain(deadlock)
    }

    fn age_condition<'a>(&self, age: Duration, subject: Subject<'a>) -> Condition<'a> {
        let from = self.not_before(subject.facts);
        let found = subject.facts.born.map(|born| rounded(subject.at.since(born)));
        Condition {
            key: "min_process_age",
            pattern: human(age).into(),
            found: found.map(|age| human(age).into()),
            holds: match from {
                // Whether it is old enough cannot be told: the rule is for others.
                Mono::NEVER => Holds::No,
                _ if from <= subject.at => Holds::Yes,
                _ => Holds::From(from),
            },
        }
    }
}

/// A condition on a text: its key, its pattern, and how it is asked.
type Text = (&'static str, fn(&Match) -> Option<&Pattern>, Ask);
/// What was found, and whether it is what the pattern asks for.
type Answer<'a> = (Option<Cow<'a, str>>, Holds);
type Ask = for<'a> fn(&Pattern, Subject<'a>) -> Answer<'a>;

fn comm<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    one(pattern, Some(subject.comm))
}

fn thread<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    match subject.write {
        Some(write) => one(pattern, Some(write.thread)),
        None => (None, Holds::Unknown),
    }
}

fn exe<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    let found = subject.facts.exe.as_ref().map(|path| path.to_string_lossy());
    let holds = yes(found.as_ref().is_some_and(|path| pattern.matches(path)));
    (found, holds)
}

fn cmdline<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    let line = subject.facts.cmdline.join(" ");
    let holds = yes(pattern.matches(&line));
    (Some(line.into()), holds)
}

fn user<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    (Some(subject.user_label()), yes(subject.is_user(pattern)))
}

fn group<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    let groups = &subject.facts.groups;
    let is_it = |group: &&Group| named(pattern, group.name.as_deref(), group.gid);
    let text = |group: &Group| label(group.name.as_deref(), group.gid);
    match groups.iter().find(is_it) {
        Some(group) => (Some(text(group).into()), Holds::Yes),
        None => (listed(groups.iter().map(text)), Holds::No),
    }
}

fn parent<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    one(pattern, subject.facts.parent.as_deref())
}

fn ancestor<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    let ancestors = &subject.facts.ancestors;
    match ancestors.iter().find(|comm| pattern.matches(comm)) {
        Some(comm) => (Some(comm.into()), Holds::Yes),
        None => (listed(ancestors.iter().cloned()), Holds::No),
    }
}

fn cgroup<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    one(pattern, subject.facts.cgroup.as_deref())
}

fn unit<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    one(pattern, subject.facts.unit.as_deref())
}

fn container<'a>(pattern: &Pattern, subject: Subject<'a>) -> Answer<'a> {
    let found = subject.facts.container.as_deref();
    let is_short = |id: &str| {
        pattern
            .literal()
            .is_some_and(|start| start.len() >= SHORT_ID && id.starts_with(start))
    };
    let holds = found.is_some_and(|id| pattern.matches(id) || is_short(id));
    (found.map(Cow::from), yes(holds))
}

fn one<'a>(pattern: &Pattern, found: Option<&'a str>) -> Answer<'a> {
    (
        found.map(Cow::from),
        yes(found.is_some_and(|text| pattern.matches(text))),
    )
}

/// A condition on a word from a fixed set, about a write.
fn word<'a>(
    key: &'static str,
    pattern: &'static str,
    found: Option<&'static str>,
    subject: Subject<'a>,
) -> Condition<'a> {
    Condition {
        key,
        pattern: pattern.into(),
        found: found.map(Cow::from),
        holds: if subject.write.is_none() {
            Holds::Unknown
        } else {
            yes(found == Some(pattern))
        },
    }
}

const fn yes(holds: bool) -> Holds {
    if holds { Holds::Yes } else { Holds::No }
}

/// Whether a pattern matches a user's or group's name, or its number.
fn named(pattern: &Pattern, name: Option<&str>, number: u32) -> bool {
    name.is_some_and(|name| pattern.matches(name)) || pattern.matches(&number.to_string())
}

fn label(name: Option<&str>, number: u32) -> String {
    name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
}

fn listed<'a>(texts: impl Iterator<Item = String>) -> Option<Cow<'a, str>> {
    let list = texts.collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then_some(list.into())
}

/// An age without digits that nobody reads.
const fn rounded(age: Duration) -> Duration {
    if age.as_secs() < 10 {
        Duration::from_millis(age.as_secs() * 1000 + age.subsec_millis() as u64)
    } else {
        Duration::from_secs(age.as_secs())
    }
}

#[cfg(test)]
pub(in crate::core) mod tests;
