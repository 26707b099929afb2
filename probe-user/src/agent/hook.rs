//! Runs a rule's own program before a kill: a bounded number at a time, each for a bounded
//! time. Whatever becomes of it, the kill goes on, and the record says.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, sync::Semaphore, time::timeout};

use crate::core::rule::Hook;

/// How many run at once: an incident has hundreds of kills.
const AT_ONCE: usize = 8;

/// Runs hooks.
#[derive(Clone, Debug)]
pub struct Hooks {
    places: Arc<Semaphore>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Hooks {
    /// Runs a hook to its end or its timeout; says what came of it.
    pub async fn run(self, hook: Hook, input: Vec<u8>) -> String {
        let Ok(_place) = self.places.acquire().await else {
            return "pre_kill: not run".to_owned();
        };
        match timeout(hook.timeout, outcome(&hook, &input)).await {
            Ok(outcome) => format!("pre_kill: {outcome}"),
            // Dropping the child has ended it.
            Err(_) => format!("pre_kill: ended after {}", seconds(hook.timeout)),
        }
    }
}

async fn outcome(hook: &Hook, input: &[u8]) -> String {
    let [program, arguments @ ..] = &hook.command[..] else {
        return "no program".to_owned();
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("cannot run {program}: {error}"),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may still do its work.
        let _ = stdin.write_all(input).await;
    }
    match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => format!("cannot wait for {program}: {error}"),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], timeout: Duration) -> String {
        let command = command.iter().map(|&part| part.to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(Hooks::default().run(Hook { command, timeout }, b"{}\n".to_vec()))
    }

    #[test]
    fn a_hook_gets_the_stall_and_its_end_is_told() {
        let patience = Duration::from_secs(10);
        assert_eq!(
            run(&["sh", "-c", "read line; test \"$line\" = '{}'"], patience),
            "pre_kill: exit status: 0"
        );
        assert_eq!(run(&["false"], patience), "pre_kill: exit status: 1");
        assert!(run(&["/nonexistent"], patience).contains("cannot run /nonexistent"));
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        assert_eq!(
            run(&["sleep", "600"], Duration::from_millis(50)),
            "pre_kill: ended after 0.05 s"
        );
    }
}
