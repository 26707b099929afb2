//! What the programs counted of each channel, where calls are traced.

use aya::{
    Pod,
    maps::{Array, HashMap},
};
use probe_ebpf::{WRITTEN_KINDS, record};

use super::Kernel;
use crate::core::model::{Channel, ChannelKind};

/// What was written to a channel, or to all of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<To = Channel> {
    /// To what.
    pub to: To,
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
                to: Channel {
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
        all.sort_by_key(|written| (std::cmp::Reverse(written.bytes), written.to.inode));
        all
    }

    /// The same by kind of channel, of which nothing is ever left out; none where calls are not traced.
    #[must_use]
    pub fn written_by_kind(&self) -> Vec<Written<ChannelKind>> {
        let map = self.ebpf.map("WRITTEN_BY_KIND").filter(|_| self.traces_writes);
        let Some(map) = map.and_then(|map| Array::<_, Value>::try_from(map).ok()) else {
            return Vec::new();
        };
        let of = |number: u8| {
            let kind = ChannelKind::from_u8(number)?;
            let Value(value) = map.get(&u32::from(number), 0).ok()?;
            Some(Written {
                to: kind,
                bytes: value.bytes,
                took: value.took.to_vec(),
            })
        };
        (0..=u8::MAX)
            .take(WRITTEN_KINDS as usize)
            .filter_map(of)
            .collect()
    }
}
