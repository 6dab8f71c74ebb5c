//! Whose mailbox.

use protocol::{Code, Problem};
use std::{fmt, str::FromStr};
use store::{Kind, Partition};
use types::{Caller, Principal, PrincipalId, PrincipalKind, SessionId};

const KIND: Kind = Kind::new("mailbox");

/// Whose mailbox in the caller's tenant, written `{kind}:{id}`: `user:ann`, `agent:scout`,
/// `service:billing`, `session:ses_…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A user's, an agent's or a service's.
    Principal(Principal),
    /// A session's, for whoever uses it.
    Session(SessionId),
}

impl Address {
    /// The caller's own.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self::Principal(caller.principal.clone())
    }

    /// Where its letters are, if `caller` may read and acknowledge them: its owner, a service,
    /// an admin.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn open_to(&self, caller: &Caller) -> Result<Partition, Problem> {
        let own = match self {
            Self::Principal(principal) => *principal == caller.principal,
            Self::Session(session) => Some(*session) == caller.session,
        };
        if !own && !caller.is_trusted() {
            return Err(Problem::new(Code::Forbidden, "the mailbox is somebody else's"));
        }
        self.partition(caller)
    }

    /// Where its letters are.
    pub(super) fn partition(&self, caller: &Caller) -> Result<Partition, Problem> {
        let partition = Partition::new(caller.tenant.clone(), KIND, &self.to_string());
        partition.map_err(traffic_cop::store_problem)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(Principal { kind, id }) => write!(f, "{kind}:{}", id.as_str()),
            Self::Session(session) => write!(f, "session:{session}"),
        }
    }
}

impl FromStr for Address {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let refuse = |detail: String| Problem::new(Code::BadRequest, detail);
        let (kind, id) = text.split_once(':').unwrap_or((text, ""));
        let kind = match kind {
            "user" => PrincipalKind::User,
            "agent" => PrincipalKind::Agent,
            "service" => PrincipalKind::Service,
            "session" => {
                let detail = "`session` takes a session id, `ses_…`";
                return id.parse().map(Self::Session).map_err(|_| refuse(detail.into()));
            }
            _ => {
                return Err(refuse("a mailbox is one of user, agent, service or session".into()));
            }
        };
        let id = PrincipalId::new(id).map_err(|error| refuse(error.to_string()))?;
        Ok(Self::Principal(Principal { kind, id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_printing() {
        let session = format!("session:{}", SessionId::new(7, [9; 16]));
        for text in ["user:ann", "agent:scout", "service:billing", &session] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in ["", "ann", "user:", "user:a b", "pillar:sales", "session:ann"] {
            assert_eq!(bad.parse::<Address>().unwrap_err().code, Code::BadRequest, "{bad}");
        }
    }
}
