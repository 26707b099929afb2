//! The scale of the blocked-time histogram: one slot for each power of two of
//! nanoseconds.

/// Slots of the histogram, enough for any `u64`.
pub const SLOTS: u32 = 64;

/// The slot of a duration: slot `n` holds durations in `2^n ..= 2^(n+1) - 1` ns, slot 0 also 0 ns.
#[inline]
#[must_use]
pub const fn slot(ns: u64) -> u32 {
    // A search by halves: BPF has no instruction that counts leading zeros.
    let mut rest = ns;
    let mut slot = 0;
    if rest >> 32 != 0 {
        rest >>= 32;
        slot += 32;
    }
    if rest >> 16 != 0 {
        rest >>= 16;
        slot += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        slot += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        slot += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        slot += 2;
    }
    if rest >> 1 != 0 {
        slot += 1;
    }
    slot
}

/// The largest duration, in nanoseconds, that a slot holds.
#[must_use]
pub const fn upper_bound(slot: u32) -> u64 {
    if slot >= SLOTS - 1 {
        u64::MAX
    } else {
        (1 << (slot + 1)) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_begin_at_powers_of_two() {
        assert_eq!(
            [0, 1, 2, 3, 4, 1023, 1024, u64::MAX].map(slot),
            [0, 0, 1, 1, 2, 9, 10, 63]
        );
    }

    proptest! {
        #[test]
        fn a_duration_lies_within_its_slot(ns: u64) {
            let s = slot(ns);
            prop_assert!(s < SLOTS);
            prop_assert!(ns <= upper_bound(s));
            prop_assert!(s == 0 || ns > upper_bound(s - 1));
        }
    }
}
