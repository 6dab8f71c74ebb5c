//! Answers of services that are given again without asking (RFC 9111).
//!
//! One cache for all cores of a node, bounded by its bytes. Whether an answer may be kept, and
//! for how long it is fresh, is decided by `http-cache-semantics`; which request it answers, and
//! what is kept of it, here. An answer to somebody with a credential is kept only if the service
//! says that others may have it (RFC 9111, section 3.5), and then only for his tenant.

mod ask;
mod conditions;
mod entry;
mod filling;

pub(crate) use ask::{Asking, Looked, Scope};

use entry::{Entry, Variants};
use quick_cache::{Weighter, sync::Cache as Kept};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Targets that the cache is prepared for; there may be more.
const TARGETS: usize = 4_096;

/// Which answers of a route are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Bytes of a body that is kept; a longer one never is. Default 1 MiB.
    pub body_bytes_max: usize,
    /// For whom. Default `shared`.
    pub per: CachePer,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { body_bytes_max: 1024 * 1024, per: CachePer::Shared }
    }
}

/// For whom an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePer {
    /// For all callers of a tenant; what somebody with a credential or a cookie was answered, only
    /// if the service says `public`, `s-maxage` or `must-revalidate`.
    #[default]
    Shared,
    /// For each caller by himself; then also what is `private`.
    Caller,
}

/// The kept answers of a node.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: Kept<Box<str>, Arc<Variants>, ByBytes>,
    hits: AtomicU64,
    misses: AtomicU64,
    revalidated: AtomicU64,
}

/// What a cache did since the node started, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheReport {
    /// Requests answered from it.
    pub hits: u64,
    /// Requests that a service answered.
    pub misses: u64,
    /// Requests answered from it after the service said that nothing had changed.
    pub revalidated: u64,
    /// Targets of which an answer is kept.
    pub targets: u64,
    /// Bytes that they take, about.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<Variants>> for ByBytes {
    fn weight(&self, key: &Box<str>, variants: &Arc<Variants>) -> u64 {
        (key.len() + variants.bytes()) as u64
    }
}

impl Cache {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            kept: Kept::with_weighter(TARGETS, bytes_max, ByBytes),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            revalidated: AtomicU64::new(0),
        })
    }

    pub(crate) fn report(&self) -> CacheReport {
        CacheReport {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            revalidated: self.revalidated.load(Relaxed),
            targets: self.kept.len() as u64,
            bytes: self.kept.weight(),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.kept.clear();
    }

    fn get(&self, key: &str) -> Option<Arc<Variants>> {
        self.kept.get(key)
    }

    fn keep(&self, key: Box<str>, entry: Entry) {
        let held = self.kept.get(&key);
        self.kept.insert(key, Arc::new(Variants::with(held.as_deref(), entry)));
    }

    fn forget(&self, key: &str) {
        self.kept.remove(key);
    }
}
