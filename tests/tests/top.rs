//! `top`, on a real terminal: what a person sees and types, against the live agent, or none, and
//! real stuck writers.

use std::io::pipe;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::agent::{self, Agent};
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::family::{Family, between};
use tests::order::Exit;
use tests::pidfd::PidFd;
use tests::scratch::Scratch;
use tests::tmux::Terminal;
use tests::{binary, command, names, need, proc, wait};

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65_534;

/// Starts `top` in the terminal's shell, which says how it exited.
#[track_caller]
fn top(terminal: &Terminal, arguments: &str) {
    let pipestall = binary::pipestall();
    terminal.run(&format!(
        "clear; {} top {arguments}; echo \"exit=$?\"",
        pipestall.display()
    ));
}

fn standalone(crowd: &Crowd) -> String {
    format!("--standalone --comm {}", crowd.writer_name())
}

fn of_agent(scratch: &Scratch) -> String {
    format!("--socket {}", Config::socket(scratch).display())
}

/// The pid of the `top` in the terminal.
#[track_caller]
fn pid_of_top(terminal: &Terminal) -> u32 {
    let shell = terminal.tells("pane_pid").parse().expect("a pid");
    proc::await_child(shell, "pipestall")
}

/// Asserts that the terminal is as a shell expects it.
#[track_caller]
fn assert_clean(terminal: &Terminal) {
    assert_eq!(terminal.tells("alternate_on"), "0", "the shell's screen is back");
    assert_eq!(terminal.tells("cursor_flag"), "1", "the cursor is shown");
    assert_eq!(
        terminal.tells("mouse_any_flag"),
        "0",
        "the mouse is the terminal's"
    );
    terminal.run("clear; stty -a | tr ' ' '\\n' | grep -E '^-?(icanon|echo|isig)$' | tr '\\n' .");
    let screen = terminal.await_text("icanon.");
    for mode in ["isig", "icanon", "echo"] {
        assert!(!screen.contains(&format!("-{mode}.")), "{mode} is off:\n{screen}");
    }
}

#[test]
fn standalone_shows_stuck_writers_and_everything_about_one() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let crowd = Plan::stuck(3).start();
    let terminal = Terminal::open(&tmux, 80, 24);

    top(&terminal, &standalone(&crowd));

    let screen = terminal.await_text("3 stalled");
    for pid in crowd.stuck() {
        assert!(
            screen.contains(&format!(" {pid} ")),
            "{pid} is missing:\n{screen}"
        );
    }
    for text in ["standalone", "live", "pipe", "64K", "? help"] {
        assert!(screen.contains(text), "{text:?} is missing:\n{screen}");
    }
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");

    terminal.press(&["Enter"]);
    let screen = terminal.await_text("command");
    for text in ["stuck write", "stdout, write on fd 1", "child of"] {
        assert!(screen.contains(text), "{text:?} is missing:\n{screen}");
    }
    // The rest is further down.
    terminal.press(&["G"]);
    terminal.await_text("standalone observes without rules");

    terminal.press(&["F9"]);
    let screen = terminal.await_text("It cannot be ended from here");
    assert!(screen.contains("standalone only observes"), "{screen}");
    terminal.press(&["y"]);
    terminal.await_screen("the detail", |screen| !screen.contains("cannot be ended"));
    terminal.press(&["q"]);
    terminal.await_text("exit=0");
    assert_clean(&terminal);
    assert!(crowd.stuck().into_iter().all(proc::alive), "it signals nothing");
}

#[test]
fn a_writer_that_is_let_go_or_ends_leaves_the_table_and_is_in_the_log() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let mut crowd = Plan::stuck(2).start();
    let terminal = Terminal::open(&tmux, 80, 24);
    top(&terminal, &standalone(&crowd));
    terminal.await_text("2 stalled");

    let gone = crowd.stuck()[0];
    crowd.order(tests::order::Order::Kill { pid: gone });

    let screen = terminal.await_text("1 stalled");
    assert!(!screen.contains(&format!(" {gone} ")), "{screen}");
    terminal.press(&["e"]);
    terminal.await_screen("the end in the log", |screen| {
        screen
            .lines()
            .any(|line| line.contains("stall.ended") && line.contains(&format!("[{gone}]")))
    });
}

#[test]
fn an_agents_rule_counts_down_and_a_filter_and_groups_work() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let (crowd, scratch) = (Plan::stuck(3).start(), Scratch::new());
    let config = Config::of(&crowd, &scratch)
        .stalled_for("10m")
        .served(&scratch, "");
    let _agent = Agent::run(&config, &scratch);
    let terminal = Terminal::open(&tmux, 80, 24);

    top(&terminal, &of_agent(&scratch));

    let screen = terminal.await_text("would kill in 9m");
    assert!(screen.contains("agent 0.1.0  dry-run"), "{screen}");
    let left = |screen: &str| {
        let (_, rest) = screen.split_once("would kill in ")?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let before = left(&screen);
    terminal.await_screen("a lower count", |screen| {
        left(screen).is_some() && left(screen) != before
    });

    let [one, ..] = crowd.stuck()[..] else {
        panic!("three writers")
    };
    terminal.press(&["/"]);
    terminal.press(&["-l", &format!("usr=root {one}")]);
    terminal.await_text("did you mean `user`?");
    terminal.press(&["C-u"]);
    terminal.press(&["-l", &format!("user=root {one}")]);
    terminal.press(&["Enter"]);
    terminal.await_text("(1 of 3)");
    terminal.press(&["Escape"]);
    terminal.await_screen("all of them", |screen| !screen.contains("(1 of 3)"));
    terminal.press(&["t"]);
    let heading = format!("3 {}[{}]", crowd.name(), crowd.pid());
    terminal.await_text(&heading);
    terminal.press(&["Right"]);
    terminal.await_text(&format!(" {one} "));
    terminal.resize(200, 60);
    let screen = terminal.await_text("Blocked times");
    for text in ["Stalls", "Detail", "Events", "COMMAND"] {
        assert!(screen.contains(text), "{text:?} is missing:\n{screen}");
    }
}

/// Writers of one name of which two are behind the same `sleep`, one after the other, two wait for
/// each other, and one has a reader of another name.
struct Tangle {
    name: String,
    sleep: Family,
    chain: [Family; 2],
    circle: [Family; 2],
    _other: Crowd,
    _dir: Scratch,
}

impl Tangle {
    fn start() -> Self {
        let dir = Scratch::new();
        let name = names::unique("yes");
        let yes = dir.named(Path::new("/usr/bin/yes"), &name);
        let [(a_rx, a_tx), (b_rx, b_tx)] = [(); 2].map(|()| pipe().expect("a pipe"));
        let sleep = between(Path::new("sleep"), &["600"], b_rx, Stdio::null());
        let second = between(&yes, &[], a_rx, b_tx);
        let first = between(&yes, &[], Stdio::null(), a_tx);
        let [(there_rx, there_tx), (back_rx, back_tx)] = [(); 2].map(|()| pipe().expect("a pipe"));
        let one = between(&yes, &[], back_rx, there_tx);
        let other = between(&yes, &[], there_rx, back_tx);
        let tangle = Self {
            _other: Plan::stuck(1).writers_named(&name).start(),
            name,
            sleep,
            chain: [first, second],
            circle: [one, other],
            _dir: dir,
        };
        for writer in tangle.chain.iter().chain(&tangle.circle) {
            proc::await_blocked_write(writer.pid());
        }
        tangle
    }

    /// Asserts that the terminal's `top` tells who waits for whom.
    #[track_caller]
    fn assert_told(&self, terminal: &Terminal) {
        let ([first, second], [one, other]) = (&self.chain, &self.circle);
        let (name, sleep) = (&self.name, self.sleep.pid());
        // The table cuts names, and no pids.
        let culprit = format!("[{sleep}] ");
        terminal.await_text("5 stalled");
        filter(terminal, "culprit.comm=sleep");
        let screen = terminal.await_screen("two of them", |screen| {
            screen.contains("(2 of 5)") && screen.contains(&culprit)
        });
        for writer in [first, second] {
            let row = row_of(&screen, writer.pid()).unwrap_or_else(|| panic!("no row:\n{screen}"));
            assert!(row.contains(&culprit), "{screen}");
        }

        filter(terminal, &format!("culprit.comm=sleep {}", first.pid()));
        terminal.press(&["Enter"]);
        let screen = terminal.await_text("does not read");
        let tree = lines_after(&screen, "chain", 3);
        let root = format!("{name}[{}]", first.pid());
        assert!(tree[0].ends_with(&root), "{screen}");
        assert!(
            tree[1].contains(&format!("to {name}[{}], asleep", second.pid())),
            "{screen}"
        );
        assert!(
            tree[2].contains(&format!("to sleep[{sleep}], asleep")),
            "{screen}"
        );
        assert!(tree[2].ends_with("does not read"), "{screen}");
        close_detail(terminal);

        filter(terminal, "deadlock=true");
        let screen = terminal.await_screen("two of them", |screen| {
            screen.contains("(2 of 5)") && screen.contains("deadlock ")
        });
        for writer in [one, other] {
            let row = row_of(&screen, writer.pid()).unwrap_or_else(|| panic!("no row:\n{screen}"));
            assert!(row.contains("deadlock"), "{screen}");
        }
        filter(terminal, &format!("deadlock=true {}", one.pid()));
        terminal.press(&["Enter"]);
        let screen = terminal.await_text(": a deadlock");
        let tree = lines_after(&screen, "chain", 3);
        assert!(
            tree[1].contains(&format!("to {name}[{}], asleep", other.pid())),
            "{screen}"
        );
        let back = format!("to {name}[{}]: a deadlock", one.pid());
        assert!(tree[2].ends_with(&back), "{screen}");
        close_detail(terminal);
    }
}

/// Goes back to the table alone. Escape and a key right after it would be one key with Alt.
#[track_caller]
fn close_detail(terminal: &Terminal) {
    terminal.press(&["Escape"]);
    terminal.await_screen("table alone", |screen| !screen.contains(" Detail "));
}

/// Types a filter in place of the one before.
#[track_caller]
fn filter(terminal: &Terminal, text: &str) {
    terminal.press(&["/"]);
    terminal.press(&["C-u"]);
    terminal.press(&["-l", text]);
    terminal.await_screen("the filter", |screen| {
        screen.lines().any(|line| line.starts_with(&format!("/{text} ")))
    });
    terminal.press(&["Enter"]);
}

fn row_of(screen: &str, pid: u32) -> Option<&str> {
    screen.lines().find(|line| line.contains(&format!(" {pid} ")))
}

#[track_caller]
fn lines_after<'a>(screen: &'a str, start: &str, count: usize) -> Vec<&'a str> {
    let lines = screen.lines().skip_while(|line| !line.starts_with(start));
    let lines: Vec<_> = lines.take(count).collect();
    assert_eq!(lines.len(), count, "{screen}");
    lines
}

#[test]
fn standalone_tells_chains_and_deadlocks_and_filters_by_them_and_sees_a_reader_stop() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let tangle = Tangle::start();
    let terminal = Terminal::open(&tmux, 100, 40);

    top(&terminal, &format!("--standalone --comm {}", tangle.name));

    tangle.assert_told(&terminal);
    tangle.sleep.signal(Signal::STOP);
    filter(&terminal, "reader.state=stopped");
    let screen = terminal.await_text("(1 of 5)");
    assert!(row_of(&screen, tangle.chain[1].pid()).is_some(), "{screen}");
}

#[test]
fn where_a_reader_is_gone_standalone_finds_the_one_that_is_left() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let dir = Scratch::new();
    let name = names::unique("yes");
    let yes = dir.named(Path::new("/usr/bin/yes"), &name);
    let (rx, tx) = pipe().expect("a pipe");
    let also_rx = rx.try_clone().expect("another reading end");
    let sleeps = [rx, also_rx].map(|rx| between(Path::new("sleep"), &["600"], rx, Stdio::null()));
    let writer = between(&yes, &[], Stdio::null(), tx);
    proc::await_blocked_write(writer.pid());
    let terminal = Terminal::open(&tmux, 100, 30);
    top(&terminal, &format!("--standalone --comm {name}"));
    let screen = terminal.await_screen("a culprit", |screen| screen.contains("] "));
    let is_culprit = |sleep: &&Family| screen.contains(&format!("[{}] ", sleep.pid()));
    let (named, left): (Vec<&Family>, Vec<&Family>) = sleeps.iter().partition(is_culprit);
    let ([named], [left]) = (&named[..], &left[..]) else {
        panic!("one of two is the culprit:\n{screen}")
    };

    named.signal(Signal::KILL);

    terminal.await_text(&format!("[{}] ", left.pid()));
    assert!(!terminal.screen().contains(&format!("[{}] ", named.pid())));
}

#[test]
fn an_agents_chains_and_deadlocks_are_told_and_filtered_by() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let (tangle, scratch) = (Tangle::start(), Scratch::new());
    let parent = proc::comm(process::id()).expect("this process has a name");
    let config = Config::new(&tangle.name, &parent, &scratch.path("state"))
        .stalled_for("10m")
        .report_after("1s")
        .served(&scratch, "");
    let _agent = Agent::run(&config, &scratch);
    let terminal = Terminal::open(&tmux, 100, 40);

    top(&terminal, &of_agent(&scratch));

    tangle.assert_told(&terminal);
    terminal.press(&["Enter"]);
    let screen = terminal.await_text("1. the-rule: matches, and decides");
    let why = lines_after(&screen, "why", 3);
    for (line, words) in why[1..]
        .iter()
        .zip([["yes", "comm", &tangle.name], ["yes", "parent", &parent]])
    {
        let told: Vec<_> = line.split_whitespace().collect();
        // What is asked for, and what was found.
        assert_eq!(told, [&words[..], &words[2..]].concat(), "{screen}");
    }
}

#[test]
fn a_kill_that_is_asked_for_goes_by_the_agents_protocol_and_its_row_says_so() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let (mut crowd, scratch) = (Plan::stuck(2).start(), Scratch::new());
    let config = Config::of(&crowd, &scratch)
        .stalled_for("10m")
        .served(&scratch, "");
    let mut agent = Agent::run(&config, &scratch);
    let terminal = Terminal::open(&tmux, 80, 24);
    top(&terminal, &of_agent(&scratch));
    terminal.await_text("2 stalled");
    let pids = crowd.stuck();
    let named = |screen: &str| {
        pids.iter()
            .copied()
            .find(|pid| screen.contains(&format!("pid {pid}")))
    };

    terminal.press(&["d", "d"]);
    let screen = terminal.await_text("End it? y / N");
    let asked = named(&screen).unwrap_or_else(|| panic!("no pid:\n{screen}"));
    let spared = pids
        .iter()
        .copied()
        .find(|pid| *pid != asked)
        .expect("two writers");
    for text in [
        &format!("SIGTERM to {asked}"),
        &format!("then SIGKILL to {asked}"),
        crowd.writer_name(),
        "stuck write",
    ] {
        assert!(screen.contains(text), "{text:?} is missing:\n{screen}");
    }
    terminal.press(&["Enter"]);
    terminal.await_screen("the question gone", |screen| !screen.contains("End it?"));
    assert!(proc::alive(asked), "Enter is no");

    // The agent wants to have watched it for itself first; what it refuses, the screen says.
    let ended = wait::until("the kill that was asked for", Duration::from_secs(40), || {
        terminal.press(&["F9", "y"]);
        wait::until_or_none(Duration::from_secs(3), || {
            Some(terminal.screen()).filter(|screen| screen.contains("ended by SIG"))
        })
    });
    let row = ended
        .lines()
        .find(|line| line.contains("ended by SIG"))
        .expect("its row");
    assert!(row.contains(&format!(" {asked} ")), "{ended}");
    assert!(matches!(crowd.await_exit(asked), Exit::Signal(_)));
    assert!(proc::alive(spared));
    let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(asked));
    assert_eq!(confirmed.rule.as_deref(), Some("manual"));
    let planned = agent::journal(&config.journal());
    assert!(
        planned
            .iter()
            .any(|event| event.kind == "kill.planned" && event.is_of(asked))
    );
    assert!(
        !planned
            .iter()
            .any(|event| event.kind.starts_with("kill.") && event.is_of(spared))
    );
}

#[test]
fn a_user_without_the_right_sees_everything_and_can_end_nothing() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let (crowd, scratch) = (Plan::stuck(1).start(), Scratch::new());
    let config = Config::of(&crowd, &scratch)
        .stalled_for("10m")
        .served(&scratch, "group = \"65534\"\n");
    let _agent = Agent::run(&config, &scratch);
    let terminal = Terminal::open(&tmux, 80, 24);
    let program = scratch.for_everyone(&binary::pipestall());

    terminal.run(&format!(
        "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {} top {}",
        program.display(),
        of_agent(&scratch)
    ));

    terminal.await_text("1 stalled");
    terminal.press(&["F9"]);
    let screen = terminal.await_text("It cannot be ended from here");
    assert!(screen.contains("operators"), "{screen}");
    terminal.press(&["y"]);
    terminal.await_screen("the table", |screen| !screen.contains("cannot be ended"));
    assert!(proc::alive(crowd.writer()));
}

#[test]
fn a_broken_connection_is_said_with_the_age_of_the_data_and_made_again() {
    let tmux = need!(need::tmux());
    need!(need::bpf());
    let (crowd, scratch) = (Plan::stuck(1).start(), Scratch::new());
    let config = Config::of(&crowd, &scratch)
        .stalled_for("10m")
        .served(&scratch, "");
    let terminal = Terminal::open(&tmux, 80, 24);

    top(&terminal, &of_agent(&scratch));
    let screen = terminal.await_text("No agent answers");
    assert!(screen.contains("NO DATA") && screen.contains("retry"), "{screen}");

    let agent = Agent::run(&config, &scratch);
    terminal.await_text("1 stalled");
    terminal.await_text("live");
    agent.stop();
    let screen = terminal.await_text("OLD");
    assert!(!screen.contains("live"), "{screen}");
    assert!(
        screen.contains("was: would kill"),
        "old rows are not shown as live:\n{screen}"
    );

    let _agent = Agent::run(&config, &scratch);
    let screen = terminal.await_text("live");
    assert!(!screen.contains("was:"), "{screen}");
}

#[test]
fn the_terminal_is_given_back_by_suspend_and_by_signals() {
    let tmux = need!(need::tmux());
    let scratch = Scratch::new();
    let terminal = Terminal::open(&tmux, 80, 24);
    top(&terminal, &of_agent(&scratch));
    terminal.await_text("No agent answers");
    assert_eq!(terminal.tells("alternate_on"), "1");
    terminal.press(&["m"]);
    terminal.await_text("clicks select here");

    terminal.press(&["C-z"]);
    terminal.await_screen("the shell", |screen| !screen.contains("No agent answers"));
    assert_clean(&terminal);
    terminal.run("clear; fg");
    terminal.await_text("No agent answers");
    assert_eq!(terminal.tells("alternate_on"), "1");
    terminal.press(&["?"]);
    terminal.await_text("Getting about");

    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let pidfd = PidFd::open(pid_of_top(&terminal)).expect("a pidfd of top");
        pidfd.signal(signal).expect("a signal to top");
        assert!(pidfd.exited(wait::PATIENCE), "{signal:?}");
        terminal.await_screen("the shell", |screen| !screen.contains("pipestall  "));
        assert_clean(&terminal);
        top(&terminal, &of_agent(&scratch));
        terminal.await_text("No agent answers");
    }
    terminal.press(&["q"]);
    terminal.await_text("exit=0");
    assert_clean(&terminal);
}

/// Not a test by itself: what panics while it has the terminal.
#[test]
#[ignore = "run by the test below, on a terminal"]
fn panicking() {
    let _screen = probe_user::tui::terminal::Screen::open().expect("a terminal");
    panic!("on purpose");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let tmux = need!(need::tmux());
    let terminal = Terminal::open(&tmux, 80, 24);
    let this = std::env::current_exe().expect("a test knows its own executable");

    terminal.run(&format!(
        "clear; RUST_BACKTRACE=0 {} --ignored --exact panicking --nocapture",
        this.display()
    ));

    // On the shell's screen: what is told on the other one goes with it.
    terminal.await_screen("the end of it", |screen| screen.contains("test result: FAILED"));
    assert!(terminal.screen().contains("on purpose"), "{}", terminal.screen());
    assert_clean(&terminal);
}

#[test]
fn a_stop_from_outside_gives_the_terminal_back_too() {
    let tmux = need!(need::tmux());
    let scratch = Scratch::new();
    let terminal = Terminal::open(&tmux, 80, 24);
    top(&terminal, &of_agent(&scratch));
    terminal.await_text("No agent answers");

    let pidfd = PidFd::open(pid_of_top(&terminal)).expect("a pidfd of top");
    pidfd.signal(Signal::TSTP).expect("a signal to top");
    terminal.await_screen("the shell", |screen| !screen.contains("No agent answers"));
    assert_clean(&terminal);
    terminal.run("fg");
    terminal.await_text("No agent answers");
}

#[test]
fn what_the_terminal_cannot_show_is_not_drawn() {
    let tmux = need!(need::tmux());
    let scratch = Scratch::new();
    let shown = |environment: &str| {
        let terminal = Terminal::open(&tmux, 80, 24);
        terminal.run(environment);
        top(&terminal, &of_agent(&scratch));
        terminal.await_text("No agent answers");
        terminal.styled()
    };
    // SGR 30 to 37 and 90 to 97 are colors.
    let is_colored = |styled: &str| {
        styled.split("\u{1b}[").skip(1).any(|code| {
            let code = code.split('m').next().unwrap_or_default();
            code.split(';')
                .any(|part| matches!(part.parse::<u8>(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107)))
        })
    };
    let usual = shown("true");
    assert!(is_colored(&usual) && !usual.is_ascii(), "{usual}");
    let plain = shown("export NO_COLOR=1");
    assert!(!is_colored(&plain), "{plain:?}");
    let ascii = shown("export LC_ALL=C");
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let done = command::run(
        Command::new(binary::pipestall()).arg("top"),
        Duration::from_secs(20),
    );
    done.expect_code(2)
        .expect_one_clear_line(&["top needs a terminal", "pipestall ps", "pipestall watch"]);
}

#[test]
fn a_socket_that_is_none_is_told_and_tried_again() {
    let tmux = need!(need::tmux());
    let scratch = Scratch::new();
    let file: &Path = &scratch.write("api.sock", "not a socket");
    assert!(file.is_file());
    let terminal = Terminal::open(&tmux, 80, 24);
    top(&terminal, &of_agent(&scratch));
    let screen = terminal.await_text("retry");
    assert!(screen.contains("NO DATA"), "{screen}");
}
