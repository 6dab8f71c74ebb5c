//! What was counted in a second or a minute that is over, in little room: hundreds of them are
//! kept, each with a line for every route and tenant that was busy in it, and most buckets of a
//! line's histogram are empty.

use crate::analytics::{Counts, Histogram, Label, ring::Slot};

/// Can only be read.
#[derive(Debug)]
pub(super) struct Packed(Box<[Line]>);

#[derive(Debug)]
struct Line {
    label: Label,
    /// Without the latencies.
    counts: Counts,
    sum_micros: u64,
    /// Each bucket that is not empty: its number and its count.
    used: Box<[(u16, u32)]>,
}

impl Packed {
    pub(super) fn of(slot: &Slot) -> Self {
        let line = |(label, counts): (&Label, &Counts)| {
            let used = counts.latency.used().map(|(at, count)| {
                // No minute has so many requests that a count is cut.
                (u16::try_from(at).unwrap_or(u16::MAX), u32::try_from(count).unwrap_or(u32::MAX))
            });
            Line {
                label: label.clone(),
                counts: Counts { latency: Histogram::default(), ..*counts },
                sum_micros: counts.latency.sum_micros(),
                used: used.collect(),
            }
        };
        Self(slot.iter().map(line).collect())
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = (&Label, Counts)> {
        self.0.iter().map(|line| {
            let used = line.used.iter().map(|(at, count)| (usize::from(*at), u64::from(*count)));
            let latency = Histogram::of_used(used, line.sum_micros);
            (&line.label, Counts { latency, ..line.counts })
        })
    }

    pub(super) fn unpacked(&self) -> Slot {
        self.lines().map(|(label, counts)| (label.clone(), counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::RouteId;
    use std::time::Duration;

    #[test]
    fn nothing_is_lost_by_packing() {
        let counts = |millis: &[u64]| {
            let mut counts = Counts { by_class: [0, 1, 2, 3, 4, 5], limited: 6, ..<_>::default() };
            millis.iter().for_each(|ms| counts.latency.record(Duration::from_millis(*ms)));
            counts
        };
        let label = |route| Label { route: RouteId(route), tenant: None };
        let slot: Slot = [
            (label(1), counts(&[1, 1, 70, 3_600_000])),
            (label(2), counts(&[])),
            (label(3), counts(&[0])),
        ]
        .into_iter()
        .collect();
        assert_eq!(Packed::of(&slot).unpacked(), slot);
    }
}
