//! What a mailbox holds: its letters, and records beside them.
//!
//! | key | holds |
//! |---|---|
//! | `\x01` | the [`Register`] |
//! | `\x02{sender}/{id}` | which letter was sent by this id, for a while |
//! | `\x03{letter}` | a dead letter |
//! | `{letter}` | a letter that waits, as an entry |

use protocol::{Code, Problem};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use store::{Key, Record};
use types::{PrincipalId, PrincipalKind, Timestamp};

const VERSION: u8 = 1;

pub(super) const DEAD: &str = "\u{3}";

/// A letter that waits to be acknowledged, as its reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Letter {
    /// The sender's name for it.
    pub id: String,
    /// Who sent it.
    pub from: PrincipalId,
    /// What that is.
    pub from_kind: PrincipalKind,
    /// When, in milliseconds since 1970 UTC.
    pub sent: Timestamp,
    /// When it is no longer of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How often it was given back, and why the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// What it says.
    pub data: Json,
}

/// That a reader could do nothing with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "RefusedLetter")]
pub struct Refused {
    /// How often.
    pub times: u32,
    /// Why, the last time.
    pub why: String,
}

/// A letter that nobody will acknowledge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub struct Dead {
    /// The letter as it was.
    pub letter: Letter,
    /// Why: it `expired`, or was `refused` too often.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// Counters of a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    /// The number of the last letter.
    pub(super) last: u64,
    /// How many wait.
    pub(super) waiting: u64,
    /// How many are dead.
    pub(super) dead: u64,
    /// Entries of the stream of changes.
    pub(super) changes: u64,
}

/// The name of a letter: the later, the greater.
pub(super) fn name(number: u64) -> String {
    format!("{number:016}")
}

/// A name that a client gives.
pub(super) fn named(letter: &str) -> Result<(), Problem> {
    if letter.len() == 16 && letter.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(Problem::new(Code::NotFound, "there is no such letter"))
}

pub(super) fn key(name: &str) -> Result<Key, Problem> {
    Key::new(name).map_err(traffic_cop::store_problem)
}

/// The key of the register.
pub(super) fn register() -> Key {
    Key::new("\u{1}").expect("a short key")
}

/// The key under which a sender's name for a letter is remembered.
pub(super) fn sent_as(kind: PrincipalKind, sender: &PrincipalId, id: &str) -> Result<Key, Problem> {
    key(&format!("\u{2}{kind}/{}/{id}", sender.as_str()))
}

pub(super) fn write(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value).expect("stored forms have text keys");
    bytes
}

pub(super) fn read<T: DeserializeOwned>(record: &Record) -> Result<T, Problem> {
    let json = record.value.strip_prefix(&[VERSION]);
    json.and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(damaged)
}

/// A letter as its entry holds it.
pub(super) fn letter(record: &Record) -> Result<Letter, Problem> {
    serde_json::from_value(traffic_cop::state::value(record)?).map_err(|_| damaged())
}

fn damaged() -> Problem {
    Problem::new(Code::Internal, "a record of the mailbox cannot be read; an operator has to look")
}
