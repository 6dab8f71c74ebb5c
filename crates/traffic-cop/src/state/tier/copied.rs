//! Values as a copy holds them: with the revision that they had where they were written.
//!
//! A store counts a copied record as written by the commit that copied it. To everybody else it
//! is what it was: this file is the only one that knows both numbers.

use bytes::Bytes;
use store::{Entry, Error, Record, Value};

/// What a copy begins with: no stored form has this version.
const COPIED: u8 = 0;
/// The mark and the revision.
const HEAD: usize = 9;

/// `value` as it was written by the commit of `revision`.
pub(super) fn wrap(revision: u64, value: &[u8]) -> Value {
    let mut copied = Vec::with_capacity(HEAD + value.len());
    copied.push(COPIED);
    copied.extend(revision.to_be_bytes());
    copied.extend(value);
    copied.into()
}

/// The revision of what was written at `revision`, and its value: of a copy, what it is of.
pub(super) fn unwrap(revision: u64, value: Value) -> Result<(u64, Bytes), Error> {
    if value.first() != Some(&COPIED) {
        return Ok((revision, value));
    }
    let number = value.get(1..HEAD).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let number = number.ok_or_else(|| Error::corrupt("a copied value has no revision"))?;
    Ok((u64::from_be_bytes(number), value.slice(HEAD..)))
}

pub(super) fn record(record: Record) -> Result<Record, Error> {
    let (revision, value) = unwrap(record.revision, record.value)?;
    Ok(Record { value, revision })
}

pub(super) fn entry(entry: Entry) -> Result<Entry, Error> {
    let (revision, value) = unwrap(entry.revision, entry.value)?;
    Ok(Entry { sequence: entry.sequence, revision, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_what_it_is_of() {
        let written = Bytes::from_static(b"\x01{}");
        assert_eq!(unwrap(9, written.clone()).unwrap(), (9, written.clone()));
        assert_eq!(unwrap(9, wrap(4, &written)).unwrap(), (4, written));
        assert!(unwrap(9, Bytes::from_static(b"\x00\x01")).is_err());
    }
}
