//! Signals that disturb a writer without ending it.

use std::io;
use std::ptr;

use anyhow::{Context, Result, ensure};

/// What a writer does with SIGTERM.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnTerm {
    Ignore,
    /// Returns from an empty handler into the same syscall.
    Catch,
}

pub(crate) fn on_term(what: OnTerm) -> Result<()> {
    let handler = match what {
        OnTerm::Ignore => libc::SIG_IGN,
        OnTerm::Catch => nothing_handler(),
    };
    install(libc::SIGTERM, handler).context("SIGTERM")
}

/// Sends this process SIGALRM so many times a second, into a handler with `SA_RESTART`.
pub(crate) fn alarm(hz: u32) -> Result<()> {
    ensure!(
        (1..=10_000).contains(&hz),
        "{hz} alarms a second are out of range"
    );
    install(libc::SIGALRM, nothing_handler()).context("SIGALRM")?;
    let every = if hz == 1 {
        libc::timeval {
            tv_sec: 1,
            tv_usec: 0,
        }
    } else {
        libc::timeval {
            tv_sec: 0,
            tv_usec: libc::suseconds_t::from(1_000_000 / hz),
        }
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: `timer` is a valid itimerval for the time of the call, and the old one is not asked for.
    let done = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    ensure!(done == 0, "setitimer: {}", io::Error::last_os_error());
    Ok(())
}

extern "C" fn nothing(_signal: libc::c_int) {}

fn nothing_handler() -> libc::sighandler_t {
    nothing as extern "C" fn(libc::c_int) as libc::sighandler_t
}

fn install(signal: libc::c_int, handler: libc::sighandler_t) -> Result<()> {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is a valid sigaction, and its handler does nothing, which is safe in a signal.
    let done = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    ensure!(done == 0, "sigaction: {}", io::Error::last_os_error());
    Ok(())
}
