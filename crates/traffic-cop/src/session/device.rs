//! On what somebody uses a session.

use crate::session::Session;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use types::{SessionId, Timestamp};

/// Bytes of an id, a name or a kind.
const TEXT_BYTES_MAX: usize = 128;

/// What is remembered of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// Nothing.
    None,
    /// The first 24 bits of IPv4, the first 48 of IPv6: roughly where, and not who.
    #[default]
    Masked,
    /// All of them.
    Full,
}

impl Addresses {
    /// What is remembered of `address`.
    #[must_use]
    pub fn shown(self, address: IpAddr) -> Option<String> {
        match (self, address) {
            (Self::None, _) => None,
            (Self::Full, address) => Some(address.to_string()),
            (Self::Masked, IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                Some(format!("{a}.{b}.{c}.0/24"))
            }
            (Self::Masked, IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                Some(format!("{a:x}:{b:x}:{c:x}::/48"))
            }
        }
    }
}

/// A device, as whoever makes a session on it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// What tells it from the user's others, the same each time; made up, unless given.
    #[serde(default)]
    pub id: Option<String>,
    /// What its user calls it.
    pub name: String,
    /// What it is: `phone`, `laptop`.
    #[serde(default)]
    pub kind: String,
}

/// The device that a session is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Device {
    /// What tells it from the user's others.
    pub id: String,
    /// What its user calls it.
    pub name: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// When the session came to it.
    pub first_seen: Timestamp,
    /// From where that was, or its last refresh, as far as that is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A device and the sessions on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct DeviceSessions {
    /// The device, as its latest session has it, seen first by its earliest.
    #[serde(flatten)]
    pub device: Device,
    /// When one of its sessions was last used, to within a tenth of its `ttl` or a minute.
    pub last_seen: Timestamp,
    /// Its sessions.
    pub sessions: Vec<SessionId>,
}

impl NewDevice {
    /// The device, met at `now`; `drawn`: its id, if it brings none.
    ///
    /// # Errors
    /// `bad_request` if a part is too long or the id is empty.
    pub(super) fn met(
        self,
        now: Timestamp,
        address: Option<String>,
        drawn: impl FnOnce() -> String,
    ) -> Result<Device, Problem> {
        let id = self.id.unwrap_or_else(drawn);
        let is_fine = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
        if id.is_empty() || ![&id, &self.name, &self.kind].into_iter().all(|text| is_fine(text)) {
            let detail = "a device has an id, a name and a kind, of at most 128 bytes each";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(Device { id, name: self.name, kind: self.kind, first_seen: now, address })
    }
}

/// The devices that `sessions` are on, those used last first.
#[must_use]
pub fn devices(sessions: &[Session]) -> Vec<DeviceSessions> {
    let mut devices = BTreeMap::<&str, DeviceSessions>::new();
    for session in sessions {
        let Some(device) = &session.device else { continue };
        let held = devices.entry(&device.id).or_insert_with(|| DeviceSessions {
            device: device.clone(),
            last_seen: session.last_used,
            sessions: Vec::new(),
        });
        let first_seen = held.device.first_seen.min(device.first_seen);
        if device.first_seen >= held.device.first_seen {
            held.device = device.clone();
        }
        held.device.first_seen = first_seen;
        held.last_seen = held.last_seen.max(session.last_used);
        held.sessions.push(session.id);
    }
    let mut devices: Vec<_> = devices.into_values().collect();
    devices.sort_by_key(|held| std::cmp::Reverse(held.last_seen));
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_is_remembered_what_is_configured() {
        let check = |addresses: Addresses, address: &str, expected: Option<&str>| {
            assert_eq!(addresses.shown(address.parse().unwrap()).as_deref(), expected);
        };
        check(Addresses::Masked, "203.0.113.77", Some("203.0.113.0/24"));
        check(Addresses::Masked, "2001:db8:77:1::5", Some("2001:db8:77::/48"));
        check(Addresses::Full, "203.0.113.77", Some("203.0.113.77"));
        check(Addresses::None, "203.0.113.77", None);
    }

    #[test]
    fn a_device_is_bounded_and_has_an_id() {
        let met = |id: Option<&str>, name: String| {
            let new = NewDevice { id: id.map(Into::into), name, kind: String::new() };
            new.met(Timestamp(1), None, || "drawn".into()).map(|device| device.id)
        };
        assert_eq!(met(None, "phone".into()).unwrap(), "drawn");
        assert_eq!(met(Some("a"), "phone".into()).unwrap(), "a");
        for (id, name) in [(Some(""), String::new()), (None, "x".repeat(129)), (None, "\n".into())]
        {
            assert_eq!(met(id, name).unwrap_err().code, Code::BadRequest);
        }
    }
}
