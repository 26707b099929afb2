//! One table of keys and what they do. Help, the footer and the README are made from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for while the table or a pane has the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each does")]
pub enum Action {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    Detail,
    Back,
    NextPane,
    PreviousPane,
    Log,
    Histogram,
    Filter,
    Sort,
    Reverse,
    Group,
    Pause,
    Kill,
    Mouse,
    Redraw,
    Suspend,
    Help,
    Quit,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Getting about.
    Move,
    /// What is shown.
    Show,
    /// What is done.
    Act,
}

impl Topic {
    /// All, in the order in which they are explained.
    pub const ALL: [Self; 3] = [Self::Move, Self::Show, Self::Act];

    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Move => "Getting about",
            Self::Show => "What is shown",
            Self::Act => "What is done",
        }
    }
}

/// A key, with what is held down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Press(KeyModifiers, KeyCode);

/// Keys that do the same.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// What they are for.
    pub topic: Topic,
    /// Each way to ask for it: one key, or several one after another.
    pub ways: &'static [&'static [Press]],
    /// What they ask for.
    pub action: Action,
    /// The same in words.
    pub what: &'static str,
}

const fn c(c: char) -> Press {
    Press(KeyModifiers::NONE, KeyCode::Char(c))
}
const fn ctrl(c: char) -> Press {
    Press(KeyModifiers::CONTROL, KeyCode::Char(c))
}
const fn key(code: KeyCode) -> Press {
    Press(KeyModifiers::NONE, code)
}
const fn f(n: u8) -> Press {
    key(KeyCode::F(n))
}

macro_rules! keys {
    ($($topic:ident $action:ident: $([$($press:expr),+])|+ => $what:literal;)*) => {
        &[$(Binding {
            topic: Topic::$topic,
            ways: &[$(&[$($press),+]),+],
            action: Action::$action,
            what: $what,
        }),*]
    };
}

/// Every key.
pub const BINDINGS: &[Binding] = keys! {
    Move Up: [key(KeyCode::Up)] | [c('k')] => "up; in a pane, scroll";
    Move Down: [key(KeyCode::Down)] | [c('j')] => "down; in a pane, scroll";
    Move Left: [key(KeyCode::Left)] | [c('h')] => "fold a group; scroll commands back";
    Move Right: [key(KeyCode::Right)] | [c('l')] => "unfold a group; scroll commands on";
    Move PageUp: [key(KeyCode::PageUp)] | [ctrl('b')] => "a page up";
    Move PageDown: [key(KeyCode::PageDown)] | [ctrl('f')] => "a page down";
    Move First: [c('g')] | [key(KeyCode::Home)] => "first";
    Move Last: [c('G')] | [key(KeyCode::End)] => "last";
    Move NextPane: [key(KeyCode::Tab)] => "next pane: stalls, detail, events, blocked times";
    Move PreviousPane: [key(KeyCode::BackTab)] => "previous pane";
    Move Back: [key(KeyCode::Esc)] => "back: close the pane, then clear the filter";
    Show Detail: [key(KeyCode::Enter)] => "detail: command line, chain, rules; on a group, fold it";
    Show Log: [c('e')] => "events";
    Show Histogram: [c('b')] => "blocked times, as the kernel counts them";
    Show Filter: [c('/')] | [f(4)] => "filter, in the words of a rule's match, or any word";
    Show Sort: [c('s')] | [f(6)] => "sort by the next column";
    Show Reverse: [c('S')] => "reverse the order";
    Show Group: [c('t')] | [f(5)] => "group by parent, unit, culprit, rule, or not";
    Show Pause: [c(' ')] => "pause, and go on";
    Act Kill: [f(9)] | [c('d'), c('d')] => "end the selected writer; asks first";
    Act Mouse: [c('m')] => "mouse on or off (off, the terminal selects text)";
    Act Redraw: [ctrl('l')] => "draw anew";
    Act Suspend: [ctrl('z')] => "suspend; fg comes back";
    Act Help: [c('?')] | [f(1)] => "help";
    Act Quit: [c('q')] | [f(10)] | [ctrl('c')] => "quit";
};

impl Press {
    /// What a terminal reports, without what differs between terminals.
    #[must_use]
    pub fn of(event: KeyEvent) -> Self {
        // A capital is a character of its own; some terminals report Shift with it, some not.
        let shift = if matches!(event.code, KeyCode::Char(_) | KeyCode::BackTab) {
            KeyModifiers::SHIFT
        } else {
            KeyModifiers::NONE
        };
        Self(event.modifiers - shift, event.code)
    }

    /// The key's name.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys have good names")]
    pub fn name(self) -> String {
        let name = match self.1 {
            KeyCode::Char(' ') => "Space".to_owned(),
            KeyCode::Char(c) if self.0.contains(KeyModifiers::CONTROL) => c.to_uppercase().to_string(),
            KeyCode::Char(c) => c.to_string(),
            KeyCode::F(n) => format!("F{n}"),
            KeyCode::PageUp => "PgUp".to_owned(),
            KeyCode::PageDown => "PgDn".to_owned(),
            KeyCode::BackTab => "Shift-Tab".to_owned(),
            other => format!("{other:?}"),
        };
        if self.0.contains(KeyModifiers::CONTROL) {
            format!("Ctrl-{name}")
        } else {
            name
        }
    }
}

impl Binding {
    /// The names of its keys: `PgUp, Ctrl-B`.
    #[must_use]
    pub fn names(&self) -> String {
        let way = |way: &&[Press]| way.iter().map(|press| press.name()).collect::<String>();
        self.ways.iter().map(way).collect::<Vec<_>>().join(", ")
    }
}

/// The keys pressed so far of those that take several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending(Vec<Press>);

impl Pending {
    /// Takes a key; returns what it asks for, if that is complete.
    pub fn take(&mut self, press: Press) -> Option<Action> {
        self.0.push(press);
        if let Some(action) = self.complete() {
            self.0.clear();
            return Some(action);
        }
        if !self.begins() {
            let again = self.0.len() > 1;
            self.0.clear();
            // `d` and then `j` is `j`.
            return if again { self.take(press) } else { None };
        }
        None
    }

    /// The first keys of several, for whoever waits for the rest.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.iter().map(|press| press.name()).collect()
    }

    fn complete(&self) -> Option<Action> {
        let is_it = |binding: &&Binding| binding.ways.contains(&self.0.as_slice());
        BINDINGS.iter().find(is_it).map(|binding| binding.action)
    }

    fn begins(&self) -> bool {
        let mut ways = BINDINGS.iter().flat_map(|binding| binding.ways);
        ways.any(|way| way.starts_with(&self.0))
    }
}

/// The table as Markdown, for the README.
#[must_use]
pub fn markdown() -> String {
    let row = |binding: &Binding| {
        let keys = binding.names().replace(", ", "` `");
        format!("| `{keys}` | {} |\n", binding.what)
    };
    let rows: String = BINDINGS.iter().map(row).collect();
    format!("| keys | what they do |\n| --- | --- |\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(keys: &[Press]) -> Vec<Option<Action>> {
        let mut pending = Pending::default();
        keys.iter().map(|press| pending.take(*press)).collect()
    }

    #[test]
    fn no_key_means_two_things_and_none_is_shadowed_by_a_longer_one() {
        let ways: Vec<_> = BINDINGS.iter().flat_map(|b| b.ways).collect();
        for (i, way) in ways.iter().enumerate() {
            for (j, other) in ways.iter().enumerate() {
                assert!(i == j || !other.starts_with(way), "{way:?} {other:?}");
            }
        }
    }

    #[test]
    fn no_single_letter_ends_a_process() {
        let kill = BINDINGS.iter().find(|b| b.action == Action::Kill).unwrap();
        for way in kill.ways {
            assert!(
                way.len() > 1 || matches!(way[0], Press(_, KeyCode::F(_))),
                "{way:?}"
            );
        }
        assert_eq!(take(&[c('d'), c('d')]), [None, Some(Action::Kill)]);
        assert_eq!(take(&[c('d'), c('j'), c('d')]), [None, Some(Action::Down), None]);
        assert_eq!(take(&[c('k')]), [Some(Action::Up)]);
    }

    #[test]
    fn a_capital_is_the_same_whether_shift_is_reported_or_not() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            let press = Press::of(KeyEvent::new(KeyCode::Char('G'), modifiers));
            assert_eq!(take(&[press]), [Some(Action::Last)]);
            let press = Press::of(KeyEvent::new(KeyCode::BackTab, modifiers));
            assert_eq!(take(&[press]), [Some(Action::PreviousPane)]);
        }
        assert_eq!(take(&[c('x'), key(KeyCode::Insert)]), [None, None]);
    }

    #[test]
    fn keys_have_names_that_people_know() {
        assert_eq!(key(KeyCode::PageUp).name(), "PgUp");
        assert_eq!(ctrl('c').name(), "Ctrl-C");
        assert_eq!(
            BINDINGS
                .iter()
                .find(|b| b.action == Action::Kill)
                .unwrap()
                .names(),
            "F9, dd"
        );
    }
}
