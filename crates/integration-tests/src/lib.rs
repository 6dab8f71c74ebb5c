//! Tests of the whole system through its public faces.
//!
//! A [`Server`] is the real binary in a process of its own, with its own folder and free
//! ports. A [`Socket`] is a plain WebSocket that speaks the client protocol in JSON. The
//! tests themselves are one binary, `tests/it`.

mod random;
mod server;
mod socket;
mod stores;

pub use random::Random;
pub use server::{Server, binary, repository};
pub use socket::Socket;
