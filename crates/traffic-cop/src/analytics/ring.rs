//! The spans of one width that this life of the node has counted, the latest ones: to be written to
//! the store, and to be read where that does not answer.

use crate::analytics::{
    names::Names,
    period::{Period, Width},
    record,
    span::Span,
};
use bytes::Bytes;
use std::collections::VecDeque;
use types::Timestamp;

#[derive(Debug)]
pub(super) struct Ring {
    width: &'static Width,
    /// In order of their beginnings.
    held: VecDeque<Held>,
    /// The latest beginning of a span of the count of this number that is no longer held.
    gone: Option<(u32, u64)>,
}

#[derive(Debug)]
struct Held {
    start: u64,
    count: u32,
    state: State,
    /// How often it was changed, and how often it had been when it was last written.
    changes: u64,
    written: u64,
}

#[derive(Debug)]
enum State {
    Open(Box<Span>),
    Over(Bytes),
}

impl State {
    fn add(&mut self, more: &Span, names: &Names, width: &Width) {
        match self {
            Self::Open(span) => span.add(more),
            Self::Over(bytes) => {
                let mut span = record::decode(bytes, names).unwrap_or_default();
                span.add(more);
                *bytes = record::encode(&span, names, width);
            }
        }
    }

    fn bytes(&self, names: &Names, width: &Width) -> Bytes {
        match self {
            Self::Open(span) => record::encode(span, names, width),
            Self::Over(bytes) => bytes.clone(),
        }
    }
}

/// All that one count of this life has of a span.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) width: &'static Width,
    pub(super) start: u64,
    /// Which count of this life: a clock that goes back far begins another.
    pub(super) count: u32,
    pub(super) bytes: Bytes,
    changes: u64,
}

impl Ring {
    pub(super) fn new(width: &'static Width) -> Self {
        Self { width, held: VecDeque::new(), gone: None }
    }

    fn at(&self, start: u64, count: u32) -> Result<usize, usize> {
        self.held.binary_search_by_key(&(start, count), |held| (held.start, held.count))
    }

    /// Whether the span of `at` may have been written by this count and is no longer held: then it
    /// cannot be written anew without losing what it had.
    pub(super) fn has_forgotten(&self, at: Timestamp, count: u32) -> bool {
        let start = self.width.start(at);
        let is_gone = self.gone.is_some_and(|(of, up_to)| of == count && start <= up_to);
        is_gone && self.at(start, count).is_err()
    }

    /// Adds to the span of `at`; answers how many requests had to be given up that were not
    /// written yet.
    pub(super) fn add(&mut self, at: Timestamp, count: u32, more: &Span, names: &Names) -> u64 {
        let (start, width) = (self.width.start(at), self.width);
        let index = match self.at(start, count) {
            Ok(index) => index,
            Err(index) => {
                for held in &mut self.held {
                    if let State::Open(span) = &held.state {
                        held.state = State::Over(record::encode(span, names, width));
                    }
                }
                let state = State::Open(Box::default());
                self.held.insert(index, Held { start, count, state, changes: 0, written: 0 });
                index
            }
        };
        let held = &mut self.held[index];
        held.state.add(more, names, width);
        held.changes += 1;
        self.bound(names)
    }

    /// Gives up what is too much: the earliest that is written, and if none is, the earliest.
    fn bound(&mut self, names: &Names) -> u64 {
        let mut lost = 0;
        while self.held.len() > self.width.held
            || (self.bytes() > self.width.held_bytes && self.held.len() > 2)
        {
            let written = self.held.iter().position(|held| held.written == held.changes);
            let Some(first) = self.held.remove(written.unwrap_or(0)) else { break };
            let up_to = match self.gone {
                Some((count, up_to)) if count == first.count => up_to.max(first.start),
                Some((count, _)) if count > first.count => continue,
                Some(_) | None => first.start,
            };
            self.gone = Some((first.count, up_to));
            if first.written < first.changes {
                let bytes = first.state.bytes(names, self.width);
                let span = record::decode(&bytes, names).unwrap_or_default();
                lost += span.routes.values().map(|counts| counts.usage.requests).sum::<u64>();
            }
        }
        lost
    }

    fn bytes(&self) -> usize {
        let over = self.held.iter().map(|held| match &held.state {
            State::Over(bytes) => bytes.len(),
            State::Open(_) => 0,
        });
        over.sum()
    }

    /// What is to be written.
    pub(super) fn unwritten(&self, names: &Names) -> Vec<Piece> {
        let unwritten = self.held.iter().filter(|held| held.written < held.changes);
        unwritten.map(|held| self.piece(held, names)).collect()
    }

    /// What there is of a period.
    pub(super) fn of(&self, period: &Period, names: &Names) -> Vec<Piece> {
        let wanted = self.held.iter().filter(|held| period.has(held.start));
        wanted.map(|held| self.piece(held, names)).collect()
    }

    fn piece(&self, held: &Held, names: &Names) -> Piece {
        let bytes = held.state.bytes(names, self.width);
        let Held { start, count, changes, .. } = *held;
        Piece { width: self.width, start, count, bytes, changes }
    }

    /// A piece is in the store.
    pub(super) fn is_written(&mut self, piece: &Piece) {
        if let Ok(index) = self.at(piece.start, piece.count) {
            let held = &mut self.held[index];
            held.written = held.written.max(piece.changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::{
        figures::{Counts, Usage},
        period::SLICE,
    };
    use std::time::Duration;

    fn requests(names: &Names, count: u64) -> Span {
        let mut counts = Counts::default();
        (0..count).for_each(|_| counts.add_one(&Usage::one(200, 0, 0), Duration::ZERO));
        let mut span = Span::default();
        span.add_route(names.number("r", "s", None), None, &counts);
        span
    }

    fn total(pieces: &[Piece], names: &Names) -> u64 {
        let spans = pieces.iter().map(|piece| record::decode(&piece.bytes, names).unwrap());
        spans.map(|span| span.routes.values().map(|c| c.usage.requests).sum::<u64>()).sum()
    }

    #[test]
    fn what_is_written_is_not_written_again_until_it_changes() {
        let names = Names::default();
        let mut ring = Ring::new(&SLICE);
        let at = |slice: u64| Timestamp(slice * SLICE.millis + 17);
        for slice in [1, 2, 3, 2, 1, 3] {
            assert_eq!(ring.add(at(slice), 0, &requests(&names, 1), &names), 0);
        }
        let pieces = ring.unwritten(&names);
        assert_eq!((pieces.len(), total(&pieces, &names)), (3, 6));
        ring.add(at(2), 0, &requests(&names, 1), &names);
        pieces.iter().for_each(|piece| ring.is_written(piece));
        let again = ring.unwritten(&names);
        assert_eq!((again.len(), again[0].start, total(&again, &names)), (1, 2 * SLICE.millis, 3));
    }

    #[test]
    fn what_is_not_held_any_more_is_known_as_forgotten() {
        let names = Names::default();
        let mut ring = Ring::new(&SLICE);
        let mut lost = 0;
        for slice in 0..200_u64 {
            lost += ring.add(Timestamp(slice * SLICE.millis), 0, &requests(&names, 1), &names);
            if slice < 50 {
                ring.unwritten(&names).iter().for_each(|piece| ring.is_written(piece));
            }
        }
        assert_eq!(lost, 200 - SLICE.held as u64 - 50);
        assert!(ring.has_forgotten(Timestamp(69 * SLICE.millis), 0));
        assert!(!ring.has_forgotten(Timestamp(70 * SLICE.millis), 0));
        assert!(!ring.has_forgotten(Timestamp(69 * SLICE.millis), 1));
    }
}
