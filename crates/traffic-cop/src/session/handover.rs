//! A session changes hands: to another device of its user, or to somebody else.
//!
//! A code is made for it, of which the session keeps the hash, and whoever redeems it gets a new
//! token; the old one ends by the same commit. So of two who redeem it one wins, and at no moment
//! are there two owners, whatever dies in between.

use crate::{
    secret,
    session::{
        Device, Event, EventKind, NewDevice, Session, Sessions, TOKEN_PREFIX,
        ending::refuse_suspended,
        event::named,
        key, millis, partition,
        past::telling,
        record::{Former, Holder, Offer, SessionRecord},
    },
    storage,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, str::FromStr, time::Duration};
use store::{Check, Commit, Error};
use types::{Caller, Principal, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

/// How a code begins.
const CODE_PREFIX: &str = "csh_";
/// How long a code holds, unless its maker says otherwise, and at most.
const HOLDS: Duration = Duration::from_secs(120);
const HOLDS_MAX: Duration = Duration::from_secs(15 * 60);
/// How long the old token may go on.
const GRACE_MAX: Duration = Duration::from_secs(60);
/// Wrong codes, or wrong principals, until the right one holds no more.
const TRIES: u32 = 5;

/// To whom a session is to be handed over, and what becomes of the old device.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewHandover {
    /// To this user, agent or service alone, who has to bring a credential. Unless it is given,
    /// whoever has the code goes on as the one who uses the session now.
    pub to: Option<Recipient>,
    /// How long the code holds; two minutes unless given, at most 15.
    #[serde(deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    pub ttl: Option<Duration>,
    /// How long the old token goes on once the code is redeemed; not at all unless given, at most
    /// a minute.
    #[serde(deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    pub grace: Option<Duration>,
    /// Whether the old device's sockets stay.
    pub keep: bool,
}

/// Somebody of the same tenant.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// The name.
    pub user: PrincipalId,
    /// What it is.
    pub kind: PrincipalKind,
}

/// A code that was made. It is shown this once.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(rename = "OfferedHandover")]
pub struct Offered {
    /// The code.
    pub code: String,
    /// Until when it holds, in milliseconds since 1970 UTC.
    pub until: Timestamp,
}

/// Who redeems a code.
#[derive(Debug, Default)]
pub struct Redeemer<'a> {
    /// As whom, if that was proved.
    pub caller: Option<&'a Caller>,
    /// On what.
    pub device: Option<NewDevice>,
    /// From where.
    pub address: Option<IpAddr>,
}

/// What a code comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the right one, by the right one.
    Right,
    /// It was the right one, and somebody has used it.
    Spent,
    /// There is none, or not any more.
    None,
    /// It is wrong, or brought by the wrong one, who is told this.
    Wrong(Code, &'static str),
}

/// What `record` says to who brings `code`, at `now`.
fn judge(record: &SessionRecord, code: &str, by: Option<&Principal>, now: Timestamp) -> Verdict {
    if record.spent.as_ref().is_some_and(|spent| secret::matches(code, spent)) {
        return Verdict::Spent;
    }
    let Some(offer) = record.offer.as_ref().filter(|offer| now < offer.until) else {
        return Verdict::None;
    };
    if !secret::matches(code, &offer.code_hash) {
        return Verdict::Wrong(Code::NotFound, "there is no such code");
    }
    match (&offer.to, by) {
        (None, _) => Verdict::Right,
        (Some(to), Some(by)) if to.principal() == *by => Verdict::Right,
        (Some(_), Some(_)) => Verdict::Wrong(Code::Forbidden, "the code is for somebody else"),
        (Some(_), None) => {
            Verdict::Wrong(Code::Unauthenticated, "whom the code is for has to bring a credential")
        }
    }
}

impl Sessions {
    /// Makes a code by which the session can be taken over once, in place of one of before.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `forbidden` if the session is suspended, or those of the store.
    pub async fn offer(
        &self,
        tenant: &TenantId,
        id: SessionId,
        new: &NewHandover,
        by: &Principal,
    ) -> Result<Offered, Problem> {
        let (ttl, grace) = (new.ttl.unwrap_or(HOLDS), new.grace.unwrap_or_default());
        if !(Duration::from_secs(1)..=HOLDS_MAX).contains(&ttl) || grace > GRACE_MAX {
            let detail = "`ttl` must be 1s to 15m, and `grace` at most 1m";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let code = secret::random(&*self.clock);
        let code_hash = secret::hash(&code);
        let until = self.clock.now().plus(ttl);
        self.change(tenant, id, |record, now| {
            refuse_suspended(record)?;
            let to = new.to.clone().map(|to| Holder { kind: to.kind, id: to.user });
            let event = Event::new(now, EventKind::HandoverOffered, Some(by))
                .with_some("to", to.as_ref().map(|to| named(&to.principal())));
            record.offer = Some(Offer {
                code_hash: code_hash.clone(),
                until,
                tries_left: TRIES,
                to,
                keep: new.keep,
                grace_ms: millis(grace),
            });
            Ok(vec![event])
        })
        .await?;
        Ok(Offered { code: format!("{CODE_PREFIX}{tenant}.{id}.{code}"), until })
    }

    /// Takes a session over by its code: gives the session, and its new token.
    ///
    /// # Errors
    /// `not_found` for a code that there is not, or not any more; `conflict` for one that was
    /// used; `forbidden` or `unauthenticated` if it is for somebody else; those of the store.
    pub async fn redeem(
        &self,
        code: &str,
        redeemer: Redeemer<'_>,
    ) -> Result<(Session, String), Problem> {
        let none = || Problem::new(Code::NotFound, "there is no such code");
        let mut parts = code.strip_prefix(CODE_PREFIX).ok_or_else(none)?.splitn(3, '.');
        let (Some(tenant), Some(id), Some(code)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(none());
        };
        let tenant = TenantId::new(tenant).map_err(|_| none())?;
        let id = SessionId::from_str(id).map_err(|_| none())?;
        let caller = redeemer.caller.filter(|caller| caller.tenant == tenant);
        let by = caller.map(|caller| &caller.principal);
        let device = self.met(redeemer.device, redeemer.address, self.clock.now())?;
        let token = secret::random(&*self.clock);
        for _ in 0..super::ATTEMPTS {
            let (record, revision) = self.read(&tenant, id).await?.ok_or_else(none)?;
            let now = self.clock.now();
            let (changed, outcome) = match judge(&record, code, by, now) {
                Verdict::None => return Err(none()),
                Verdict::Spent => {
                    return Err(Problem::new(Code::Conflict, "the code was used already"));
                }
                Verdict::Right => {
                    refuse_suspended(&record)?;
                    (taken(record, device.clone(), &token, now), None)
                }
                Verdict::Wrong(code, detail) => {
                    (tried(record, now), Some(Problem::new(code, detail)))
                }
            };
            let (record, event) = changed;
            let commit = Commit::new(partition(&tenant, id.shelf())?)
                .check(Check::Revision { key: key(id), revision })
                .write(self.put(&record, now))
                .write(self.left(&record, None, now));
            let commit = telling(commit, &record, event, self.config.events_keep);
            match self.commit(commit).await {
                Ok(_) => {}
                Err(Error::Conflict { .. }) => continue,
                Err(error) => return Err(storage::problem(error)),
            }
            if let Some(problem) = outcome {
                return Err(problem);
            }
            self.look(&tenant, id).await;
            let token = format!("{TOKEN_PREFIX}{tenant}.{id}.{token}");
            return Ok((record.shown(&tenant), token));
        }
        Err(Problem::new(Code::Conflict, "the session is changed by too many at once"))
    }

    /// The device that a session comes to at `now`, if that is said.
    pub(super) fn met(
        &self,
        device: Option<NewDevice>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<Device>, Problem> {
        let address = address.and_then(|address| self.config.addresses.shown(address));
        let drawn = || format!("dev_{}", storage::random_text::<12>(&*self.clock));
        device.map(|device| device.met(now, address, drawn)).transpose()
    }
}

/// The session once its code was redeemed for `token`, and what to tell of it.
fn taken(
    before: SessionRecord,
    device: Option<Device>,
    token: &str,
    now: Timestamp,
) -> (SessionRecord, Option<Event>) {
    let mut record = before;
    let Some(offer) = record.offer.take() else { return (record, None) };
    let grace = Duration::from_millis(offer.grace_ms);
    let from = record.device.take();
    record.former = (!grace.is_zero()).then(|| Former {
        token_hash: record.token_hash.clone(),
        until: now.plus(grace),
        holder: record.holder.clone(),
    });
    if let Some(to) = offer.to {
        record.holder = Some(to).filter(|to| to.principal() != record.owner());
    }
    record.token_hash = secret::hash(token);
    record.spent = Some(offer.code_hash);
    record.keeps = offer.keep;
    record.handed += 1;
    record.last_used = now;
    record.implicit = false;
    let event = Event::new(now, EventKind::HandedOver, Some(&record.user()))
        .with_some("from_device", from.map(|from| from.name))
        .with_some("to_device", device.as_ref().map(|device| device.name.clone()))
        .with("keep", record.keeps)
        .with("grace_ms", offer.grace_ms);
    record.device = device;
    (record, Some(event))
}

/// The session once somebody brought a wrong code.
fn tried(before: SessionRecord, now: Timestamp) -> (SessionRecord, Option<Event>) {
    let mut record = before;
    let Some(offer) = &mut record.offer else { return (record, None) };
    offer.tries_left = offer.tries_left.saturating_sub(1);
    if offer.tries_left > 0 {
        return (record, None);
    }
    record.offer = None;
    let event = Event::new(now, EventKind::HandoverRefused, None)
        .with("reason", "the code was tried too often");
    (record, Some(event))
}

/// Whether a session's token of before a handover still holds, and whose it was.
pub(super) fn former<'a>(
    record: &'a SessionRecord,
    token: &str,
    now: Timestamp,
) -> Option<(&'a Former, Principal)> {
    let former = record.former.as_ref().filter(|former| now < former.until)?;
    let whose = former.holder.as_ref().map_or_else(|| record.owner(), Holder::principal);
    secret::matches(token, &former.token_hash).then_some((former, whose))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::tests::record;

    fn offered(to: Option<&str>) -> SessionRecord {
        let holder = |name: &str| Holder { kind: PrincipalKind::Agent, id: name.parse().unwrap() };
        let offer = Offer {
            code_hash: secret::hash("code"),
            until: Timestamp(1_400),
            tries_left: TRIES,
            to: to.map(holder),
            keep: false,
            grace_ms: 0,
        };
        SessionRecord { offer: Some(offer), ..record(1) }
    }

    fn agent(name: &str) -> Principal {
        Principal { kind: PrincipalKind::Agent, id: name.parse().unwrap() }
    }

    #[test]
    fn a_code_is_judged_by_its_time_its_text_and_who_brings_it() {
        let at = |now| judge(&offered(None), "code", None, Timestamp(now));
        assert_eq!((at(1_399), at(1_400)), (Verdict::Right, Verdict::None));
        let open = offered(None);
        assert!(matches!(judge(&open, "edoc", None, Timestamp(1)), Verdict::Wrong(..)));
        assert_eq!(judge(&record(1), "code", None, Timestamp(1)), Verdict::None);

        let named = offered(Some("planner"));
        let by = |by: Option<&Principal>| judge(&named, "code", by, Timestamp(1));
        assert_eq!(by(Some(&agent("planner"))), Verdict::Right);
        assert!(matches!(by(Some(&agent("other"))), Verdict::Wrong(Code::Forbidden, _)));
        assert!(matches!(by(None), Verdict::Wrong(Code::Unauthenticated, _)));
    }

    #[test]
    fn who_takes_a_session_over_is_its_one_owner() {
        let (taken, event) = taken(offered(Some("planner")), None, "new", Timestamp(1_200));
        assert_eq!(taken.user(), agent("planner"));
        assert_eq!(taken.owner().id.as_str(), "ann");
        assert!(secret::matches("new", &taken.token_hash) && taken.former.is_none());
        assert_eq!(judge(&taken, "code", Some(&agent("planner")), Timestamp(1)), Verdict::Spent);
        assert_eq!((taken.handed, taken.device), (1, None));
        assert_eq!(event.unwrap().details["from_device"], "phone");
    }

    #[test]
    fn after_five_wrong_ones_the_right_one_holds_no_more() {
        let mut record = offered(None);
        for left in (0..TRIES).rev() {
            let (next, event) = tried(record, Timestamp(1));
            assert_eq!(event.is_some(), left == 0, "{left}");
            record = next;
        }
        assert_eq!(judge(&record, "code", None, Timestamp(1)), Verdict::None);
    }

    #[test]
    fn a_former_token_holds_for_its_grace() {
        let mut before = offered(None);
        before.token_hash = secret::hash("old");
        before.offer.as_mut().unwrap().grace_ms = 100;
        let (taken, _) = taken(before, None, "new", Timestamp(1_000));
        let holds = |token, now| former(&taken, token, Timestamp(now)).is_some();
        assert!(holds("old", 1_099) && !holds("old", 1_100) && !holds("new", 1_001));
    }
}
