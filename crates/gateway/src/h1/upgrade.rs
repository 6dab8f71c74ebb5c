//! Connections that leave HTTP.

use crate::admission::Permit;
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;
use transport::Stream;

/// A connection that has left HTTP, without any buffer or state of ours.
#[derive(Debug)]
pub struct Socket {
    /// The connection. It belongs to the runtime of the core that it came from.
    pub stream: Stream,
    /// Bytes that the client sent before it was answered.
    pub early: Bytes,
    /// Counts as a connection of the node for as long as it is held.
    pub permit: Permit,
}

/// What a request for another protocol carries among its extensions: the connection, once the
/// answer `101 Switching Protocols` was written.
#[derive(Debug, Clone)]
pub struct Upgrade(Arc<Mutex<Option<oneshot::Receiver<Socket>>>>);

pub(super) type Sender = oneshot::Sender<Socket>;

pub(super) fn pair() -> (Sender, Upgrade) {
    let (sender, receiver) = oneshot::channel();
    (sender, Upgrade(Arc::new(Mutex::new(Some(receiver)))))
}

impl Upgrade {
    /// Takes it out of a request; nothing if the request asks for no other protocol.
    pub fn take<B>(request: &mut Request<B>) -> Option<Self> {
        request.extensions_mut().remove()
    }

    /// Waits until the connection is there. Nothing if the request was answered otherwise, or
    /// the connection was given away before.
    pub async fn socket(self) -> Option<Socket> {
        let receiver = self.0.lock().take();
        receiver?.await.ok()
    }
}
