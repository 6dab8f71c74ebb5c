//! The trail of a session, read back.

use crate::{
    session::{
        Event, EventKind, Sessions, ShownEvent,
        past::place,
        trail::{ALL, Class, KIND, Trail, VERSION, partition, prefix},
    },
    storage,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use store::{Key, Partition};
use types::{SessionId, TenantId, Timestamp};

/// Which part of a timeline is wanted.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WantedTimeline {
    /// At most so many entries; 100 unless given, at most 1000.
    pub limit: Option<usize>,
    /// Those before this one.
    pub before: Option<String>,
    /// Those of this kind. Gaps are told in any case.
    pub kind: Option<String>,
}

/// One thing that a session did, or that happened to it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct TimelineEntry {
    /// Its place: texts in the order of time.
    pub id: String,
    /// When and what, and whatever there is to tell of it.
    #[serde(flatten)]
    pub told: Map<String, Json>,
}

impl TimelineEntry {
    fn kind(&self) -> &str {
        self.told.get("kind").and_then(Json::as_str).unwrap_or_default()
    }
}

impl Trail {
    async fn read(
        &self,
        partition: &Partition,
        prefix: &str,
    ) -> Result<Vec<TimelineEntry>, Problem> {
        let (mut entries, mut after) = (Vec::new(), None::<Key>);
        loop {
            let page = self.0.store.scan(partition, prefix.as_bytes(), after.as_ref(), 1_000);
            let page = page.await.map_err(storage::problem)?;
            for (key, record) in &page.records {
                let text = String::from_utf8_lossy(key.as_bytes());
                // Which node and record it is of, behind the moment of its first item.
                let tail = text.rsplit('/').next().and_then(|tail| tail.get(14..));
                entries.extend(items(&record.value, tail.unwrap_or_default()));
            }
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                return Ok(entries);
            }
        }
    }

    async fn of(
        &self,
        tenant: &TenantId,
        session: SessionId,
        class: Class,
    ) -> Result<Vec<TimelineEntry>, Problem> {
        let partition = partition(tenant, session.shelf()).map_err(storage::problem)?;
        self.read(&partition, &format!("{}/", prefix(session, class))).await
    }

    /// What the sockets of a session did, as events of it.
    pub(in crate::session) async fn socket_events(
        &self,
        tenant: &TenantId,
        session: SessionId,
    ) -> Result<Vec<ShownEvent>, Problem> {
        let entries = self.of(tenant, session, Class::Sockets).await?;
        Ok(entries.into_iter().filter_map(event).collect())
    }
}

fn event(entry: TimelineEntry) -> Option<ShownEvent> {
    let TimelineEntry { id, told: mut details } = entry;
    let at = Timestamp(details.remove("at")?.as_u64()?);
    let kind: EventKind = serde_json::from_value(details.remove("kind")?).ok()?;
    Some(ShownEvent { id, event: Event { at, kind, by: None, details } })
}

/// The items of a record; none of one that a later version wrote in another way.
fn items(value: &[u8], tail: &str) -> Vec<TimelineEntry> {
    let Some((&VERSION, json)) = value.split_first() else { return Vec::new() };
    let items: Vec<Map<String, Json>> = serde_json::from_slice(json).unwrap_or_default();
    let entry = |(number, told): (usize, Map<String, Json>)| {
        let at = Timestamp(told.get("at").and_then(Json::as_u64).unwrap_or_default());
        TimelineEntry { id: place(at, &format!("t{tail}-{number:03}")), told }
    };
    items.into_iter().enumerate().map(entry).collect()
}

impl Sessions {
    /// What a session did and what happened to it, in the order of time, over all nodes.
    ///
    /// # Errors
    /// `bad_request` for a limit beyond the bounds, or those of the store.
    pub async fn timeline(
        &self,
        tenant: &TenantId,
        id: SessionId,
        events: Vec<ShownEvent>,
        wanted: &WantedTimeline,
    ) -> Result<Vec<TimelineEntry>, Problem> {
        let limit = wanted.limit.unwrap_or(100);
        if !(1..=1000).contains(&limit) {
            return Err(Problem::new(Code::BadRequest, "`limit` must be 1 to 1000"));
        }
        let mut entries = self.trail.of(tenant, id, Class::Timeline).await?;
        let over = entries.len().saturating_sub(self.config.timeline_events_max);
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        entries.drain(..over);
        let all = Partition::new(tenant.clone(), KIND, ALL).map_err(storage::problem)?;
        let mut blind = self.trail.read(&all, "all/t/").await?;
        // What nobody can name may be of any session that was there.
        let since = events.first().map(|first| first.id.clone()).unwrap_or_default();
        blind.retain(|gap| gap.id >= since);
        entries.extend(blind);
        entries.extend(events.into_iter().map(|shown| TimelineEntry {
            id: shown.id,
            told: match serde_json::to_value(&shown.event) {
                Ok(Json::Object(told)) => told,
                Ok(_) | Err(_) => Map::new(),
            },
        }));
        entries.retain(|entry| {
            let kind = entry.kind();
            wanted.before.as_ref().is_none_or(|before| entry.id < *before)
                && wanted.kind.as_ref().is_none_or(|wanted| kind == wanted || kind == "gap")
        });
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries.split_off(entries.len().saturating_sub(limit)))
    }
}
