//! Sessions and what happened to them, for people.

use crate::cli::shown::list;
use serde_json::Value as Json;

/// Columns as wide as what is in them.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(ToOwned::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(super) fn print(&self) {
        for line in self.lines() {
            println!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let wide = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max();
        let widths: Vec<usize> = (0..N).map(|at| wide(at).unwrap_or_default()).collect();
        let line = |row: &[String; N]| {
            let cells = row.iter().zip(&widths).map(|(cell, wide)| format!("{cell:<wide$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// A text; a dash if it is none.
pub(super) fn text(of: &Json) -> String {
    match of {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => of.to_string(),
    }
}

/// A moment in UTC.
pub(super) fn time(of: &Json) -> String {
    let millis = of.as_u64().and_then(|at| i64::try_from(at).ok());
    let moment = millis.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    moment.map_or_else(|| "-".to_owned(), |at| format!("{at:.3}"))
}

pub(super) fn sessions(sessions: &[Json]) {
    let mut table = Table::new([
        "session",
        "user",
        "kind",
        "status",
        "device",
        "priority",
        "last used",
        "expires",
    ]);
    for one in sessions {
        table.row([
            text(&one["id"]),
            text(&one["principal"]),
            text(&one["kind"]),
            text(&one["status"]),
            text(&one["device"]["name"]),
            one["priority"].as_str().unwrap_or("normal").to_owned(),
            time(&one["last_used"]),
            time(&one["expires"]),
        ]);
    }
    table.print();
}

pub(super) fn session(one: &Json) {
    let mut table = Table::new(["what", "is"]);
    for (name, value) in one.as_object().into_iter().flatten() {
        let is_time = ["created", "last_used", "expires", "ends"].contains(&name.as_str());
        table.row([name.clone(), if is_time { time(value) } else { text(value) }]);
    }
    table.print();
}

pub(super) fn devices(devices: &[Json]) {
    let mut table = Table::new(["device", "name", "kind", "address", "last seen", "sessions"]);
    for one in devices {
        table.row([
            text(&one["id"]),
            text(&one["name"]),
            text(&one["kind"]),
            text(&one["address"]),
            time(&one["last_seen"]),
            list(&one["sessions"]).len().to_string(),
        ]);
    }
    table.print();
}

/// Events, or entries of a timeline.
pub(super) fn told(entries: &[Json]) {
    let mut table = Table::new(["when", "what", "by", "about"]);
    for one in entries {
        table.row([time(&one["at"]), text(&one["kind"]), text(&one["by"]), about(one)]);
    }
    table.print();
}

/// What else an entry tells.
fn about(one: &Json) -> String {
    let known = ["id", "at", "kind", "by"];
    let members = one.as_object().into_iter().flatten();
    let told = members.filter(|(name, _)| !known.contains(&name.as_str()));
    told.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(["a", "b"]);
        table.row(["long".into(), "x".into()]);
        table.row(["ü".into(), String::new()]);
        assert_eq!(table.lines(), ["a     b", "long  x", "ü"]);
    }

    #[test]
    fn an_entry_tells_when_and_about_what() {
        let entry = json!({
            "id": "1-t", "at": 1_700_000_000_007_u64, "kind": "request", "status": 200,
            "path": "/a",
        });
        assert_eq!(about(&entry), "path=/a status=200");
        assert_eq!(time(&entry["at"]), "2023-11-14T22:13:20.007Z");
        assert_eq!(time(&entry["by"]), "-");
    }
}
