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
