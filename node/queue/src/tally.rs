//! A tally: messages of which only the number and the sum of their sizes are known.

use std::collections::BTreeMap;

/// A number of messages and their bytes in all. Whoever takes some out must bring their sizes. Sizes that cannot be
/// true are not believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Tally {
    /// Whether messages of these (offset, size) can be part of it, so that any of them may be taken out. They must not
    /// have more bytes than there are, nor leave more than the others can have. Only those for which `is_here` is true
    /// count, and each counts once. An offset that is listed with two sizes is refused.
    ///
    /// Looks at single messages only if they cannot all be here.
    pub(crate) fn can_spare(
        self,
        sizes: impl Iterator<Item = (u64, u32)> + Clone,
        is_here: impl Fn(u64) -> bool,
    ) -> bool {
        let (count, bytes) = sum(sizes.clone().map(|(_, size)| size));
        if self.leaves_possible(count, bytes) {
            return true;
        }
        let mut here = BTreeMap::new();
        for (offset, size) in sizes.filter(|(offset, _)| is_here(*offset)) {
            if here.insert(offset, size).is_some_and(|other| other != size) {
                return false;
            }
        }
        let (count, bytes) = sum(here.into_values());
        self.leaves_possible(count, bytes)
    }

    fn leaves_possible(self, count: u64, bytes: u64) -> bool {
        let left = self.count.checked_sub(count).zip(self.bytes.checked_sub(bytes));
        left.is_some_and(|(count, bytes)| bytes <= count.saturating_mul(u64::from(u32::MAX)))
    }
}

fn sum(sizes: impl Iterator<Item = u32>) -> (u64, u64) {
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + u64::from(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a tally can spare what is listed, if only `here` is part of it.
    fn can_spare((count, bytes): (u64, u64), listed: &[(u64, u32)], here: &[u64]) -> bool {
        Tally { count, bytes }.can_spare(listed.iter().copied(), |offset| here.contains(&offset))
    }

    #[test]
    fn rule_10_5_no_sizes_leave_bytes_without_messages() {
        assert!(can_spare((2, 100), &[(5, 40), (7, 60)], &[5, 7]));
        assert!(can_spare((1, 100), &[(5, 100), (7, 20)], &[5]), "what is not here does not count");
        assert!(!can_spare((1, 100), &[(5, 0)], &[5]));
        assert!(!can_spare((1, 100), &[(5, 101)], &[5]));
        assert!(!can_spare((1, 100), &[(5, 0), (7, 100)], &[5]), "the sum is right, and 7 is not here");
    }
}
