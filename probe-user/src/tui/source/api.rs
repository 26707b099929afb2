//! An agent's API over its unix socket: asked for the state at a steady pace, and followed for
//! events. Whatever breaks is tried again, and said until then.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use hyper::{
    Method, StatusCode,
    body::{Bytes, Incoming},
};
use serde::de::DeserializeOwned;
use sse_stream::SseStream;
use tokio::{
    sync::mpsc::{Receiver, Sender},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{
    api::{
        KillRequest,
        client::{self, ClientError, Connection, answer, body, reason, request},
    },
    clock,
    tui::{
        model::{Event, Row, Rule, Rules, Snapshot, Stalls, Status},
        source::Ask,
        state::{
            Message,
            kill::{GRACE, Rights},
            reasons::Told,
        },
    },
};

/// The state is asked for so often…
const EVERY: Duration = Duration::from_secs(1);
/// …unless that would take more than one part in so many of the time…
const SHARE: u32 = 10;
/// …but no rarer than this: what is older than five seconds is not shown as live.
const RARELY: Duration = Duration::from_millis(3500);
/// Events of before the dashboard was started that are shown.
const PAST_EVENTS: u64 = 200;
/// Waits between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An agent's API.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    /// The one that is served there.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Follows the agent until nobody listens any more.
    pub(super) async fn run(self, to: Sender<Message>, mut asked: Receiver<Ask>) {
        let delays = || {
            ExponentialBuilder::default()
                .with_min_delay(RETRY.0)
                .with_max_delay(RETRY.1)
                .without_max_times()
                .build()
        };
        let mut waits = delays();
        let mut last_event = None;
        loop {
            let mut session = Session {
                socket: &self.socket,
                to: &to,
                last_event: &mut last_event,
                rules: Vec::new(),
                connected: false,
            };
            let ended = session.run(&mut asked).await;
            if to.is_closed() {
                return;
            }
            if session.connected {
                waits = delays();
            }
            let wait = waits.next().unwrap_or(RETRY.1);
            let why = match ended {
                Ok(()) => "the agent has closed the connection".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            let retry = Instant::now() + wait;
            if to
                .send(Message::Lost(why, clock::now().after(wait)))
                .await
                .is_err()
            {
                return;
            }
            // A kill that is asked for now will not be carried out later.
            loop {
                tokio::select! {
                    () = sleep_until(retry) => break,
                    ask = asked.recv() => {
                        let why = "there is no connection to the agent".to_owned();
                        let refused = match ask {
                            None => return,
                            Some(Ask::Kill(stall)) => Message::Answer(stall, Err(why)),
                            Some(Ask::Explain(stall)) => Message::Explained(stall, Err(why)),
                        };
                        let _ = to.send(refused).await;
                    }
                }
            }
        }
    }
}

/// One connection, from the first answer to whatever ends it.
struct Session<'a> {
    socket: &'a Path,
    to: &'a Sender<Message>,
    last_event: &'a mut Option<u64>,
    rules: Vec<Rule>,
    connected: bool,
}

impl Session<'_> {
    async fn run(&mut self, asked: &mut Receiver<Ask>) -> Result<()> {
        // Ended with the session: tasks that drive its connections.
        let mut tasks = JoinSet::new();
        let mut connection = connect(self.socket, &mut tasks).await?;
        let status: Status = get(&mut connection, "/v1/status").await?;
        self.connected = true;
        self.say(Message::Rights(rights(&mut connection).await?)).await;
        // The journal of an agent that was set up anew may count from one again.
        let seen = self.last_event.filter(|seen| *seen <= status.last_event);
        let after = seen.unwrap_or_else(|| status.last_event.saturating_sub(PAST_EVENTS));
        let mut events = pin_events(connect(self.socket, &mut tasks).await?, after).await?;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    let begun = Instant::now();
                    let snapshot = self.snapshot(&mut connection).await?;
                    self.say(Message::Snapshot(Box::new(snapshot))).await;
                    next = begun + (begun.elapsed() * SHARE).clamp(EVERY, RARELY);
                }
                ask = asked.recv() => match ask {
                    None => return Ok(()),
                    Some(Ask::Kill(stall)) => {
                        let answer = kill(&mut connection, &stall).await;
                        self.say(Message::Answer(stall, answer)).await;
                        next = Instant::now();
                    }
                    Some(Ask::Explain(stall)) => {
                        let told = explain(&mut connection, &stall).await;
                        self.say(Message::Explained(stall, told)).await;
                    }
                },
                event = events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    self.take(event.map_err(|error| anyhow!("events: {error}"))?).await;
                }
            }
            if self.to.is_closed() {
                return Ok(());
            }
        }
    }

    async fn say(&self, message: Message) {
        // Whether somebody still listens is asked where it matters.
        let _ = self.to.send(message).await;
    }

    async fn snapshot(&mut self, connection: &mut Connection) -> Result<Snapshot> {
        let at = clock::now();
        let status: Status = get(connection, "/v1/status").await?;
        let stalls = fetch(connection, "/v1/stalls?limit=1000000").await?;
        if self.rules.is_empty() || status.rules != self.rules.len() as u64 {
            self.rules = get::<Rules>(connection, "/v1/rules").await?.rules;
        }
        let rules = self.rules.clone();
        // Thousands of rows take longer than a key should wait.
        spawn_blocking(move || {
            let stalls: Stalls = understood(&stalls, "/v1/stalls")?;
            Ok(Snapshot {
                at,
                status,
                rules,
                total: stalls.total.max(stalls.stalls.len() as u64),
                rows: stalls.stalls.into_iter().map(Row::from).collect(),
            })
        })
        .await?
    }

    async fn take(&mut self, message: sse_stream::Sse) {
        let data = message.data.unwrap_or_default();
        if message.event.as_deref() == Some("lost") {
            #[derive(Default, serde::Deserialize)]
            #[serde(default)]
            struct LostEvents {
                missed: u64,
            }
            let lost: LostEvents = serde_json::from_str(&data).unwrap_or_default();
            return self.say(Message::Missed(lost.missed)).await;
        }
        // An event of a kind that is not understood is as good as one that did not arrive.
        match serde_json::from_str::<Event>(&data) {
            Ok(event) => {
                *self.last_event = Some(event.seq);
                self.say(Message::Event(Box::new(event))).await;
            }
            Err(_) => self.say(Message::Missed(1)).await,
        }
    }
}

async fn connect(socket: &Path, tasks: &mut JoinSet<()>) -> Result<Connection> {
    match client::connect(socket, tasks).await {
        Err(error @ ClientError::Nobody(_)) => {
            Err(anyhow!("{error}; start one (pipestall run), or use --standalone"))
        }
        connected => Ok(connected?),
    }
}

async fn fetch(connection: &mut Connection, path: &str) -> Result<Bytes> {
    let response = answer(connection, request(Method::GET, path, Vec::new())?).await?;
    let status = response.status();
    let body = body(response).await?;
    if !status.is_success() {
        bail!("the agent refuses {path}: {}", reason(status, &body));
    }
    Ok(body)
}

async fn get<T: DeserializeOwned>(connection: &mut Connection, path: &str) -> Result<T> {
    understood(&fetch(connection, path).await?, path)
}

fn understood<T: DeserializeOwned>(body: &[u8], path: &str) -> Result<T> {
    Ok(client::understood(body, path)?)
}

async fn pin_events(
    mut connection: Connection,
    after: u64,
) -> Result<std::pin::Pin<Box<SseStream<Incoming>>>> {
    let path = format!("/v1/events?after={after}");
    let response = answer(&mut connection, request(Method::GET, &path, Vec::new())?).await?;
    let status = response.status();
    if !status.is_success() {
        bail!(
            "the agent refuses {path}: {}",
            reason(status, &body(response).await?)
        );
    }
    Ok(Box::pin(SseStream::new(response.into_body())))
}

/// Whether processes may be ended from here: learned by asking for the end of a stall that there
/// cannot be.
async fn rights(connection: &mut Connection) -> Result<Rights> {
    let response = answer(
        connection,
        request(Method::POST, "/v1/stalls/none/kill", Vec::new())?,
    )
    .await?;
    let status = response.status();
    let body = body(response).await?;
    Ok(match status {
        StatusCode::FORBIDDEN => Rights::ReadOnly(reason(status, &body)),
        _ => Rights::Kill,
    })
}

/// Asks why each rule does or does not match a stall. An agent that cannot say may be older.
async fn explain(connection: &mut Connection, stall: &str) -> Told {
    let ask = async {
        let path = format!("/v1/stalls/{stall}/explain");
        let response = answer(connection, request(Method::GET, &path, Vec::new())?).await?;
        let status = response.status();
        let body = body(response).await?;
        if !status.is_success() {
            bail!(reason(status, &body));
        }
        understood(&body, &path)
    };
    ask.await.map_err(|error| format!("{error:#}"))
}

/// Asks the agent to end a stall's process.
async fn kill(connection: &mut Connection, stall: &str) -> Result<(), String> {
    let ask = async {
        let asked = KillRequest {
            grace: Some(format!("{}s", GRACE.as_secs())),
        };
        let path = format!("/v1/stalls/{stall}/kill");
        let request = request(Method::POST, &path, serde_json::to_vec(&asked)?)?;
        let response = answer(connection, request).await?;
        let status = response.status();
        let body = body(response).await?;
        anyhow::Ok((!status.is_success()).then(|| reason(status, &body)))
    };
    match ask.await {
        Ok(None) => Ok(()),
        Ok(Some(refused)) => Err(refused),
        Err(error) => Err(format!("{error:#}")),
    }
}
