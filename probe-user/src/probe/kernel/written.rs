//! What the programs counted of each channel, where calls are traced.

use aya::{Pod, maps::HashMap};
use probe_ebpf::record;

use super::Kernel;
use crate::core::model::{Channel, ChannelKind};

/// What was written to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// To what.
    pub channel: Channel,
    /// How many bytes.
    pub bytes: u64,
    /// How many calls took how long, by [`probe_ebpf::histogram::slot`].
    pub took: Vec<u64>,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(record::WrittenKey);

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(record::Written);

// SAFETY: `repr(C)`, integers only, and as long as its fields are together.
unsafe impl Pod for Key {}
// SAFETY: as above.
unsafe impl Pod for Value {}

impl Kernel {
    /// What was written so far, the channel with the most bytes first.
    #[must_use]
    pub fn written(&self) -> Vec<Written> {
        let map = self.ebpf.map("WRITTEN");
        let Some(map) = map.and_then(|map| HashMap::<_, Key, Value>::try_from(map).ok()) else {
            return Vec::new();
        };
        let of = |(Key(key), Value(value)): (Key, Value)| {
            let kind = ChannelKind::from_u8(u8::try_from(key.channel).ok()?)?;
            Some(Written {
                channel: Channel {
                    kind,
                    dev: key.dev,
                    inode: key.inode,
                },
                bytes: value.bytes,
                took: value.took.to_vec(),
            })
        };
        // One that makes room for another meanwhile is left out.
        let mut all: Vec<_> = map.iter().filter_map(Result::ok).filter_map(of).collect();
        all.sort_by_key(|written| (std::cmp::Reverse(written.bytes), written.channel.inode));
        all
    }
}
