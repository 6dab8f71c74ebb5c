//! The product areas that somebody works in.

use crate::{InvalidId, Pillar};
use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

static NONE: LazyLock<Arc<[Pillar]>> = LazyLock::new(|| Arc::new([]));

/// A set of pillars. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pillars(Arc<[Pillar]>);

impl Pillars {
    /// Pillars of one session, or of one token.
    pub const MAX: usize = 16;

    /// These, each once.
    ///
    /// # Errors
    /// [`InvalidId`] if they are more than [`Self::MAX`].
    pub fn new(pillars: impl IntoIterator<Item = Pillar>) -> Result<Self, InvalidId> {
        let pillars: BTreeSet<Pillar> = pillars.into_iter().collect();
        if pillars.len() > Self::MAX {
            return Err(InvalidId { kind: "pillars", rule: "at most 16" });
        }
        Ok(Self(pillars.into_iter().collect()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pillar> {
        self.0.iter()
    }

    /// Whether `pillar` is one of them.
    #[must_use]
    pub fn contains(&self, pillar: &Pillar) -> bool {
        self.0.contains(pillar)
    }

    /// These and those of `other`.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            (false, false) => {
                let all: BTreeSet<Pillar> = self.0.iter().chain(&*other.0).cloned().collect();
                Self(all.into_iter().collect())
            }
        }
    }
}

impl Default for Pillars {
    fn default() -> Self {
        Self(NONE.clone())
    }
}

impl serde::Serialize for Pillars {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(&*self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Pillars {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Vec::<Pillar>::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_bounded_and_each_is_in_it_once() {
        let pillar = |name: &str| Pillar::new(name).unwrap();
        let some = Pillars::new(["b", "a", "b"].map(pillar)).unwrap();
        assert_eq!(some, Pillars::new(["a", "b"].map(pillar)).unwrap());
        assert!(some.contains(&pillar("a")) && !some.contains(&pillar("c")));
        let all = some.with(&Pillars::new([pillar("c")]).unwrap());
        assert_eq!(all.iter().map(Pillar::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
        let numbered = |count: usize| Pillars::new((0..count).map(|n| pillar(&n.to_string())));
        assert!(numbered(Pillars::MAX).is_ok() && numbered(Pillars::MAX + 1).is_err());
        for bad in ["", "a b", "a:b", &"x".repeat(65)] {
            assert!(Pillar::new(bad).is_err(), "{bad:?}");
        }
    }
}
