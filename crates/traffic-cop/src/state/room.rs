//! How much a document may hold.
//!
//! What is there is counted by reading it, before a commit that would add to it; the commit is
//! checked to come upon what was counted. So a limit is exact, and costs a reading for each write
//! that could exceed it. Where no rule sets one, nothing is read.

use crate::{
    state::{Rule, States, change::NewValue, document},
    storage,
};
use protocol::{Code, Problem};
use store::{Check, Commit, Key, Partition, Position};

/// What some entries hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    keys: u64,
    bytes: u64,
}

impl Held {
    fn add(&mut self, key: &str, value_bytes: usize) {
        self.keys += 1;
        self.bytes += (key.len() + value_bytes) as u64;
    }
}

/// Refuses what would be more than the rule allows, and more than there was before.
fn check(rule: &Rule, before: Held, after: Held) -> Result<(), Problem> {
    let refuse = |what: &str, after: u64, limit: u64| {
        let of = match rule.prefix.as_str() {
            "" => "the document".to_owned(),
            prefix => format!("what begins with `{prefix}`"),
        };
        let detail = format!("{of} would have {after} {what}; at most {limit} are allowed");
        Err(Problem::new(Code::BodyTooLarge, detail))
    };
    match (rule.keys_max, rule.bytes_max) {
        (Some(limit), _) if after.keys > limit && after.keys > before.keys => {
            refuse("entries", after.keys, limit)
        }
        (_, Some(limit)) if after.bytes > limit && after.bytes > before.bytes => {
            refuse("bytes", after.bytes, limit)
        }
        _ => Ok(()),
    }
}

impl States {
    /// `commit`, with what has to hold so that the limits hold after `changes`.
    ///
    /// # Errors
    /// `body_too_large` beyond a limit, or those of the store.
    pub(super) async fn within_limits(
        &self,
        mut commit: Commit,
        changes: &[(&str, NewValue)],
    ) -> Result<Commit, Problem> {
        let partition = &commit.partition.clone();
        let Some(document) = document::name(partition) else { return Ok(commit) };
        for rule in self.rules.limits(document) {
            let mut concerned = changes.iter().filter(|(key, _)| key.starts_with(&rule.prefix));
            let grows = |(_, new): &(&str, NewValue)| {
                new.value.is_some() && (new.held == 0 || rule.bytes_max.is_some())
            };
            if !concerned.any(grows) {
                continue;
            }
            let changed = |key: &str| changes.iter().any(|(name, _)| *name == key);
            let (position, before, mut after) =
                self.counted(partition, &rule.prefix, changed).await?;
            for (key, new) in changes.iter().filter(|(key, _)| key.starts_with(&rule.prefix)) {
                if let Some((_, written)) = &new.value {
                    after.add(key, written.get().len());
                }
            }
            check(rule, before, after)?;
            commit = commit.check(Check::Position(position));
        }
        Ok(commit)
    }

    /// What the entries that begin with `prefix` hold, and how much of it is in entries that
    /// do not change; and the position at which the counting began.
    async fn counted(
        &self,
        partition: &Partition,
        prefix: &str,
        changed: impl Fn(&str) -> bool,
    ) -> Result<(Position, Held, Held), Problem> {
        let (mut all, mut kept) = (Held::default(), Held::default());
        let mut position = None;
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.scan(partition, prefix.as_bytes(), after.as_ref(), 1_000).await;
            let page = page.map_err(storage::problem)?;
            position.get_or_insert(page.position);
            for (key, record) in &page.records {
                let key = String::from_utf8_lossy(key.as_bytes());
                // Without the byte of its version.
                let bytes = record.value.len() - 1;
                all.add(&key, bytes);
                if !changed(&key) {
                    kept.add(&key, bytes);
                }
            }
            match page.records.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        Ok((position.unwrap_or(Position::ZERO), all, kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_beyond_a_limit_is_refused() {
        let rule = |keys_max, bytes_max| {
            let rule = serde_json::json!({
                "document": "*", "keys_max": keys_max, "bytes_max": bytes_max,
            });
            serde_json::from_value::<Rule>(rule).unwrap()
        };
        let held = |keys, bytes| Held { keys, bytes };
        for (rule, before, after, allowed) in [
            (rule(Some(3), None), held(2, 90), held(3, 1_000), true),
            (rule(Some(3), None), held(3, 90), held(4, 91), false),
            (rule(Some(3), None), held(5, 90), held(5, 91), true),
            (rule(None, Some(100)), held(5, 90), held(9, 100), true),
            (rule(None, Some(100)), held(5, 90), held(5, 101), false),
            (rule(None, Some(100)), held(5, 200), held(5, 150), true),
            (rule(Some(3), Some(100)), held(1, 90), held(2, 101), false),
            (rule(Some(3), Some(100)), held(3, 90), held(4, 91), false),
        ] {
            let outcome = check(&rule, before, after);
            assert_eq!(outcome.is_ok(), allowed, "{rule:?} {before:?} {after:?}");
            if let Err(problem) = outcome {
                assert_eq!(problem.code, Code::BodyTooLarge);
            }
        }
    }
}
