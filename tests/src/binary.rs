//! Where the programs under test are.

use std::env;
use std::path::PathBuf;

/// Locates `pipestall`: what `PIPESTALL_BIN` names, else beside the test's own executable.
///
/// # Panics
/// If it is in neither place.
pub fn pipestall() -> PathBuf {
    located("PIPESTALL_BIN", "pipestall")
}

/// Locates `stuck`, the bundled writer: what `PIPESTALL_STUCK` names, else beside the test's own
/// executable.
///
/// # Panics
/// If it is in neither place.
pub fn stuck() -> PathBuf {
    located("PIPESTALL_STUCK", "stuck")
}

/// The tracer under test: what `PIPESTALL_TEST_TRACER` names, else the one that is taken first.
pub fn tracer() -> String {
    env::var("PIPESTALL_TEST_TRACER").unwrap_or_else(|_| "sched".to_owned())
}

/// The arguments that choose it, for `run`, `watch` and `record`.
pub fn tracer_arguments() -> [String; 2] {
    ["--tracer".to_owned(), tracer()]
}

/// Locates `alerter`, which sends alerts about nothing: what `PIPESTALL_ALERTER` names, else beside
/// the test's own executable.
///
/// # Panics
/// If it is in neither place.
pub fn alerter() -> PathBuf {
    located("PIPESTALL_ALERTER", "alerter")
}

fn located(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "{variable} names {}, which is not there",
            path.display()
        );
        return path;
    }
    // target/PROFILE/deps/test-1234: the programs are in target/PROFILE.
    let test = env::current_exe().expect("a test knows its own executable");
    let beside = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    beside.unwrap_or_else(|| panic!("{name} is not built: run `cargo xtask test`"))
}
