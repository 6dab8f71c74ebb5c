//! Pusher's protocol 7. Private channels are opened by a signature, which a client's own backend
//! would make; the key and the secret are those of `bench/sockets/sockudo.toml`.

use super::Seat;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value as Json, json};
use sha2::Sha256;

const KEY: &str = "bench-key";
const SECRET: &str = "bench-secret";
pub(super) const PATH: &str = "/app/bench-key?protocol=7&client=loadgen&version=1";

/// The server speaks first; then a subscription each.
pub(super) fn command(seat: &Seat, at: usize, greeting: &str) -> Option<String> {
    let Some(channel) = at.checked_sub(1) else { return Some(String::new()) };
    let channel = seat.channels.get(channel)?;
    let mut data = json!({ "channel": channel });
    if channel.starts_with("private-") {
        data["auth"] = signature(&socket_id(greeting), channel).into();
    }
    Some(json!({ "event": "pusher:subscribe", "data": data }).to_string())
}

pub(super) fn answers(heard: &str, at: usize) -> Result<bool, String> {
    if heard.contains("pusher:error") || heard.contains("subscription_error") {
        return Err(format!("command {at} was refused: {heard}"));
    }
    Ok(match at {
        0 => heard.contains("pusher:connection_established"),
        _ => heard.contains("pusher_internal:subscription_succeeded"),
    })
}

pub(super) fn publication(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"client-message","channel":"{channel}","data":{data}}}"#)
}

pub(super) fn pong(heard: &str) -> Option<&'static str> {
    heard.contains(r#""pusher:ping""#).then_some(r#"{"event":"pusher:pong","data":{}}"#)
}

/// The connection's id, in a greeting whose data is JSON within a string.
fn socket_id(greeting: &str) -> String {
    let greeting: Json = serde_json::from_str(greeting).unwrap_or_default();
    let data = greeting["data"].as_str().unwrap_or_default();
    let data: Json = serde_json::from_str(data).unwrap_or_default();
    data["socket_id"].as_str().unwrap_or_default().to_owned()
}

fn signature(socket_id: &str, channel: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
    mac.update(format!("{socket_id}:{channel}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{KEY}:{hex}")
}
