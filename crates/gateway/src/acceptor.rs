//! Takes connections from the listener and deals them to the cores.

use crate::core::{Node, Order};
use std::{
    io::{self, Write},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

/// Bytes of a connection that the kernel keeps before they are on their way.
const UNSENT_MAX: u32 = 128 * 1024;
/// What a connection beyond the bounds is told; written once, never waited for.
pub(crate) const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\n\
content-length: 95\r\n\
retry-after: 1\r\n\
connection: close\r\n\r\n\
{\"code\":\"overloaded\",\"detail\":\"the node has too many connections\",\"retry\":\"later\",\"status\":503}";

/// Accepts until `stop` says so, then closes the listener.
pub(crate) async fn run(
    node: Arc<Node>,
    listener: TcpListener,
    cores: Arc<[mpsc::Sender<Order>]>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = deal(&node, stream, peer.ip(), &cores) {
                    tracing::debug!(%error, "a connection was lost before it was served");
                }
            }
            Err(error) => {
                // Most likely no file descriptor is left; others will close theirs.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn deal(
    node: &Arc<Node>,
    stream: TcpStream,
    ip: IpAddr,
    cores: &[mpsc::Sender<Order>],
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // What a client does not take waits here, where it is seen to wait, and not in the kernel.
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX)?;
    let stream = stream.into_std()?;
    let (permit, is_plain) = {
        let snapshot = node.snapshot.load();
        let config = &snapshot.config;
        let is_proxy = config.trusted_proxies.iter().any(|cidr| cidr.contains(ip));
        if config.proxy_protocol && !is_proxy {
            return Err(io::Error::other("it is no trusted proxy's, and others are not taken"));
        }
        let counted = (!is_proxy).then_some(ip);
        let (max, per_address_max) = (config.connections_max, config.connections_per_ip_max);
        (node.admission.admit(counted, max, per_address_max), snapshot.tls.is_none())
    };
    // Where TLS is spoken, nobody understands it.
    let full = if is_plain { FULL } else { b"" };
    let Some(permit) = permit else {
        return (&stream).write_all(full);
    };
    let core = permit.core();
    match cores[core].try_send(Order::Serve(stream, ip, permit)) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Full(Order::Serve(stream, ..))) => (&stream).write_all(full),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_has_the_length_it_says() {
        let text = std::str::from_utf8(super::FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
