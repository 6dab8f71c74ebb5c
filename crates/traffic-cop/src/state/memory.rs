//! What was written last, so that the next change need not read it.
//!
//! Nothing here is trusted: a commit that is made by it checks the entry's revision, and the
//! partition's incarnation, since after a loss of data another value may come to the same
//! revision. Where others change the same entry, the check fails, which costs a round trip; so
//! an entry that was found changed is not remembered for a while.

use crate::state::{Entry, expiry::Life};
use serde_json::{Value as Json, value::RawValue};
use store::{Incarnation, Partition};

/// Entries that are remembered behind one lock.
const ENTRIES_MAX: usize = 16;
/// Bytes of a value that is remembered, as JSON.
const VALUE_BYTES_MAX: usize = 4 * 1024;
/// So many changes of an entry that others change as well are made by reading first.
const DOUBTED: u8 = 16;

/// An entry as it was written, in the life of its document.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) incarnation: Incarnation,
    pub(super) revision: u64,
    pub(super) value: Box<RawValue>,
    /// If it ends by itself.
    pub(super) life: Option<Life>,
}

/// The last entries that were written, some thousand bytes each at most.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// Which one gives way next.
    next: usize,
}

#[derive(Debug)]
struct Slot {
    partition: Partition,
    key: String,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Known(Known),
    /// Others change it: not remembered for so many more changes.
    Doubted(u8),
}

impl Known {
    /// The entry of `key` as it was, with its value only where it matters.
    pub(super) fn current(&self, key: &str, needs_value: bool) -> Option<Entry> {
        let value = match needs_value {
            true => serde_json::from_str(self.value.get()).ok()?,
            false => Json::Null,
        };
        Some(Entry { key: key.to_owned(), revision: self.revision, value })
    }
}

impl Memory {
    fn at(&self, partition: &Partition, key: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.key == key && slot.partition == *partition)
    }

    /// What is known of an entry, which is forgotten thereby.
    pub(super) fn take(&mut self, partition: &Partition, key: &str) -> Option<Known> {
        let at = self.at(partition, key)?;
        match &self.slots[at].kept {
            Kept::Doubted(_) => None,
            Kept::Known(_) => match self.slots.swap_remove(at).kept {
                Kept::Known(known) => Some(known),
                Kept::Doubted(_) => None,
            },
        }
    }

    /// Remembers an entry, unless it is doubted or large.
    pub(super) fn keep(&mut self, partition: Partition, key: &str, known: Known) {
        if let Some(at) = self.at(&partition, key) {
            match &mut self.slots[at].kept {
                Kept::Doubted(left) if *left > 0 => {
                    *left -= 1;
                    return;
                }
                Kept::Doubted(_) | Kept::Known(_) => drop(self.slots.swap_remove(at)),
            }
        }
        if known.value.get().len() <= VALUE_BYTES_MAX {
            self.put(Slot { partition, key: key.to_owned(), kept: Kept::Known(known) });
        }
    }

    /// An entry was not as it was remembered.
    pub(super) fn doubt(&mut self, partition: &Partition, key: &str) {
        let (partition, key) = (partition.clone(), key.to_owned());
        self.put(Slot { partition, key, kept: Kept::Doubted(DOUBTED) });
    }

    fn put(&mut self, slot: Slot) {
        if self.slots.len() < ENTRIES_MAX {
            self.slots.push(slot);
        } else {
            self.next = (self.next + 1) % ENTRIES_MAX;
            self.slots[self.next] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Kind;
    use types::TenantId;

    fn partition(id: &str) -> Partition {
        Partition::new(TenantId::new("acme").unwrap(), Kind::new("state"), id).unwrap()
    }

    fn known(revision: u64, text: &str) -> Known {
        let value = serde_json::value::to_raw_value(text).unwrap();
        Known { incarnation: Incarnation(1), revision, value, life: None }
    }

    fn revision(memory: &mut Memory, id: &str, key: &str) -> Option<u64> {
        memory.take(&partition(id), key).map(|known| known.revision)
    }

    #[test]
    fn an_entry_is_remembered_once() {
        let mut memory = Memory::default();
        memory.keep(partition("a"), "k", known(3, "x"));
        assert_eq!(revision(&mut memory, "a", "other"), None);
        assert_eq!(revision(&mut memory, "b", "k"), None);
        assert_eq!(revision(&mut memory, "a", "k"), Some(3));
        assert_eq!(revision(&mut memory, "a", "k"), None);
    }

    #[test]
    fn what_others_change_is_not_remembered_for_a_while() {
        let mut memory = Memory::default();
        memory.doubt(&partition("a"), "k");
        for revision_now in 0..u64::from(DOUBTED) {
            memory.keep(partition("a"), "k", known(revision_now, "x"));
            assert_eq!(revision(&mut memory, "a", "k"), None);
        }
        memory.keep(partition("a"), "k", known(99, "x"));
        assert_eq!(revision(&mut memory, "a", "k"), Some(99));
    }

    #[test]
    fn it_is_bounded() {
        let mut memory = Memory::default();
        memory.keep(partition("a"), "large", known(1, &"x".repeat(VALUE_BYTES_MAX)));
        assert_eq!(revision(&mut memory, "a", "large"), None);
        for number in 0..1_000 {
            memory.keep(partition("a"), &number.to_string(), known(number, "x"));
            assert!(memory.slots.len() <= ENTRIES_MAX);
        }
        assert_eq!(revision(&mut memory, "a", "999"), Some(999));
        assert_eq!(revision(&mut memory, "a", "0"), None);
    }
}
