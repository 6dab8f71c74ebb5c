//! The names of the places where documents live.

use crate::state::document;
use serde::{Deserialize, Serialize};
use store::{Error, Partition};

/// How dear a document is: where it is kept.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// In the memory of its node: the fastest, and gone with it.
    Live,
    /// In the engine for what is used all the time.
    Hot,
    /// In the engine for what is to be kept.
    Durable,
}

impl Tier {
    /// The tier of the store.
    #[must_use]
    pub fn engine(self) -> store::Tier {
        match self {
            Self::Live => store::Tier::Live,
            Self::Hot => store::Tier::Hot,
            Self::Durable => store::Tier::Durable,
        }
    }

    /// As in configuration, requests and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Hot => "hot",
            Self::Durable => "durable",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Hot, Self::Durable].into_iter().find(|tier| tier.as_str() == text)
    }
}

/// One life of a document in an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) tier: Tier,
    /// 0: where it was made. Each other number names a place once.
    pub(crate) generation: u64,
    /// Up to which revision the place holds copies.
    pub(crate) since: u64,
    /// The epoch of those who write here.
    pub(crate) fence: u64,
}

impl Place {
    /// Where a document is that never moved.
    pub(crate) fn first(document: &Partition) -> Self {
        Self { tier: made_in(document), generation: 0, since: 0, fence: 0 }
    }

    /// The partition of `document` at this place. A `/` is in no document's name.
    pub(crate) fn of(&self, document: &Partition) -> Result<Partition, Error> {
        if self.generation == 0 {
            return Ok(document.clone());
        }
        let id = format!("{}/{}.{}", document.id(), self.generation, self.tier.as_str());
        Partition::new(document.tenant().clone(), document.kind().clone(), &id)
    }

    /// Whether the other names the same partition.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.tier, self.generation) == (other.tier, other.generation)
    }
}

/// Where the documents of sessions begin, and all others.
fn made_in(document: &Partition) -> Tier {
    if document.id().starts_with("session:") { Tier::Hot } else { Tier::Durable }
}

/// The tier of a partition that holds a document, or did; `None` if it holds none.
#[must_use]
pub fn tier_of(partition: &Partition) -> Option<Tier> {
    let name = document::name(partition)?;
    let Some((_, place)) = name.split_once('/') else { return Some(made_in(partition)) };
    place.split_once('.').and_then(|(_, tier)| Tier::parse(tier))
}

/// The document that a partition holds a life of; `None` if it holds none.
pub(super) fn document_of(partition: &Partition) -> Option<Partition> {
    let name = document::name(partition)?;
    match name.split_once('/') {
        None => Some(partition.clone()),
        Some((name, _)) => {
            let (tenant, kind) = (partition.tenant().clone(), partition.kind().clone());
            Partition::new(tenant, kind, name).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Kind;
    use types::TenantId;

    #[test]
    fn a_place_names_its_document_and_its_tier() {
        let of = |id: &str| {
            Partition::new(TenantId::new("acme").unwrap(), Kind::new("state"), id).unwrap()
        };
        for (id, generation, tier, name) in [
            ("pillar:board", 0, Tier::Durable, "pillar:board"),
            ("session:x", 0, Tier::Hot, "session:x"),
            ("pillar:board", 3, Tier::Live, "pillar:board/3.live"),
            ("user:a.b@c", 12, Tier::Durable, "user:a.b@c/12.durable"),
        ] {
            let place = Place { tier, generation, since: 0, fence: 0 };
            let at = place.of(&of(id)).unwrap();
            assert_eq!(at.id(), name);
            assert_eq!(tier_of(&at), Some(tier));
            assert_eq!(document_of(&at), Some(of(id)));
        }
        let other = Partition::new(TenantId::system(), Kind::new("channel"), "a/1.live").unwrap();
        assert_eq!((tier_of(&other), document_of(&other)), (None, None));
    }
}
