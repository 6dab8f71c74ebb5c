//! Many rows as the parameters of one statement: an array for each column.

use crate::{batch::Remembered, number, pool::Param};
use bytes::BytesMut;
use std::borrow::Cow;
use store::{
    CommitId, Entry, Key, Partition, StreamName,
    rules::{Meta, Stored},
};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use types::Timestamp;

/// One value of a column.
#[derive(Debug)]
pub(crate) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Short(i16),
    Int(i32),
    Long(i64),
}

impl ToSql for Cell<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Text(text) => text.as_ref().to_sql(ty, out),
            Self::Bytes(bytes) => bytes.as_ref().to_sql(ty, out),
            Self::Short(number) => number.to_sql(ty, out),
            Self::Int(number) => number.to_sql(ty, out),
            Self::Long(number) => number.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Cell<'_> {
    Cell::Bytes(Cow::Borrowed(bytes))
}

fn time(at: Option<Timestamp>) -> Cell<'static> {
    at.map_or(Cell::Null, |at| Cell::Long(number::signed(at.0)))
}

fn name(partition: &Partition) -> [Cell<'_>; 3] {
    [
        text(partition.tenant().as_str()),
        text(partition.kind().as_str()),
        bytes(partition.id().as_bytes()),
    ]
}

fn bucket(partition: &Partition) -> Cell<'static> {
    // 1,024 buckets fit.
    Cell::Short(i16::try_from(partition.bucket().0).unwrap_or(i16::MAX))
}

/// Rows for one statement. Each starts with the name of a partition.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    types: Vec<Type>,
    cells: Vec<Vec<Cell<'a>>>,
}

impl<'a> Columns<'a> {
    /// Columns of these types after the partition's name.
    pub(crate) fn named(more: &[Type]) -> Self {
        Self::of([&[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY], more].concat())
    }

    fn of(types: Vec<Type>) -> Self {
        let cells = types.iter().map(|_| Vec::new()).collect();
        Self { types, cells }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.iter().all(Vec::is_empty)
    }

    pub(crate) fn params(&self) -> Vec<Param<'_>> {
        let params = self.cells.iter().zip(&self.types);
        params.map(|(cells, ty)| (cells as &(dyn ToSql + Sync), ty.clone())).collect()
    }

    fn push<const N: usize>(&mut self, partition: &'a Partition, more: [Cell<'a>; N]) {
        self.push_row(name(partition).into_iter().chain(more));
    }

    fn push_row(&mut self, row: impl IntoIterator<Item = Cell<'a>>) {
        self.cells.iter_mut().zip(row).for_each(|(cells, cell)| cells.push(cell));
    }

    /// For `make_heads`.
    pub(crate) fn makes(partitions: impl Iterator<Item = &'a Partition>) -> Self {
        let mut columns = Self::named(&[Type::INT2_ARRAY]);
        partitions.for_each(|partition| columns.push(partition, [bucket(partition)]));
        columns
    }

    /// For `lock_heads` and `unmake_heads`.
    pub(crate) fn names(partitions: impl Iterator<Item = &'a Partition>) -> Self {
        let mut columns = Self::named(&[]);
        partitions.for_each(|partition| columns.push(partition, []));
        columns
    }

    /// For `load_records` and `load_ids`: each thing with the place of its partition.
    pub(crate) fn placed(things: impl Iterator<Item = (usize, &'a Partition, &'a [u8])>) -> Self {
        let name_types = [Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY];
        let mut types = vec![Type::INT8_ARRAY];
        types.extend(name_types);
        types.push(Type::BYTEA_ARRAY);
        let mut columns = Self::of(types);
        for (place, partition, thing) in things {
            let place = Cell::Long(i64::try_from(place).unwrap_or(i64::MAX));
            let row = std::iter::once(place).chain(name(partition));
            columns.push_row(row.chain([bytes(thing)]));
        }
        columns
    }
}

/// For `write_heads`.
pub(crate) struct Heads;
/// For `write_records`.
pub(crate) struct Records;
/// For `write_entries`.
pub(crate) struct Entries;
/// For `trim_entries`.
pub(crate) struct Trims;
/// For `trim_later`.
pub(crate) struct Later;
/// For `write_ids`.
pub(crate) struct Ids;

impl Heads {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        let long = Type::INT8_ARRAY;
        let mut types = vec![Type::INT4_ARRAY];
        types.extend(std::iter::repeat_n(long, 6));
        types.push(Type::TEXT_ARRAY);
        Columns::named(&types)
    }

    pub(crate) fn push<'a>(to: &mut Columns<'a>, partition: &'a Partition, meta: &Meta, life: i32) {
        let streams: Vec<_> = meta
            .streams
            .iter()
            .map(|(name, span)| (name.as_str(), span.first, span.last))
            .collect();
        let streams = serde_json::to_string(&streams).unwrap_or_default();
        to.push(
            partition,
            [
                Cell::Int(life),
                Cell::Long(number::bits(meta.position.incarnation.0)),
                Cell::Long(number::signed(meta.position.revision)),
                Cell::Long(number::bits(meta.fence)),
                time(meta.wake),
                Cell::Long(number::signed(meta.bytes)),
                Cell::Long(number::signed(meta.known_from)),
                Cell::Text(Cow::Owned(streams)),
            ],
        );
    }
}

impl Records {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        let (bytes, long) = (Type::BYTEA_ARRAY, Type::INT8_ARRAY);
        Columns::named(&[bytes.clone(), Type::INT2_ARRAY, long.clone(), bytes, long.clone(), long])
    }

    /// A record, or its deletion at `now`.
    pub(crate) fn push<'a>(
        to: &mut Columns<'a>,
        partition: &'a Partition,
        key: &'a Key,
        revision: u64,
        stored: Option<&'a Stored>,
        now: Timestamp,
    ) {
        to.push(
            partition,
            [
                bytes(key.as_bytes()),
                bucket(partition),
                Cell::Long(number::signed(revision)),
                stored.map_or(Cell::Null, |stored| bytes(&stored.value)),
                time(stored.and_then(|stored| stored.expires)),
                time(stored.is_none().then_some(now)),
            ],
        );
    }
}

impl Entries {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        let long = Type::INT8_ARRAY;
        Columns::named(&[Type::TEXT_ARRAY, long.clone(), long, Type::BYTEA_ARRAY])
    }

    pub(crate) fn push<'a>(
        to: &mut Columns<'a>,
        partition: &'a Partition,
        stream: &'a StreamName,
        entry: &'a Entry,
    ) {
        let (sequence, revision) = (number::signed(entry.sequence), number::signed(entry.revision));
        let row = [
            text(stream.as_str()),
            Cell::Long(sequence),
            Cell::Long(revision),
            bytes(&entry.value),
        ];
        to.push(partition, row);
    }
}

impl Trims {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        Columns::named(&[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY])
    }

    pub(crate) fn push<'a>(
        to: &mut Columns<'a>,
        partition: &'a Partition,
        stream: &'a StreamName,
        (first, until): (u64, u64),
    ) {
        let (first, until) = (number::signed(first), number::signed(until));
        to.push(partition, [text(stream.as_str()), Cell::Long(first), Cell::Long(until)]);
    }
}

impl Later {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        Columns::named(&[Type::TEXT_ARRAY, Type::INT8_ARRAY])
    }

    pub(crate) fn push<'a>(
        to: &mut Columns<'a>,
        partition: &'a Partition,
        stream: &'a StreamName,
        until: u64,
    ) {
        to.push(partition, [text(stream.as_str()), Cell::Long(number::signed(until))]);
    }
}

impl Ids {
    pub(crate) fn columns<'a>() -> Columns<'a> {
        let (bytes, long) = (Type::BYTEA_ARRAY, Type::INT8_ARRAY);
        let types = [bytes.clone(), bytes, long.clone(), long.clone(), long, Type::TEXT_ARRAY];
        Columns::named(&types)
    }

    pub(crate) fn push<'a>(
        to: &mut Columns<'a>,
        partition: &'a Partition,
        id: &'a CommitId,
        known: &Remembered,
    ) {
        // An array of arrays cannot be unnested, so each goes as the text of an array.
        let sequences: Vec<_> = known.reply.sequences.iter().map(ToString::to_string).collect();
        to.push(
            partition,
            [
                bytes(&id.0),
                Cell::Bytes(Cow::Owned(known.digest.to_be_bytes().to_vec())),
                Cell::Long(number::signed(known.at.0)),
                Cell::Long(number::bits(known.reply.position.incarnation.0)),
                Cell::Long(number::signed(known.reply.position.revision)),
                Cell::Text(Cow::Owned(format!("{{{}}}", sequences.join(",")))),
            ],
        );
    }
}
