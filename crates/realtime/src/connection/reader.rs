//! What of a document a connection may read, if that is not all of it.

use crate::connection::Connection;
use protocol::client::Publication;
use std::sync::Arc;
use store::Partition;
use traffic_cop::state::SharedStates;
use types::Caller;

/// Looks at each entry before the connection is told of it.
#[derive(Clone)]
pub(super) struct Reader {
    states: SharedStates,
    partition: Partition,
}

impl Reader {
    /// `None` for a caller who may read all that the map in `partition` can hold.
    pub(super) fn of(
        states: &SharedStates,
        caller: &Caller,
        partition: &Partition,
    ) -> Option<Box<Self>> {
        let all = states.may_read_all(caller, partition);
        (!all).then(|| Box::new(Self { states: states.clone(), partition: partition.clone() }))
    }

    fn may_read(&self, caller: &Caller, key: &str) -> bool {
        self.states.may_read(caller, &self.partition, key)
    }

    /// Leaves out what `caller` may not read.
    pub(super) fn retain(&self, caller: &Caller, entries: &mut Vec<Publication>) {
        entries.retain(|entry| self.may_read(caller, &entry.key));
    }
}

impl Connection {
    /// Whether its caller, as he is known now, may read the entry.
    pub(super) fn reads(&self, reader: &Reader, key: Option<&Arc<str>>) -> bool {
        let bound = self.bound.borrow();
        let Some(bound) = &*bound else { return false };
        key.is_some_and(|key| reader.may_read(&bound.caller, key))
    }

    /// Leaves out what its caller may not read.
    pub(super) fn retain_readable(&self, reader: &Reader, entries: &mut Vec<Publication>) {
        match &*self.bound.borrow() {
            Some(bound) => reader.retain(&bound.caller, entries),
            None => entries.clear(),
        }
    }
}
