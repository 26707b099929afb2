//! What pipestall decides, and nothing of how it sees or acts.
//!
//! A state machine without I/O: looks and notes go in, effects come out, and the
//! time is an argument. It reads no clock, knows no kernel API and no runtime, so
//! live, replayed and simulated time drive the same code.
//!
//! ```text
//! Look ─► tracker ─► stalls ─► policy ─► verdicts ─► kill ─► effects
//! ```
#![forbid(unsafe_code)]

pub mod chain;
pub mod explain;
pub mod kill;
pub mod machine;
pub mod matcher;
pub mod model;
pub mod pace;
pub mod pattern;
pub mod policy;
pub mod protect;
pub mod reader;
pub mod report;
pub mod rule;
pub mod share;
pub mod tracker;
