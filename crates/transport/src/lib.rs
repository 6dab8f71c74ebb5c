//! Connections, plain or by TLS, and the certificates that they need.
//!
//! A [`Stream`] is either; the plain branch comes first and costs one comparison. TLS is that of
//! rustls: [`Tls`] drives a session of it over a socket, without a task and without waiting, so
//! that whoever owns a connection owns all of it.
//!
//! Promises:
//! - bytes that a write of TLS took may wait in the session, as many as it may hold and no more:
//!   only a flush says that they have left;
//! - what was read can be trusted to come from the peer of the handshake, and an end without the
//!   notice of it (RFC 8446, section 6.1) is an error.

mod files;
mod halves;
mod stream;
mod tls;

pub use files::{certificates, client, private_key, read_roots, revocations, system_roots};
pub use halves::{Reading, Writing};
pub use stream::Stream;
pub use tls::Tls;
