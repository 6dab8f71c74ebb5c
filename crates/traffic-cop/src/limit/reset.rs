//! Making a subject's limit full again.

use crate::limit::{
    Limits, Per,
    share::{Ask, AskedQuota},
    subject::{BucketKey, Named, Pace, Subject, SubjectKey},
};
use std::net::{IpAddr, Ipv6Addr};
use types::{Principal, PrincipalKind, Timestamp};

/// Why a limit is not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// There is none of this name.
    #[error("there is no such limit")]
    NoLimit,
    /// What is named is not what the limit counts.
    #[error("the limit counts {0}")]
    Subject(&'static str),
    /// Another node counts it, and does not answer.
    #[error("the node that counts the limit does not answer")]
    Away,
}

impl Limits {
    /// Makes the limit `rule` full again for `named`. Where nodes share it, one that was refused
    /// may go on refusing for a second.
    ///
    /// # Errors
    /// [`ResetError`]; nothing was reset, unless the node that counts it did so unheard.
    pub async fn reset(&self, rule: &str, named: &Named) -> Result<(), ResetError> {
        let (key, limit, is_shared) = {
            let rules = self.rules.load();
            let active = rules.iter().find(|active| &*active.rule.name == rule);
            let rule = &active.ok_or(ResetError::NoLimit)?.rule;
            let subject =
                key(rule.per, named).ok_or_else(|| ResetError::Subject(counted(rule.per)))?;
            let key = BucketKey { rule: rule.name.clone(), pace: rule.pace(), subject };
            (key, rule.burst, self.is_shared(rule))
        };
        if is_shared {
            let (interval, quota) = match &key.pace {
                Pace::Rate(rate) => (rate.interval, None),
                Pace::Quota(calendar) => {
                    (1, Some(AskedQuota { calendar: calendar.clone(), begun: Timestamp(0) }))
                }
            };
            let nothing = Ask {
                key: key.digest(),
                interval,
                burst: limit,
                want: 0,
                back: 0,
                spent: 0,
                reset: true,
                quota,
            };
            if let Err(why) = self.shared.reset(nothing).await {
                tracing::warn!(limit = rule, why, "a limit could not be reset");
                return Err(ResetError::Away);
            }
        } else {
            let place = self.place(&key);
            if let Some(bucket) = self.shard(place).lock().get(&place) {
                bucket.reset();
            }
        }
        let Named { tenant, kind, principal, session, ip, route } = named;
        tracing::info!(
            limit = rule,
            ?tenant,
            ?kind,
            ?principal,
            ?session,
            ?ip,
            ?route,
            "the operator has reset a limit"
        );
        Ok(())
    }
}

/// What an operator has to name.
fn counted(per: Per) -> &'static str {
    match per {
        Per::User => "by `tenant`, `kind` and `principal`",
        Per::Session => "by `tenant` and `session`, or else by `tenant`, `kind` and `principal`",
        Per::Route => "by `route`, and by `tenant` if there is one",
        Per::Ip => "by `ip`",
        Per::Tenant => "by `tenant`",
        Per::Global => "everybody together: name nobody",
    }
}

/// The subject of that name; `None` if that is not, or not only, what names one.
fn key(per: Per, named: &Named) -> Option<SubjectKey> {
    let kind = named.kind.unwrap_or(PrincipalKind::User);
    let principal = named.principal.clone().map(|id| Principal { kind, id });
    let subject = Subject {
        tenant: named.tenant.as_ref(),
        principal: principal.as_ref(),
        session: named.session,
        ip: named.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        route: named.route.as_deref().unwrap_or_default(),
    };
    let key = SubjectKey::of(per, &subject)?;
    let mut asked = named.clone();
    if principal.is_some() {
        asked.kind = Some(kind);
    }
    let mut known = key.named();
    if known.ip.is_some() && asked.ip.is_some() {
        known.ip = asked.ip;
    }
    (known == asked).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_named_by_what_its_limit_counts() {
        let check = |per: Per, json: &str, expected: bool| {
            let named: Named = serde_json::from_str(json).unwrap();
            assert_eq!(key(per, &named).is_some(), expected, "{per:?} {json}");
        };
        check(Per::User, r#"{"tenant":"acme","principal":"ann"}"#, true);
        check(Per::User, r#"{"tenant":"acme","kind":"agent","principal":"ann"}"#, true);
        check(Per::User, r#"{"tenant":"acme"}"#, false);
        check(Per::User, r#"{"tenant":"acme","principal":"ann","ip":"::1"}"#, false);
        check(Per::Session, r#"{"tenant":"acme","principal":"ann"}"#, true);
        check(Per::Session, r#"{"tenant":"acme"}"#, false);
        check(Per::Route, r#"{"route":"shop"}"#, true);
        check(Per::Route, r#"{"tenant":"acme","route":"shop"}"#, true);
        check(Per::Route, r#"{"tenant":"acme"}"#, false);
        check(Per::Ip, r#"{"ip":"2001:db8::7"}"#, true);
        check(Per::Ip, "{}", false);
        check(Per::Tenant, r#"{"tenant":"acme"}"#, true);
        check(Per::Global, "{}", true);
        check(Per::Global, r#"{"tenant":"acme"}"#, false);
        assert!(serde_json::from_str::<Named>(r#"{"user":"ann"}"#).is_err());
    }
}
