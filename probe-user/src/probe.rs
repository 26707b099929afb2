//! The live kernel, as observations for `core`.
//!
//! `btf` and `layout` find where the kernel keeps things; `kernel` loads the
//! programs and reads their records; `process` and `cgroup` read `/proc` for what
//! the records leave out; `readers` tells who should read; `fallback` does without BPF. None of them decides anything.

pub mod btf;
pub mod cgroup;
pub mod fallback;
pub mod kernel;
pub mod layout;
pub mod pressure;
pub mod process;
pub mod readers;
pub mod symbols;
