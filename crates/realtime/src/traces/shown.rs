//! What passes through a connection, as a trace shows it: without secrets, and no longer than need
//! be.

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::client::{Command, Encoding, Reply};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use types::{PrincipalId, SessionId, Timestamp};

/// Bytes of a frame that are shown.
const SHOWN_MAX: usize = 1_024;
/// What stands for a secret.
const REDACTED: &str = "(redacted)";

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// From the client.
    In,
    /// To it.
    Out,
}

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Command,
    Pong,
    Reply,
    Push,
    Ping,
    /// The end of the connection.
    Close,
}

/// Something that has passed.
#[derive(Debug, Serialize)]
pub(crate) struct Seen<'a> {
    /// When.
    pub(crate) at: Timestamp,
    pub(crate) connection: String,
    pub(crate) session: SessionId,
    pub(crate) user: &'a PrincipalId,
    pub(crate) direction: Direction,
    pub(crate) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<&'a str>,
    #[serde(flatten)]
    pub(crate) text: Text,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Text {
    /// JSON; in base64, if it was written in Protobuf for many at once.
    frame: String,
    /// Bytes of all of it, secrets apart.
    bytes: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    /// Whether `frame` is its beginning only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_cut: bool,
}

impl Text {
    fn of(mut frame: String, base64: bool, bytes: usize) -> Self {
        let is_cut = frame.len() > SHOWN_MAX;
        if is_cut {
            frame.truncate(frame.floor_char_boundary(SHOWN_MAX));
        }
        Self { frame, bytes, base64, is_cut }
    }

    fn json(value: &Value) -> Self {
        let text = value.to_string();
        let bytes = text.len();
        Self::of(text, false, bytes)
    }

    /// A command, without tokens and what it leaves out.
    pub(crate) fn of_command(command: &Command) -> Self {
        let mut value = serde_json::to_value(command).unwrap_or_default();
        if let Value::Object(members) = &mut value {
            members.retain(|name, value| name == "id" || !value.is_null());
            members.values_mut().filter_map(Value::as_object_mut).for_each(tidy);
        }
        Self::json(&value)
    }

    /// A reply or push, without the name of a stream, which is its client's secret.
    pub(crate) fn of_reply(reply: &Reply) -> Self {
        let mut value = serde_json::to_value(reply).unwrap_or_default();
        if let Some(session) = value.pointer_mut("/connect/session") {
            *session = REDACTED.into();
        }
        Self::json(&value)
    }

    /// A push that was written for many.
    pub(crate) fn of_push(encoding: Encoding, push: &[u8]) -> Self {
        let text = match encoding {
            Encoding::Json => String::from_utf8_lossy(push).into_owned(),
            Encoding::Protobuf => STANDARD.encode(&push[..push.len().min(SHOWN_MAX)]),
        };
        Self::of(text, encoding == Encoding::Protobuf, push.len())
    }

    /// The end of a connection.
    pub(crate) fn of_close(code: u16, reason: &str) -> Self {
        Self::json(&json!({ "code": code, "reason": reason }))
    }
}

/// Takes secrets out of a request, and what it does not say.
fn tidy(request: &mut Map<String, Value>) {
    if let Some(subs) = request.get_mut("subs").and_then(Value::as_object_mut) {
        subs.values_mut().filter_map(Value::as_object_mut).for_each(tidy);
    }
    request.retain(|name, value| match value {
        Value::Null => false,
        _ if name == "data" => true,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    });
    if let Some(token) = request.get_mut("token") {
        *token = REDACTED.into();
    }
}

/// As it is published.
pub(crate) fn shown(seen: &Seen<'_>) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(seen).ok()
}

/// The channel that a command names.
pub(crate) fn channel_of(command: &Command) -> Option<&str> {
    let Command { subscribe, unsubscribe, publish, presence, presence_stats, history, .. } =
        command;
    let asked = [unsubscribe, presence, presence_stats].into_iter().flatten();
    let named = asked.map(|request| &request.channel);
    let named = named.chain(subscribe.as_ref().map(|request| &request.channel));
    let named = named.chain(publish.as_ref().map(|request| &request.channel));
    let named = named.chain(history.as_ref().map(|request| &request.channel));
    let mut named = named.chain(command.sub_refresh.as_ref().map(|request| &request.channel));
    named.next().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::client::{Body, ConnectResult};

    #[test]
    fn a_command_is_shown_without_its_tokens() {
        for (command, expected) in [
            (
                r#"{"id":1,"connect":{"token":"hush","data":{"token":"mine"},"subs":{"a":{"token":"hush","recover":true}}}}"#,
                r#"{"connect":{"data":{"token":"mine"},"subs":{"a":{"recover":true,"token":"(redacted)"}},"token":"(redacted)"},"id":1}"#,
            ),
            (
                r#"{"id":2,"sub_refresh":{"channel":"a","token":"hush"}}"#,
                r#"{"id":2,"sub_refresh":{"channel":"a","token":"(redacted)"}}"#,
            ),
            (
                r#"{"id":3,"refresh":{"token":"hush"}}"#,
                r#"{"id":3,"refresh":{"token":"(redacted)"}}"#,
            ),
            (r#"{"id":4,"ping":{}}"#, r#"{"id":4,"ping":{}}"#),
            (
                r#"{"id":5,"publish":{"channel":"a","data":[false,0]}}"#,
                r#"{"id":5,"publish":{"channel":"a","data":[false,0]}}"#,
            ),
        ] {
            let text = Text::of_command(&serde_json::from_str(command).unwrap());
            assert_eq!((text.frame.as_str(), text.is_cut), (expected, false));
        }
    }

    #[test]
    fn what_is_long_is_cut_and_the_name_of_a_stream_is_nobodys() {
        let result = ConnectResult { session: "hush".into(), ..ConnectResult::default() };
        let text = Text::of_reply(&Reply { id: 1, body: Body::Connect(result) });
        assert!(text.frame.contains(r#""session":"(redacted)""#), "{}", text.frame);
        assert!(!text.frame.contains("hush"));
        let text = Text::of_push(Encoding::Json, "ä".repeat(2_000).as_bytes());
        assert_eq!((text.frame.len(), text.bytes, text.is_cut), (1_024, 4_000, true));
        let text = Text::of_push(Encoding::Json, format!("x{}", "ä".repeat(2_000)).as_bytes());
        assert_eq!((text.frame.len(), text.is_cut), (1_023, true));
        let text = Text::of_push(Encoding::Protobuf, &[0; 3]);
        assert_eq!((text.frame.as_str(), text.bytes, text.base64), ("AAAA", 3, true));
    }

    #[test]
    fn commands_name_channels() {
        let channel =
            |text: &str| channel_of(&serde_json::from_str(text).unwrap()).map(str::to_owned);
        for request in [
            "subscribe",
            "unsubscribe",
            "publish",
            "presence",
            "presence_stats",
            "history",
            "sub_refresh",
        ] {
            let command = format!(r#"{{"id":1,"{request}":{{"channel":"a"}}}}"#);
            assert_eq!(channel(&command).as_deref(), Some("a"), "{request}");
        }
        assert_eq!(channel(r#"{"id":1,"ping":{}}"#), None);
    }
}
