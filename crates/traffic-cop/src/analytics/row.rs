//! A row of counts, most of which are small: two bytes each, and ten from the first one on that
//! needs more.

/// Counts, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// The lower sixteen bits of each.
    low: Box<[u16]>,
    /// What is above them; empty as long as nothing is.
    high: Box<[u64]>,
}

impl Row {
    pub(super) fn len(&self) -> usize {
        self.low.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.low.iter().enumerate().map(|(at, low)| {
            let high = self.high.get(at).copied().unwrap_or_default();
            (high << 16) | u64::from(*low)
        })
    }

    /// Adds to the count `at`; false if there is none.
    pub(super) fn add(&mut self, at: usize, more: u64) -> bool {
        let Some(low) = self.low.get_mut(at) else { return false };
        let sum = u64::from(*low).saturating_add(more);
        *low = sum as u16;
        let over = sum >> 16;
        if over > 0 {
            self.carry(at, over);
        }
        true
    }

    #[cold]
    fn carry(&mut self, at: usize, over: u64) {
        if self.high.is_empty() {
            self.high = vec![0; self.low.len()].into();
        }
        let sum = self.high[at].saturating_add(over);
        self.high[at] = sum.min(u64::MAX >> 16);
    }

    /// Puts so many zeros before and behind.
    pub(super) fn widen(&mut self, before: usize, after: usize) {
        self.low = widened(&self.low, before, after);
        if !self.high.is_empty() {
            self.high = widened(&self.high, before, after);
        }
    }
}

fn widened<N: Copy + Default>(row: &[N], before: usize, after: usize) -> Box<[N]> {
    let mut wider = vec![N::default(); before + row.len() + after];
    wider[before..before + row.len()].copy_from_slice(row);
    wider.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_any_size_add_up() {
        let mut row = Row::default();
        assert!(!row.add(0, 1));
        row.widen(1, 2);
        for (at, more) in [(0, 65_535), (1, 65_536), (1, 1), (2, u64::MAX), (2, u64::MAX), (0, 2)] {
            assert!(row.add(at, more));
        }
        assert!(!row.add(3, 1));
        row.widen(1, 1);
        assert_eq!(row.iter().collect::<Vec<_>>(), [0, 65_537, 65_537, u64::MAX, 0]);
        assert_eq!(row.len(), 5);
    }

    #[test]
    fn what_is_small_takes_little() {
        let mut row = Row::default();
        row.widen(0, 16);
        (0..16).for_each(|at| assert!(row.add(at, 65_535)));
        assert_eq!((row.low.len(), row.high.len()), (16, 0));
    }
}
