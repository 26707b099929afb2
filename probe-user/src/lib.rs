//! pipestall's userspace: see `ARCHITECTURE.md` for the way through it.
//!
//! Dependencies run one way: `core` knows none of the others; `probe` and
//! `enforce` know `core`; `agent` ties them together, and `tui` shows what `api` says of it;
//! `cli` is the shell around it.
//! `recording` and `replay` take the place of `probe` and `enforce` where time is simulated.

pub mod agent;
pub mod alert;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod enforce;
pub mod event;
pub mod probe;
pub mod recorder;
pub mod recording;
pub mod replay;
pub mod tui;
