//! Events about stalls that never happened, as the journal would have them.

use serde_json::{Value, json};

/// What [`line`] hides in each command line, to be found nowhere else.
pub const PASSWORD: &str = "hunter2";

/// The journal's line of an event about the writer of this number.
pub fn line(seq: u64, kind: &str, writer: u64, reason: Option<&str>) -> String {
    let mut event = json!({
        "v": 1, "id": format!("01INVENTED{seq:016}"), "seq": seq, "time": "2026-11-23T08:00:00.000Z",
        "node": "host", "type": kind, "rule": "the-rule", "action": "kill", "mode": "enforce",
        "stalled_for_seconds": 60.0,
        "stall": {
            "id": format!("{writer}-abc-{writer}"), "pid": writer, "tid": writer, "comm": "ffmpeg",
            "thread": "mux0:mp4", "exe": "/usr/bin/ffmpeg",
            "cmdline": ["ffmpeg", "-i", format!("https://u:{PASSWORD}@example.com/v"), "pipe:1"],
            "uid": 1000, "user": "peertube", "ppid": 1, "parent": "node", "cgroup": "/",
            "unit": "peertube.service", "container": null, "channel": "unix", "inode": writer, "fd": 1,
            "stream": "stdout", "syscall": "write", "since": "2026-11-23T07:59:00.000Z", "age_seconds": 60.0,
            "age_is_minimum": false, "age_is_maximum": false, "preexisting": false,
            "queued_bytes": 219_264,
        },
    });
    if let Some(reason) = reason {
        event["reason"] = Value::from(reason);
    }
    event.to_string()
}
