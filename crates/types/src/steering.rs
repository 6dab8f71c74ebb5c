//! How what a session asks for is served.

use std::collections::BTreeMap;

/// Which calls go first when a service, or the node, cannot take all.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May use half of what there is.
    Low,
    /// May use four fifths.
    #[default]
    Normal,
    /// May use nine tenths.
    High,
    /// May use all.
    Urgent,
}

impl Priority {
    /// The priority of a request that would have this one, in a session of that one: `low` is the
    /// most that it may have, `high` and `urgent` the least, and `normal` changes nothing.
    #[must_use]
    pub fn in_session(self, of: Self) -> Self {
        match of {
            Self::Low => self.min(of),
            Self::Normal => self,
            Self::High | Self::Urgent => self.max(of),
        }
    }
}

/// What a session says of how its requests are served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Steering {
    /// Which of its requests go first.
    pub priority: Priority,
    /// The instances that it is bound to, host and port, by service.
    pub instances: BTreeMap<Box<str>, Box<str>>,
    /// How often the session was handed over when the credential was made.
    pub handed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_bounds_the_priority_of_its_requests() {
        use Priority::{High, Low, Normal, Urgent};
        let check = |session: Priority, expected: [Priority; 4]| {
            assert_eq!([Low, Normal, High, Urgent].map(|of| of.in_session(session)), expected);
        };
        check(Low, [Low, Low, Low, Low]);
        check(Normal, [Low, Normal, High, Urgent]);
        check(High, [High, High, High, Urgent]);
        check(Urgent, [Urgent, Urgent, Urgent, Urgent]);
    }
}
