//! The one loop: keys, data, signals and time go into the state, and what comes out is done.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, Result, bail};
use crossterm::event::{Event, EventStream, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use futures_util::{FutureExt as _, StreamExt as _};
use rustix::process::{Signal, kill_current_process_group};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use super::{
    model::Row,
    source::{Ask, Source, Started},
    state::{Command, Message, State},
    terminal::Screen,
    view::{self, Look},
};
use crate::clock;

/// What changes by itself is drawn so often: four times a second.
const FRAME: Duration = Duration::from_millis(250);

/// Why the source does not do what it is asked.
const DEAF: &str = "the source takes no requests";

/// What is to be done after something happened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    Draw,
    Leave,
}

/// Shows the dashboard until somebody leaves it, or a signal ends it.
///
/// # Errors
/// The terminal fails, or the source ends by itself. A source that cannot tell anything is shown,
/// and no error.
pub async fn run(source: Source, look: Look) -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut hung_up = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let mut stopped = signal(SignalKind::from_raw(Signal::TSTP.as_raw())).context("cannot handle SIGTSTP")?;
    let mut continued =
        signal(SignalKind::from_raw(Signal::CONT.as_raw())).context("cannot handle SIGCONT")?;
    let mut ticks = tokio::time::interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut screen = Screen::open()?;
    let mut input = EventStream::new();
    let (width, height) = screen.size()?;
    let mut top = Top {
        state: State::new(width, height),
        source: source.start(),
    };
    loop {
        let then = tokio::select! {
            biased;
            _ = terminated.recv() => Then::Leave,
            _ = hung_up.recv() => Then::Leave,
            _ = interrupted.recv() => Then::Leave,
            _ = stopped.recv() => { screen.suspend()?; Then::Draw }
            _ = continued.recv() => { screen.resume()?; Then::Draw }
            event = input.next() => match event {
                Some(event) => top.input(event.context("cannot read keys")?, &mut input, &mut screen)?,
                None => Then::Leave,
            },
            _ = ticks.tick() => Then::Draw,
            message = top.source.messages.recv() => match message {
                Some(message) => top.update(message, &mut screen)?,
                None => bail!("what feeds the dashboard has ended"),
            },
        };
        match then {
            Then::Wait => {}
            Then::Leave => return Ok(()),
            Then::Draw => {
                let mut drawn = None;
                let now = clock::now();
                screen.draw(|frame| drawn = Some(view::draw(frame, &top.state, now, look)))?;
                top.state.settle(drawn.unwrap_or_default());
            }
        }
    }
}

struct Top {
    state: State,
    source: Started,
}

impl Top {
    /// Takes all that was typed so far, so that a key that is held down does not draw a frame
    /// for each time.
    fn input(&mut self, first: Event, input: &mut EventStream, screen: &mut Screen) -> Result<Then> {
        let mut event = Some(first);
        while let Some(taken) = event {
            if let Some(message) = message(taken)
                && self.update(message, screen)? == Then::Leave
            {
                return Ok(Then::Leave);
            }
            event = match input.next().now_or_never() {
                Some(Some(next)) => Some(next.context("cannot read keys")?),
                Some(None) | None => None,
            };
        }
        Ok(Then::Draw)
    }

    /// Data waits for the next frame; only what somebody does here is drawn at once.
    fn update(&mut self, message: Message, screen: &mut Screen) -> Result<Then> {
        let now = clock::now();
        let mut commands = VecDeque::from(self.state.update(message, now));
        discard(self.state.take_spent());
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Quit => return Ok(Then::Leave),
                // As the terminal would: to all of the job, and to us, who give the terminal back first.
                Command::Suspend => kill_current_process_group(Signal::TSTP).context("cannot stop")?,
                Command::Redraw => screen.redraw()?,
                Command::Mouse(on) => screen.mouse(on)?,
                Command::Kill(stall) => {
                    if !self.source.ask(Ask::Kill(stall.clone())) {
                        let refused = Err(DEAF.to_owned());
                        commands.extend(self.state.update(Message::Answer(stall, refused), now));
                    }
                }
                Command::Explain(stall) => {
                    if !self.source.ask(Ask::Explain(stall.clone())) {
                        let refused = Err(DEAF.to_owned());
                        commands.extend(self.state.update(Message::Explained(stall, refused), now));
                    }
                }
            }
        }
        Ok(Then::Wait)
    }
}

/// Frees rows on another thread.
pub fn discard(rows: Vec<Row>) {
    if !rows.is_empty() {
        drop(tokio::task::spawn_blocking(move || drop(rows)));
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the mouse does no more here")]
fn message(event: Event) -> Option<Message> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(Message::Key(key)),
        Event::Paste(text) => Some(Message::Paste(text)),
        Event::Resize(width, height) => Some(Message::Resize(width, height)),
        Event::Mouse(MouseEvent {
            kind, column, row, ..
        }) => match kind {
            MouseEventKind::Down(MouseButton::Left) => Some(Message::Click(column, row)),
            MouseEventKind::ScrollUp => Some(Message::Wheel(-1)),
            MouseEventKind::ScrollDown => Some(Message::Wheel(1)),
            _ => None,
        },
        Event::Key(_) | Event::FocusGained | Event::FocusLost => None,
    }
}
