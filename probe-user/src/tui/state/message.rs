//! What goes into the state, and what comes out.

use crossterm::event::KeyEvent;

use super::{kill::Rights, reasons::Told};
use crate::{
    core::model::Mono,
    tui::model::{Event, Snapshot},
};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Message {
    /// A key.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The screen has this size now: columns and lines.
    Resize(u16, u16),
    /// A mouse button was pressed there: column and line.
    Click(u16, u16),
    /// The wheel was turned by so many lines, down where that is positive.
    Wheel(i32),
    /// The source is connected.
    Connected,
    /// The source is not connected; why, and when it tries again.
    Lost(String, Mono),
    /// What may be done from here.
    Rights(Rights),
    /// All that is known.
    Snapshot(Box<Snapshot>),
    /// An event.
    Event(Box<Event>),
    /// So many events were lost.
    Missed(u64),
    /// The answer to a kill that was asked for: of which stall, and why not if it is refused.
    Answer(String, Result<(), String>),
    /// Why each rule does or does not match a stall, or why that is not told.
    Explained(String, Told),
}

/// Something to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Leave.
    Quit,
    /// Stop until somebody continues the program.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Take the mouse, or give it back.
    Mouse(bool),
    /// Ask the agent to end the process of this stall.
    Kill(String),
    /// Ask why each rule does or does not match this stall.
    Explain(String),
}
