//! Who reads and writes the entries of a document, of those who may read and write it at all.

use crate::state::{States, document};
use protocol::{Code, Problem};
use store::Partition;
use types::Caller;

impl States {
    /// Whether `caller`, who may read the document in `partition`, may read its entry `key`. Every
    /// way to the entries of a document goes by it: those of this crate by themselves, others
    /// by asking for each entry and each change that they hand out.
    #[must_use]
    pub fn may_read(&self, caller: &Caller, partition: &Partition, key: &str) -> bool {
        document::name(partition).is_none_or(|name| self.rules.may_read(caller, name, key))
    }

    /// Whether `caller`, who may read the document in `partition`, may read every entry that it
    /// can have, so that [`Self::may_read`] need not be asked.
    #[must_use]
    pub fn may_read_all(&self, caller: &Caller, partition: &Partition) -> bool {
        document::name(partition).is_none_or(|name| !self.rules.hides(caller, name))
    }

    pub(super) fn may_write(&self, caller: &Caller, partition: &Partition, key: &str) -> bool {
        document::name(partition).is_none_or(|name| self.rules.may_write(caller, name, key))
    }

    /// As [`Self::may_read`].
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_read(
        &self,
        caller: &Caller,
        partition: &Partition,
        key: &str,
    ) -> Result<(), Problem> {
        match self.may_read(caller, partition, key) {
            true => Ok(()),
            false => Err(forbidden(key)),
        }
    }
}

pub(super) fn forbidden(key: &str) -> Problem {
    Problem::new(Code::Forbidden, format!("the entry `{key}` is not open to this caller"))
}
