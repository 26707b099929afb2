//! Command patterns in the form that the kernel compares: 16 bytes and a mask.
//!
//! `exact` or `prefix*` costs two ANDs and two compares a pattern.

/// Size of `task_struct.comm`, its NUL included (include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// How many patterns the kernel side holds.
pub const MAX_PATTERNS: usize = 8;

/// A command pattern, ready to be compared with the two halves of a `comm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommPattern {
    /// The bytes to find, zero where the mask is.
    pub value: [u64; 2],
    /// Which bits count.
    pub mask: [u64; 2],
}

/// All patterns of one filter; a task matches if any of the first `len` does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommFilter {
    /// The patterns, the first `len` of them in use.
    pub patterns: [CommPattern; MAX_PATTERNS],
    /// How many are in use.
    pub len: u64,
}

/// Why a text is no command pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// The text is empty, which no command is.
    Empty,
    /// More bytes than the kernel keeps of a command's name (15).
    TooLong,
    /// A `*` anywhere but at the end, or another glob character.
    NotAPrefix,
    /// More patterns than [`MAX_PATTERNS`].
    TooMany,
}

impl PatternError {
    /// Says what is wrong and what would be right.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "is empty; use \"*\" for every command",
            Self::TooLong => {
                "is longer than the 15 bytes that the kernel keeps of a command's name; end it with '*' sooner"
            }
            Self::NotAPrefix => {
                "is not an exact name or a prefix: '*' may only stand at the end, and '?', '[' not at all"
            }
            Self::TooMany => "is one too many: the kernel side compares at most 8 patterns",
        }
    }
}

impl CommPattern {
    /// Parses `name` (exact) or `prefix*`; `*` alone matches every command.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let bytes = text.as_bytes();
        let (name, prefix) = match bytes {
            [] => return Err(PatternError::Empty),
            [name @ .., b'*'] => (name, true),
            name => (name, false),
        };
        if name.iter().any(|b| matches!(b, b'*' | b'?' | b'[')) {
            return Err(PatternError::NotAPrefix);
        }
        if name.len() >= COMM_LEN {
            return Err(PatternError::TooLong);
        }
        let mut value = [0; COMM_LEN];
        let mut mask = [0; COMM_LEN];
        for (i, b) in name.iter().enumerate() {
            value[i] = *b;
            mask[i] = 0xff;
        }
        if !prefix {
            // The terminator takes part, so that "ffmpeg" is not a prefix of "ffmpeg-static".
            mask[name.len()] = 0xff;
        }
        Ok(Self {
            value: halves(value),
            mask: halves(mask),
        })
    }

    /// Whether the command whose two halves are given matches.
    #[inline]
    #[must_use]
    pub const fn matches(&self, comm: [u64; 2]) -> bool {
        ((comm[0] & self.mask[0]) ^ self.value[0]) | ((comm[1] & self.mask[1]) ^ self.value[1]) == 0
    }
}

impl CommFilter {
    /// Parses a list of patterns.
    ///
    /// # Errors
    /// The index of the first text that is no pattern, and why.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, PatternError)> {
        let mut filter = Self::default();
        for (i, text) in texts.into_iter().enumerate() {
            if i == MAX_PATTERNS {
                return Err((i, PatternError::TooMany));
            }
            filter.patterns[i] = CommPattern::parse(text).map_err(|e| (i, e))?;
            filter.len += 1;
        }
        Ok(filter)
    }

    /// Whether a command, as the kernel stores it, matches any pattern.
    #[must_use]
    pub fn matches(&self, comm: [u8; COMM_LEN]) -> bool {
        let used = usize::try_from(self.len)
            .unwrap_or(MAX_PATTERNS)
            .min(MAX_PATTERNS);
        self.patterns[..used].iter().any(|p| p.matches(halves(comm)))
    }
}

/// The two 8-byte halves of a command, in the order that the CPU loads them.
#[must_use]
pub fn halves(comm: [u8; COMM_LEN]) -> [u64; 2] {
    let mut low = [0; 8];
    let mut high = [0; 8];
    low.copy_from_slice(&comm[..8]);
    high.copy_from_slice(&comm[8..]);
    [u64::from_ne_bytes(low), u64::from_ne_bytes(high)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comm(name: &str) -> [u8; COMM_LEN] {
        let mut out = [0; COMM_LEN];
        out[..name.len()].copy_from_slice(name.as_bytes());
        out
    }

    fn matches(pattern: &str, name: &str) -> bool {
        CommFilter::parse([pattern]).is_ok_and(|f| f.matches(comm(name)))
    }

    #[test]
    fn an_exact_pattern_matches_only_that_command() {
        assert!(matches("ffmpeg", "ffmpeg"));
        assert!(!matches("ffmpeg", "ffmpeg-linux-x8"));
        assert!(!matches("ffmpeg", "ffmpe"));
        assert!(matches("fifteen-bytes-x", "fifteen-bytes-x"));
    }

    #[test]
    fn a_prefix_matches_whatever_follows() {
        for name in ["ffmpeg", "ffmpeg-linux-x8", "ffmpeg9"] {
            assert!(matches("ffmpeg*", name), "{name}");
        }
        assert!(!matches("ffmpeg*", "ffprobe"));
        assert!(matches("abcdefghijklmn*", "abcdefghijklmno"));
        assert!(!matches("abcdefghijklmn*", "abcdefghijklmx"));
        assert!(matches("*", "anything"));
    }

    #[test]
    fn what_the_kernel_cannot_compare_is_refused() {
        assert_eq!(CommPattern::parse(""), Err(PatternError::Empty));
        assert_eq!(CommPattern::parse("sixteen-bytes-xx"), Err(PatternError::TooLong));
        assert_eq!(CommPattern::parse("*ffmpeg"), Err(PatternError::NotAPrefix));
        assert_eq!(CommPattern::parse("ff?peg"), Err(PatternError::NotAPrefix));
        assert_eq!(CommFilter::parse(["a"; 9]), Err((8, PatternError::TooMany)));
    }

    #[test]
    fn an_empty_filter_matches_nothing() {
        assert!(!CommFilter::default().matches(comm("ffmpeg")));
    }
}
