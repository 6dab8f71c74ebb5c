//! Tests of the whole system through its public faces.
//!
//! A [`Server`] is the real binary in a process of its own, with its own folder and free
//! ports. A [`Socket`] is a plain WebSocket that speaks the client protocol in JSON, a
//! [`ProtobufSocket`] one that speaks it in Protobuf, a [`Stream`] an HTTP answer that may never
//! end. The tests themselves are one binary,
//! `tests/it`.

mod protobuf_socket;
mod random;
mod secure;
mod server;
mod socket;
mod stores;
mod stream;
pub mod wire;

pub use protobuf_socket::ProtobufSocket;
pub use random::Random;
pub use secure::{connect_by_tls, curl};
pub use server::{Server, binary, repository};
pub use socket::Socket;
pub use stream::Stream;

use std::time::Duration;

/// How long whoever may not stay any more may take to be gone after the answer: a second, as is
/// promised, if `CROSSTOWN_REVOKED_WITHIN_MS` or an idle machine (`--long`) says so.
#[must_use]
pub fn revoked_within() -> Duration {
    let given = std::env::var("CROSSTOWN_REVOKED_WITHIN_MS").ok();
    Duration::from_millis(given.and_then(|text| text.parse().ok()).unwrap_or(10_000))
}
