//! The files that a configuration is read from, and places in them.
//!
//! The only part of the configuration that does I/O. It must not know what the
//! texts mean.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    DROP_IN_DIR,
    problem::{Position, Problem},
};

/// A file's text.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Takes a file's bytes as text.
    pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<Self, Problem> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
            let position = Position::of(valid, &before);
            Problem::new(
                path,
                Some(position),
                None,
                "is not UTF-8; save the file in that encoding",
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    fn read(path: &Path) -> Result<Self, Problem> {
        let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
        Self::decode(path, bytes)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The place that a key's value, or a table's header, takes.
    pub(super) fn place(&self, key: impl Into<String>, span: Range<usize>) -> Place<'_> {
        Place {
            source: self,
            key: key.into(),
            offset: span.start,
        }
    }

    /// A problem that is about no key.
    pub(super) fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        Problem::new(&self.path, Some(Position::of(offset, &self.text)), None, message)
    }
}

/// A key in a file.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    source: &'a Source,
    key: String,
    offset: usize,
}

impl Place<'_> {
    /// Says what is wrong here, and what would be right.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        let position = Position::of(self.offset, &self.source.text);
        Problem::new(&self.source.path, Some(position), Some(&self.key), message)
    }

    /// `FILE:LINE:COL`.
    pub(super) fn location(&self) -> String {
        format!(
            "{}:{}",
            self.source.path.display(),
            Position::of(self.offset, &self.source.text)
        )
    }
}

/// Reads a configuration, and what is dropped in beside it in its order.
pub(super) fn read_all(path: &Path) -> Vec<Result<Source, Problem>> {
    let mut read = vec![Source::read(path)];
    match drop_ins(&path.with_file_name(DROP_IN_DIR)) {
        Ok(paths) => read.extend(paths.iter().map(|path| Source::read(path))),
        Err(problem) => read.push(Err(problem)),
    }
    read
}

/// The `*.toml` in a directory, which need not exist, by name. As for a shell, `*` leaves out hidden files.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let mut paths: Vec<_> = entries
        .map_err(|error| unreadable(dir, &error))?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| {
            !path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        })
        .collect();
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let message = if error.kind() == io::ErrorKind::NotFound {
        "there is no such file; create it or name another".to_owned()
    } else {
        format!("cannot be read: {error}; make it readable or name another")
    };
    Problem::new(path, None, None, message)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::config::Config;

    const RULE: &str = "[[rule]]\nname = 'NAME'\nmatch = { comm = '*' }\nstalled_for = '60s'\n";

    fn rule(name: &str) -> String {
        RULE.replace("NAME", name)
    }

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DROP_IN_DIR)).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    /// The error's lines, with the directory's path left out.
    fn load_error(dir: &TempDir) -> String {
        let error = Config::load(&dir.path().join("pipestall.toml"))
            .unwrap_err()
            .to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn rules_of_drop_ins_are_appended_in_the_order_of_their_names() {
        let dir = directory(&[
            ("pipestall.d/20.toml", &rule("third")),
            (
                "pipestall.d/10.toml",
                &format!("[state]\ndir = '/srv'\n{}", rule("second")),
            ),
            ("pipestall.toml", &rule("first")),
            ("pipestall.d/.30.toml", "hidden"),
            ("pipestall.d/30.toml~", "a backup"),
            ("pipestall.d/README", "no configuration"),
        ]);

        let config = Config::load(&dir.path().join("pipestall.toml")).unwrap();

        let names: Vec<_> = config
            .policy
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(names, ["first", "second", "third"]);
        assert_eq!(config.state.dir, Path::new("/srv"));
    }

    #[test]
    fn a_configuration_needs_no_drop_ins() {
        let dir = directory(&[("pipestall.toml", &rule("only"))]);
        fs::remove_dir(dir.path().join(DROP_IN_DIR)).unwrap();

        let config = Config::load(&dir.path().join("pipestall.toml")).unwrap();

        assert_eq!(config.policy.rules.len(), 1);
    }

    #[test]
    fn a_table_in_two_files_is_an_error_that_names_both() {
        let dir = directory(&[
            ("pipestall.toml", "\n[observe]\n"),
            ("pipestall.d/a.toml", "[protect]\n"),
            ("pipestall.d/b.toml", "[state]\n[observe]\n"),
            ("pipestall.d/c.toml", "[protect]\n"),
        ]);

        let error = load_error(&dir);

        assert_eq!(
            error,
            "pipestall.d/b.toml:2:1: observe: is already set at pipestall.toml:2:1; keep one of the two\n\
             pipestall.d/c.toml:1:1: protect: is already set at pipestall.d/a.toml:1:1; keep one of the two"
        );
    }

    #[test]
    fn a_rule_name_in_two_files_is_an_error_that_names_both() {
        let dir = directory(&[("pipestall.toml", &rule("x")), ("pipestall.d/a.toml", &rule("x"))]);

        assert_eq!(
            load_error(&dir),
            "pipestall.d/a.toml:2:8: rule[0].name: `x` is the name of the rule at pipestall.toml:2:8; \
             give each rule its own"
        );
    }

    #[test]
    fn problems_of_all_files_are_told_at_once() {
        let dir = directory(&[
            ("pipestall.toml", "[observ]\n"),
            ("pipestall.d/a.toml", "[state]\ndir = ''\n"),
            ("pipestall.d/b.toml", "x"),
        ]);

        assert_eq!(
            load_error(&dir),
            "pipestall.toml:1:2: observ: unknown key; did you mean `observe`?\n\
             pipestall.d/a.toml:2:7: state.dir: is empty; name a directory, such as \"/var/lib/pipestall\"\n\
             pipestall.d/b.toml:1:2: is not TOML: key with no value; expected `=`"
        );
    }

    #[test]
    fn files_that_cannot_be_read_are_told_in_the_same_form() {
        let missing = directory(&[]);
        assert_eq!(
            load_error(&missing),
            "pipestall.toml: there is no such file; create it or name another"
        );

        let directories = directory(&[("pipestall.toml", "")]);
        fs::create_dir(directories.path().join("pipestall.d/x.toml")).unwrap();
        assert_eq!(
            load_error(&directories),
            "pipestall.d/x.toml: cannot be read: Is a directory (os error 21); make it readable or name another"
        );

        let no_directory = directory(&[("pipestall.toml", "")]);
        fs::remove_dir(no_directory.path().join(DROP_IN_DIR)).unwrap();
        fs::write(no_directory.path().join(DROP_IN_DIR), "").unwrap();
        assert_eq!(
            load_error(&no_directory),
            "pipestall.d: cannot be read: Not a directory (os error 20); make it readable or name another"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_found_by_line_and_column() {
        let dir = directory(&[]);
        fs::write(dir.path().join("pipestall.toml"), b"[state]\n# \xc3\xa9\xff\n").unwrap();

        assert_eq!(
            load_error(&dir),
            "pipestall.toml:2:4: is not UTF-8; save the file in that encoding"
        );
    }
}
