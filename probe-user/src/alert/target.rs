//! The way to a receiver: its URL, who may vouch for it, and which addresses are off limits.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{
    Client, Proxy,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use url::{Host, Url};

use super::{
    format::alertmanager,
    secret,
    webhook::{Address, Format, Target},
};

const CONNECT: Duration = Duration::from_secs(10);

/// Requests say who they come from.
const USER_AGENT: &str = concat!("pipestall/", env!("CARGO_PKG_VERSION"));

/// Checks a receiver's URL, wherever it is from.
///
/// # Errors
/// What is wrong, and what would be right; the URL itself is not told.
pub fn check(url: &Url, target: &Target) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its scheme is `{}`; use https (or http)", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or a password in it, which nothing here uses; leave them out".to_owned());
    }
    match literal(url) {
        Some(address) if !target.allows(address) => Err(private(&address.to_string(), address)),
        None if url.host_str().is_none_or(str::is_empty) => Err("it has no host".to_owned()),
        Some(_) | None => Ok(()),
    }
}

/// The address that a URL names itself.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
        Host::Domain(_) => None,
    }
}

fn private(what: &str, address: IpAddr) -> String {
    format!("{what} is a private address; if that is meant, add allow_private = [\"{address}\"]")
}

/// Understands a URL.
///
/// # Errors
/// It is none, or not one to send to. It is not told.
pub fn parse(text: &str, target: &Target) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    check(&url, target)?;
    Ok(url)
}

/// The URL that requests go to.
///
/// # Errors
/// It is a secret that cannot be read, or is not one to send to.
pub fn url(target: &Target, format: Format) -> Result<Url> {
    let mut url = match &target.address {
        Address::Url(url) => {
            check(url, target).map_err(|why| anyhow::anyhow!("its url cannot be used: {why}"))?;
            url.clone()
        }
        Address::Secret(place) => parse(&secret::line(place)?, target)
            .map_err(|why| anyhow::anyhow!("its secret url cannot be used: {why}"))?,
    };
    if format == Format::Alertmanager && !url.path().ends_with(alertmanager::PATH) {
        let path = format!("{}{}", url.path().trim_end_matches('/'), alertmanager::PATH);
        url.set_path(&path);
    }
    Ok(url)
}

/// Where requests go, without what may be a secret: scheme, host and port.
#[must_use]
pub fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// A client that goes this way and no other.
///
/// # Errors
/// A certificate cannot be read, or none is there.
pub fn client(target: &Target, url: &Url) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        // Tried again is what the queue decides.
        .retry(reqwest::retry::never())
        .referer(false)
        // What the environment says is for people's browsers.
        .no_proxy()
        .connect_timeout(target.timeout.min(CONNECT))
        .timeout(target.timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .dns_resolver(Guard {
            target: Arc::new(target.clone()),
        })
        .tls_backend_preconfigured(tls(target, url)?);
    if let Some(proxy) = &target.proxy {
        builder = builder.proxy(Proxy::all(proxy.clone()).context("its proxy cannot be used")?);
    }
    builder
        .build()
        .map_err(|error| anyhow::Error::from(error.without_url()).context("cannot make an HTTP client"))
}

fn tls(target: &Target, url: &Url) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let is_https = |url: &Url| url.scheme() == "https";
    if is_https(url) || target.proxy.as_ref().is_some_and(is_https) {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &target.ca_file {
            add(&mut roots, path)?;
        }
        ensure!(
            !roots.is_empty(),
            "no certificate authority is known here; install ca-certificates, or set ca_file"
        );
    }
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set TLS up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let context = || format!("cannot use ca_file {}", path.display());
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).with_context(context)? {
        roots
            .add(certificate.with_context(context)?)
            .with_context(context)?;
        found = true;
    }
    if !found {
        bail!("ca_file {} holds no certificate in PEM", path.display());
    }
    Ok(())
}

/// Looks names up, and leaves out the addresses that are off limits: a name can be made to point
/// anywhere.
struct Guard {
    target: Arc<Target>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let target = Arc::clone(&self.target);
        Box::pin(async move {
            let host = name.as_str();
            let is_proxy = target
                .proxy
                .as_ref()
                .is_some_and(|proxy| proxy.host_str() == Some(host));
            let all: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            let first = all.first().copied();
            let allowed: Vec<_> = all
                .into_iter()
                .filter(|address| is_proxy || target.allows(address.ip()))
                .collect();
            match first {
                Some(first) if allowed.is_empty() => Err(private(host, first.ip()).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str, allow: &[&str]) -> Target {
        Target {
            address: Address::Url(Url::parse(text).unwrap()),
            ca_file: None,
            proxy: None,
            allow_private: allow.iter().map(|net| net.parse().unwrap()).collect(),
            timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn alerts_go_to_alertmanagers_own_path() {
        for (given, expected) in [
            ("http://am:9093", "http://am:9093/api/v2/alerts"),
            ("http://am:9093/", "http://am:9093/api/v2/alerts"),
            ("http://am/prefix/", "http://am/prefix/api/v2/alerts"),
            ("http://am/api/v2/alerts", "http://am/api/v2/alerts"),
        ] {
            let url = url(&target(given, &[]), Format::Alertmanager).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn a_private_address_in_a_url_is_refused_however_it_is_written() {
        for text in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest",
        ] {
            let error = format!("{:#}", url(&target(text, &[]), Format::Standard).unwrap_err());
            assert!(error.contains("allow_private"), "{text}: {error}");
        }
        assert!(url(&target("http://127.0.0.1/", &["127.0.0.0/8"]), Format::Standard).is_ok());
    }

    #[test]
    fn a_name_that_points_to_a_private_address_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let look_up = |allow: &[&str]| {
            let guard = Guard {
                target: Arc::new(target("http://localhost/", allow)),
            };
            runtime
                .block_on(guard.resolve("localhost".parse().unwrap()))
                .map(Iterator::count)
        };
        let error = look_up(&[]).unwrap_err().to_string();
        assert!(error.starts_with("localhost is a private address"), "{error}");
        assert!(look_up(&["127.0.0.0/8", "::1/128"]).unwrap() > 0);
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        let url = Url::parse("https://hooks.slack.com:8443/services/T0/B0/SECRET?token=x").unwrap();
        assert_eq!(shown(&url), "https://hooks.slack.com:8443");
    }
}
