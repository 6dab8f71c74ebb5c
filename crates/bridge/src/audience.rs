//! What an audience can call, and where.

use crate::{
    document::Operation,
    merged::{Part, merged},
    policy::Crossing,
    realms::{Member, Realms, Wanted},
};
use serde_json::Value;

/// Where calls between services begin.
pub const CALLS: &str = "/crosstown/v1/call";

/// Whom a document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// Whoever comes from outside, by routes that take the operations of a service.
    Public,
    /// Who speaks for a realm.
    Realm(&'a str),
}

/// The OpenAPI document of what `audience` can call. `doors` are the routes from outside: services,
/// and the paths that they begin with.
#[must_use]
pub fn document_for<'r>(
    realms: &'r Realms,
    audience: Audience<'r>,
    doors: &[(&str, &str)],
) -> Value {
    let includes = |member: &Member, operation: &Operation| match audience {
        Audience::Public => true,
        Audience::Realm(from) => {
            let Member { realm, name, .. } = member;
            let operation = Some(operation.id());
            let call = Crossing { from, to: realm, service: name, operation };
            realms.policy().verdict(&call).allows
        }
    };
    let part = |member: &'r Member, base: String| Part {
        member,
        base,
        includes: Box::new(move |operation: &Operation| includes(member, operation)),
    };
    let mut parts: Vec<Part<'_>> = match audience {
        Audience::Public => {
            let found = doors.iter().filter_map(|(service, prefix)| {
                Some(part(realms.member(service)?, prefix.trim_end_matches('/').to_owned()))
            });
            found.collect()
        }
        Audience::Realm(_) => {
            // Of several versions, the one that is called unless another is asked for.
            let newest = realms.members().filter(|member| {
                let found = realms.find(&member.realm, &member.name, &Wanted::default());
                found.is_some_and(|found| found.service == member.service)
            });
            newest.map(|m| part(m, format!("{CALLS}/{}/{}", m.realm, m.name))).collect()
        }
    };
    parts.sort_by(|a, b| a.base.cmp(&b.base));
    let title = match audience {
        Audience::Public => "What can be called from outside".to_owned(),
        Audience::Realm(realm) => format!("What the realm {realm} can call"),
    };
    merged(&title, "1.0.0", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Document, Documents};
    use std::sync::Arc;

    #[test]
    fn of_several_versions_the_one_that_is_called_is_shown() {
        let config: Config = toml::from_str(
            "[own.services]\none = { name = \"plans\" }\ntwo = { name = \"plans\", version = \"2.0.0\" }\n\
             three = { name = \"plans\", version = \"3.0.0\", preview = true }\n",
        )
        .unwrap();
        let document = |title: &str| {
            let text = format!(
                "openapi: 3.1.0\ninfo: {{ title: {title}, version: '1' }}\n\
                 paths: {{ /{title}: {{ get: {{}} }} }}\n"
            );
            (title.to_owned(), Arc::new(Document::parse(text.as_bytes()).unwrap()))
        };
        let documents = Documents::from(["one", "two", "three"].map(document));
        let realms = Realms::compile(&config, &[], &documents).unwrap();
        let paths = |audience, doors: &[(&str, &str)]| -> Vec<String> {
            let document = document_for(&realms, audience, doors);
            document["paths"].as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(paths(Audience::Realm("own"), &[]), ["/crosstown/v1/call/own/plans/two"]);
        assert!(paths(Audience::Realm("other"), &[]).is_empty());
        assert_eq!(paths(Audience::Public, &[("one", "/v1/"), ("none", "/")]), ["/v1/one"]);
    }
}
