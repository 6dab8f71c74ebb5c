//! Which sessions a principal may have at a time, and which end for a new one.

use crate::session::record::SessionRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::SessionId;

/// What happens when a principal, or a device, has as many sessions as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// There is no new one.
    #[default]
    Refuse,
    /// The one that was made first ends.
    EndOldest,
    /// The one that was not used for longest ends.
    EndLeastRecent,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) per_user_max: usize,
    /// Zero: as many as the user may have.
    pub(super) per_device_max: usize,
    pub(super) on_limit: OnLimit,
}

impl Room {
    /// Which of the `held` sessions of a principal end, so that there is room for one on `device`.
    ///
    /// # Errors
    /// How many there are already, which is the limit.
    pub(super) fn make(
        &self,
        held: &[SessionRecord],
        device: Option<&str>,
    ) -> Result<BTreeSet<SessionId>, usize> {
        let mut ending = BTreeSet::new();
        let of_device = |record: &&SessionRecord| {
            record.device.as_ref().is_some_and(|on| Some(on.id.as_str()) == device)
        };
        if self.per_device_max > 0 && device.is_some() {
            let on_it = held.iter().filter(of_device).collect();
            self.end(on_it, self.per_device_max, &mut ending)?;
        }
        let left = held.iter().filter(|record| !ending.contains(&record.id)).collect();
        self.end(left, self.per_user_max, &mut ending)?;
        Ok(ending)
    }

    fn end(
        &self,
        mut of: Vec<&SessionRecord>,
        most: usize,
        ending: &mut BTreeSet<SessionId>,
    ) -> Result<(), usize> {
        let Some(over) = (of.len() + 1).checked_sub(most).filter(|over| *over > 0) else {
            return Ok(());
        };
        match self.on_limit {
            OnLimit::Refuse => return Err(most),
            OnLimit::EndOldest => of.sort_by_key(|record| (record.created, record.id)),
            OnLimit::EndLeastRecent => of.sort_by_key(|record| (record.last_used, record.id)),
        }
        ending.extend(of.iter().take(over).map(|record| record.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::tests::record;
    use types::Timestamp;

    /// Sessions numbered from 0: on which device, when made and when used last.
    fn held(of: &[(&str, u64, u64)]) -> Vec<SessionRecord> {
        let numbered = of.iter().enumerate();
        numbered
            .map(|(number, (device, created, last_used))| {
                let mut record = record(number as u8);
                record.device.as_mut().unwrap().id = (*device).into();
                (record.created, record.last_used) = (Timestamp(*created), Timestamp(*last_used));
                record
            })
            .collect()
    }

    fn check(room: Room, held: &[SessionRecord], device: &str, expected: Result<&[usize], usize>) {
        let expected = expected.map(|numbers| numbers.iter().map(|n| held[*n].id).collect());
        assert_eq!(room.make(held, Some(device)), expected, "{room:?} {device}");
    }

    #[test]
    fn those_end_that_the_policy_names() {
        let held = held(&[("a", 3, 4), ("a", 1, 9), ("b", 2, 5)]);
        let room = |per_user_max, per_device_max, on_limit| Room {
            per_user_max,
            per_device_max,
            on_limit,
        };
        check(room(4, 0, OnLimit::Refuse), &held, "a", Ok(&[]));
        check(room(3, 0, OnLimit::Refuse), &held, "a", Err(3));
        check(room(3, 0, OnLimit::EndOldest), &held, "a", Ok(&[1]));
        check(room(3, 0, OnLimit::EndLeastRecent), &held, "b", Ok(&[0]));
        check(room(9, 2, OnLimit::Refuse), &held, "a", Err(2));
        check(room(9, 2, OnLimit::Refuse), &held, "b", Ok(&[]));
        check(room(9, 2, OnLimit::EndOldest), &held, "a", Ok(&[1]));
        check(room(9, 2, OnLimit::EndLeastRecent), &held, "a", Ok(&[0]));
        // What ends on the device is room for the user too; a limit that was lowered is met.
        check(room(3, 2, OnLimit::EndOldest), &held, "a", Ok(&[1]));
        check(room(1, 0, OnLimit::EndOldest), &held, "c", Ok(&[0, 1, 2]));
        check(room(2, 1, OnLimit::EndLeastRecent), &held, "a", Ok(&[0, 1]));
    }
}
