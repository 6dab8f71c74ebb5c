use super::*;

/// A day of a thousand seconds.
fn day(number: u64) -> Period {
    Period { begins: Timestamp(number * 1_000_000), ends: Timestamp((number + 1) * 1_000_000) }
}

fn by(limit: u64, number: u64) -> Drawing {
    let period = day(number);
    Drawing { limit, at: period.begins, period, now: Duration::from_secs(number * 1_000) }
}

/// A count of the first day as its store knows it: what is done in the store, as it is asked.
struct Kept {
    count: Quota,
    stored: Option<(Timestamp, u64)>,
    saves: u32,
}

impl Kept {
    fn new(stored: Option<(Timestamp, u64)>) -> Self {
        let mut count = Quota::default();
        count.turn(day(1));
        Self { count, stored, saves: 0 }
    }

    fn run(&mut self, limit: u64, now: Duration) {
        if self.count.needs_load() {
            self.count.load(self.stored);
        }
        while let Some((begun, used)) = self.count.due(limit, now, false) {
            self.stored = Some((begun, used));
            self.saves += 1;
            self.count.saved(begun, used, true);
        }
    }

    fn take(&mut self, by: Drawing, cost: u64) -> bool {
        for _ in 0..3 {
            match self.count.take(by, cost) {
                Counted::Taken { low, .. } => {
                    if low {
                        self.run(by.limit, by.now);
                    }
                    return true;
                }
                Counted::Refused(_) => return false,
                Counted::Short => self.run(by.limit, by.now),
            }
        }
        panic!("it is short for ever: {:?}", self.count);
    }
}

fn stored(used: u64) -> Option<(Timestamp, u64)> {
    Some((day(1).begins, used))
}

#[test]
fn all_of_it_is_admitted_and_the_store_is_never_behind_nor_far_ahead() {
    for (limit, saves_max) in [(1, 1), (7, 7), (1_000, 201), (100_000, 201)] {
        let mut kept = Kept::new(None);
        for used in 1..=limit {
            assert!(kept.take(by(limit, 1), 1), "{used} of {limit}");
            let (_, known) = kept.stored.unwrap();
            assert!(known >= used, "{used}, and the store knows {known}");
            assert!(known <= used + 2 * part(limit), "{used}, and the store knows {known}");
        }
        assert!(!kept.take(by(limit, 1), 1));
        assert!(kept.saves <= saves_max, "{limit}: {}", kept.saves);
    }
}

#[test]
fn a_crash_never_gives_back_and_takes_a_part_at_most() {
    let limit = 1_000;
    let (mut stored, mut admitted, mut crashes) = (None, 0, 0);
    loop {
        let mut kept = Kept::new(stored);
        let before = admitted;
        while admitted < before + 33 && kept.take(by(limit, 1), 1) {
            admitted += 1;
        }
        stored = kept.stored;
        if admitted == before {
            break;
        }
        crashes += 1;
    }
    assert!(admitted <= limit);
    assert!(admitted >= limit - crashes * 2 * part(limit), "{admitted}, {crashes} crashes");
}

#[test]
fn it_begins_anew_with_the_next_period_and_not_with_an_earlier_one() {
    let mut kept = Kept::new(None);
    assert!(kept.take(by(2, 1), 1) && kept.take(by(2, 1), 1) && !kept.take(by(2, 1), 1));
    kept.count.turn(day(0));
    assert!(!kept.take(by(2, 1), 1), "the clock went back");
    // Nor for whoever loads it then.
    let mut other = Kept::new(kept.stored);
    other.count = Quota::default();
    other.count.turn(day(0));
    assert!(!other.take(by(2, 1), 1));
    assert_eq!(other.count.begun(), day(1).begins);
    other.count.turn(day(2));
    assert!(other.take(by(2, 2), 1));
    assert_eq!(other.stored.unwrap().0, day(2).begins);
}

#[test]
fn what_nobody_draws_on_is_exact_in_the_store_and_forgotten() {
    let mut kept = Kept::new(None);
    let drawn = by(1_000, 1);
    assert!(kept.take(drawn, 1));
    kept.run(1_000, drawn.now);
    assert!(kept.stored.unwrap().1 > 1 && !kept.count.is_idle(drawn.now));
    let later = drawn.now + QUIET;
    kept.run(1_000, later);
    assert_eq!(kept.stored, stored(1));
    assert!(kept.count.is_idle(later));
}

#[test]
fn a_reserve_that_may_not_have_been_noted_is_not_used() {
    let mut count = Quota::default();
    count.turn(day(1));
    count.load(None);
    assert_eq!(count.take(by(1_000, 1), 1), Counted::Short);
    let (begun, target) = count.due(1_000, Duration::ZERO, false).expect("it is short");
    count.saved(begun, target, false);
    assert_eq!(count.take(by(1_000, 1), 1), Counted::Short);
    assert!(count.due(1_000, Duration::ZERO, false).is_some(), "it is tried again");
    // What is to be given back is not used either, while that is not known.
    let mut count = Quota::default();
    count.turn(day(1));
    count.load(stored(0));
    count.saved(day(1).begins, 500, true);
    assert_eq!(count.due(1_000, QUIET, false), stored(0), "it is given back");
    assert_eq!(count.take(by(1_000, 1), 1), Counted::Short);
}

#[test]
fn without_its_store_a_node_admits_its_part_and_what_is_left_of_its_reserve() {
    let mut kept = Kept::new(stored(200));
    let drawing = by(1_000, 1);
    assert!(kept.take(drawing, 1));
    let mut admitted = 0;
    while let Counted::Taken { .. } = kept.count.take(drawing, 1) {
        admitted += 1;
    }
    assert!(admitted <= 10, "{admitted} were reserved");
    for _ in 0..10 {
        assert!(kept.count.take_unasked(drawing, 1, false).is_some());
    }
    assert!(kept.count.take_unasked(drawing, 1, false).is_none(), "the part is used up");
    kept.run(1_000, drawing.now);
    assert!(kept.stored.unwrap().1 >= 200 + 1 + admitted + 10, "the store hears of it");
    // Nor is more admitted than there is.
    let mut full = Kept::new(stored(1_000));
    assert!(!full.take(drawing, 1));
    assert!(full.count.take_unasked(drawing, 1, false).is_none());
}

#[test]
fn what_is_known_afterwards_may_be_owed_until_the_period_ends() {
    let mut kept = Kept::new(None);
    assert!(kept.take(by(10, 1), 0), "there is room for one");
    let taken = kept.count.debit(by(10, 1), 25);
    assert_eq!((taken.remaining, taken.reset), (0, Duration::from_secs(1_000)));
    assert!(!kept.take(by(10, 1), 0));
    kept.run(10, Duration::from_secs(1_000));
    assert_eq!(kept.stored, stored(25));
    kept.count.turn(day(2));
    assert!(kept.take(by(10, 2), 10));
}

#[test]
fn what_was_charged_before_it_was_loaded_is_counted_too() {
    let mut kept = Kept::new(stored(5));
    assert!(kept.count.take_freely(by(10, 1), 3));
    kept.run(10, Duration::from_secs(1_000));
    assert_eq!(
        kept.count.take(by(10, 1), 3),
        Counted::Refused(Taken {
            remaining: 2,
            reset: Duration::from_secs(1_000),
            retry_after: Duration::from_secs(1_000),
        })
    );
}

#[test]
fn a_reset_is_told_to_the_store_whatever_it_knew() {
    let mut kept = Kept::new(Some((day(3).begins, 10)));
    kept.run(10, Duration::ZERO);
    assert!(!kept.take(by(10, 1), 1), "it was counted in a later period");
    kept.count.reset(day(1));
    assert!(!kept.count.is_ready(by(10, 1), 0), "the store has to be told first");
    kept.run(10, Duration::ZERO);
    assert!(kept.count.is_ready(by(10, 1), 0));
    assert_eq!(kept.stored.unwrap().0, day(1).begins);
    assert!(kept.take(by(10, 1), 10));
}

#[test]
fn what_is_given_back_counts_in_its_own_period_alone() {
    let mut kept = Kept::new(None);
    assert!(kept.take(by(10, 1), 8));
    kept.count.take_back(day(0).begins, 5);
    assert!(!kept.take(by(10, 1), 3));
    kept.count.take_back(day(1).begins, 5);
    assert!(kept.take(by(10, 1), 3));
}
