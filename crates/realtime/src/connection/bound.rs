//! Who a connection is, and what its session looks after.

use crate::{connection::durable::Durable, meters::Meter};
use std::{rc::Rc, sync::Arc};
use traffic_cop::identity::Hold;
use types::{Caller, CredentialKind, Pillars, SessionId};

/// Who the connection is, from its `connect` on.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) caller: Arc<Caller>,
    /// The pillars that the credential itself names.
    pub(super) claimed: Pillars,
    pub(crate) session: SessionId,
    /// What the session keeps, if it is durable.
    pub(super) durable: Option<Rc<Durable>>,
    /// Looks out for the end of the session, and for its pillars.
    pub(super) hold: Hold,
    /// Counts what passes.
    pub(super) meter: Arc<Meter>,
}

impl Bound {
    pub(super) fn new(
        proved: Arc<Caller>,
        session: SessionId,
        durable: Option<Rc<Durable>>,
        hold: Hold,
        meter: Arc<Meter>,
    ) -> Self {
        let claimed = match proved.credential {
            // What it names is the session's.
            CredentialKind::SessionToken => Pillars::default(),
            CredentialKind::Jwt
            | CredentialKind::ApiKey
            | CredentialKind::Certificate
            | CredentialKind::Vouched
            | CredentialKind::Anonymous => proved.pillars.clone(),
        };
        let mut bound = Self { caller: proved, claimed, session, durable, hold, meter };
        bound.look_at_pillars();
        bound
    }

    /// The same with a fresh credential.
    pub(super) fn renewed(&self, proved: Arc<Caller>) -> Self {
        let (durable, hold, meter) = (self.durable.clone(), self.hold.clone(), self.meter.clone());
        Self::new(proved, self.session, durable, hold, meter)
    }

    /// Has the caller work in the pillars of the session, as they are known now. Says whether these
    /// are others than before.
    pub(super) fn look_at_pillars(&mut self) -> bool {
        let pillars = self.claimed.with(&self.hold.pillars().unwrap_or_default());
        let differ = pillars != self.caller.pillars;
        if differ {
            self.caller = Arc::new(Caller { pillars, ..(*self.caller).clone() });
        }
        differ
    }
}
