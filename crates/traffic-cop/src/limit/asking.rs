//! Asking the owners of shared limits: one question at a time for each owner, which carries
//! every key that waits for that owner.
//!
//! The keys that a request is charged to run low together, so most of them travel together.

use crate::limit::{
    share::{Ask, Grant},
    shared::{Shared, SharedBucket},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::mpsc;

/// Keys that one question carries, so many at most.
pub const ASKS_MAX: usize = 512;

/// Who waits for an owner.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<SharedBucket>>,
    asking: bool,
}

/// The lines of all owners, by node; one for those whose owner is not known.
type Lines = HashMap<Option<String>, Line>;

impl Shared {
    /// Asks about whatever is wished for, until nobody can wish any more.
    pub(super) async fn ask_owners(self: Arc<Self>, mut wishes: mpsc::Receiver<Arc<SharedBucket>>) {
        let mut lines = Lines::new();
        let mut under_way = FuturesUnordered::new();
        let mut wished = Vec::new();
        loop {
            tokio::select! {
                count = wishes.recv_many(&mut wished, ASKS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for bucket in wished.drain(..) {
                        let owner = self.owners.owner(bucket.place);
                        lines.entry(owner).or_default().waiting.push_back(bucket);
                    }
                }
                Some(owner) = under_way.next() => {
                    if let Some(line) = lines.get_mut(&owner) {
                        line.asking = false;
                    }
                }
            }
            lines.retain(|owner, line| {
                if !line.asking && !line.waiting.is_empty() {
                    let some = line.waiting.len().min(ASKS_MAX);
                    let waiting: Vec<_> = line.waiting.drain(..some).collect();
                    under_way.push(self.ask_owner(owner.clone(), waiting));
                    line.asking = true;
                }
                line.asking
            });
        }
    }

    /// Asks one owner about `waiting`, and tells whoever waits for them. Gives the owner back.
    async fn ask_owner(
        &self,
        owner: Option<String>,
        waiting: Vec<Arc<SharedBucket>>,
    ) -> Option<String> {
        let now = self.clock.elapsed();
        let (mut asks, mut asking) = (Vec::new(), Vec::new());
        for bucket in waiting {
            if let Some(ask) = bucket.ask(now) {
                asks.push(ask);
                asking.push(bucket);
            }
        }
        if asks.is_empty() {
            return owner;
        }
        let grants = self.grants(owner.as_deref(), &asks).await;
        let now = self.clock.elapsed();
        for (bucket, grant) in asking.iter().zip(grants) {
            match grant {
                Some(grant) => _ = self.counts.granted.fetch_add(grant.granted, Relaxed),
                None => self.is_away(bucket.place),
            }
            bucket.answer(now, grant);
        }
        owner
    }

    /// An answer for each question; `None` where there is none.
    async fn grants(&self, owner: Option<&str>, asks: &[Ask]) -> Vec<Option<Grant>> {
        self.counts.questions.fetch_add(1, Relaxed);
        // This node may have come to own some since.
        let mut grants = self.grant(asks).await;
        let open: Vec<usize> = (0..asks.len()).filter(|at| grants[*at].is_none()).collect();
        if open.is_empty() {
            return grants;
        }
        let answer = match owner {
            None => Err("no node is registered".to_owned()),
            Some(owner) => {
                self.owners.ask(owner, open.iter().map(|at| asks[*at].clone()).collect()).await
            }
        };
        match answer {
            Ok(answer) if answer.len() == open.len() => {
                for (at, grant) in open.into_iter().zip(answer) {
                    grants[at] = grant;
                }
            }
            Ok(_) | Err(_) => {
                let why = answer.err().unwrap_or_else(|| "it answers something else".into());
                tracing::warn!(owner, why, "the owner of shared limits does not answer");
            }
        }
        grants
    }
}
