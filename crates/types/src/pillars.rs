//! The product areas that somebody works in, and in what of each.

use crate::{Binding, InvalidId, Pillar};
use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock},
};

static NONE: LazyLock<Arc<[Bound]>> = LazyLock::new(|| Arc::new([]));

/// A pillar, and in what of it somebody works, if that is said. As text `content`, or bound
/// `content:solution-17`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The pillar.
    pub pillar: Pillar,
    /// To what of it.
    pub to: Option<Binding>,
}

impl From<Pillar> for Bound {
    fn from(pillar: Pillar) -> Self {
        Self { pillar, to: None }
    }
}

impl FromStr for Bound {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (pillar, to) = match text.split_once(':') {
            None => (text, None),
            Some((pillar, to)) => (pillar, Some(Binding::new(to)?)),
        };
        Ok(Self { pillar: Pillar::new(pillar)?, to })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            None => self.pillar.fmt(f),
            Some(to) => write!(f, "{}:{to}", self.pillar),
        }
    }
}

/// A set of pillars, each bound or not. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pillars(Arc<[Bound]>);

impl Pillars {
    /// Pillars of one session, or of one token.
    pub const MAX: usize = 16;

    /// These, each once.
    ///
    /// # Errors
    /// [`InvalidId`] if they are more than [`Self::MAX`], or one is bound to two.
    pub fn new(pillars: impl IntoIterator<Item = impl Into<Bound>>) -> Result<Self, InvalidId> {
        let refused = || InvalidId { kind: "pillars", rule: "at most 16, each bound to one" };
        let mut all = BTreeMap::new();
        for bound in pillars {
            let Bound { pillar, to } = bound.into();
            let held: &mut Option<Binding> = all.entry(pillar).or_default();
            if held.is_some() && to.is_some() && *held != to {
                return Err(refused());
            }
            *held = held.take().or(to);
        }
        if all.len() > Self::MAX {
            return Err(refused());
        }
        Ok(Self::of(all))
    }

    fn of(all: BTreeMap<Pillar, Option<Binding>>) -> Self {
        Self(all.into_iter().map(|(pillar, to)| Bound { pillar, to }).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pillar> {
        self.0.iter().map(|bound| &bound.pillar)
    }

    /// Whether `pillar` is one of them.
    #[must_use]
    pub fn contains(&self, pillar: &Pillar) -> bool {
        self.iter().any(|held| held == pillar)
    }

    /// To what `pillar` is bound, if it is.
    #[must_use]
    pub fn binding(&self, pillar: &Pillar) -> Option<&Binding> {
        self.0.iter().find(|bound| bound.pillar == *pillar)?.to.as_ref()
    }

    /// These and those of `other`. What is bound in both is bound as here.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            (false, false) => {
                let mut all = BTreeMap::new();
                for Bound { pillar, to } in self.0.iter().chain(&*other.0) {
                    let held: &mut Option<Binding> = all.entry(pillar.clone()).or_default();
                    *held = held.take().or_else(|| to.clone());
                }
                Self::of(all)
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
        s.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> serde::Deserialize<'de> for Pillars {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let texts = Vec::<std::borrow::Cow<'de, str>>::deserialize(d)?;
        let pillars = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Bound>, _>>();
        pillars.and_then(Self::new).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Pillars {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pillars".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array",
            "maxItems": Self::MAX,
            "items": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_.:-]{1,64})?$",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Pillars, serde_json::Error> {
        serde_json::from_value(texts.into())
    }

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

    #[test]
    fn a_pillar_may_be_bound_to_one() {
        let pillars = read(&["b", "a:room:7", "a"]).unwrap();
        assert_eq!(serde_json::to_string(&pillars).unwrap(), r#"["a:room:7","b"]"#);
        let bound = |pillars: &Pillars, name| {
            pillars.binding(&Pillar::new(name).unwrap()).map(|to| to.as_str().to_owned())
        };
        assert_eq!(bound(&pillars, "a").as_deref(), Some("room:7"));
        assert_eq!((bound(&pillars, "b"), bound(&pillars, "c")), (None, None));
        assert_ne!(pillars, read(&["b", "a:room:8"]).unwrap(), "another binding is a change");
        let all = pillars.with(&read(&["a:x", "b:y", "c:z"]).unwrap());
        assert_eq!(all, read(&["a:room:7", "b:y", "c:z"]).unwrap());
        for bad in [&["a:x", "a:y"][..], &["a:"], &[":x"], &["a:b c"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
