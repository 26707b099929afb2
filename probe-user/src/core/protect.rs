//! Who is never signalled, whatever a rule says.

use super::{
    matcher::Subject,
    model::{Facts, Sighting},
    pattern::Pattern,
};

/// Who is never signalled, whatever a rule says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Protect {
    /// Commands.
    pub comm: Vec<Pattern>,
    /// Users, by name or number.
    pub users: Vec<Pattern>,
    /// Systemd units.
    pub units: Vec<Pattern>,
    /// Executables' paths.
    pub exe: Vec<Pattern>,
    /// Processes: the tool itself and its ancestors. Pid 1 is always protected.
    pub pids: Vec<u32>,
}

impl Protect {
    /// Whether the process must be left alone.
    #[must_use]
    pub fn covers(&self, sighting: &Sighting, facts: &Facts) -> bool {
        self.reason(Subject::writing(sighting, facts)).is_some()
    }

    /// Why the process must be left alone, if it must. Where it cannot be known that it is not
    /// protected, it is.
    #[must_use]
    pub fn reason(&self, subject: Subject<'_>) -> Option<String> {
        let facts = subject.facts;
        let listed = |key: &str, patterns: &[Pattern], is_it: &dyn Fn(&Pattern) -> bool| {
            let pattern = patterns.iter().find(|pattern| is_it(pattern))?;
            Some(format!("{key} {}", pattern.as_str()))
        };
        if subject.pid <= 1 {
            return Some("pid 1".to_owned());
        }
        if self.pids.contains(&subject.pid) {
            return Some("pipestall itself, or what it descends from".to_owned());
        }
        listed("comm", &self.comm, &|pattern| pattern.matches(subject.comm))
            .or_else(|| listed("users", &self.users, &|pattern| subject.is_user(pattern)))
            .or_else(|| match (&facts.unit, &facts.cgroup) {
                (Some(unit), _) => listed("units", &self.units, &|pattern| pattern.matches(unit)),
                (None, Some(_)) => None,
                (None, None) => {
                    (!self.units.is_empty()).then(|| "units, for its own could not be read".to_owned())
                }
            })
            .or_else(|| match &facts.exe {
                Some(exe) => {
                    let exe = exe.to_string_lossy();
                    listed("exe", &self.exe, &|pattern| pattern.matches(&exe))
                }
                None => (!self.exe.is_empty()).then(|| "exe, for its own could not be read".to_owned()),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::core::model::Mono;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    fn reason(protect: &Protect, facts: &Facts) -> Option<String> {
        protect.reason(Subject {
            pid: 42,
            comm: "ffmpeg",
            uid: 1000,
            at: Mono::default(),
            facts,
            write: None,
            cause: None,
        })
    }

    #[test]
    fn each_list_protects_what_it_names() {
        let facts = Facts {
            user: Some("peertube".into()),
            exe: Some(PathBuf::from("/usr/bin/ffmpeg")),
            cgroup: Some("/system.slice/peertube.service".into()),
            unit: Some("peertube.service".into()),
            ..Facts::default()
        };
        let none = Protect::default;
        for (protect, expected) in [
            (none(), None),
            (
                Protect {
                    comm: patterns(&["sshd", "ff*"]),
                    ..none()
                },
                Some("comm ff*"),
            ),
            (
                Protect {
                    users: patterns(&["1000"]),
                    ..none()
                },
                Some("users 1000"),
            ),
            (
                Protect {
                    users: patterns(&["~^peer"]),
                    ..none()
                },
                Some("users ~^peer"),
            ),
            (
                Protect {
                    units: patterns(&["peertube*"]),
                    ..none()
                },
                Some("units peertube*"),
            ),
            (
                Protect {
                    units: patterns(&["sshd.service"]),
                    ..none()
                },
                None,
            ),
            (
                Protect {
                    exe: patterns(&["/usr/bin/*"]),
                    ..none()
                },
                Some("exe /usr/bin/*"),
            ),
            (
                Protect {
                    exe: patterns(&["/opt/*"]),
                    ..none()
                },
                None,
            ),
            (
                Protect {
                    pids: vec![42],
                    ..none()
                },
                Some("pipestall itself, or what it descends from"),
            ),
        ] {
            assert_eq!(reason(&protect, &facts).as_deref(), expected, "{protect:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_protected() {
        let facts = Facts::default();
        let exe = Protect {
            exe: patterns(&["/opt/*"]),
            ..Protect::default()
        };
        let units = Protect {
            units: patterns(&["sshd.service"]),
            ..Protect::default()
        };
        let in_no_unit = Facts {
            cgroup: Some("/".into()),
            ..Facts::default()
        };

        assert!(reason(&exe, &facts).is_some());
        assert!(reason(&units, &facts).is_some());
        assert_eq!(reason(&units, &in_no_unit), None);
    }
}
