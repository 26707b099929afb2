//! Names no other process has, short enough for a comm.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a comm holds without its terminating zero (`TASK_COMM_LEN` is 16).
pub const COMM_LEN: usize = 15;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes a name of at most 15 bytes that starts with `prefix` and that no other test uses:
/// it carries this process's pid and a counter.
pub fn unique(prefix: &str) -> String {
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{prefix}-{}{}", base36(process::id()), base36(count));
    assert!(name.len() <= COMM_LEN, "{name} is too long for a comm");
    name
}

/// Shortens `name` as the kernel does for a comm.
pub fn as_comm(name: &str) -> &str {
    name.get(..COMM_LEN).unwrap_or(name)
}

fn base36(mut number: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(char::from(DIGITS[number as usize % 36]));
        number /= 36;
        if number == 0 {
            break text.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{as_comm, base36, unique};

    #[test]
    fn names_differ_and_keep_their_prefix() {
        let (one, other) = (unique("w"), unique("w"));
        assert_ne!(one, other);
        assert!(one.starts_with("w-") && other.starts_with("w-"), "{one} {other}");
    }

    #[test]
    fn the_largest_pid_fits_beside_a_six_byte_prefix() {
        // PID_MAX_LIMIT is 2^22; three digits are left for the counter.
        assert!(format!("ffmpeg-{}{}", base36(1 << 22), base36(36 * 36 - 1)).len() <= 15);
    }

    #[test]
    fn a_long_name_is_cut_where_the_kernel_cuts_it() {
        assert_eq!(as_comm("ffmpeg-linux-x86_64-v9.0.2"), "ffmpeg-linux-x8");
        assert_eq!(as_comm("node"), "node");
    }
}
