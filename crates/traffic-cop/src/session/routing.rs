//! Where the requests of a session go: bound instances, and other bindings of its pillars.

use crate::session::{Event, EventKind, Route, Session, Sessions, key, partition};
use protocol::{Code, Problem};
use serde::Deserialize;
use types::{Bound, Pillars, Principal, SessionId, TenantId};

/// Services that a session is bound to an instance of.
const ROUTES_MAX: usize = 16;
/// Bytes of a service, an instance or a reason.
const TEXT_BYTES_MAX: usize = 256;

/// Which instance of a service a session's requests go to.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoute {
    /// The service, as it is configured.
    pub service: String,
    /// The instance, host and port; `null`: whichever the service's rule names.
    pub instance: Option<String>,
    /// The pillar that this is about, for those who read it. The session has to work in it.
    #[serde(default)]
    pub pillar: Option<String>,
}

/// From which binding a session is moved to which.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SessionMove")]
pub struct Move {
    /// What it works in now: `content:room-1`.
    pub from: String,
    /// What it works in then.
    pub to: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl NewRoute {
    fn check(&self) -> Result<(), Problem> {
        let texts = [Some(&self.service), self.instance.as_ref(), self.pillar.as_ref()];
        let is_fine = |text: &String| {
            (1..=TEXT_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if texts.into_iter().flatten().all(is_fine) {
            return Ok(());
        }
        let detail =
            "a service, an instance and a pillar have 1 to 256 visible characters of ASCII";
        Err(Problem::new(Code::BadRequest, detail))
    }
}

impl Sessions {
    /// Binds a session to an instance of a service, or to none. It holds on this node when this
    /// returns, on others as fast as the store tells of it.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `conflict` if the session does not work in the pillar, or those
    /// of the store.
    pub async fn route(
        &self,
        tenant: &TenantId,
        id: SessionId,
        new: &NewRoute,
        by: &Principal,
    ) -> Result<Session, Problem> {
        new.check()?;
        let changed = self
            .change(tenant, id, |record, now| {
                let service = new.service.clone();
                let works_in =
                    |name: &String| record.pillars.iter().any(|one| one.as_str() == name);
                if new.pillar.as_ref().is_some_and(|pillar| !works_in(pillar)) {
                    let detail = "the session does not work in this pillar";
                    return Err(Problem::new(Code::Conflict, detail));
                }
                let before = match &new.instance {
                    None => record.routes.remove(&service),
                    Some(instance) => {
                        if record.routes.len() >= ROUTES_MAX
                            && !record.routes.contains_key(&service)
                        {
                            let detail = "a session is bound to instances of 16 services at most";
                            return Err(Problem::new(Code::BadRequest, detail));
                        }
                        let (instance, pillar) = (instance.clone(), new.pillar.clone());
                        record.routes.insert(service, Route { instance, pillar, since: now })
                    }
                };
                let event = Event::new(now, EventKind::Routed, Some(by))
                    .with("service", new.service.clone())
                    .with_some("pillar", new.pillar.clone())
                    .with_some("from", before.map(|before| before.instance))
                    .with_some("instance", new.instance.clone());
                Ok(vec![event])
            })
            .await?;
        self.look(tenant, id).await;
        Ok(changed)
    }

    /// The instance that a session is bound to is gone, and its requests went to another one: they
    /// do so from now on. Somebody who was faster, or has bound it anew, is right.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rebind(
        &self,
        tenant: &TenantId,
        id: SessionId,
        service: &str,
        from: &str,
        to: &str,
    ) -> Result<(), Problem> {
        let changed = self
            .change(tenant, id, |record, now| {
                let Some(route) = record.routes.get_mut(service) else { return Ok(Vec::new()) };
                if route.instance != from {
                    return Ok(Vec::new());
                }
                (route.instance, route.since) = (to.to_owned(), now);
                let event = Event::new(now, EventKind::Rebound, None)
                    .with("service", service)
                    .with("from", from)
                    .with("instance", to)
                    .with("reason", "the instance is gone or unfit");
                Ok(vec![event])
            })
            .await;
        match changed {
            Ok(_) => {
                self.look(tenant, id).await;
                Ok(())
            }
            Err(problem) if problem.code == Code::NotFound => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    /// Moves a session from one binding of its pillars to another, both at once.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `conflict` if it is not bound to `from` any more, or those of
    /// the store.
    pub async fn move_to(
        &self,
        tenant: &TenantId,
        id: SessionId,
        wish: &Move,
        by: &Principal,
    ) -> Result<Session, Problem> {
        let bad = |error: types::InvalidId| Problem::new(Code::BadRequest, error.to_string());
        let (from, to) = (wish.from.parse::<Bound>().map_err(bad)?, wish.to.parse().map_err(bad)?);
        let to: Bound = to;
        if wish.reason.len() > TEXT_BYTES_MAX {
            return Err(Problem::new(Code::BadRequest, "a reason has at most 256 bytes"));
        }
        let changed = self
            .change(tenant, id, |record, now| {
                let held = record.pillars.iter().any(|pillar| *pillar == from.pillar);
                if !held || record.pillars.binding(&from.pillar) != from.to.as_ref() {
                    let detail = format!("the session does not work in {from} any more");
                    return Err(Problem::new(Code::Conflict, detail).member(
                        "pillars",
                        serde_json::to_value(&record.pillars).unwrap_or_default(),
                    ));
                }
                let left = record.pillars.iter().filter(|pillar| **pillar != from.pillar);
                let left = left.map(|pillar| Bound {
                    pillar: pillar.clone(),
                    to: record.pillars.binding(pillar).cloned(),
                });
                let all: Vec<Bound> = left.chain([to.clone()]).collect();
                record.pillars = Pillars::new(all).map_err(bad)?;
                let event = Event::new(now, EventKind::Moved, Some(by))
                    .with("from", wish.from.clone())
                    .with("to", wish.to.clone())
                    .with("reason", wish.reason.clone());
                Ok(vec![event])
            })
            .await?;
        self.look(tenant, id).await;
        Ok(changed)
    }

    /// Has this node see at once what was changed.
    pub(super) async fn look(&self, tenant: &TenantId, id: SessionId) {
        let Ok(partition) = partition(tenant, id.shelf()) else { return };
        if let Err(error) = self.revocations.look_at(&partition, &key(id)).await {
            // It is changed. That it is, is seen as it is seen of other nodes.
            tracing::warn!(%error, "the change of a session is looked at later");
        }
    }
}
