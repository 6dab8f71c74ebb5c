//! What is configured for some documents, or for some of their entries.
//!
//! A rule names documents, and entries by the beginning of their keys. For each of its settings
//! the first rule counts that covers the entry and has that setting.

use crate::state::{Merge, Schema, Who, tier::IMPORTANCE_MAX};
use serde::Deserialize;
use types::{Caller, pattern::is_named};

/// Rules of one configuration.
const RULES_MAX: usize = 64;

/// What holds for some entries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which documents, as `{scope}:{id}`; `*` stands for any characters.
    pub document: String,
    /// Which of their entries: those whose key begins so. Empty: all.
    #[serde(default)]
    pub prefix: String,
    /// How writes of an entry come together; `reject` unless a rule says otherwise.
    #[serde(default)]
    pub merge: Option<Merge>,
    /// Whose writes count as those of the source, for `merge = "source_wins"`.
    #[serde(default)]
    pub source: Option<Who>,
    /// Who reads the entries, of those who may read the document; all of them, unless a rule
    /// says otherwise.
    #[serde(default)]
    pub read: Option<Who>,
    /// Who writes the entries, of those who may write the document and read the entries; all of
    /// them, unless a rule says otherwise.
    #[serde(default)]
    pub write: Option<Who>,
    /// What their values have to look like.
    #[serde(default)]
    pub schema: Option<Schema>,
    /// How many of these entries a document has at most. Each rule's limits hold by themselves.
    #[serde(default)]
    pub keys_max: Option<u64>,
    /// Bytes of their keys and values, as JSON, that a document has at most.
    #[serde(default)]
    pub bytes_max: Option<u64>,
    /// How important the document is to the policy that decides its tier, 1 to 10; the largest
    /// of its rules counts.
    #[serde(default)]
    pub importance: Option<u8>,
}

impl Rule {
    fn covers(&self, document: &str, key: &str) -> bool {
        key.starts_with(&self.prefix) && is_named(&self.document, document)
    }
}

/// All rules, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// How writes of an entry come together, and who its source is.
    pub(super) fn merge<'a>(&'a self, document: &str, key: &str) -> (Merge, Option<&'a Who>) {
        let merge = |rule: &'a Rule| rule.merge.map(|merge| (merge, rule.source.as_ref()));
        self.covering(document, key).find_map(merge).unwrap_or_default()
    }

    /// Whether `caller`, who may read the document, may read an entry.
    pub(super) fn may_read(&self, caller: &Caller, document: &str, key: &str) -> bool {
        let who = self.covering(document, key).find_map(|rule| rule.read.as_ref());
        who.is_none_or(|who| who.includes(caller))
    }

    /// Whether `caller`, who may write the document, may write an entry: a write tells what is
    /// there, so that it takes reading too.
    pub(super) fn may_write(&self, caller: &Caller, document: &str, key: &str) -> bool {
        let who = self.covering(document, key).find_map(|rule| rule.write.as_ref());
        who.is_none_or(|who| who.includes(caller)) && self.may_read(caller, document, key)
    }

    /// Whether there may be entries of the document that `caller` may not read.
    pub(super) fn hides(&self, caller: &Caller, document: &str) -> bool {
        let excludes = |rule: &Rule| rule.read.as_ref().is_some_and(|who| !who.includes(caller));
        self.0.iter().any(|rule| excludes(rule) && is_named(&rule.document, document))
    }

    /// Whether `caller`, who may write the document, may write every entry that it can have.
    pub(super) fn may_write_all(&self, caller: &Caller, document: &str) -> bool {
        let excludes = |rule: &Rule| {
            let mut who = rule.read.iter().chain(&rule.write);
            who.any(|who| !who.includes(caller))
        };
        !self.0.iter().any(|rule| excludes(rule) && is_named(&rule.document, document))
    }

    /// How important the document is, if a rule says it.
    pub(super) fn importance(&self, document: &str) -> Option<u8> {
        let rules = self.0.iter().filter(|rule| is_named(&rule.document, document));
        rules.filter_map(|rule| rule.importance).max()
    }

    /// What the value of an entry has to look like.
    pub(super) fn schema<'a>(&'a self, document: &str, key: &str) -> Option<&'a Schema> {
        self.covering(document, key).find_map(|rule| rule.schema.as_ref())
    }

    /// The rules that limit the document.
    pub(super) fn limits<'a>(&'a self, document: &'a str) -> impl Iterator<Item = &'a Rule> {
        let limits = |rule: &&Rule| rule.keys_max.is_some() || rule.bytes_max.is_some();
        self.0.iter().filter(limits).filter(move |rule| is_named(&rule.document, document))
    }

    fn covering<'a, 'n>(
        &'a self,
        document: &'n str,
        key: &'n str,
    ) -> impl Iterator<Item = &'a Rule> + use<'a, 'n> {
        self.0.iter().filter(move |rule| rule.covers(document, key))
    }
}

/// Refuses rules that cannot be meant.
///
/// # Errors
/// What is wrong and how it is put right.
pub(super) fn check(rules: &[Rule]) -> Result<(), String> {
    if rules.len() > RULES_MAX {
        return Err(format!("`state.rules` must be at most {RULES_MAX}"));
    }
    for rule in rules {
        let about = |what: &str| Err(format!("the state rule for `{}`: {what}", rule.document));
        let scope = rule.document.split(':').next().unwrap_or_default();
        let scopes = ["session", "user", "tenant", "pillar", "service"];
        if !scope.contains('*') && !scopes.contains(&scope) {
            return about("a document begins with session, user, tenant, pillar or service");
        }
        if rule.prefix.chars().any(char::is_control) || rule.prefix.len() > 256 {
            return about("`prefix` begins a key: at most 256 bytes without control characters");
        }
        match (rule.merge, &rule.source) {
            (Some(Merge::SourceWins), None) => {
                return about("`merge = \"source_wins\"` needs `source`, who that is");
            }
            (Some(Merge::SourceWins), Some(_)) | (_, None) => {}
            (_, Some(_)) => return about("`source` is for `merge = \"source_wins\"`"),
        }
        for (setting, who) in
            [("source", &rule.source), ("read", &rule.read), ("write", &rule.write)]
        {
            if who.as_ref().is_some_and(Who::is_empty) {
                return about(&format!("`{setting}` names nobody; say `{setting} = false`"));
            }
        }
        if rule.keys_max == Some(0) || rule.bytes_max == Some(0) {
            return about("`keys_max` and `bytes_max` are at least 1");
        }
        if rule.importance.is_some_and(|of| !(1..=IMPORTANCE_MAX).contains(&of)) {
            return about("`importance` is 1 to 10");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        #[derive(Deserialize)]
        struct Holds {
            rules: Vec<Rule>,
        }
        toml::from_str::<Holds>(text).unwrap().rules
    }

    #[test]
    fn a_pattern_names_documents() {
        for (pattern, name, expected) in [
            ("pillar:board", "pillar:board", true),
            ("pillar:board", "pillar:boards", false),
            ("pillar:*", "pillar:board", true),
            ("*", "user:ann", true),
            ("user:*a*b", "user:aab", true),
            ("user:*a*b", "user:ba", false),
            ("user:a*a", "user:a", false),
            ("*:x*y", "pillar:xxyy", true),
        ] {
            assert_eq!(is_named(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_rule_with_the_setting_counts() {
        let rules = rules(
            r#"
            [[rules]]
            document = "pillar:*"
            prefix = "count/"
            merge = "counter"
            [[rules]]
            document = "pillar:board"
            merge = "source_wins"
            source = { kinds = ["service"] }
            [[rules]]
            document = "*"
            merge = "last_writer"
            "#,
        );
        assert_eq!(check(&rules), Ok(()));
        let rules = Rules::new(rules);
        let merge = |document, key| rules.merge(document, key).0;
        assert_eq!(merge("pillar:board", "count/a"), Merge::Counter);
        assert_eq!(merge("pillar:other", "count/a"), Merge::Counter);
        assert_eq!(merge("pillar:board", "counts"), Merge::SourceWins);
        assert!(rules.merge("pillar:board", "counts").1.is_some());
        assert_eq!(merge("user:ann", "count/a"), Merge::LastWriter);
        assert_eq!(Rules::default().merge("user:ann", "k"), (Merge::Reject, None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (rule, expected) in [
            ("document = \"board\"", "begins with session"),
            ("document = \"user:*\"\nprefix = \"\\n\"", "`prefix`"),
            ("document = \"user:*\"\nmerge = \"source_wins\"", "needs `source`"),
            ("document = \"user:*\"\nsource = true", "`source` is for"),
            ("document = \"user:*\"\nread = {}", "`read = false`"),
            ("document = \"user:*\"\nkeys_max = 0", "at least 1"),
        ] {
            let why = check(&rules(&format!("[[rules]]\n{rule}"))).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let many = "[[rules]]\ndocument = \"*\"\n".repeat(RULES_MAX + 1);
        assert!(check(&rules(&many)).is_err());
    }
}
