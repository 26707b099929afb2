//! What is known of a webhook before anything is sent: where to, what about, how.
//!
//! Made by the configuration, where all of it is checked. It holds no secret: only
//! where each of them is.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use globset::{Glob, GlobMatcher};
use ipnet::IpNet;
use url::Url;

use super::{group::Grouping, redact::Redaction, template::Templates};

/// A webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// How what is sent is written.
    pub format: Format,
    /// Where it is sent.
    pub target: Target,
    /// What signs it, where the format is signed.
    pub secret: Option<Place>,
    /// Which events it is about.
    pub events: Vec<EventPattern>,
    /// How events become alerts.
    pub grouping: Grouping,
    /// What is left out of command lines.
    pub redaction: Redaction,
    /// What people read.
    pub templates: Templates,
    /// When it is tried again.
    pub retry: Retry,
}

impl Webhook {
    /// Whether an event of this kind is to be told.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        self.events.iter().any(|pattern| pattern.is_match(kind))
    }
}

/// A pattern of kinds of events, such as `kill.*`.
#[derive(Clone, Debug)]
pub struct EventPattern(GlobMatcher);

impl PartialEq for EventPattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl EventPattern {
    /// Understands a pattern.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, globset::Error> {
        Ok(Self(Glob::new(text)?.compile_matcher()))
    }

    /// Whether it means events of this kind.
    #[must_use]
    pub fn is_match(&self, kind: &str) -> bool {
        self.0.is_match(kind)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Standard Webhooks 1.0, signed.
    Standard,
    /// Alertmanager's `POST /api/v2/alerts`.
    Alertmanager,
    /// Slack's incoming webhooks, and what understands them.
    Slack,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Standard, Self::Alertmanager, Self::Slack];

    /// Its name in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Alertmanager => "alertmanager",
            Self::Slack => "slack",
        }
    }
}

/// Where a secret value is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file that only its owner may read.
    File(PathBuf),
    /// Among what systemd hands the service, by this name.
    Credential(String),
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// To a URL that everybody may know.
    Url(Url),
    /// To a URL that is a secret itself, as those of Slack are.
    Secret(Place),
}

/// A receiver, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where requests go.
    pub address: Address,
    /// A certificate authority besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The proxy that requests go through.
    pub proxy: Option<Url>,
    /// Addresses that may be reached although they are private.
    pub allow_private: Vec<IpNet>,
    /// How long a request and its answer may take together.
    pub timeout: Duration,
}

impl Target {
    /// Whether requests may go to an address: one that is public, or private and named.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allow_private.iter().any(|net| net.contains(&address))
    }
}

/// When a request that failed is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After the first failure.
    pub min: Duration,
    /// At the most.
    pub max: Duration,
}

impl Retry {
    /// How long to wait after so many failures: twice as long each time, somewhat at random so that
    /// what failed together is not tried together, and never longer than [`Self::max`].
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        // A delay doubles at most 63 times before it is any maximum.
        let failures = failures.min(63) as usize;
        ExponentialBuilder::new()
            .with_min_delay(self.min)
            // Jitter adds up to as much again.
            .with_max_delay((self.max / 2).max(self.min))
            .without_max_times()
            .with_jitter()
            .build()
            .nth(failures)
            .unwrap_or(self.max)
            .min(self.max)
    }
}

/// Limits of what is kept for receivers that do not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In bytes.
    pub size: u64,
    /// Since an alert was made.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: 64 << 20,
            age: Duration::from_hours(72),
        }
    }
}

/// Whether an address is one of the internet's, and so nobody's own network.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || a >= 240
                // Shared by carriers (RFC 6598), benchmarks (RFC 2544), protocols (RFC 6890).
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && b & 0xfe == 18)
                || (a == 192 && b == 0 && c == 0))
        }
        IpAddr::V6(v6) => {
            // What translates to IPv4 is as public as what it translates to (RFC 6052, RFC 3056).
            let [first, second, third, .., last_but_one, last] = v6.segments();
            let embedded = |high: u16, low: u16| {
                let v4 = u32::from(high) << 16 | u32::from(low);
                is_public(Ipv4Addr::from_bits(v4).into())
            };
            match (first, second) {
                (0x64, 0xff9b) if third == 0 => embedded(last_but_one, last),
                (0x2002, _) => embedded(second, third),
                _ => first & 0xe000 == 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for (address, public) in [
            ("93.184.216.34", true),
            ("100.63.255.255", true),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("198.18.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("2606:2800:220:1::1", true),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:93.184.216.34", true),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::93.184.216.34", true),
            ("2002:7f00:1::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn a_private_address_is_allowed_only_where_it_is_named() {
        let target = Target {
            address: Address::Url(Url::parse("https://example.com").unwrap()),
            ca_file: None,
            proxy: None,
            allow_private: vec!["10.1.0.0/16".parse().unwrap(), "127.0.0.1/32".parse().unwrap()],
            timeout: Duration::from_secs(1),
        };
        for (address, allowed) in [
            ("93.184.216.34", true),
            ("10.1.9.9", true),
            ("::ffff:10.1.9.9", true),
            ("10.2.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::1", false),
        ] {
            assert_eq!(target.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
