//! How many connections a principal and a tenant may have on this node.

use crate::{Config, WhenFull};
use ahash::RandomState;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use traffic_cop::channels::Distinct;
use types::{Caller, ConnectionId, Principal, TenantId};

/// Who has which places.
#[derive(Default)]
pub(crate) struct Places(Mutex<HashMap<TenantId, OfTenant, RandomState>>);

#[derive(Default)]
struct OfTenant {
    count: usize,
    /// The oldest first.
    by_principal: HashMap<Principal, VecDeque<ConnectionId>, RandomState>,
}

/// There is no place for one more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPlace;

impl Places {
    /// Takes a place for a connection, and tells which other one has to give up its own.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        connection: ConnectionId,
        config: &Config,
    ) -> Result<Option<ConnectionId>, NoPlace> {
        let mut tenants = self.0.lock();
        let of_tenant = tenants.entry(caller.tenant.clone()).or_default();
        let own = of_tenant.by_principal.get(&caller.principal);
        let is_full = own.is_some_and(|own| own.len() >= config.connections_per_user_max);
        let oldest = match (is_full, config.when_full) {
            (false, _) if of_tenant.count >= config.connections_per_tenant_max => {
                return Err(NoPlace);
            }
            (false, _) => None,
            (true, WhenFull::CloseOldest) => own.and_then(|own| own.front().copied()),
            (true, WhenFull::Refuse) => return Err(NoPlace),
        };
        let own = of_tenant.by_principal.entry(caller.principal.clone()).or_default();
        match oldest {
            // It gives its place to this one, though it is still to close.
            Some(_) => drop(own.pop_front()),
            None => of_tenant.count += 1,
        }
        own.push_back(connection);
        Ok(oldest)
    }

    /// Whether there is no place for one more of `caller`'s, as things are.
    pub(crate) fn refuse(&self, caller: &Caller, config: &Config) -> bool {
        let tenants = self.0.lock();
        let Some(of_tenant) = tenants.get(&caller.tenant) else { return false };
        let own = of_tenant.by_principal.get(&caller.principal);
        match own.is_some_and(|own| own.len() >= config.connections_per_user_max) {
            true => config.when_full == WhenFull::Refuse,
            false => of_tenant.count >= config.connections_per_tenant_max,
        }
    }

    /// Connections of a tenant, and their principals.
    pub(crate) fn count(&self, tenant: &TenantId) -> (u64, HashSet<u64>) {
        let tenants = self.0.lock();
        let Some(of_tenant) = tenants.get(tenant) else { return (0, HashSet::new()) };
        let users = of_tenant.by_principal.keys().map(number).collect();
        (of_tenant.count as u64, users)
    }

    /// Gives up the place of a connection, if it still has one.
    pub(crate) fn leave(&self, caller: &Caller, connection: ConnectionId) {
        let mut tenants = self.0.lock();
        let Some(of_tenant) = tenants.get_mut(&caller.tenant) else { return };
        let Some(own) = of_tenant.by_principal.get_mut(&caller.principal) else { return };
        let Some(at) = own.iter().position(|held| *held == connection) else { return };
        own.remove(at);
        if own.is_empty() {
            of_tenant.by_principal.remove(&caller.principal);
        }
        of_tenant.count -= 1;
        if of_tenant.count == 0 {
            tenants.remove(&caller.tenant);
        }
    }
}

/// What stands for a principal where different ones are counted.
pub(crate) fn number(principal: &Principal) -> u64 {
    Distinct::number(&format!("{}:{}", principal.kind, principal.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{CredentialKind, PrincipalId, PrincipalKind};

    fn caller(tenant: &str, user: &str) -> Caller {
        Caller::new(
            TenantId::new(tenant).unwrap(),
            Principal { kind: PrincipalKind::User, id: PrincipalId::new(user).unwrap() },
            CredentialKind::Jwt,
        )
    }

    #[test]
    fn places_are_counted_by_principal_and_by_tenant() {
        let config = Config {
            connections_per_user_max: 2,
            connections_per_tenant_max: 3,
            ..Config::default()
        };
        let places = Places::default();
        let (ann, bob, eve) =
            (caller("acme", "ann"), caller("acme", "bob"), caller("other", "ann"));
        let enter = |caller, number| {
            let is_refused = places.refuse(caller, &config);
            let entered = places.enter(caller, ConnectionId(number), &config);
            assert_eq!(is_refused, entered.is_err(), "it is known beforehand");
            entered
        };
        assert_eq!(
            [enter(&ann, 1), enter(&ann, 2), enter(&bob, 3)],
            [Ok(None), Ok(None), Ok(None)]
        );
        assert_eq!([enter(&ann, 4), enter(&bob, 4)], [Err(NoPlace), Err(NoPlace)]);
        assert_eq!(enter(&eve, 4), Ok(None));
        places.leave(&ann, ConnectionId(9));
        assert_eq!(enter(&bob, 5), Err(NoPlace));
        places.leave(&ann, ConnectionId(1));
        assert_eq!(enter(&bob, 5), Ok(None));
        for (caller, number) in [(&ann, 2), (&bob, 3), (&bob, 5), (&eve, 4)] {
            places.leave(caller, ConnectionId(number));
        }
        assert!(places.0.lock().is_empty());
    }

    #[test]
    fn the_oldest_makes_room_if_that_is_the_rule() {
        let config = Config {
            connections_per_user_max: 2,
            connections_per_tenant_max: 2,
            when_full: WhenFull::CloseOldest,
            ..Config::default()
        };
        let places = Places::default();
        let (ann, bob) = (caller("acme", "ann"), caller("acme", "bob"));
        let enter = |caller, number| places.enter(caller, ConnectionId(number), &config);
        assert_eq!([enter(&ann, 1), enter(&ann, 2)], [Ok(None), Ok(None)]);
        assert_eq!(enter(&ann, 3), Ok(Some(ConnectionId(1))));
        assert_eq!(enter(&ann, 4), Ok(Some(ConnectionId(2))));
        // Nobody makes room for somebody else.
        assert_eq!(enter(&bob, 5), Err(NoPlace));
        // Those that made room have no place to give up.
        places.leave(&ann, ConnectionId(1));
        assert_eq!(enter(&bob, 5), Err(NoPlace));
    }
}
