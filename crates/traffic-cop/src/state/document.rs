//! Which document, and who may read and write it.

use crate::storage;
use protocol::{Code, Problem};
use std::{fmt, str::FromStr};
use store::{Kind, Partition};
use types::{Caller, PrincipalId, SessionId};

pub(super) const KIND: Kind = Kind::new("state");

/// The name of the document in `partition`, `{scope}:{id}`; `None` if it holds none.
pub(super) fn name(partition: &Partition) -> Option<&str> {
    (*partition.kind() == KIND).then(|| partition.id())
}

/// What a document belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A session: whoever uses the session reads and writes.
    Session(SessionId),
    /// A user, agent or service: they themselves read and write.
    User(PrincipalId),
    /// The tenant: everybody in it reads and writes. Written `tenant:self`.
    Tenant,
    /// A product area: everybody in the tenant reads and writes.
    Pillar(String),
    /// A service: everybody in the tenant reads, services write.
    Service(String),
}

/// A document of the caller's tenant, written `{scope}:{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentId(pub Scope);

impl DocumentId {
    /// Reads the two parts of a document's name.
    ///
    /// # Errors
    /// `bad_request` with what is accepted.
    pub fn new(scope: &str, id: &str) -> Result<Self, Problem> {
        let refuse = |detail: &str| Err(Problem::new(Code::BadRequest, detail));
        let name = |id: &str| {
            let detail = "a pillar or service is named by 1 to 64 of A-Z a-z 0-9 _ -";
            let name = types::TenantId::new(id).map(|name| name.as_str().to_owned());
            name.map_err(|_| Problem::new(Code::BadRequest, detail))
        };
        Ok(Self(match scope {
            "session" => match id.parse() {
                Ok(id) => Scope::Session(id),
                Err(_) => return refuse("`session` takes a session id, `ses_…`"),
            },
            "user" => match PrincipalId::new(id) {
                Ok(id) => Scope::User(id),
                Err(error) => return refuse(&error.to_string()),
            },
            "tenant" if id == "self" => Scope::Tenant,
            "tenant" => return refuse("the tenant's document is named `tenant:self`"),
            "pillar" => Scope::Pillar(name(id)?),
            "service" => Scope::Service(name(id)?),
            _ => return refuse("a scope is session, user, tenant, pillar or service"),
        }))
    }

    /// The partition, if `caller` may read the document.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn readable_by(&self, caller: &Caller) -> Result<Partition, Problem> {
        let allowed = caller.is_trusted()
            || match &self.0 {
                Scope::Session(id) => caller.session == Some(*id),
                Scope::User(id) => caller.principal.id == *id,
                Scope::Tenant | Scope::Pillar(_) | Scope::Service(_) => true,
            };
        self.partition(caller, allowed)
    }

    /// The partition, if `caller` may write the document.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn writable_by(&self, caller: &Caller) -> Result<Partition, Problem> {
        let allowed = caller.is_trusted() || !matches!(self.0, Scope::Service(_));
        let partition = self.readable_by(caller)?;
        if allowed { Ok(partition) } else { self.partition(caller, false) }
    }

    fn partition(&self, caller: &Caller, allowed: bool) -> Result<Partition, Problem> {
        if !allowed {
            let detail = format!("the document `{self}` is not open to this caller");
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Partition::new(caller.tenant.clone(), KIND, &self.to_string()).map_err(storage::problem)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Scope::Session(id) => write!(f, "session:{id}"),
            Scope::User(id) => write!(f, "user:{id}"),
            Scope::Tenant => f.write_str("tenant:self"),
            Scope::Pillar(name) => write!(f, "pillar:{name}"),
            Scope::Service(name) => write!(f, "service:{name}"),
        }
    }
}

impl FromStr for DocumentId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let (scope, id) = text.split_once(':').unwrap_or((text, ""));
        Self::new(scope, id)
    }
}
