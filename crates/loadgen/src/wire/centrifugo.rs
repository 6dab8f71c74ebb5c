//! Centrifugo's client protocol v2 in JSON: commands and replies, a line each.

use super::Seat;
use serde_json::{Value as Json, json};

/// First `connect`, then a subscription each.
pub(super) fn command(seat: &Seat, at: usize) -> Option<String> {
    let id = at + 1;
    let command = match at.checked_sub(1) {
        None => json!({ "id": id, "connect": { "token": seat.token } }),
        Some(channel) => {
            json!({ "id": id, "subscribe": { "channel": seat.channels.get(channel)? } })
        }
    };
    Some(command.to_string())
}

pub(super) fn answers(heard: &str, at: usize) -> Result<bool, String> {
    let mut answered = false;
    for line in heard.split('\n') {
        let reply: Json = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        if let Some(error) = reply.get("error") {
            return Err(format!("command {} was refused: {error}", at + 1));
        }
        answered |= reply["id"] == at + 1;
    }
    Ok(answered)
}

pub(super) fn publication(channel: &str, data: &str) -> String {
    format!(r#"{{"id":1000,"publish":{{"channel":"{channel}","data":{data}}}}}"#)
}

pub(super) fn is_ping(heard: &str) -> bool {
    heard == "{}" || heard.starts_with("{}\n") || heard.contains("\n{}")
}
