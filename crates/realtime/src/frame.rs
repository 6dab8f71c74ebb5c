//! Replies and pushes as connections write them.

use bytes::Bytes;
use protocol::client::{Encoding, Reply};
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

/// A push, written once for each encoding that somebody takes it in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames([Option<Frame>; 2]);

impl Frames {
    pub(crate) fn of(reply: &Reply, is_wanted: impl Fn(Encoding) -> bool) -> Self {
        let write = |encoding| is_wanted(encoding).then(|| Frame::of(reply, encoding));
        Self(Encoding::ALL.map(write))
    }

    pub(crate) fn get(&self, encoding: Encoding) -> Option<&Frame> {
        self.0[encoding.index()].as_ref()
    }
}
