//! Replies and pushes as connections write them.

use bytes::Bytes;
use protocol::client::{Body, Encoding, Publication, Push, Reply, Told};
use std::sync::Arc;
use tokio_tungstenite::tungstenite::protocol::frame::{
    self,
    coding::{Data, OpCode},
};

/// One reply or push, or several that are joined, as one message of a WebSocket. It is framed
/// once, since what a server sends is not masked (RFC 6455, section 5.1): whoever is sent it
/// shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    framed: Bytes,
    /// Bytes of `framed` before the message.
    head: u8,
    encoding: Encoding,
}

impl Frame {
    /// A message of this encoding.
    pub(crate) fn new(encoding: Encoding, message: impl Into<Bytes>) -> Self {
        let code = match encoding {
            Encoding::Json => Data::Text,
            Encoding::Protobuf => Data::Binary,
        };
        let frame = frame::Frame::message(message, OpCode::Data(code), true);
        let head = frame.len() - frame.payload().len();
        let mut framed = Vec::with_capacity(frame.len());
        frame.format(&mut framed).expect("memory takes what is written");
        let head = u8::try_from(head).expect("a frame's head is at most 14 bytes");
        Self { framed: framed.into(), head, encoding }
    }

    pub(crate) fn of(reply: &Reply, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::new(encoding, reply.to_json()),
            Encoding::Protobuf => Self::new(encoding, reply.to_protobuf()),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The message.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.framed[usize::from(self.head)..]
    }

    /// The message behind its head.
    pub(crate) fn framed(&self) -> &Bytes {
        &self.framed
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
    /// Changes of a document as those of a map.
    pub(crate) map: bool,
}

/// Subscribers, by the index of their dialect.
pub(crate) type Speakers = [u32; Dialect::COUNT];

impl Dialect {
    pub(crate) const COUNT: usize = 16;

    pub(crate) fn index(self) -> usize {
        self.encoding.index()
            + 2 * usize::from(self.compact)
            + 4 * usize::from(self.delta)
            + 8 * usize::from(self.map)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self {
            encoding: Encoding::ALL[index % 2],
            compact: index & 2 != 0,
            delta: index & 4 != 0,
            map: index & 8 != 0,
        })
    }
}

/// A push, written once for each dialect that somebody takes it in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Frames(Arc<[Written]>);

#[derive(Debug)]
struct Written {
    dialect: Dialect,
    whole: Frame,
    /// For those who have the last publication.
    delta: Option<Frame>,
}

/// A publication in the forms that subscribers take.
#[derive(Debug)]
pub(crate) struct Forms {
    /// As the channel's stream tells it.
    pub(crate) told: Publication,
    /// What makes it of the last one.
    pub(crate) delta: Option<Arc<str>>,
    /// As an update of a map, if that is something else.
    pub(crate) update: Option<Publication>,
}

impl Frames {
    /// Of a push in the channel that `number` stands for.
    pub(crate) fn of(push: Push, number: i64, is_wanted: impl Fn(Dialect) -> bool) -> Self {
        let mut writer = Writer::new(push, number);
        let wanted = Dialect::all().filter(|dialect| is_wanted(*dialect));
        let written = wanted.map(|dialect| {
            let whole = writer.write(dialect, Told::Json);
            Written { dialect, whole, delta: None }
        });
        Self(written.collect())
    }

    /// Of a publication in the channel of this name.
    pub(crate) fn of_publication(
        channel: &str,
        forms: Forms,
        number: i64,
        is_wanted: impl Fn(Dialect) -> bool,
    ) -> Self {
        let writer = |publication| {
            let (channel, publication) = (channel.to_owned(), Some(Box::new(publication)));
            Writer::new(Push { channel, publication, ..Push::default() }, number)
        };
        let mut told = writer(forms.told);
        let mut update = forms.update.map(writer);
        let wanted = Dialect::all().filter(|dialect| is_wanted(*dialect));
        let written = wanted.map(|dialect| {
            let writer = update.as_mut().filter(|_| dialect.map).unwrap_or(&mut told);
            let whole = writer.write(dialect, if dialect.delta { Told::Text } else { Told::Json });
            let delta = forms.delta.as_ref().filter(|_| dialect.delta);
            let delta = delta.map(|delta| writer.write(dialect, Told::Delta(delta.clone())));
            Written { dialect, whole, delta }
        });
        Self(written.collect())
    }

    /// `based`: for somebody who has the last publication.
    pub(crate) fn get(&self, dialect: Dialect, based: bool) -> Option<&Frame> {
        let written = self.0.iter().find(|written| written.dialect == dialect)?;
        Some(written.delta.as_ref().filter(|_| based).unwrap_or(&written.whole))
    }
}

/// Writes one push in one dialect after the other.
struct Writer {
    reply: Reply,
    channel: String,
    number: i64,
}

impl Writer {
    fn new(mut push: Push, number: i64) -> Self {
        let channel = std::mem::take(&mut push.channel);
        Self { reply: Reply { id: 0, body: Body::Push(push) }, channel, number }
    }

    fn write(&mut self, dialect: Dialect, told: Told) -> Frame {
        if let Body::Push(push) = &mut self.reply.body {
            push.id = if dialect.compact { self.number } else { 0 };
            push.channel.clear();
            if !dialect.compact {
                push.channel.push_str(&self.channel);
            }
            if let Some(publication) = &mut push.publication {
                publication.told = told;
            }
        }
        Frame::of(&self.reply, dialect.encoding)
    }
}
