//! Replies and pushes as connections write them.

use bytes::Bytes;
use protocol::client::{Body, Encoding, Push, Reply, Told};
use std::sync::Arc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// One reply or push, or several that are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    pub(crate) fn of(reply: &Reply, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Text(reply.to_json().into()),
            Encoding::Protobuf => Self::Binary(reply.to_protobuf().into()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_bytes().len()
    }
}

/// How the pushes of a subscription are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) encoding: Encoding,
    /// The channel by a number.
    pub(crate) compact: bool,
    /// Publications by what differs from the last.
    pub(crate) delta: bool,
}

/// Subscribers, by the index of their dialect.
pub(crate) type Speakers = [u32; Dialect::COUNT];

impl Dialect {
    pub(crate) const COUNT: usize = 8;

    pub(crate) fn index(self) -> usize {
        self.encoding.index() + 2 * usize::from(self.compact) + 4 * usize::from(self.delta)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self {
            encoding: Encoding::ALL[index % 2],
            compact: index & 2 != 0,
            delta: index & 4 != 0,
        })
    }
}

/// A push, written once for each dialect that somebody takes it in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Frames(Arc<[Option<Written>; Dialect::COUNT]>);

#[derive(Debug, Clone)]
struct Written {
    whole: Frame,
    /// For those who have the last publication.
    delta: Option<Frame>,
}

impl Frames {
    /// Of a push in the channel that `number` stands for.
    pub(crate) fn of(push: Push, number: i64, is_wanted: impl Fn(Dialect) -> bool) -> Self {
        Self::with_delta(push, None, number, is_wanted)
    }

    /// As [`Self::of`], of a publication that `delta` makes of the last one.
    pub(crate) fn with_delta(
        mut push: Push,
        delta: Option<&Arc<str>>,
        number: i64,
        is_wanted: impl Fn(Dialect) -> bool,
    ) -> Self {
        let channel = std::mem::take(&mut push.channel);
        let mut reply = Reply { id: 0, body: Body::Push(push) };
        let mut write = |dialect: Dialect, told: Told| {
            if let Body::Push(push) = &mut reply.body {
                push.id = if dialect.compact { number } else { 0 };
                push.channel.clear();
                if !dialect.compact {
                    push.channel.push_str(&channel);
                }
                if let Some(publication) = &mut push.publication {
                    publication.told = told;
                }
            }
            Frame::of(&reply, dialect.encoding)
        };
        let mut written = [const { None }; Dialect::COUNT];
        for dialect in Dialect::all().filter(|dialect| is_wanted(*dialect)) {
            let whole = write(dialect, if dialect.delta { Told::Text } else { Told::Json });
            let delta = delta.filter(|_| dialect.delta);
            let delta = delta.map(|delta| write(dialect, Told::Delta(delta.clone())));
            written[dialect.index()] = Some(Written { whole, delta });
        }
        Self(Arc::new(written))
    }

    /// `based`: for somebody who has the last publication.
    pub(crate) fn get(&self, dialect: Dialect, based: bool) -> Option<&Frame> {
        let written = self.0[dialect.index()].as_ref()?;
        Some(written.delta.as_ref().filter(|_| based).unwrap_or(&written.whole))
    }
}
