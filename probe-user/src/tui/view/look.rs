//! What a terminal can show, and how things stand out.

use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier, Style},
};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colors.
    pub color: bool,
    /// Anything beyond ASCII.
    pub unicode: bool,
}

impl Look {
    /// Everything.
    pub const FULL: Self = Self {
        color: true,
        unicode: true,
    };

    /// Takes out of a finished frame what the terminal cannot show.
    pub(super) fn apply(self, buffer: &mut Buffer) {
        if self.color && self.unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !self.color {
                cell.fg = Color::Reset;
                cell.bg = Color::Reset;
                cell.underline_color = Color::Reset;
            }
            if !self.unicode && !cell.symbol().is_ascii() {
                let ascii = cell.symbol().chars().next().map_or(' ', ascii);
                cell.set_char(ascii);
            }
        }
    }
}

/// What stands for a character that a terminal does not have.
const fn ascii(c: char) -> char {
    match c {
        '─' | '▁' => '-',
        '│' | '├' => '|',
        '┌' | '┐' | '┘' | '╭' | '╮' | '╯' | '╰' => '+',
        '└' => '`',
        '…' => '~',
        '▂' | '▃' => '=',
        '▄' | '▅' | '▆' | '▇' | '█' => '#',
        '▼' | '▾' => 'v',
        '▲' => '^',
        '▸' | '→' => '>',
        '←' | '≤' => '<',
        '●' => '*',
        _ => '?',
    }
}

/// How something stands out. Without colors, bold, dim and reverse are left; none means
/// anything by its color alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// It does not.
    Plain,
    /// It is less than the rest.
    Dim,
    /// It has the keyboard, or is a key.
    Focus,
    /// It is as it should be.
    Good,
    /// Somebody should know.
    Warn,
    /// Something is being ended, or should be.
    Alarm,
    /// It is no more what is.
    Stale,
    /// It is wrong.
    Wrong,
}

impl Tone {
    pub(super) const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Dim => style.fg(Color::DarkGray),
            Self::Focus => style.fg(Color::Cyan).add_modifier(Modifier::BOLD),
            Self::Good => style.fg(Color::Green),
            Self::Warn => style.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Self::Alarm => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            Self::Stale => style.add_modifier(Modifier::DIM),
            Self::Wrong => style
                .fg(Color::Red)
                .add_modifier(Modifier::UNDERLINED)
                .add_modifier(Modifier::BOLD),
        }
    }
}
