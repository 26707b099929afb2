//! Where this program's warnings go, and what the kernel programs log: to the system's
//! journal when started by systemd, else to standard error.

use std::{env, fmt, os::unix::fs::MetadataExt as _};

use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// How logs are written on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What is logged unless the environment says otherwise.
const VARIABLE: &str = "PIPESTALL_LOG";

/// The kernel programs' target; aya logs its own doings under others.
const KERNEL: &str = "pipestall_probe";

/// Installs the logger of a command that somebody waits for.
pub fn init(kernel_log: bool) {
    install(kernel_log, None);
}

/// Installs the logger of a service.
pub fn init_service(kernel_log: bool, format: Format) {
    install(kernel_log, Some(format));
}

fn install(kernel_log: bool, service: Option<Format>) {
    let is_logged = service.is_some() && is_journal();
    let own = match service {
        Some(Format::Json) => LevelFilter::INFO,
        Some(Format::Text) if is_logged => LevelFilter::INFO,
        Some(Format::Text) | None => LevelFilter::WARN,
    };
    let kernel = if kernel_log {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let usual = format!("warn,probe_user={own},{KERNEL}={kernel}");
    let filter = env::var(VARIABLE)
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(usual));
    // Installed once for the process; a second time changes nothing.
    let _ = tracing_log::LogTracer::init();
    let registry = tracing_subscriber::registry();
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let _ = match (is_logged.then(tracing_journald::layer), service) {
        (Some(Ok(journal)), _) => registry
            .with(
                journal
                    .with_syslog_identifier("pipestall".to_owned())
                    .with_filter(filter),
            )
            .try_init(),
        (_, Some(Format::Json)) => registry.with(stderr.json().with_filter(filter)).try_init(),
        (_, Some(Format::Text) | None) => registry
            .with(stderr.event_format(Plain).with_filter(filter))
            .try_init(),
    };
}

/// Whether standard error leads to the system's journal: systemd names the stream, and it may
/// have been redirected since (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_journal() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// `pipestall: WHAT KEY=VALUE`, on one line.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let normal = event.normalized_metadata();
        let target = normal
            .as_ref()
            .map_or(event.metadata().target(), tracing::Metadata::target);
        let source = if target.starts_with(KERNEL) {
            "kernel"
        } else {
            "pipestall"
        };
        write!(writer, "{source}: ")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
