//! Routes by number, since a request should not carry their names about.

use ahash::RandomState;
use indexmap::{Equivalent, IndexSet};
use parking_lot::Mutex;
use std::sync::Arc;

/// A route as analytics knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub(super) u32);

/// The names of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName {
    /// The route's name in the configuration.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// The realm that the service belongs to, if it does to any.
    pub realm: Option<Arc<str>>,
}

/// Hashed as a [`RouteName`] is.
#[derive(Hash)]
struct Asked<'a>(&'a str, &'a str, Option<&'a str>);

impl Equivalent<RouteName> for Asked<'_> {
    fn equivalent(&self, name: &RouteName) -> bool {
        *self.0 == *name.route && *self.1 == *name.service && self.2 == name.realm.as_deref()
    }
}

/// Every route that was ever named. They come from configurations, never from clients.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<IndexSet<RouteName, RandomState>>);

impl Names {
    /// The number of a route; the same names always get the same one.
    pub(super) fn number(&self, route: &str, service: &str, realm: Option<&str>) -> RouteId {
        let mut names = self.0.lock();
        let at = names.get_index_of(&Asked(route, service, realm)).unwrap_or_else(|| {
            let realm = realm.map(Arc::from);
            names.insert_full(RouteName { route: route.into(), service: service.into(), realm }).0
        });
        RouteId(u32::try_from(at).expect("fewer routes than 2^32"))
    }

    pub(super) fn name(&self, route: RouteId) -> RouteName {
        self.0.lock()[route.0 as usize].clone()
    }

    pub(super) fn all(&self) -> Vec<RouteName> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_have_the_same_number() {
        let names = Names::default();
        let first = names.number("r", "s", None);
        assert_eq!(first, names.number("r", "s", None));
        let other = names.number("r", "s", Some("solution"));
        assert_ne!(first, other);
        assert_eq!(other, names.number("r", "s", Some("solution")));
        assert_eq!(names.name(other).realm.as_deref(), Some("solution"));
    }
}
