//! The dashboard behind `pipestall top`.
//!
//! Messages go in, commands come out: [`state`] holds all that is known and shown, without a
//! clock and without I/O; [`view`] makes a frame of it and keeps nothing; [`source`] gets the
//! data, from an agent or by looking itself; [`run`] is the one loop that ties them together.
//! Nothing here decides about a stall: a kill is asked of the agent, which may refuse it.

pub mod filter;
pub mod keys;
pub mod layout;
pub mod model;
pub mod run;
pub mod source;
pub mod state;
pub mod terminal;
pub mod view;
