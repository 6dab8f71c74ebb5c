//! What this node tells of its channels and connections.

use crate::{
    Namespace, Realtime,
    channel::{self, Channel, Source, Ways, Wish},
    connection::standing,
    hub::ToCore,
    live::Standing,
};
use protocol::Problem;
use serde::Serialize;
use std::collections::HashSet;
use tokio::sync::mpsc;
use traffic_cop::{
    channels::{Distinct, Followed, Followers, Page, Wanted},
    state::format_epoch,
    totals::{Count, Counted, Passed},
};
use types::Caller;

/// What a channel is, whoever follows it.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Its name.
    pub channel: String,
    /// What its publications are.
    pub kind: Kind,
    /// What they outlive, if they are kept as a history: `live`, `hot` or `durable`.
    pub tier: Option<crate::Tier>,
    /// What is kept of them.
    pub history: Option<History>,
    /// What holds for it by its namespace, if it is of one.
    pub namespace: Option<Namespace>,
}

/// What the publications of a channel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was published to it.
    Publications,
    /// The changes of its entries.
    Map,
    /// The changes of a document.
    Document,
    /// The moves of a document between tiers.
    Lineage,
    /// Who is subscribed to another channel.
    Members,
}

/// Publications that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct History {
    /// Which life of the channel this is.
    pub epoch: String,
    /// The last publication.
    pub offset: u64,
    /// How many are kept, up to the last.
    pub size: u64,
}

impl Realtime {
    /// Channels that connections of this node follow.
    pub async fn channels(&self, wanted: &Wanted) -> Page {
        self.broker.census().page(wanted).await
    }

    /// Who of this node follows a channel.
    ///
    /// # Errors
    /// `bad_request` for a channel that cannot be.
    pub async fn followers(&self, of: &Followed) -> Result<Followers, Problem> {
        let channel = Channel::new(&of.tenant, &of.channel)?;
        let cores = self.cores.lock().clone();
        let (answers, mut answered) = mpsc::channel(cores.len().max(1));
        for core in &cores {
            let (channel, answers) = (channel.clone(), answers.clone());
            let _ = core.send(ToCore::WhoFollows { channel, answers }).await;
        }
        drop(answers);
        let (mut subscribers, mut users) = (0, HashSet::new());
        while let Some((count, some)) = answered.recv().await {
            subscribers += count;
            users.extend(some);
        }
        let node = self.parts.node.clone();
        Ok(Followers { node, subscribers, users: Distinct::of(users) })
    }

    /// What goes through the connections of a tenant to this node.
    pub async fn count(&self, of: &Count) -> Counted {
        let (connections, users) = self.places.count(&of.tenant);
        let (channels, subscriptions) = self.broker.census().count(&of.tenant).await;
        let (passed, closings) = self.meters.read(&of.tenant);
        Counted {
            node: self.parts.node.clone(),
            since: self.since,
            connections,
            users: Distinct::of(users),
            channels,
            subscriptions,
            passed,
            closings,
        }
    }

    /// Channels that are followed at this node, and subscriptions to them, of all tenants.
    #[must_use]
    pub fn followed(&self) -> (u64, u64) {
        self.broker.census().size()
    }

    /// Histories of the live tier in this node's memory, and their bytes.
    #[must_use]
    pub fn live(&self) -> (u64, u64) {
        match &self.ways {
            Ways::Here(live) => live.size(),
            Ways::FannedOut(_) | Ways::Stored => (0, 0),
        }
    }

    /// What has passed through all connections since the start.
    #[must_use]
    pub fn passed(&self) -> Passed {
        self.meters.all()
    }

    /// What a channel is, for a caller who speaks for its tenant.
    ///
    /// # Errors
    /// `bad_request` for a channel that cannot be, `not_found` if its namespace is not configured,
    /// those of the store.
    pub async fn describe(&self, caller: &Caller, name: &str) -> Result<Description, Problem> {
        let channel = Channel::new(&caller.tenant, name)?;
        let admitted = channel::admit(&self.config, caller, &channel, Wish::Subscribe, true)?;
        let source = admitted.source.by(&self.ways);
        let kind = match &source {
            Source::Document(_) => Kind::Document,
            Source::Lineage(_) => Kind::Lineage,
            Source::Map(_) => Kind::Map,
            Source::Members(..) => Kind::Members,
            Source::Passing(_) | Source::Brief(_) | Source::Live(..) | Source::History(..) => {
                Kind::Publications
            }
        };
        let (tier, kept) = (source.tier(), source.is_recoverable());
        let history = match kept {
            true => standing(self, &channel, source).await?.map(History::from),
            false => None,
        };
        let namespace = channel::is_of_namespace(name).then(|| self.config.namespace(name));
        let namespace = namespace.flatten().map(std::borrow::Cow::into_owned);
        Ok(Description { channel: name.to_owned(), kind, tier, history, namespace })
    }
}

impl From<Standing> for History {
    fn from(Standing { epoch, first, last }: Standing) -> Self {
        Self { epoch: format_epoch(epoch), offset: last, size: (last + 1).saturating_sub(first) }
    }
}
