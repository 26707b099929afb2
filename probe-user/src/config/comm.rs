//! What can be told about command patterns without a process to try them on.
//!
//! Everything is on the safe side: where a pattern is no plain glob, nothing is claimed.

use probe_ebpf::pattern::COMM_LEN;

/// Whether a glob asks for more of a command than the kernel keeps (15 bytes).
pub(super) fn is_too_long(glob: &str) -> bool {
    // Characters, not bytes: what is not UTF-8 is decoded with a longer replacement for each byte.
    !glob.starts_with('~')
        && !glob.contains(['[', ']', '{', '}', '\\'])
        && glob.chars().filter(|c| *c != '*').count() >= COMM_LEN
}

/// Whether no command matches both a rule's glob and a pattern of the kernel's filter.
pub(super) fn are_disjoint(glob: &str, pattern: &str) -> bool {
    let (glob, glob_is_prefix) = prefix(glob);
    let (pattern, pattern_is_prefix) = prefix(pattern);
    if glob.starts_with('~') || glob.contains(['*', '?', '[', ']', '{', '}', '\\']) {
        return false;
    }
    match (glob_is_prefix, pattern_is_prefix) {
        (false, false) => glob != pattern,
        (false, true) => !glob.starts_with(pattern),
        (true, false) => !pattern.starts_with(glob),
        (true, true) => !glob.starts_with(pattern) && !pattern.starts_with(glob),
    }
}

/// The text without the `*` at its end, and whether there was one.
fn prefix(text: &str) -> (&str, bool) {
    text.strip_suffix('*').map_or((text, false), |name| (name, true))
}

#[cfg(test)]
mod tests {
    use probe_ebpf::pattern::CommFilter;
    use proptest::prelude::*;

    use super::*;
    use crate::core::rule::Pattern;

    #[test]
    fn globs_that_share_no_command_with_a_pattern_are_disjoint() {
        for (glob, pattern, expected) in [
            ("node", "ffmpeg*", true),
            ("node*", "ffmpeg*", true),
            ("ffprobe", "ffmpeg", true),
            ("ffmpeg*", "ffprobe", true),
            ("ff", "ffmpeg*", true),
            ("ffmpeg", "ffmpeg*", false),
            ("ff*", "ffmpeg*", false),
            ("ffmpeg-*", "ffmpeg*", false),
            ("ff*", "ffmpeg", false),
            ("*", "ffmpeg*", false),
            ("node", "*", false),
            ("*node", "ffmpeg*", false),
            ("[n]ode", "ffmpeg*", false),
            ("{node,x}", "ffmpeg*", false),
            ("n?de", "ffmpeg*", false),
            ("~^node$", "ffmpeg*", false),
        ] {
            assert_eq!(are_disjoint(glob, pattern), expected, "{glob} {pattern}");
        }
    }

    #[test]
    fn a_glob_is_too_long_only_if_no_command_can_match_it() {
        for (glob, expected) in [
            ("containerd-shim", false),
            ("containerd-shim*", false),
            ("*containerd-shim*", false),
            ("containerd-shim-", true),
            ("containerd-shim-*", true),
            ("????????????????", true),
            ("containerd-{shim-runc-v2,x}", false),
            ("ééééééééé", false),
            ("~^(ffmpeg|containerd-shim)", false),
        ] {
            assert_eq!(is_too_long(glob), expected, "{glob}");
        }
    }

    proptest! {
        #[test]
        fn what_is_said_of_patterns_holds_for_every_command(
            glob in "[ab*?]{1,17}",
            pattern in "[ab]{0,3}\\*?",
            command in "[ab]{1,15}",
        ) {
            let mut comm = [0; COMM_LEN];
            comm[..command.len()].copy_from_slice(command.as_bytes());
            let matches = Pattern::parse(&glob).unwrap().matches(&command);
            let observed = CommFilter::parse([pattern.as_str()]).is_ok_and(|filter| filter.matches(comm));
            prop_assert!(!(matches && is_too_long(&glob)));
            prop_assert!(!(matches && observed && are_disjoint(&glob, &pattern)));
        }
    }
}
