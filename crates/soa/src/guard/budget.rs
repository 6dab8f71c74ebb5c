//! How many attempts there may be beside the first ones.

use crate::config::BudgetConfig;
use std::time::Duration;

/// Calls are counted in spans of this length; the one under way and the one before it count.
const SPAN: Duration = Duration::from_secs(10);

/// Counts calls and the attempts beside them.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    span: u128,
    now: Count,
    before: Count,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    calls: u64,
    extra: u64,
}

impl Budget {
    /// A call began.
    pub(crate) fn called(&mut self, now: Duration) {
        self.turn(now);
        self.now.calls += 1;
    }

    /// Takes room for one more attempt, if there is some.
    pub(crate) fn take(&mut self, config: &BudgetConfig, now: Duration) -> bool {
        self.turn(now);
        let calls = self.now.calls + self.before.calls;
        let earned = calls * u64::from(config.percent) / 100;
        let granted = u64::from(config.per_second) * SPAN.as_secs();
        let may = self.now.extra + self.before.extra < earned + granted;
        self.now.extra += u64::from(may);
        may
    }

    fn turn(&mut self, now: Duration) {
        let span = now.as_nanos() / SPAN.as_nanos();
        if span != self.span {
            let follows = span == self.span + 1;
            self.before = if follows { self.now } else { Count::default() };
            self.now = Count::default();
            self.span = span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_beside_the_first_stay_within_their_part() {
        let config = BudgetConfig { percent: 20, per_second: 1 };
        let at = Duration::from_secs;
        let mut budget = Budget::default();
        let taken =
            |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(&config, now)).count();
        assert_eq!(taken(&mut budget, at(5)), 10, "what there is without a call");
        for _ in 0..200 {
            budget.called(at(6));
        }
        assert_eq!(taken(&mut budget, at(7)), 40);
        assert_eq!(taken(&mut budget, at(12)), 0, "they still count in the next span");
        assert_eq!(taken(&mut budget, at(21)), 10, "and are forgotten in the one after");
    }
}
