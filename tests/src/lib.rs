//! Harness of the live tests: starts real stuck writers and the real program, and waits for
//! what happens by event or by deadline. It knows the program only from outside: its command
//! line, its JSON and its exit codes. [`eye`] alone uses the program's library, for tests that hold
//! several observers of the same moment against each other.
//!
//! Everything a test starts is ended when its guard is dropped, by the pid or pidfd that was
//! started, never by name or group. An enforcing rule in a test names a comm and a parent that
//! exist only in that test ([`names::unique`]).

#![expect(
    clippy::missing_panics_doc,
    reason = "a harness panics: that is how a test fails"
)]

pub mod agent;
pub mod alerting;
pub mod api;
pub mod authority;
pub mod background;
pub mod binary;
pub mod clock;
pub mod command;
pub mod config;
pub mod crowd;
pub mod dice;
pub mod eye;
pub mod family;
pub mod ffmpeg;
pub mod freezer;
pub mod invented;
pub mod message;
pub mod mutant;
pub mod names;
pub mod need;
pub mod order;
pub mod pidfd;
pub mod proc;
pub mod prometheus;
pub mod proxy;
pub mod ps;
pub mod receiver;
pub mod scratch;
pub mod served;
pub mod strace;
pub mod tmux;
pub mod wait;
