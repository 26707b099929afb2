//! The two formats that metrics are told in: `OpenMetrics`, for those who ask for it, and the older
//! text format, which `promtool check metrics` and most scripts read.

use axum::http::{HeaderMap, header};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// The one that a client asks for: `OpenMetrics` only if it is named.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let named = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text"));
        if named { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Metrics in this format, out of `OpenMetrics`.
    pub(super) fn render(self, metrics: String) -> String {
        match self {
            Self::OpenMetrics => metrics,
            Self::Text => text(&metrics),
        }
    }
}

/// In the older format a metric's name has the suffix of its samples, and there are neither
/// infos nor units nor a mark of the end.
fn text(metrics: &str) -> String {
    let mut text = String::with_capacity(metrics.len());
    let mut line = |words: &[&str]| {
        text.push_str(&words.concat());
        text.push('\n');
    };
    // It comes before the type, which tells the name.
    let mut help = "";
    for given in metrics.lines() {
        let mut words = given.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), said) => help = said.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                line(&["# HELP ", name, suffix, " ", help]);
                line(&["# TYPE ", name, suffix, " ", kind]);
            }
            (Some("#"), ..) => {}
            _ => line(&[given]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Format::asked_for(&headers)
    }

    #[test]
    fn who_names_openmetrics_gets_it_and_others_the_text_format() {
        // As Prometheus 2.42 asks.
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(asking(prometheus), Format::OpenMetrics);
        assert_eq!(asking("*/*"), Format::Text);
        assert_eq!(Format::asked_for(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn the_text_format_names_counters_and_infos_in_full_and_knows_no_units() {
        let metrics = "\
# HELP a_kills Kills of a rule.
# TYPE a_kills counter
a_kills_total{rule=\"# EOF\"} 2.0
# HELP a_age_seconds Age.
# TYPE a_age_seconds gauge
# UNIT a_age_seconds seconds
a_age_seconds 1.5
# HELP a_build What runs.
# TYPE a_build info
a_build_info{version=\"1\"} 1
# EOF
";
        assert_eq!(
            Format::Text.render(metrics.to_owned()),
            "\
# HELP a_kills_total Kills of a rule.
# TYPE a_kills_total counter
a_kills_total{rule=\"# EOF\"} 2.0
# HELP a_age_seconds Age.
# TYPE a_age_seconds gauge
a_age_seconds 1.5
# HELP a_build_info What runs.
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
"
        );
        assert_eq!(Format::OpenMetrics.render(metrics.to_owned()), metrics);
    }
}
