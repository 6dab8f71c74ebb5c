//! Socket.IO 4 over Engine.IO 4: a digit for each layer's packet, then JSON. The events are those
//! of `bench/sockets/socketio.mjs`.

use super::Seat;
use serde_json::json;

/// First the namespace's connection, then a room each, acknowledged.
pub(super) fn command(seat: &Seat, at: usize) -> Option<String> {
    let Some(channel) = at.checked_sub(1) else { return Some("40".into()) };
    Some(format!("42{at}{}", json!(["join", seat.channels.get(channel)?])))
}

pub(super) fn answers(heard: &str, at: usize) -> Result<bool, String> {
    if heard.starts_with("44") {
        return Err(format!("command {at} was refused: {heard}"));
    }
    Ok(match at {
        0 => heard.starts_with("40"),
        _ => heard.strip_prefix("43").is_some_and(|rest| rest.starts_with(&format!("{at}["))),
    })
}

pub(super) fn publication(channel: &str, data: &str) -> String {
    format!(r#"42["publish","{channel}",{data}]"#)
}
