//! When a webhook's alerts are told, tried again and given up, and what is one alert.

use std::time::Duration;

use crate::{
    alert::{
        group::{Grouping, Label},
        webhook::{Format, Limits, Retry},
    },
    config::{
        check::{Check, Table, value},
        raw::{RawSpool, RawWebhook},
    },
};

pub(super) const DEFAULT_RETRY: Retry = Retry {
    min: Duration::from_secs(1),
    max: Duration::from_mins(5),
};

const DAY: Duration = Duration::from_hours(24);
const WAIT: value::Limits = (Duration::ZERO, DAY);
/// Repeating more often than this is no alert but a stream.
const INTERVAL: value::Limits = (Duration::from_millis(100), DAY);
const REPEAT: value::Limits = (Duration::from_secs(1), Duration::from_hours(24 * 30));
const RETRY_MIN: value::Limits = (Duration::from_millis(10), Duration::from_hours(1));
const RETRY_MAX: value::Limits = (Duration::from_millis(10), DAY);
const AGE: value::Limits = (Duration::from_mins(1), Duration::from_hours(24 * 90));

/// As Alertmanager has them; an Alertmanager groups by itself, and has to be told again before it
/// takes an alert to be over (`resolve_timeout`, 5 minutes unless set).
const fn default_grouping(format: Format) -> [Duration; 3] {
    match format {
        Format::Standard | Format::Slack => [
            Duration::from_secs(30),
            Duration::from_mins(5),
            Duration::from_hours(4),
        ],
        Format::Alertmanager => [
            Duration::from_secs(1),
            Duration::from_secs(10),
            Duration::from_mins(1),
        ],
    }
}

impl<'a> Check<'a> {
    pub(super) fn grouping(&mut self, table: &Table<'a>, raw: &'a RawWebhook, format: Format) -> Grouping {
        let by = raw.group_by.as_ref().map(|given| {
            let words = ("label", "labels");
            self.several(
                table,
                "group_by",
                given.get_ref(),
                words,
                &Label::ALL,
                Label::as_str,
            )
        });
        let [wait, interval, repeat] = default_grouping(format);
        Grouping {
            by: by.unwrap_or_else(|| vec![Label::Rule, Label::Unit]),
            wait: self.time(table, "group_wait", raw.group_wait.as_ref(), WAIT, wait),
            interval: self.time(
                table,
                "group_interval",
                raw.group_interval.as_ref(),
                INTERVAL,
                interval,
            ),
            repeat: self.time(
                table,
                "repeat_interval",
                raw.repeat_interval.as_ref(),
                REPEAT,
                repeat,
            ),
            send_resolved: raw.send_resolved.unwrap_or(true),
        }
    }

    /// When what failed is sent again.
    pub(super) fn retry(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Retry {
        let min = self.time(
            table,
            "retry_min",
            raw.retry_min.as_ref(),
            RETRY_MIN,
            DEFAULT_RETRY.min,
        );
        let max = self.time(
            table,
            "retry_max",
            raw.retry_max.as_ref(),
            RETRY_MAX,
            DEFAULT_RETRY.max.max(min),
        );
        if let (Some(given), true) = (&raw.retry_max, max < min) {
            let message = "is less than retry_min; make it greater";
            self.problems
                .push(table.value("retry_max", given).problem(message));
        }
        Retry { min, max }
    }

    /// What is kept for receivers; defaults, which nobody gets to see, for what is wrong.
    pub(in crate::config::check) fn spool(&mut self, table: &Table<'a>, raw: &'a RawSpool) -> Limits {
        let mut limits = Limits::default();
        if let Some(given) = &raw.max_mib {
            if *given.get_ref() == 0 {
                let message = "is 0, which would keep nothing; use 1 or more";
                self.problems.push(table.value("max_mib", given).problem(message));
            }
            limits.size = u64::from(*given.get_ref()) << 20;
        }
        limits.age = self.time(table, "max_age", raw.max_age.as_ref(), AGE, limits.age);
        limits
    }
}
