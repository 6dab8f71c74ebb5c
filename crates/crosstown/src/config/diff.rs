//! What differs between two configurations.

use crate::stores::without_password;
use api::configuration::Change;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// Keys whose values nobody is shown.
const SECRETS: [&str; 3] = ["secret", "password", "token"];
/// What of the configuration a running node takes over; the rest needs a restart.
const RUNNING: [&str; 6] = ["routes", "services", "realms", "bridges", "limits", "edge"];
/// But not this of it.
const AT_START: [&str; 4] =
    ["edge.listen", "edge.insecure", "edge.workers", "edge.cache_bytes_max"];

/// What differs, in order.
pub(crate) fn diff(from: &Table, to: &Table) -> Vec<Change> {
    let mut changes = Vec::new();
    tables(&mut changes, "", from, to);
    changes
}

/// The paths among `changes` that need a restart.
pub(crate) fn at_start(changes: &[Change]) -> Vec<String> {
    let below = |path: &str, root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let paths = changes.iter().map(|change| &change.path);
    paths
        .filter(|path| {
            !RUNNING.iter().any(|root| below(path, root))
                || AT_START.iter().any(|root| below(path, root))
        })
        .cloned()
        .collect()
}

fn tables(changes: &mut Vec<Change>, path: &str, from: &Table, to: &Table) {
    let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        values(changes, &path, from.get(key), to.get(key));
    }
}

fn values(changes: &mut Vec<Change>, path: &str, from: Option<&Value>, to: Option<&Value>) {
    if from == to {
        return;
    }
    let empty = Table::new();
    let table = |value: Option<&Value>| match value {
        Some(Value::Table(table)) => Some(table.clone()),
        Some(Value::Array(array)) => named(array),
        None => Some(empty.clone()),
        Some(_) => None,
    };
    let is_table = |value: Option<&Value>| {
        value.is_some_and(|value| {
            value.is_table() || value.as_array().is_some_and(|array| named(array).is_some())
        })
    };
    if (is_table(from) || is_table(to))
        && let (Some(from), Some(to)) = (table(from), table(to))
    {
        return tables(changes, path, &from, &to);
    }
    let shown = |value: Option<&Value>| value.map_or(Json::Null, |value| redacted(path, value));
    changes.push(Change { path: path.to_owned(), from: shown(from), to: shown(to) });
}

/// A list of tables as a table, by their names; none if not each has one of its own.
fn named(array: &[Value]) -> Option<Table> {
    let mut table = Table::new();
    for (order, element) in array.iter().enumerate() {
        let mut element = element.as_table()?.clone();
        let name = element.remove("name")?.as_str()?.to_owned();
        // Of equal routes the first is taken, so their order is a part of what they say.
        element.insert("(place)".to_owned(), Value::Integer(i64::try_from(order).ok()?));
        if table.insert(name, Value::Table(element)).is_some() {
            return None;
        }
    }
    (!table.is_empty()).then_some(table)
}

fn redacted(path: &str, value: &Value) -> Json {
    let key = path.rsplit('.').next().unwrap_or_default();
    if SECRETS.contains(&key) {
        return "***".into();
    }
    match value {
        Value::String(text) if path.starts_with("stores.") || text.contains("://") => {
            without_password(text).into()
        }
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(array) => array.iter().map(|element| redacted(path, element)).collect(),
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), redacted(&format!("{path}.{key}"), value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: &str, to: &str) -> Vec<String> {
        let changes = diff(&from.parse().unwrap(), &to.parse().unwrap());
        changes.iter().map(|c| format!("{}: {} -> {}", c.path, c.from, c.to)).collect()
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let from = "[edge]\nlisten = \"127.0.0.1:80\"\n[[routes]]\nname = \"a\"\nprefix = \"/a\"\n\
             [[routes]]\nname = \"b\"\nmethods = [\"GET\"]\n";
        let to = "[edge]\nlisten = \"127.0.0.1:80\"\n[[routes]]\nname = \"a\"\nprefix = \"/x\"\n\
             [[routes]]\nname = \"c\"\n";
        assert_eq!(
            of(from, to),
            [
                "routes.a.prefix: \"/a\" -> \"/x\"",
                "routes.b.(place): 1 -> null",
                "routes.b.methods: [\"GET\"] -> null",
                "routes.c.(place): null -> 1",
            ]
        );
        assert!(of(from, from).is_empty());
        assert_eq!(
            of("", "[services.s]\ninstances = [\"http://a\"]\n"),
            ["services.s.instances: null -> [\"http://a\"]"]
        );
        let swapped = of(
            "[[limits]]\nname = \"a\"\n[[limits]]\nname = \"b\"\n",
            "[[limits]]\nname = \"b\"\n[[limits]]\nname = \"a\"\n",
        );
        assert_eq!(swapped, ["limits.a.(place): 0 -> 1", "limits.b.(place): 1 -> 0"]);
    }

    #[test]
    fn secrets_are_told_to_differ_and_not_shown() {
        let issuer =
            |secret: &str| format!("[[identity.issuers]]\nname = \"i\"\nsecret = \"{secret}\"\n");
        assert_eq!(
            of(&issuer("one"), &issuer("two")),
            ["identity.issuers.i.secret: \"***\" -> \"***\""]
        );
        for url in ["postgres://a:WORD@h/c", "postgres://h/c?user=a&password=WORD"] {
            let store = |word| format!("[stores]\ndurable = \"{}\"\n", url.replace("WORD", word));
            let said = of(&store("one"), &store("two")).join("");
            assert!(said.contains("***"), "{said}");
            assert!(!said.contains("one") && !said.contains("two"), "{said}");
        }
    }

    #[test]
    fn what_a_running_node_does_not_take_over_is_told() {
        let changes = |text: &str| at_start(&diff(&Table::new(), &text.parse().unwrap()));
        assert_eq!(changes("[edge]\nlisten = \"a\"\nidle_timeout = \"1s\"\n"), ["edge.listen"]);
        assert_eq!(changes("[stores]\ndurable = \"memory:\"\n"), ["stores.durable"]);
        assert!(changes("[services.s]\nhost = \"instance\"\n").is_empty());
    }
}
