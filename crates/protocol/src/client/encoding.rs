//! The protocol's two encodings.

use crate::client::{Command, Reply, protobuf};

/// How a connection writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text, separated by line ends.
    Json,
    /// Binary, each message behind its length.
    Protobuf,
}

impl Encoding {
    /// All of them, in the order of their [`Self::index`].
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// A number for tables by encoding.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Json => 0,
            Self::Protobuf => 1,
        }
    }
}

/// Why a command is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The message is not of the protocol, and nothing after it can be read.
    Message,
    /// The `data` of command `id` is not JSON.
    Data {
        /// The command's id.
        id: u32,
    },
}

/// The commands of one message, in order. After [`Unreadable::Message`] there are no more.
#[derive(Debug)]
pub struct Commands<'a>(Rest<'a>);

#[derive(Debug)]
enum Rest<'a> {
    Json(&'a str),
    Protobuf(&'a [u8]),
}

impl<'a> Commands<'a> {
    /// Bytes of those that were not read yet.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        match self.0 {
            Rest::Json(text) => text.len(),
            Rest::Protobuf(bytes) => bytes.len(),
        }
    }

    /// Commands in JSON, one a line.
    #[must_use]
    pub fn json(message: &'a str) -> Self {
        Self(Rest::Json(message))
    }

    /// Commands in Protobuf, each behind its length.
    #[must_use]
    pub fn protobuf(message: &'a [u8]) -> Self {
        Self(Rest::Protobuf(message))
    }

    /// Commands in `encoding`, from bytes that may not even be text.
    ///
    /// # Errors
    /// [`Unreadable::Message`] if they should be text and are not.
    pub fn of(encoding: Encoding, message: &'a [u8]) -> Result<Self, Unreadable> {
        match encoding {
            Encoding::Json => {
                std::str::from_utf8(message).map(Self::json).map_err(|_| Unreadable::Message)
            }
            Encoding::Protobuf => Ok(Self::protobuf(message)),
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Rest::Json(rest) => {
                while !rest.is_empty() {
                    let (line, after) = rest.split_once('\n').unwrap_or((*rest, ""));
                    *rest = after;
                    if !line.trim().is_empty() {
                        let command = serde_json::from_str(line);
                        if command.is_err() {
                            *rest = "";
                        }
                        return Some(command.map_err(|_| Unreadable::Message));
                    }
                }
                None
            }
            Rest::Protobuf(rest) => {
                if rest.is_empty() {
                    return None;
                }
                let command = protobuf::next_command(rest);
                if matches!(command, Err(Unreadable::Message)) {
                    *rest = &[];
                }
                Some(command)
            }
        }
    }
}

impl Reply {
    /// The reply in JSON, without a line end.
    ///
    /// # Panics
    /// Never: a reply is JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a reply is JSON")
    }

    /// The reply in Protobuf, behind its length.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        protobuf::reply(self)
    }
}

#[cfg(test)]
mod tests;
