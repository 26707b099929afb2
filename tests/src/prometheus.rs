//! A real Prometheus, on loopback, with a configuration of the test's own.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::api;
use crate::family::Family;
use crate::need;
use crate::scratch::Scratch;
use crate::wait;

/// A running Prometheus that scrapes one target each second.
#[derive(Debug)]
pub struct Prometheus {
    _family: Family,
    address: String,
}

impl Prometheus {
    /// Starts it; `rules` are files of alerting rules.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(program: &Path, target: &str, rules: &[PathBuf], scratch: &Scratch) -> Self {
        let address = api::free_address();
        let mut config = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n".to_owned();
        if !rules.is_empty() {
            config.push_str("rule_files:\n");
        }
        for rules in rules {
            let _ = writeln!(config, "  - {}", rules.display());
        }
        let _ = write!(
            config,
            "scrape_configs:\n  - job_name: pipestall\n    static_configs:\n      - targets: [{target:?}]\n"
        );
        let config = scratch.write("prometheus.yml", &config);
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            _family: Family::start(&mut command),
            address,
        }
    }

    /// The program, if it is installed.
    ///
    /// # Errors
    /// Why not.
    pub fn find() -> Result<PathBuf, String> {
        need::on_path("prometheus")
    }

    /// The value of a query that has one.
    pub fn query(&self, query: &str) -> Option<f64> {
        let answer = api::try_get_tcp(&self.address, &format!("/api/v1/query?query={query}"))?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Waits until a query has a value for which `is_it` holds.
    #[track_caller]
    pub fn await_value(&self, query: &str, is_it: impl Fn(f64) -> bool) -> f64 {
        // Its first scrape comes some eight seconds after its start.
        wait::until(query, wait::PATIENCE * 3, || {
            self.query(query).filter(|value| is_it(*value))
        })
    }

    /// The names of the alerts that fire.
    pub fn firing(&self) -> Vec<String> {
        let answer = api::try_get_tcp(&self.address, "/api/v1/alerts");
        let alerts: Value = answer
            .and_then(|answer| serde_json::from_str(&answer.body).ok())
            .unwrap_or_default();
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned))
            .collect()
    }
}
