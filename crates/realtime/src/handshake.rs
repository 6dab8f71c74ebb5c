//! The WebSocket handshake (RFC 6455, section 4.2).

use crate::Config;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use protocol::{Code, Problem, client::Encoding};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The subprotocol that stands for Protobuf.
const PROTOBUF: &str = "centrifuge-protobuf";

/// An accepted handshake.
#[derive(Debug)]
pub struct Accepted {
    /// What the client is answered.
    pub response: Response<()>,
    /// How it wants to talk.
    pub encoding: Encoding,
}

/// The answer to a request that asks for a client-protocol socket.
///
/// # Errors
/// `upgrade_required` or `bad_request` if it does not ask correctly, `forbidden` for a foreign
/// origin.
pub fn accept(config: &Config, method: &Method, headers: &HeaderMap) -> Result<Accepted, Problem> {
    let has = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if method != Method::GET || !has(header::UPGRADE, "websocket") {
        let detail = "this is a WebSocket endpoint: send a GET with `Upgrade: websocket`";
        return Err(Problem::new(Code::UpgradeRequired, detail));
    }
    let refuse = |detail: &str| Err(Problem::new(Code::BadRequest, detail));
    if !has(header::CONNECTION, "upgrade") {
        return refuse("`Connection: Upgrade` is missing");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return refuse("`Sec-WebSocket-Version` must be 13");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24) else {
        return refuse("`Sec-WebSocket-Key` must be 16 bytes in base64");
    };
    if let Some(origin) = headers.get(header::ORIGIN)
        && !config.origins.is_empty()
        && !config.origins.iter().any(|allowed| origin == allowed.as_str())
    {
        return Err(Problem::new(Code::Forbidden, "sockets are not open to this origin"));
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepted.expect("base64 is a valid header"));
    // Other subprotocols are nobody's here: none is chosen, and the client talks JSON.
    let encoding = if has(header::SEC_WEBSOCKET_PROTOCOL, PROTOBUF) {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOBUF));
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    Ok(Accepted { response, encoding })
}
