//! Where a webhook sends to, and by which way.

use std::time::Duration;

use ipnet::IpNet;

use crate::{
    alert::{
        target,
        webhook::{Address, Target},
    },
    config::{
        check::{Check, Table, value::Limits},
        problem::Problem,
        raw::RawWebhook,
        source::Place,
    },
};

pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Limits = (Duration::from_millis(100), Duration::from_mins(5));

impl<'a> Check<'a> {
    pub(super) fn target(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Option<Target> {
        let ca_file = raw.ca_file.as_ref();
        let ca_file = ca_file.and_then(|text| self.file(table, "ca_file", text));
        let proxy = raw.proxy.as_ref().and_then(|text| {
            let place = table.value("proxy", text);
            let proxy = match url::Url::parse(text.get_ref()) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
                _ => Err(place.problem("is no proxy; write \"http://host:port\"")),
            };
            self.keep(proxy)
        });
        let allow_private = self.each(table, "allow_private", &raw.allow_private, network);
        let timeout = self.time(table, "timeout", raw.timeout.as_ref(), TIMEOUT, DEFAULT_TIMEOUT);
        let places = [
            ("url_file", raw.url_file.as_ref()),
            ("url_credential", raw.url_credential.as_ref()),
        ];
        let secret = self.one_place(table, raw.url.as_ref().map(|text| ("url", text)), places);
        let with = |address| Target {
            address,
            ca_file,
            proxy,
            allow_private,
            timeout,
        };
        let Some(text) = &raw.url else {
            if secret.is_none() && places.iter().all(|(_, text)| text.is_none()) {
                let message = "is missing; say where to, such as url = \"https://example.com/hook\", \
                               or name a file that holds it: url_file = \"/etc/pipestall/ops.url\"";
                self.problems.push(table.absent("url").problem(message));
            }
            return Some(with(Address::Secret(secret?)));
        };
        let place = table.value("url", text);
        // The rest of the target is needed to judge the URL.
        let Ok(parsed) = url::Url::parse(text.get_ref()) else {
            let message = "is no URL; write it in full, such as \"https://example.com/hook\"";
            self.problems.push(place.problem(message));
            return None;
        };
        let target = with(Address::Url(parsed.clone()));
        if let Err(why) = target::check(&parsed, &target) {
            self.problems
                .push(place.problem(format!("cannot be used: {why}")));
            return None;
        }
        let is_named = !target.allow_private.is_empty();
        if parsed.scheme() == "http" && !is_named {
            let message = "is not encrypted, so that anybody on the way can read alerts; use https";
            self.warnings.push(place.problem(message).to_string());
        }
        Some(target)
    }
}

fn network(place: &Place<'_>, text: &str) -> Result<IpNet, Problem> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| {
            place.problem(format!(
                "`{text}` is no address or network; write \"10.0.0.5\" or \"10.0.0.0/8\""
            ))
        })
}
