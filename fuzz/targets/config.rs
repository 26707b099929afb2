//! Whatever a configuration file holds, it is a configuration or errors that name their place.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use probe_user::config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, Path::new("fuzz.toml")) {
        Ok(config) => {
            let summary = config.summary();
            assert!(summary.lines().count() > config.policy.rules.len(), "{summary}");
            for rule in &config.policy.rules {
                assert!(rule.stalled_for.is_some() || rule.stalled_share.is_some());
                assert!(rule.pace.pile_up > 0);
            }
            assert!(!config.policy.smallest_threshold().is_zero());
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            for line in text.lines() {
                assert!(line.starts_with("fuzz.toml"), "without its place: {line}");
            }
        }
    }
});
