//! What one subscriber knows of its channel: the last publication, and whether one was missed or
//! came twice.

use serde_json::Value as Json;

/// A subscription that recovers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Follow {
    pub(crate) epoch: String,
    /// The last publication.
    pub(crate) offset: u64,
    /// Publications that never came.
    pub(crate) lost: u64,
    /// Publications that came again, or out of order.
    pub(crate) repeated: u64,
    /// Publications that came with the answer to `subscribe`.
    pub(crate) caught_up: u64,
    /// Recoveries that the server could not make.
    pub(crate) unrecovered: u64,
}

impl Follow {
    /// Takes the answer to `subscribe`, with what was missed.
    pub(crate) fn subscribed(&mut self, result: &Json) {
        let (epoch, offset) = (&result["epoch"], result["offset"].as_u64().unwrap_or(0));
        let epoch = epoch.as_str().unwrap_or_default();
        if self.epoch.is_empty() {
            (self.epoch, self.offset) = (epoch.to_owned(), offset);
            return;
        }
        if self.epoch != epoch || result["recovered"] != true {
            self.unrecovered += 1;
        }
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.published(publication["offset"].as_u64().unwrap_or(0));
            self.caught_up += 1;
        }
        if offset > self.offset {
            self.published(offset);
            self.lost += 1;
        }
    }

    /// Takes a publication.
    pub(crate) fn published(&mut self, offset: u64) {
        if offset <= self.offset {
            self.repeated += 1;
        } else {
            self.lost += offset - self.offset - 1;
            self.offset = offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(follow: &Follow, offset: u64, lost: u64, repeated: u64, unrecovered: u64) {
        assert_eq!(
            (follow.offset, follow.lost, follow.repeated, follow.unrecovered),
            (offset, lost, repeated, unrecovered)
        );
    }

    #[test]
    fn nothing_is_lost_in_order() {
        let mut follow = Follow::default();
        follow.subscribed(&json!({ "epoch": "a", "offset": 3 }));
        follow.published(4);
        let publications = json!([{ "offset": 5 }, { "offset": 6 }]);
        follow.subscribed(&json!({
            "epoch": "a", "offset": 6, "recovered": true, "publications": publications,
        }));
        follow.published(7);
        check(&follow, 7, 0, 0, 0);
        assert_eq!(follow.caught_up, 2);
    }

    #[test]
    fn gaps_and_repeats_are_counted() {
        let mut follow = Follow { epoch: "a".into(), offset: 3, ..Follow::default() };
        follow.published(6);
        check(&follow, 6, 2, 0, 0);
        follow.published(6);
        check(&follow, 6, 2, 1, 0);
        // Said to be whole, though two are missing.
        follow.subscribed(&json!({ "epoch": "a", "offset": 8, "recovered": true }));
        check(&follow, 8, 4, 1, 0);
        follow.subscribed(&json!({ "epoch": "b", "offset": 8 }));
        check(&follow, 8, 4, 1, 1);
    }
}
