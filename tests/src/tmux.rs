//! A terminal of the test's own: a tmux server that nobody else uses, with one pane. What a
//! program draws is read from there as a person would see it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::family::Family;
use crate::scratch::Scratch;
use crate::{command, wait};

/// A terminal with a shell in it. All of it is ended with its guard.
#[derive(Debug)]
pub struct Terminal {
    _server: Family,
    tmux: PathBuf,
    socket: PathBuf,
    _dir: Scratch,
}

impl Terminal {
    /// Opens one of this size, with a shell whose locale is UTF-8 and whose prompt is `$ `.
    #[track_caller]
    pub fn open(tmux: &Path, width: u16, height: u16) -> Self {
        let dir = Scratch::new();
        let socket = dir.path("tmux");
        let mut server = Command::new(tmux);
        // In the foreground, so that it is our child; it stays without sessions.
        server.arg("-D").arg("-S").arg(&socket).args(["-f", "/dev/null"]);
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        server.env_remove("TMUX");
        let server = Family::start(&mut server);
        wait::until("tmux listens", wait::PATIENCE, || socket.exists().then_some(()));
        let terminal = Self {
            _server: server,
            tmux: tmux.to_owned(),
            socket,
            _dir: dir,
        };
        let (width, height) = (width.to_string(), height.to_string());
        let mut shell = vec!["new-session", "-d", "-x", &width, "-y", &height];
        shell.extend(["env", "-u", "NO_COLOR", "LC_ALL=C.UTF-8", "PS1=$ ", "sh", "-i"]);
        terminal.tmux(&shell);
        terminal.await_screen("a prompt", |screen| screen.starts_with('$'));
        terminal
    }

    /// Types a line into the shell.
    #[track_caller]
    pub fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    /// Presses keys, by tmux's names for them: `Enter`, `F9`, `C-z`, `j`.
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Gives the terminal another size.
    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Reads the screen.
    #[track_caller]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Reads the screen with its colors and such, as escape sequences.
    #[track_caller]
    pub fn styled(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Tells something about the pane by tmux's name for it, such as `alternate_on`.
    #[track_caller]
    pub fn tells(&self, what: &str) -> String {
        self.tmux(&["display-message", "-p", &format!("#{{{what}}}")])
            .trim()
            .to_owned()
    }

    /// Waits for a screen, and returns it. It is one that does not change at once: a frame may
    /// have been drawn in part only.
    #[track_caller]
    pub fn await_screen(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = wait::until_or_none(wait::PATIENCE, || {
            let before = std::mem::replace(&mut last, self.screen());
            (last == before && is_it(&last)).then_some(before)
        });
        found.unwrap_or_else(|| panic!("no {what} on the screen within {:?}:\n{last}", wait::PATIENCE))
    }

    /// Waits for a text on the screen, and returns the screen.
    #[track_caller]
    pub fn await_text(&self, text: &str) -> String {
        self.await_screen(&format!("{text:?}"), |screen| screen.contains(text))
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new(&self.tmux);
        tmux.env_remove("TMUX")
            .arg("-S")
            .arg(&self.socket)
            .args(arguments);
        let done = command::run(&mut tmux, wait::PATIENCE);
        done.expect_code(0);
        done.stdout
    }
}
