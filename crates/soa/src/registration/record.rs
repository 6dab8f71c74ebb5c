//! What is asked for, kept and told of a registered instance.

use crate::{
    config::Scheme,
    found::{Found, Origin},
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use types::{Caller, PrincipalId, PrincipalKind, TenantId, Timestamp};

/// How it is stored; a change of the form raises it.
const VERSION: u8 = 1;
const TTL_MIN: Duration = Duration::from_secs(1);
const WEIGHT_MAX: u32 = 1000;
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 64;
const METADATA_BYTES_MAX: usize = 4096;

/// What a registrar says of an instance.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInstance {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Its share, 1 to 1000. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// How long it is called without another heartbeat, from 1s. Default `15s`.
    #[serde(default = "ttl", with = "types::duration")]
    #[schemars(with = "types::duration::Text")]
    pub ttl: Duration,
    /// Its version, for those who look. At most 64 bytes.
    #[serde(default)]
    pub version: Option<String>,
    /// Words about it, for those who look: at most 16 of 64 bytes.
    #[serde(default)]
    pub tags: Vec<String>,
    /// More about it, for those who look: at most 4096 bytes as JSON.
    #[serde(default)]
    pub metadata: Map<String, Json>,
}

fn one() -> u32 {
    1
}

fn ttl() -> Duration {
    Duration::from_secs(15)
}

impl NewInstance {
    pub(super) fn check(&self, ttl_max: Duration) -> Result<(), Problem> {
        let refuse = |what: String| Err(Problem::new(Code::BadRequest, what));
        if !(TTL_MIN..=ttl_max).contains(&self.ttl) {
            return refuse(format!("`ttl` must be 1s to {}", types::duration::format(ttl_max)));
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return refuse(format!("`weight` must be 1 to {WEIGHT_MAX}"));
        }
        let words = self.tags.iter().chain(&self.version);
        if self.tags.len() > TAGS_MAX || words.clone().any(|word| word.len() > TAG_BYTES_MAX) {
            return refuse(format!(
                "there are at most {TAGS_MAX} `tags`; a tag or `version` has at most \
                 {TAG_BYTES_MAX} bytes"
            ));
        }
        let metadata = serde_json::to_vec(&self.metadata).map_or(usize::MAX, |json| json.len());
        if metadata > METADATA_BYTES_MAX {
            return refuse(format!("`metadata` has at most {METADATA_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

/// A registered instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "RegisteredInstance")]
pub struct Registered {
    /// Its id in the service: the same for the same URL.
    pub id: Arc<str>,
    /// Of whose tenant the registrar is.
    pub tenant: TenantId,
    /// What the registrar is.
    pub kind: PrincipalKind,
    /// Its name: it alone can change this.
    pub by: PrincipalId,
    /// The URL as it was given.
    pub url: String,
    /// Where it is connected to: what the URL's host stood for when it was registered.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u32,
    /// How long it is called without another heartbeat, in milliseconds.
    pub ttl_ms: u64,
    /// Its version.
    pub version: Option<String>,
    /// Words about it.
    pub tags: Vec<String>,
    /// More about it.
    pub metadata: Map<String, Json>,
    /// Since when it is there.
    pub since: Timestamp,
    /// When it ends without another heartbeat, by the clock of the node that took the last.
    pub expires: Timestamp,
}

impl Registered {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        self.tenant == caller.tenant
            && self.kind == caller.principal.kind
            && self.by == caller.principal.id
    }

    /// As it is found.
    pub(super) fn found(&self, scheme: Scheme, host: String) -> Found {
        Found {
            scheme,
            host,
            address: self.address,
            weight: self.weight,
            origin: Origin::Registered(Arc::clone(&self.id)),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self).expect("it has text keys");
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let read = match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
            Some(_) | None => None,
        };
        read.ok_or_else(|| {
            tracing::error!("a stored registration is damaged");
            Problem::new(Code::Internal, "a stored record cannot be read; an operator has to look")
        })
    }
}
