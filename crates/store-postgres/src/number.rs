//! Numbers without a sign, in columns that have one.

/// For what is compared by order: as large as a column can hold.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from [`signed`]: the end of time stays the end of time.
pub(crate) fn unsigned(number: i64) -> u64 {
    if number == i64::MAX { u64::MAX } else { u64::try_from(number).unwrap_or(0) }
}

/// For what is compared for equality alone: the same 64 bits.
pub(crate) fn bits(number: u64) -> i64 {
    number.cast_signed()
}

/// Back from [`bits`].
pub(crate) fn from_bits(number: i64) -> u64 {
    number.cast_unsigned()
}
