//! The configuration: what to observe, which rules decide, where state is kept.
//!
//! Files become a [`Config`] in three steps: `source` reads them, `raw` gives
//! their keys types, `check` gives them meaning. Nothing past this module meets
//! an unvalidated value. It must not know the agent, the kernel's state, or
//! whether the users and commands that are named exist.

mod check;
mod comm;
mod problem;
mod raw;
mod source;
pub mod summary;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use probe_ebpf::pattern::CommFilter;

pub use self::problem::{ConfigError, Position, Problem};
use self::{raw::File, source::Source};
use crate::{
    alert::webhook::{Limits, Webhook},
    core::{matcher::Match, model::ChannelKind, rule::Policy},
};

/// Where the configuration is unless another place is named.
pub const DEFAULT_PATH: &str = "/etc/pipestall/pipestall.toml";

/// Where the agent's socket is unless another place is named.
pub const DEFAULT_SOCKET: &str = "/run/pipestall/api.sock";

/// The directory beside the configuration whose `*.toml` add to it.
pub const DROP_IN_DIR: &str = "pipestall.d";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is looked at.
    pub observe: Observe,
    /// What is done about it.
    pub policy: Policy,
    /// What outlives the process.
    pub state: State,
    /// Whom the agent serves on this machine, if it does.
    pub api: Option<Api>,
    /// Where the agent serves metrics to others, if it does.
    pub metrics: Option<Metrics>,
    /// Who is told.
    pub webhooks: Vec<Webhook>,
    /// What is kept for those who cannot be told.
    pub spool: Limits,
    /// What is allowed and yet probably not meant, a line each: `FILE:LINE:COL: KEY: what; what would be right`.
    pub warnings: Vec<String>,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Observe {
    /// Commands of group leaders, each exact or `prefix*`, as they were written.
    pub comm: Vec<String>,
    /// The same commands as the kernel compares them.
    pub filter: CommFilter,
    /// The kinds of channel, each once, in the order given.
    pub channels: Vec<ChannelKind>,
    /// The age from which a stall is reported; the policy holds the same value.
    pub report_after: Duration,
}

/// What outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The directory that records are kept in.
    pub dir: PathBuf,
    /// A new file of the journal begins at this size.
    pub rotate_bytes: u64,
    /// So many files are kept, the one that is written included…
    pub keep_files: usize,
    /// …and none that was last written longer ago than this.
    pub keep_for: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/pipestall"),
            rotate_bytes: 64 << 20,
            keep_files: 8,
            keep_for: Duration::from_hours(90 * 24),
        }
    }
}

/// Whom the agent serves on this machine. Root may always do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The socket's path.
    pub socket: PathBuf,
    /// The group whose members may look.
    pub group: Option<String>,
    /// The group whose members may also end processes and reload.
    pub operators: Option<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            group: None,
            operators: None,
        }
    }
}

/// Where the agent serves metrics to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The address.
    pub listen: SocketAddr,
}

impl Config {
    /// Reads the file at `path`, then [`DROP_IN_DIR`]`/*.toml` beside it in the order of their names.
    ///
    /// Rules are appended; every other table may stand in one of the files only.
    ///
    /// # Errors
    /// A file is missing, unreadable, not UTF-8 or not TOML, or a key or value is
    /// not what it must be. Of each file everything that can be told at once is told.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(path, source::read_all(path))
    }

    /// Understands one file's text; `path` only names it in messages.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(path, vec![Ok(Source::new(path, text))])
    }

    /// Understands conditions by themselves, as the `match` of a rule has them: one
    /// `key = "value"` a line. The problem's position is in that text.
    ///
    /// # Errors
    /// The first condition that is wrong.
    pub fn conditions(text: &str) -> Result<Match, Problem> {
        let source = Source::new(Path::new("filter"), text);
        check::conditions(&source, &raw::typed(&source)?)
    }

    fn from_sources(main: &Path, sources: Vec<Result<Source, Problem>>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut files = Vec::new();
        for source in sources {
            match source.and_then(File::parse) {
                Ok(file) => files.push(file),
                Err(problem) => problems.push(problem),
            }
        }
        match check::config(&files) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => {}
            Err(more) => problems.extend(more),
        }
        problems.sort_by(|a, b| order(main, a).cmp(&order(main, b)));
        Err(ConfigError::new(problems))
    }
}

/// Problems are told in the order in which the files are read.
fn order<'a>(main: &Path, problem: &'a Problem) -> (bool, &'a Path, Option<Position>) {
    (problem.file() != main, problem.file(), problem.position())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        model::Stream,
        rule::{Action, Match, Mode, Pattern, Protect, Rule},
    };

    const EXAMPLE: &str = r#"
[observe]
comm = ["ffmpeg*"]                    # leader comm, exact or prefix*; ["*"] = every task
channels = ["pipe", "fifo", "unix"]
report_after = "5s"

[[rule]]
name = "orphaned-downloads"
match = { comm = "ffmpeg*", cmdline = "*pipe:1*", user = "peertube", parent = "node", stream = "stdout" }
stalled_for = "60s"
action = "kill"                       # alert | term | kill (TERM, grace, KILL)
grace = "10s"
mode = "dry-run"                      # dry-run (default) | enforce

[protect]                             # never signalled, whatever a rule says
comm = ["systemd*", "sshd", "containerd-shim*"]
users = ["root"]

[state]
dir = "/var/lib/pipestall"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("a.toml"))
    }

    fn glob(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn the_documented_example_means_what_it_says() {
        let config = parse(EXAMPLE).unwrap();

        assert_eq!(
            config.observe,
            Observe {
                comm: vec!["ffmpeg*".to_owned()],
                filter: CommFilter::parse(["ffmpeg*"]).unwrap(),
                channels: vec![ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix],
                report_after: Duration::from_secs(5),
            }
        );
        assert_eq!(
            config.policy,
            Policy {
                limits: crate::core::pace::Limits::default(),
                rules: vec![Rule {
                    name: "orphaned-downloads".to_owned(),
                    matches: Match {
                        comm: Some(glob("ffmpeg*")),
                        cmdline: Some(glob("*pipe:1*")),
                        user: Some(glob("peertube")),
                        parent: Some(glob("node")),
                        stream: Some(Stream::Stdout),
                        ..Match::default()
                    },
                    stalled_for: Some(Duration::from_mins(1)),
                    stalled_share: None,
                    action: Action::Kill,
                    grace: Duration::from_secs(10),
                    mode: Mode::DryRun,
                    pace: crate::core::pace::Pace::default(),
                    pre_kill: None,
                    allow_stderr_kill: false,
                    hold_when_reader_stopped: true,
                }],
                protect: Protect {
                    comm: vec![glob("systemd*"), glob("sshd"), glob("containerd-shim*")],
                    users: vec![glob("root")],
                    ..Protect::default()
                },
                report_after: Duration::from_secs(5),
            }
        );
        assert_eq!(config.state.dir, Path::new("/var/lib/pipestall"));
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn an_empty_file_observes_ffmpeg_on_every_channel_and_has_no_rules() {
        let config = parse("").unwrap();

        assert_eq!(config.observe, parse(EXAMPLE).unwrap().observe);
        assert_eq!(
            config.policy,
            Policy {
                report_after: Duration::from_secs(5),
                ..Policy::default()
            }
        );
        assert_eq!(config.state, State::default());
    }

    #[test]
    fn a_rule_that_says_little_alerts_in_dry_run() {
        let text = "[[rule]]\nname = 'r'\nmatch = { comm = '*' }\nstalled_for = '1m 30s'\n";

        let rule = parse(text).unwrap().policy.rules.remove(0);

        assert_eq!(
            rule,
            Rule {
                name: "r".to_owned(),
                matches: Match {
                    comm: Some(glob("*")),
                    ..Match::default()
                },
                stalled_for: Some(Duration::from_secs(90)),
                stalled_share: None,
                action: Action::Alert,
                grace: Duration::from_secs(10),
                mode: Mode::DryRun,
                pace: crate::core::pace::Pace::default(),
                pre_kill: None,
                allow_stderr_kill: false,
                hold_when_reader_stopped: true,
            }
        );
    }

    #[test]
    fn what_is_set_replaces_every_default() {
        let text = "\
[observe]
comm = ['node', 'python3*']
channels = ['unix', 'pipe', 'unix']
report_after = '250ms'

[[rule]]
name = 'r'
match = { comm = 'node', stream = 'stderr' }
stalled_for = '1h'
action = 'term'
grace = '1h'
mode = 'enforce'
allow_stderr_kill = true

[state]
dir = '/srv/pipestall'
";

        let config = parse(text).unwrap();

        assert_eq!(config.observe.comm, ["node", "python3*"]);
        assert_eq!(
            config.observe.filter,
            CommFilter::parse(["node", "python3*"]).unwrap()
        );
        assert_eq!(config.observe.channels, [ChannelKind::Unix, ChannelKind::Pipe]);
        assert_eq!(config.observe.report_after, Duration::from_millis(250));
        assert_eq!(config.policy.report_after, Duration::from_millis(250));
        let rule = &config.policy.rules[0];
        assert_eq!(rule.matches.stream, Some(Stream::Stderr));
        assert_eq!((rule.action, rule.mode), (Action::Term, Mode::Enforce));
        assert_eq!(
            (rule.stalled_for, rule.grace),
            (Some(Duration::from_hours(1)), Duration::from_hours(1))
        );
        assert!(rule.allow_stderr_kill);
        assert_eq!(config.state.dir, Path::new("/srv/pipestall"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        for text in [
            format!("a = {}", "[".repeat(100_000)),
            format!("a = {}", "{a=".repeat(100_000)),
        ] {
            assert_eq!(parse(&text).unwrap_err().problems().len(), 1);
        }
    }

    /// Pieces that a configuration is made of, so that random ones get past the parser.
    fn fragment() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[observe]\n",
            "[[rule]]\n",
            "[rule]\n",
            "[protect]\n",
            "[state]\n",
            "[rule.match]\n",
            "name = 'a'\n",
            "name = \"\\u0000\\n\"\n",
            "match = { comm = '*' }\n",
            "match = { comm = '[' , stream = 'stdeer' }\n",
            "match = {}\n",
            "stalled_for = '60s'\n",
            "stalled_for = '-9223372036854775808s'\n",
            "stalled_for = 60\n",
            "action = 'kill'\n",
            "grace = '99999999h'\n",
            "mode = 'enforce'\n",
            "comm = ['ffmpeg*', 'é*', '{a,b}']\n",
            "comm = 'x'\n",
            "users = ['root']\n",
            "channels = ['pipe', 'pip']\n",
            "report_after = '1ns'\n",
            "dir = ''\n",
            "'quoted ` key' = 1979-05-27\n",
            "# é\r\n",
        ])
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let path = Path::new("a.toml");
            let _ = Config::from_sources(path, vec![Source::decode(path, bytes)]);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_problem_of_a_shuffled_configuration_is_one_line(
            parts in prop::collection::vec(fragment(), 0..30),
        ) {
            match parse(&parts.concat()) {
                Ok(config) => prop_assert!(!config.summary().is_empty()),
                Err(error) => {
                    prop_assert!(!error.problems().is_empty());
                    prop_assert_eq!(error.to_string().lines().count(), error.problems().len());
                }
            }
        }
    }
}
