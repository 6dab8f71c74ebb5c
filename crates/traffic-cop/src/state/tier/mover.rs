//! Moving a document, step by step.
//!
//! | step | commit | a node that ends after it leaves |
//! |---|---|---|
//! | intend | placement: where to | the document as it was; the intent is taken back |
//! | close | old place: the next epoch fences it | a closed document, which is opened by that epoch |
//! | copy | new place: takes over at the same position | the same, and a place that is never used |
//! | switch | placement: the new place, and a line of its lineage | the document at its new place |
//! | empty | old place: nothing is left | remains, which the next move removes |

use crate::{
    state::{
        format_epoch,
        tier::{
            Authority, Cause, LINEAGE, Move, Places, Tier,
            contents::Contents,
            live::NoRoom,
            place::Place,
            placement::{self, LINEAGE_MAX, Moving, Placement},
            places::on_its_way,
        },
    },
    storage,
};
use std::time::Duration;
use store::{Check, Commit, Error, Incarnation, Key, Partition, Position, Write};
use types::PrincipalId;

const ATTEMPTS: usize = 16;
/// How often a node that ends tries to move a document, and what lies between.
const LAST_ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Where nodes share the stores: from when on a move counts as one that was cut off.
const MOVE_MAX: Duration = Duration::from_secs(30);

/// What is to be done with a document, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Where it is to live.
    pub to: Tier,
    /// Who wants it.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// Who asked for it, if somebody did.
    pub by: Option<PrincipalId>,
    /// What the policy made of it, where it was asked.
    pub score: Option<u32>,
}

/// A move that nobody else makes.
#[derive(Debug)]
pub(super) struct Intent {
    /// The placement with the intent, and its revision.
    pub(super) placement: Placement,
    pub(super) revision: u64,
    pub(super) to: Place,
}

/// What was moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    position: Position,
    entries: u64,
    bytes: u64,
    /// Of all that was copied.
    size: u64,
}

impl Places {
    /// Moves a document. `None`: it is there already.
    ///
    /// # Errors
    /// Those of the store; the document is then where it was, or, if the store does not answer
    /// at the end, where it was to be.
    pub(crate) async fn relocate(
        &self,
        document: &Partition,
        order: &Order,
    ) -> Result<Option<Move>, Error> {
        let _turn = self.turn(document).await;
        let place = self.settle(document).await?;
        let to = self.engines.serving(order.to);
        if place.tier == to {
            return Ok(None);
        }
        let intent = self.intend(document, to).await?;
        let moved = match self.carry(document, &intent).await {
            Ok(carried) => self.switch(document, &intent, carried, order).await,
            Err(error) => Err(error),
        };
        match moved {
            Ok((moved, left)) => {
                self.empty(document, left).await;
                Ok(Some(moved))
            }
            Err(error) => {
                // By whoever comes next, if not now.
                self.known.forget(document);
                if let Err(error) = self.undo(document, intent.revision, intent.placement).await {
                    tracing::warn!(%document, %error, "a move could not be undone yet");
                }
                Err(error)
            }
        }
    }

    /// Where a document is, once what was cut off is put right. With the turn, where this node
    /// alone moves documents.
    pub(super) async fn settle(&self, document: &Partition) -> Result<Place, Error> {
        for _ in 0..ATTEMPTS {
            let (revision, placement) = self.load(document).await?;
            let Some(placement) = placement else { return Ok(Place::first(document)) };
            let place = placement.place;
            if let Some(moving) = placement.moving {
                let ends = moving.at.plus(MOVE_MAX);
                if self.authority == Authority::Shared && self.clock.now() < ends {
                    return match place.generation > 0 && !self.is_there(document, place).await? {
                        // Another node is about to begin it anew.
                        true => Err(on_its_way()),
                        false => Ok(place),
                    };
                }
                match self.undo(document, revision, placement).await {
                    Ok(()) | Err(Error::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            if place.generation > 0 && !self.is_there(document, place).await? {
                match self.begin_anew(document, revision, placement).await {
                    Ok(()) | Err(Error::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            if place.tier == Tier::Live {
                self.live.find(document);
            }
            return Ok(place);
        }
        Err(Error::unavailable("the document's place changes faster than it can be read"))
    }

    async fn is_there(&self, document: &Partition, place: Place) -> Result<bool, Error> {
        Ok(self.store.head(&place.of(document)?).await?.is_some())
    }

    /// What is kept of a document's place, and the revision of that record; 0: nothing.
    pub(super) async fn load(
        &self,
        document: &Partition,
    ) -> Result<(u64, Option<Placement>), Error> {
        let of = placement::partition(document)?;
        let Some(record) = self.store.get(&of, &placement::key()?).await? else {
            return Ok((0, None));
        };
        let damaged = |_| Error::corrupt(format!("the place of {document} cannot be read"));
        let placement: Placement = storage::decode(&record.value).map_err(damaged)?;
        Ok((record.revision, Some(placement)))
    }

    /// Replaces the placement of `revision`, and answers the new one's.
    pub(super) async fn save(
        &self,
        document: &Partition,
        revision: u64,
        placement: &Placement,
        moved: Option<&Move>,
    ) -> Result<u64, Error> {
        let of = placement::partition(document)?;
        let key = placement::key()?;
        let mut commit = Commit::new(of.clone()).check(match revision {
            0 => Check::Absent { key: key.clone() },
            revision => Check::Revision { key: key.clone(), revision },
        });
        let head = self.store.head(&of).await?;
        match &head {
            None => commit = commit.write(self.genesis.begin(&of).await?),
            Some(head) if moved.is_some() && head.last(&LINEAGE) >= LINEAGE_MAX => {
                let first = head.last(&LINEAGE) + 2 - LINEAGE_MAX;
                commit = commit.write(Write::Trim { stream: LINEAGE, first });
            }
            Some(_) => {}
        }
        commit = commit.put(key, storage::encode(placement));
        if let Some(moved) = moved {
            commit = commit.append(LINEAGE, storage::encode(moved));
        }
        Ok(self.store.commit(commit).await?.position.revision)
    }

    /// Says where the document is to go.
    pub(super) async fn intend(&self, document: &Partition, to: Tier) -> Result<Intent, Error> {
        let (revision, placement) = self.load(document).await?;
        let mut placement = placement.unwrap_or_else(|| Placement::first(document));
        let generation = placement.next;
        placement.next += 1;
        placement.moving = Some(Moving { tier: to, generation, at: self.clock.now() });
        let revision = self.save(document, revision, &placement, None).await?;
        let to = Place { tier: to, generation, since: 0, fence: 0 };
        Ok(Intent { placement, revision, to })
    }

    /// Closes the document where it is, and copies it to where it is to be.
    async fn carry(&self, document: &Partition, intent: &Intent) -> Result<Carried, Error> {
        let from = intent.placement.place;
        let at = from.of(document)?;
        if self.store.head(&at).await?.is_none() {
            // What was never written begins now, so that it has an epoch to take along.
            let begin = self.genesis.begin(document).await?;
            let begun = Commit::new(at).check(Check::Fence(from.fence)).write(begin);
            match self.store.commit(begun).await {
                Ok(_) | Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut stands = self.close(document, from).await?;
        let contents = Contents::of(&self.store, document, &from).await?;
        if intent.to.tier == Tier::Live && self.live.is_full(contents.size) {
            return Err(Error::Full { source: NoRoom.into() });
        }
        while stands.revision < contents.commits() {
            stands = self.close(document, from).await?;
        }
        self.copy(document, contents, intent.to, stands).await
    }

    /// From then on nobody writes to the document at `place`, as long as it is not opened again.
    pub(super) async fn close(
        &self,
        document: &Partition,
        place: Place,
    ) -> Result<Position, Error> {
        let close = Commit::new(place.of(document)?).check(Check::Fence(place.fence + 1));
        Ok(self.store.commit(close).await?.position)
    }

    pub(super) async fn copy(
        &self,
        document: &Partition,
        contents: Contents,
        to: Place,
        position: Position,
    ) -> Result<Carried, Error> {
        let Contents { entries, bytes, size, .. } = contents;
        contents.write_to(&self.store, &to.of(document)?, position).await?;
        Ok(Carried { position, entries, bytes, size })
    }

    /// Names the new place, and answers what is to be emptied.
    pub(super) async fn switch(
        &self,
        document: &Partition,
        intent: &Intent,
        carried: Carried,
        order: &Order,
    ) -> Result<(Move, Emptying), Error> {
        let mut placement = intent.placement.clone();
        let from = placement.place;
        let to = Place { since: carried.position.revision, ..intent.to };
        let moved = Move {
            from: from.tier,
            to: to.tier,
            generation: to.generation,
            cause: order.cause,
            reason: order.reason.clone(),
            by: order.by.clone(),
            at: self.clock.now(),
            epoch: format_epoch(carried.position.incarnation),
            revision: carried.position.revision,
            entries: carried.entries,
            bytes: carried.bytes,
            score: order.score,
        };
        placement.place = to;
        placement.moving = None;
        (placement.cause, placement.reason) = (Some(order.cause), order.reason.clone());
        (placement.by, placement.at) = (order.by.clone(), Some(moved.at));
        // What survives less than what it comes from may be lost: then it is made of that again.
        let survives = |place: Place| self.engines.survives(place.tier);
        let kept = [Some(from), placement.kept.take()].into_iter().flatten();
        let (keep, leave): (Vec<_>, Vec<_>) =
            kept.partition(|place| order.cause != Cause::Lost && survives(*place) > survives(to));
        let mut keep = keep.into_iter();
        placement.kept = keep.next();
        placement.left.extend(leave.into_iter().chain(keep));
        let revision = self.save(document, intent.revision, &placement, Some(&moved)).await?;
        match to.tier {
            Tier::Live => self.live.put(document, carried.size),
            Tier::Hot | Tier::Durable => self.live.remove(document),
        }
        let now = self.clock.elapsed();
        self.known.put(document, to, super::known::Use::Look, now);
        // Who follows goes on there.
        self.hints.notify(document);
        Ok((moved, Emptying { placement, revision }))
    }

    /// Takes back an intent: the document is where it was, opened by the epoch that closed it.
    async fn undo(
        &self,
        document: &Partition,
        revision: u64,
        mut placement: Placement,
    ) -> Result<(), Error> {
        placement.moving = None;
        placement.place.fence += 1;
        self.save(document, revision, &placement, None).await?;
        tracing::info!(%document, "a document stays where it is: its move was cut off");
        Ok(())
    }

    /// After a document's place is lost: another life, of what was kept, or of nothing.
    async fn begin_anew(
        &self,
        document: &Partition,
        revision: u64,
        mut placement: Placement,
    ) -> Result<(), Error> {
        let lost = placement.place.tier;
        let kept = match placement.kept {
            Some(kept) if self.store.head(&kept.of(document)?).await?.is_some() => Some(kept),
            Some(_) | None => None,
        };
        let tier = kept.map_or(Place::first(document).tier, |kept| kept.tier);
        let generation = placement.next;
        placement.next += 1;
        placement.moving = Some(Moving { tier, generation, at: self.clock.now() });
        let revision = self.save(document, revision, &placement, None).await?;
        let to = Place { tier, generation, since: 0, fence: 0 };
        let intent = Intent { placement, revision, to };

        let incarnation = u64::from_le_bytes(clock::random(&*self.clock)).max(1);
        let (contents, last) = match kept {
            Some(kept) => {
                let contents = Contents::of(&self.store, document, &kept).await?;
                let head = self.store.head(&kept.of(document)?).await?;
                (contents, head.map_or(0, |head| head.position.revision))
            }
            None => (Contents::none(), 0),
        };
        let revision = last.max(contents.commits());
        let position = Position { incarnation: Incarnation(incarnation), revision };
        let carried = self.copy(document, contents, to, position).await?;
        let reason = match kept {
            Some(_) => "what was there is lost: it goes on from what was kept when it came there",
            None => "what was there is lost",
        };
        let order =
            Order { to: tier, cause: Cause::Lost, reason: reason.into(), by: None, score: None };
        tracing::warn!(%document, ?lost, "a document begins a new life: its place is lost");
        let (_, left) = self.switch(document, &intent, carried, &order).await?;
        self.empty(document, left).await;
        Ok(())
    }

    /// Empties what a move has left. What cannot be emptied now is emptied after the next move.
    pub(super) async fn empty(&self, document: &Partition, of: Emptying) {
        let Emptying { mut placement, revision } = of;
        let outcome = async {
            for place in &placement.left {
                self.remove(&place.of(document)?).await?;
            }
            placement.left.clear();
            self.save(document, revision, &placement, None).await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%document, %error, "what a move has left is not emptied yet");
        }
    }

    /// Removes all records and entries of a place that nobody writes to any more.
    async fn remove(&self, at: &Partition) -> Result<(), Error> {
        let Some(head) = self.store.head(at).await? else { return Ok(()) };
        let commit = || Commit::new(at.clone()).check(Check::Fence(head.fence)).applied();
        for held in head.streams.iter().filter(|held| held.first <= held.last) {
            let (stream, first) = (held.stream.clone(), held.last + 1);
            self.store.commit(commit().write(Write::Trim { stream, first })).await?;
        }
        loop {
            let page = self.store.scan(at, b"", None, 100).await?;
            if page.records.is_empty() {
                return Ok(());
            }
            let delete = |(key, _): (Key, _)| Write::Delete { key };
            let writes = page.records.into_iter().map(delete);
            self.store.commit(writes.fold(commit(), Commit::write)).await?;
        }
    }

    /// The tier in which a document is kept that is live.
    pub(super) async fn kept(&self, document: &Partition) -> Result<Tier, Error> {
        let (_, placement) = self.load(document).await?;
        let kept = placement.and_then(|placement| placement.kept);
        Ok(kept.map_or(Place::first(document).tier, |kept| kept.tier))
    }

    /// Moves what is live on this node to where it is kept, before the node ends.
    pub async fn settle_down(&self) {
        for document in self.live.all() {
            let to = self.kept(&document).await.unwrap_or(Tier::Durable);
            let reason = "the node that it was live on ended".to_owned();
            let order = Order { to, cause: Cause::Shutdown, reason, by: None, score: None };
            for attempt in 1..=LAST_ATTEMPTS {
                match self.relocate(&document, &order).await {
                    Ok(_) => break,
                    Err(error) if attempt == LAST_ATTEMPTS => {
                        tracing::error!(%document, %error, "what was live is lost with this node");
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
    }
}

/// A placement that names places to be emptied.
pub(super) struct Emptying {
    placement: Placement,
    revision: u64,
}
