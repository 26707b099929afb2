//! The corpus of configurations: each is accepted or refused with exactly the words beside it.
//!
//! `PIPESTALL_BLESS=1` writes the words anew; read the difference before it is committed.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use probe_user::config::Config;

/// What is said of a configuration: its summary, or what is wrong with it.
fn verdict(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = Path::new(path.file_name().unwrap_or_default());
    Config::parse(&text, name)
        .map(|config| config.summary())
        .map_err(|error| error.to_string())
}

#[track_caller]
fn walk(folder: &str, at_least: usize, pick: fn(Result<String, String>) -> Option<String>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/config")
        .join(folder);
    let files: BTreeSet<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let with = |extension: &str| {
        let is_it = |path: &&PathBuf| path.extension() == Some(OsStr::new(extension));
        files.iter().filter(is_it).cloned().collect::<BTreeSet<_>>()
    };
    let configs = with("toml");
    let bless = env::var_os("PIPESTALL_BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for config in &configs {
        let golden = config.with_extension("out");
        let Some(mut said) = pick(verdict(config)) else {
            wrong.push(format!("{} does not belong into {folder}", config.display()));
            continue;
        };
        said.push('\n');
        if bless {
            fs::write(&golden, said).expect("the words can be written");
        } else if fs::read_to_string(&golden).ok().as_deref() != Some(&said) {
            wrong.push(format!("{} should say:\n{said}", golden.display()));
        }
    }
    if !bless {
        let known: BTreeSet<_> = configs.iter().map(|path| path.with_extension("out")).collect();
        wrong.extend(
            with("out")
                .difference(&known)
                .map(|path| format!("{} is of no file", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(configs.len() >= at_least, "{} files in {folder}", configs.len());
}

#[test]
fn good_configurations_are_summed_up() {
    walk("valid", 10, Result::ok);
}

#[test]
fn bad_configurations_are_told_with_what_would_be_right() {
    walk("invalid", 30, Result::err);
}
