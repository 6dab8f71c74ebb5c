//! HTTP/1.1 messages on sockets: read strictly, written once.
//!
//! [`Requests`] and [`Responses`] find heads in the bytes of a connection, a [`Decoder`] follows
//! the body behind a head, and a [`Sending`] writes a message as its body comes. All but the
//! last are pure state machines: bytes in, messages out. Nothing here waits, keeps time, or
//! knows what a message is for.
//!
//! Rules for requests are from RFC 9112 with every leniency that it permits left out, except one
//! empty line before a request line (section 2.2). A message that could be read in two ways is
//! refused, and nothing after it is looked at. Chunk extensions are checked, bounded and
//! dropped; so are trailer fields.

mod chunked;
mod decoder;
mod names;
mod refusal;
mod request;
mod response;
mod send;
mod socket;
mod spare;

pub use decoder::Decoder;
pub use refusal::Refusal;
pub use request::{Bounds, FIELDS_MAX, RequestHead, Requests, asks_for_h2c, is_authority, is_host};
pub use response::{Malformed, ResponseHead, Responses};
pub use send::{Framed, SendError, Sending, field, request_head, response_head};
pub use socket::{read, sent, write};
pub use spare::give_back;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests;
