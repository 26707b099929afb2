//! Where a webhook's secrets are. That they can be read shows when they are used.

use std::path::PathBuf;

use crate::{
    alert::webhook::{Format, Place},
    config::{
        check::{Check, Table},
        raw::{RawWebhook, Text},
    },
};

impl<'a> Check<'a> {
    /// Where a secret is: in one place at the most.
    pub(super) fn one_place(
        &mut self,
        table: &Table<'a>,
        plain: Option<(&'static str, &'a Text)>,
        places: [(&'static str, Option<&'a Text>); 2],
    ) -> Option<Place> {
        let given: Vec<_> = plain
            .into_iter()
            .chain(places.into_iter().filter_map(|(key, text)| Some((key, text?))))
            .collect();
        if let [(first, _), (second, text), ..] = given[..] {
            let message = format!("stands beside {first}; keep one of the two");
            self.problems.push(table.value(second, text).problem(message));
            return None;
        }
        let (key, text) = *given.first().filter(|_| plain.is_none())?;
        if !key.ends_with("_credential") {
            return Some(Place::File(self.file(table, key, text)?));
        }
        let name = text.get_ref();
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            let message = format!(
                "`{name}` is no credential's name; write what stands before the colon in the unit's LoadCredential="
            );
            self.problems.push(table.value(key, text).problem(message));
            return None;
        }
        Some(Place::Credential(name.clone()))
    }

    /// A file, by its full path.
    pub(super) fn file(&mut self, table: &Table<'a>, key: &str, text: &'a Text) -> Option<PathBuf> {
        let path = PathBuf::from(text.get_ref());
        if path.is_absolute() {
            return Some(path);
        }
        let message = format!("`{}` is no full path; write \"/etc/pipestall/…\"", text.get_ref());
        self.problems.push(table.value(key, text).problem(message));
        None
    }

    /// The key that signs, where the format is signed.
    pub(super) fn secret(
        &mut self,
        table: &Table<'a>,
        raw: &'a RawWebhook,
        format: Option<Format>,
    ) -> Option<Place> {
        let places = [
            ("secret_file", raw.secret_file.as_ref()),
            ("secret_credential", raw.secret_credential.as_ref()),
        ];
        let given = places.iter().find_map(|(key, text)| Some((*key, (*text)?)));
        match (format?, given) {
            (Format::Standard, None) => {
                let message = "is missing; the format `standard` is signed: name a file with a line such as \
                               `echo whsec_$(openssl rand -base64 32)` makes";
                self.problems.push(table.absent("secret_file").problem(message));
                None
            }
            (Format::Standard, Some(_)) => self.one_place(table, None, places),
            (format @ (Format::Alertmanager | Format::Slack), Some((key, text))) => {
                let message = format!(
                    "signs nothing: the format `{}` has no signature; leave it out",
                    format.as_str()
                );
                self.problems.push(table.value(key, text).problem(message));
                None
            }
            (Format::Alertmanager | Format::Slack, None) => None,
        }
    }
}
