//! Traces: what passes through some connections is shown, for a time, to who asked for it.
//!
//! A trace is held by every node, each for the connections that it has. Its owner is the node that
//! was asked for it, and says again that it goes on; where that is not heard it ends.

use crate::connections::Selector;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::{PrincipalId, TenantId, Timestamp};

/// How the channel of a trace begins; its id follows.
pub const CHANNEL: &str = "$trace:";
/// How long a trace lasts at most.
pub const LASTS_MAX: Duration = Duration::from_secs(15 * 60);
/// Traces of a tenant at a time.
pub const OF_TENANT_MAX: usize = 4;
/// Traces of all tenants at a time.
pub const OF_NODE_MAX: usize = 16;
/// How often the owner of a trace says that it goes on.
pub const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// How long after its owner was last heard of a trace ends elsewhere.
pub const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// What is to be traced, and for how long.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrace {
    /// Connections that fit everything that is said; if a channel is, only what is about it.
    pub of: Selector,
    /// For how long; five minutes, unless given. In text: `5m`.
    #[serde(default = "lasts", with = "types::duration")]
    #[schemars(with = "types::duration::Text")]
    pub duration: Duration,
}

fn lasts() -> Duration {
    Duration::from_secs(5 * 60)
}

/// A trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Its id.
    pub id: String,
    /// Whose connections.
    pub tenant: TenantId,
    /// Which of them.
    pub of: Selector,
    /// Who asked for it.
    pub by: PrincipalId,
    /// Its owner.
    pub node: String,
    /// Since when, in milliseconds since 1970 UTC.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// What a node is asked about the traces that it holds. It answers those of the tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// To hold this one, or to go on with it.
    Hold(Box<Trace>),
    /// To end this one. It answers that one, if it held it.
    End {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: String,
    },
    /// Which there are.
    Tell {
        /// Whose.
        tenant: TenantId,
    },
}

impl NewTrace {
    /// Refuses what is meant for nobody in particular, and what lasts too long.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn check(&self) -> Result<(), Problem> {
        if self.of == Selector::default() {
            let detail = "say what to trace: a connection, session, user, kind, pillar or channel";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        if !(Duration::from_secs(1)..=LASTS_MAX).contains(&self.duration) {
            return Err(Problem::new(Code::BadRequest, "`duration` must be 1s to 15m"));
        }
        Ok(())
    }
}

impl Trace {
    /// The channel that shows it.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("{CHANNEL}{}", self.id)
    }
}

/// Why a trace has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its time is over.
    Time,
    /// It was ended.
    Order,
    /// Its owner was not heard of.
    OwnerLost,
}

/// What a node knows of a trace that it holds.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Until when it lasts.
    pub until: Timestamp,
    /// How long ago its owner was heard of; `None` at the owner itself.
    pub heard: Option<Duration>,
    /// Whether it was ended.
    pub is_ended: bool,
}

impl Standing {
    /// Whether it ends at `now`, and why.
    #[must_use]
    pub fn end(self, now: Timestamp) -> Option<End> {
        match self {
            Self { is_ended: true, .. } => Some(End::Order),
            Self { until, .. } if until <= now => Some(End::Time),
            Self { heard: Some(heard), .. } if heard > HEARD_WITHIN => Some(End::OwnerLost),
            Self { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_ends_by_order_by_time_and_without_its_owner() {
        let now = Timestamp(1_000_000);
        let standing = Standing { until: Timestamp(1_000_001), heard: None, is_ended: false };
        assert_eq!(standing.end(now), None);
        assert_eq!(Standing { until: now, ..standing }.end(now), Some(End::Time));
        assert_eq!(Standing { is_ended: true, ..standing }.end(now), Some(End::Order));
        let heard = |heard| Standing { heard: Some(heard), ..standing }.end(now);
        assert_eq!(heard(HEARD_WITHIN), None);
        assert_eq!(heard(HEARD_WITHIN + Duration::from_millis(1)), Some(End::OwnerLost));
        assert!(HEARD_WITHIN > 2 * RENEWED_EVERY, "one that is late ends nothing");
    }

    #[test]
    fn a_trace_is_of_somebody_and_ends() {
        let read = |text: &str| serde_json::from_str::<NewTrace>(text).unwrap();
        assert!(read(r#"{"of":{"user":"ann"}}"#).check().is_ok());
        assert!(read(r#"{"of":{"user":"ann"},"duration":"15m"}"#).check().is_ok());
        for wrong in [
            r#"{"of":{}}"#,
            r#"{"of":{"user":"ann"},"duration":"999ms"}"#,
            r#"{"of":{"user":"ann"},"duration":"16m"}"#,
        ] {
            assert_eq!(read(wrong).check().unwrap_err().code, Code::BadRequest, "{wrong}");
        }
    }
}
