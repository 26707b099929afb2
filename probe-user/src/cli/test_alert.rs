//! `pipestall test-alert`

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use anyhow::Result;

use super::{Usage, run::block_on};
use crate::{
    alert::{deliver::Courier, notification::Notification, outcome::Outcome, webhook::Webhook},
    clock,
    config::Config,
};

/// Arguments of `test-alert`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each webhook gets one message that says it is a sample: written, signed and sent as alerts
are, once, and not kept; an Alertmanager shows it until its resolve_timeout. Exits with 1 if a receiver did not take it. The agent need not run; this
must be able to read the secrets, so run it as the agent is run.")]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// Only this webhook
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
}

/// A receiver did not take its message.
#[derive(Debug, thiserror::Error)]
#[error("{0} of {1} webhooks did not take the sample")]
struct NotTaken(usize, usize);

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(false);
    let config = Config::load(&args.config)?;
    let webhooks = chosen(config.webhooks, args.webhook.as_deref())?;
    let mut failed = 0;
    for webhook in &webhooks {
        let (line, is_taken) = match Courier::new(webhook) {
            Ok(courier) => block_on(async { Ok(send(webhook, &courier).await) })?,
            Err(error) => (format!("{error:#}\n"), false),
        };
        failed += usize::from(!is_taken);
        super::print(&line)?;
    }
    if failed > 0 {
        return Err(NotTaken(failed, webhooks.len()).into());
    }
    Ok(())
}

fn chosen(webhooks: Vec<Webhook>, name: Option<&str>) -> Result<Vec<Webhook>> {
    if webhooks.is_empty() {
        return Err(Usage("the configuration has no [[webhook]]".to_owned()).into());
    }
    let Some(name) = name else { return Ok(webhooks) };
    let known: Vec<_> = webhooks.iter().map(|webhook| webhook.name.clone()).collect();
    let chosen: Vec<_> = webhooks
        .into_iter()
        .filter(|webhook| webhook.name == name)
        .collect();
    if chosen.is_empty() {
        let message = format!("there is no webhook {name}; there is {}", known.join(", "));
        return Err(Usage(message).into());
    }
    Ok(chosen)
}

/// Sends the sample; tells what came of it, and whether it was taken.
async fn send(webhook: &Webhook, courier: &Courier) -> (String, bool) {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sample = Notification::sample(&node, clock::wall());
    let (mut words, _) = webhook.templates.write(&sample);
    words.title = format!("A sample by pipestall test-alert: {}", words.title);
    let body: Arc<[u8]> = webhook.format.body(&sample, &words).into();
    let size = body.len();
    let started = clock::now();
    let attempt = courier.send(&sample.id, body).await;
    let took = clock::now().since(started).as_millis();
    let (verdict, is_taken) = match &attempt.outcome {
        Outcome::Delivered => ("taken".to_owned(), true),
        Outcome::Failed { why, wait: None } => (format!("failed, and would be tried again: {why}"), false),
        Outcome::Failed {
            why,
            wait: Some(wait),
        } => (
            format!("failed, and would be tried again in {} s: {why}", wait.as_secs()),
            false,
        ),
        Outcome::Refused(why) => (
            format!("refused, and would be kept and not tried again: {why}"),
            false,
        ),
        Outcome::Gone(why) => (format!("gone, and would get nothing more: {why}"), false),
    };
    let mut line = format!(
        "webhook {}: {} bytes of {} to {} in {took} ms: {verdict}\n",
        webhook.name,
        size,
        webhook.format.as_str(),
        courier.shown(),
    );
    if is_taken && !attempt.said.is_empty() {
        let _ = writeln!(line, "   it said: {}", attempt.said);
    }
    (line, is_taken)
}
