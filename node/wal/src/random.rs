//! A small deterministic stream of numbers (splitmix64), for salts and for the fake disk's choices.
//!
//! It adds no randomness of its own: the caller's seed decides everything.

/// The stream. One seed replays it exactly.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias of the remainder does not matter here.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
