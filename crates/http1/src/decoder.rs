//! Where the body behind a head ends.

use crate::{Refusal, chunked::Chunked};
use bytes::Bytes;

/// What is left of a body (RFC 9112, section 6.3).
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Box<Chunked>),
    /// Whatever comes until the connection ends. Responses only.
    Close,
}

impl Decoder {
    /// No body.
    pub const EMPTY: Self = Self::Length(0);

    /// Chunks, in whose trailer no field that `is_forbidden` may be.
    pub(crate) fn chunked(is_forbidden: fn(&str) -> bool) -> Self {
        Self::Chunked(Box::new(Chunked::new(is_forbidden)))
    }

    /// Whether it was read to its end. Never, for one that ends with its connection.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_end(),
            Self::Close => false,
        }
    }

    /// The bytes that are left, if that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) if chunked.is_end() => Some(0),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// Takes the next stretch of the body out of the bytes that came; none if there is none in
    /// them. What follows the body is left.
    ///
    /// # Errors
    /// Its framing is broken; nothing more is to be read.
    pub fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Length(left) => {
                let here = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= here as u64;
                Ok((here > 0).then(|| bytes.split_to(here)))
            }
            Self::Chunked(chunked) => {
                let mut at = 0;
                let data = chunked.next(bytes, &mut at)?;
                let data = data.map(|range| bytes.slice(range));
                let _passed = bytes.split_to(at);
                Ok(data)
            }
            Self::Close => Ok((!bytes.is_empty()).then(|| std::mem::take(bytes))),
        }
    }
}
