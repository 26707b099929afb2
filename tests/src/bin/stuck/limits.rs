//! Room for many fds in one process.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this process at least so many fds.
pub(crate) fn allow_fds(needed: usize) -> Result<()> {
    let needed = u64::try_from(needed)?;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // Above the hard limit only root may go, up to fs.nr_open.
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum,
        },
    )
    .with_context(|| format!("RLIMIT_NOFILE of {needed}"))
}
