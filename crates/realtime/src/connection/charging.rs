//! Commands are charged to the limits that cover the route [`COMMANDS`], as requests are to those
//! of theirs: the same rules, the same buckets.

use crate::connection::{Bound, task::Task};
use protocol::client::{Command, Error};
use std::sync::Arc;
use traffic_cop::limit::{Charge, Subject};
use types::Caller;

/// What rules name to limit the commands of sockets.
pub(crate) const COMMANDS: &str = "_commands";

/// The limits of a connection's commands, as long as neither rules nor caller change.
pub(super) struct KnownCharge {
    generation: u64,
    caller: Arc<Caller>,
    /// `None` if no rule applies.
    charge: Option<Charge>,
}

impl Task {
    /// Charges a command of so many bytes; the error if a limit refuses it. To end something, and
    /// to answer or send a ping, is free.
    pub(super) async fn charged(
        &mut self,
        bound: &Bound,
        command: &Command,
        bytes: usize,
    ) -> Option<Error> {
        if command.unsubscribe.is_some() || command.ping.is_some() {
            return None;
        }
        let decision = self.charge(bound)?.take_by(&self.sockets.node.parts.clock, 1);
        let decision = if decision.is_open() {
            decision.settle(&self.sockets.node.parts.clock, 1).await
        } else {
            decision
        };
        if let Some(owing) = decision.owing() {
            owing.ended(&self.sockets.node.parts.clock, bytes as u64);
        }
        (!decision.allowed()).then(|| Error::from(&decision.problem()))
    }

    fn charge(&mut self, bound: &Bound) -> Option<Charge> {
        let limits = &self.sockets.node.parts.limits;
        let generation = limits.generation();
        let is_same = |known: &KnownCharge| {
            known.generation == generation && Arc::ptr_eq(&known.caller, &bound.caller)
        };
        if !self.known.as_deref().is_some_and(is_same) {
            let charge = limits.resolve(&Subject {
                tenant: Some(&bound.caller.tenant),
                principal: Some(&bound.caller.principal),
                session: Some(bound.session),
                ip: self.ip,
                route: COMMANDS,
            });
            let charge = (!charge.is_empty()).then_some(charge);
            self.known =
                Some(Box::new(KnownCharge { generation, caller: bound.caller.clone(), charge }));
        }
        self.known.as_ref()?.charge.clone()
    }
}
