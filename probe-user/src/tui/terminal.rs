//! The terminal: taken over while the dashboard is shown, and given back however it ends.

use std::{
    io::{self, IsTerminal as _, Stdout, stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use crossterm::{
    cursor::Show,
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};
use rustix::process::{Signal, getpid, kill_process};

use super::view::Look;

/// Whether the terminal is ours, for whoever has to give it back without the guard.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It cannot be written to or set up.
    pub fn open() -> Result<Self> {
        restore_on_panic();
        let screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(stdout())).context("cannot use the terminal")?,
            mouse: false,
        };
        Self::take()?;
        Ok(screen)
    }

    /// Columns and lines.
    ///
    /// # Errors
    /// The terminal does not say.
    pub fn size(&self) -> Result<(u16, u16)> {
        let size = self.terminal.size().context("cannot tell the terminal's size")?;
        Ok((size.width, size.height))
    }

    /// Draws a frame; what has not changed is not written.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal.draw(draw).context("cannot write to the terminal")?;
        Ok(())
    }

    /// Forgets what is on the screen, so that the next frame is written as a whole.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn redraw(&mut self) -> Result<()> {
        // Terminal::clear asks the terminal where its cursor is, and whoever waits for keys takes the answer.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout())).context("cannot use the terminal")?;
        execute!(stdout(), Clear(ClearType::All)).context("cannot write to the terminal")
    }

    /// Takes the mouse, or gives it back.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn mouse(&mut self, on: bool) -> Result<()> {
        self.mouse = on;
        if on {
            execute!(stdout(), EnableMouseCapture)
        } else {
            execute!(stdout(), DisableMouseCapture)
        }
        .context("cannot write to the terminal")
    }

    /// Gives the terminal back and stops this process; returns once somebody continues it.
    ///
    /// # Errors
    /// The terminal cannot be taken again.
    pub fn suspend(&mut self) -> Result<()> {
        restore();
        // Not SIGTSTP, which is handled: it is what leads here.
        kill_process(getpid(), Signal::STOP).context("cannot stop")?;
        self.resume()
    }

    /// Takes the terminal again after whatever was done to it while this process was stopped.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn resume(&mut self) -> Result<()> {
        Self::take()?;
        if self.mouse {
            self.mouse(true)?;
        }
        self.redraw()
    }

    fn take() -> Result<()> {
        enable_raw_mode().context("cannot set the terminal up")?;
        TAKEN.store(true, Ordering::Relaxed);
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste).context("cannot write to the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. Nothing can be done about errors: it may be gone.
fn restore() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = execute!(
            stdout(),
            DisableMouseCapture,
            DisableBracketedPaste,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

/// A panic's message belongs on the screen that it leaves behind, not on ours.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// Why there can be no dashboard here, if so.
#[must_use]
pub fn missing(variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    if !stdout().is_terminal() || !io::stdin().is_terminal() {
        return Some(
            "top needs a terminal to draw on and to read keys from; `pipestall ps` prints what is stalled \
             once, `pipestall watch` prints what happens",
        );
    }
    (variable("TERM").as_deref() == Some("dumb")).then_some(
        "this terminal (TERM=dumb) cannot place text; `pipestall ps` prints what is stalled once, \
         `pipestall watch` prints what happens",
    )
}

/// What the terminal can show, by the user's environment.
#[must_use]
pub fn look(variable: impl Fn(&str) -> Option<String>) -> Look {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    let unicode = locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    Look {
        color: set("NO_COLOR").is_none(),
        unicode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_and_characters_are_those_that_the_environment_asks_for() {
        for (variables, color, unicode) in [
            (&[("LANG", "en_US.UTF-8")][..], true, true),
            (&[("LANG", "C.utf8"), ("NO_COLOR", "1")], false, true),
            (&[("LANG", "C.UTF-8"), ("NO_COLOR", "")], true, true),
            (&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], true, false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "de_DE.UTF-8")], true, true),
            (&[], true, false),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(look(variable), Look { color, unicode }, "{variables:?}");
        }
    }
}
