//! Which channels are followed at this node, and by how many, for those who ask. It is kept beside
//! the shards, so that whoever asks makes no publication wait.

use crate::{broker::SHARDS, channel::Channel};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
    sync::Arc,
};
use tokio::task::yield_now;
use traffic_cop::{
    analytics::CHANNEL,
    channels::{Active, Distinct, Page, Wanted},
};
use types::TenantId;

/// Channels that are looked at before others go on.
const AT_ONCE: usize = 1_000;
/// Channels of a shard that are looked at for one page.
const LOOKED_AT_MAX: usize = 20_000;

/// The channels of each shard. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<[Mutex<Counts>; SHARDS]>);

#[derive(Default)]
struct Counts {
    by_channel: BTreeMap<Channel, u64>,
    /// Their sum.
    subscriptions: u64,
    /// Tenants whose traffic is followed, second by second.
    seconds: BTreeSet<TenantId>,
}

impl Counts {
    /// A channel is followed from now on, or no more.
    fn turned(&mut self, channel: &Channel, is_followed: bool) {
        if channel.name() == CHANNEL {
            match is_followed {
                true => self.seconds.insert(channel.tenant().clone()),
                false => self.seconds.remove(channel.tenant()),
            };
        }
    }
}

impl Census {
    /// Somebody more follows a channel of a shard.
    pub(super) fn more(&self, shard: usize, channel: &Channel) {
        let counts = &mut *self.0[shard].lock();
        counts.subscriptions += 1;
        match counts.by_channel.get_mut(channel) {
            Some(count) => *count += 1,
            None => {
                counts.by_channel.insert(channel.clone(), 1);
                counts.turned(channel, true);
            }
        }
    }

    /// Somebody follows it no more.
    pub(super) fn less(&self, shard: usize, channel: &Channel) {
        let counts = &mut *self.0[shard].lock();
        let Some(count) = counts.by_channel.get_mut(channel) else { return };
        counts.subscriptions -= 1;
        *count -= 1;
        if *count == 0 {
            counts.by_channel.remove(channel);
            counts.turned(channel, false);
        }
    }

    /// Nobody follows it any more.
    pub(super) fn nobody(&self, shard: usize, channel: &Channel) {
        let counts = &mut *self.0[shard].lock();
        counts.subscriptions -= counts.by_channel.remove(channel).unwrap_or_default();
        counts.turned(channel, false);
    }

    /// Tenants whose traffic somebody follows here, second by second.
    pub(crate) fn tenants_of_seconds(&self) -> BTreeSet<TenantId> {
        self.0.iter().flat_map(|shard| shard.lock().seconds.clone()).collect()
    }

    /// Channels of all tenants, and subscriptions.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.0.iter().map(|shard| shard.lock()).fold((0, 0), |(channels, subscriptions), counts| {
            let of_shard = counts.by_channel.len() as u64;
            (channels + of_shard, subscriptions + counts.subscriptions)
        })
    }

    /// Channels of a tenant.
    pub(crate) async fn page(&self, wanted: &Wanted) -> Page {
        let mut pages = Vec::new();
        for shard in 0..SHARDS {
            pages.push(self.page_of(shard, wanted).await);
        }
        Page::join(pages, wanted.limit)
    }

    async fn page_of(&self, shard: usize, wanted: &Wanted) -> Page {
        let prefix = wanted.prefix().to_owned();
        let mut page = Page::default();
        let first = wanted.after.as_deref().map_or(&*prefix, |after| after.max(&prefix));
        let (mut after, mut looked_at) = (first.to_owned(), 0);
        let mut from = Bound::Included(Channel::named(&wanted.tenant, first));
        loop {
            let seen = self.some(shard, &wanted.tenant, (from, Bound::Unbounded));
            for (channel, subscribers) in &seen {
                let name = channel.name();
                if !name.starts_with(&prefix) {
                    return page;
                }
                if page.channels.len() == wanted.limit {
                    return Page { next: Some(after), ..page };
                }
                after = name.to_owned();
                if wanted.is_met_by(name) {
                    let channel = after.clone();
                    page.channels.push(Active { channel, subscribers: *subscribers });
                }
            }
            looked_at += seen.len();
            match seen.into_iter().next_back() {
                None => return page,
                Some(_) if looked_at >= LOOKED_AT_MAX => return Page { next: Some(after), ..page },
                Some((last, _)) => from = Bound::Excluded(last),
            }
            yield_now().await;
        }
    }

    /// How many channels and subscriptions a tenant has.
    pub(crate) async fn count(&self, tenant: &TenantId) -> (Distinct, u64) {
        let (mut which, mut subscriptions) = (HashSet::new(), 0);
        for shard in 0..SHARDS {
            let mut from = Bound::Included(Channel::named(tenant, ""));
            loop {
                let seen = self.some(shard, tenant, (from, Bound::Unbounded));
                which.extend(seen.iter().map(|(channel, _)| Distinct::number(channel.name())));
                subscriptions += seen.iter().map(|(_, count)| count).sum::<u64>();
                match seen.into_iter().next_back() {
                    None => break,
                    Some((last, _)) => from = Bound::Excluded(last),
                }
                yield_now().await;
            }
        }
        (Distinct::of(which), subscriptions)
    }

    /// The next channels of a tenant.
    fn some(
        &self,
        shard: usize,
        tenant: &TenantId,
        range: (Bound<Channel>, Bound<Channel>),
    ) -> Vec<(Channel, u64)> {
        let counts = self.0[shard].lock();
        let next = counts.by_channel.range(range).take(AT_ONCE);
        let own = next.take_while(|(channel, _)| channel.tenant() == tenant);
        own.map(|(channel, count)| (channel.clone(), *count)).collect()
    }
}
