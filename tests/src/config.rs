//! Configuration files for the agent. A rule is always for one comm and one parent, so that an
//! enforcing one cannot match what the test has not started.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::crowd::{Crowd, Plan};
use crate::scratch::Scratch;

/// A configuration with one rule.
#[derive(Debug, Clone)]
pub struct Config {
    observed: String,
    rule: Rule,
    limits: String,
    protect: String,
    report_after: String,
    state: PathBuf,
    keeping: String,
    served: String,
    webhooks: String,
}

/// The one rule.
#[derive(Debug, Clone)]
struct Rule {
    comm: String,
    parent: String,
    trigger: String,
    action: String,
    grace: String,
    mode: Option<String>,
    more: String,
    pace: String,
}

impl Config {
    /// A rule for writers of this comm and this parent that says `term`, to be acted on after 2 s,
    /// in the default mode.
    pub fn new(comm: &str, parent: &str, state: &Path) -> Self {
        assert!(
            !comm.is_empty() && !comm.starts_with('*'),
            "{comm:?} may match what is not ours"
        );
        assert!(
            !parent.is_empty() && !parent.contains('*'),
            "{parent:?} may match what is not ours"
        );
        Self {
            observed: comm.to_owned(),
            rule: Rule {
                comm: comm.to_owned(),
                parent: parent.to_owned(),
                trigger: "stalled_for = \"2s\"".to_owned(),
                action: "kill".to_owned(),
                grace: "5s".to_owned(),
                mode: None,
                more: String::new(),
                pace: String::new(),
            },
            limits: String::new(),
            protect: String::new(),
            report_after: "1s".to_owned(),
            state: state.to_owned(),
            keeping: String::new(),
            served: String::new(),
            webhooks: String::new(),
        }
    }

    /// A rule for the writers of a crowd.
    pub fn of(crowd: &Crowd, scratch: &Scratch) -> Self {
        Self::new(crowd.writer_name(), crowd.name(), &scratch.path("state"))
    }

    /// A rule for the writers of a crowd that is yet to be started.
    pub fn of_plan(plan: &Plan, scratch: &Scratch) -> Self {
        Self::new(plan.writer_name(), plan.name(), &scratch.path("state"))
    }

    /// Lets the rule act.
    #[must_use]
    pub fn enforcing(mut self) -> Self {
        self.rule.mode = Some("enforce".to_owned());
        self
    }

    /// Sets `stalled_for`.
    #[must_use]
    pub fn stalled_for(mut self, duration: &str) -> Self {
        self.rule.trigger = format!("stalled_for = {duration:?}");
        self
    }

    /// Sets `stalled_share` instead of `stalled_for`.
    #[must_use]
    pub fn stalled_share(mut self, share: &str, over: &str) -> Self {
        self.rule.trigger = format!("stalled_share = {{ share = {share:?}, over = {over:?} }}");
        self
    }

    /// Sets `action`.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        action.clone_into(&mut self.rule.action);
        self
    }

    /// Sets `grace`.
    #[must_use]
    pub fn grace(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.rule.grace);
        self
    }

    /// Sets `report_after`.
    #[must_use]
    pub fn report_after(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.report_after);
        self
    }

    /// Adds to the rule's conditions, as in `, stream = "stdout"`.
    #[must_use]
    pub fn matching_also(mut self, conditions: &str) -> Self {
        self.rule.more.push_str(conditions);
        self
    }

    /// Sets further lines of the rule, as in `pile_up = 3`.
    #[must_use]
    pub fn paced(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.rule.pace);
        self
    }

    /// Sets the lines of `[limits]`.
    #[must_use]
    pub fn limited(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.limits);
        self
    }

    /// Sets the lines of `[protect]`.
    #[must_use]
    pub fn protecting(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.protect);
        self
    }

    /// Adds a webhook of this name: where to, and the other lines of its table. Receivers of tests
    /// are on loopback.
    #[must_use]
    pub fn alerting(mut self, name: &str, url: &str, lines: &str) -> Self {
        let _ = write!(self.webhooks, "\n{}", webhook(name, url, lines));
        self
    }

    /// Sets the state directory.
    #[must_use]
    pub fn state(self, state: PathBuf) -> Self {
        Self { state, ..self }
    }

    /// Lets the agent serve its API in a directory; further lines are of the table `[api]`, or
    /// begin tables of their own.
    #[must_use]
    pub fn served(mut self, scratch: &Scratch, lines: &str) -> Self {
        let socket = Self::socket(scratch).display().to_string();
        self.served = format!("[api]\nsocket = {socket:?}\n{lines}\n");
        self
    }

    /// Names the socket of [`Self::served`].
    pub fn socket(scratch: &Scratch) -> PathBuf {
        scratch.path("api.sock")
    }

    /// Sets further lines of `[state]`.
    #[must_use]
    pub fn keeping(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.keeping);
        self
    }

    /// Names the journal.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.ndjson")
    }

    /// Writes the configuration as TOML.
    pub fn toml(&self) -> String {
        let Self {
            observed,
            rule,
            limits,
            protect,
            report_after,
            state,
            keeping,
            served,
            webhooks,
        } = self;
        let Rule {
            comm,
            parent,
            trigger,
            action,
            grace,
            mode,
            more,
            pace,
        } = rule;
        let mut toml = format!(
            "[observe]\n\
             comm = [{observed:?}]\n\
             channels = [\"pipe\", \"fifo\", \"unix\"]\n\
             report_after = {report_after:?}\n\
             \n\
             [[rule]]\n\
             name = \"the-rule\"\n\
             match = {{ comm = {comm:?}, parent = {parent:?}{more} }}\n\
             {trigger}\n\
             action = {action:?}\n\
             grace = {grace:?}\n"
        );
        if let Some(mode) = mode {
            let _ = writeln!(toml, "mode = {mode:?}");
        }
        let _ = write!(
            toml,
            "{pace}\n\n[limits]\n{limits}\n\n[protect]\n{protect}\n\n[state]\ndir = {:?}\n{keeping}\n\n{served}\n\n{webhooks}",
            state.display().to_string()
        );
        toml
    }

    /// Writes the configuration to a file.
    pub fn file(&self, scratch: &Scratch) -> PathBuf {
        scratch.write("pipestall.toml", &self.toml())
    }
}

/// A `[[webhook]]` table.
pub fn webhook(name: &str, url: &str, lines: &str) -> String {
    format!(
        "[[webhook]]\nname = {name:?}\nurl = {url:?}\nallow_private = [\"127.0.0.0/8\", \"::1\"]\n{lines}\n"
    )
}
