//! What is left of the limits of a request, without charging it.

use crate::limit::{charge::Charge, shared::Charged};
use std::{sync::Arc, time::Duration};

/// What is left of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The limit's name.
    pub limit: Arc<str>,
    /// What it allows in its window.
    pub of: u64,
    /// The window; a quota's is its whole period.
    pub window: Duration,
    /// What the request would cost; 0 if that is known afterwards.
    pub cost: u32,
    /// What could be taken at once; `None` if another node has to be asked.
    pub remaining: Option<u64>,
    /// Until it is whole again.
    pub reset: Option<Duration>,
    /// It refuses nothing, and tells whom it would.
    pub is_shadow: bool,
}

impl Left {
    /// Whether it would let the request pass, if this node can tell.
    #[must_use]
    pub fn allows(&self) -> Option<bool> {
        Some(self.is_shadow || self.remaining? >= u64::from(self.cost.max(1)))
    }
}

impl Charge {
    /// What is left of each limit. Nothing is charged, and nobody is asked.
    #[must_use]
    pub fn look(&self, now: Duration) -> Vec<Left> {
        let looked = self.0.parts.iter().map(|part| {
            let (remaining, reset) = match self.0.charge(part, now, 0) {
                Charged::Taken(taken) | Charged::Refused(taken) => {
                    (Some(taken.remaining), Some(taken.reset))
                }
                Charged::Short | Charged::Away => (None, None),
            };
            Left {
                limit: part.rule.clone(),
                of: part.policy.limit,
                window: Duration::from_secs(part.policy.window),
                cost: part.cost,
                remaining,
                reset,
                is_shadow: false,
            }
        });
        let shadows = self.0.shadows.iter().map(|shadow| Left {
            limit: shadow.rule.clone(),
            of: 0,
            window: Duration::ZERO,
            cost: 0,
            remaining: None,
            reset: None,
            is_shadow: true,
        });
        looked.chain(shadows).collect()
    }
}
