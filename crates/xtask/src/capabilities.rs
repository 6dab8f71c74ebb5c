//! Every capability that `docs/capabilities.md` claims is shown by a test that ran.

use crate::command::root;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A row of a table: what is claimed, and the tests that show it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    claim: String,
    tests: Vec<String>,
}

/// Checks that each row names tests, and that these are there.
///
/// # Errors
/// The rows that do not.
pub(crate) fn check() -> Result<(), String> {
    let names = functions(&root().join("crates"))?;
    told(rows(&page()?), |test| {
        let name = test.rsplit("::").next().unwrap_or_default();
        if names.contains(name) { Ok(()) } else { Err("there is no such test") }
    })
}

/// Checks that the tests that each row names are among those that passed.
///
/// # Errors
/// The rows whose tests did not run, or failed.
pub(crate) fn check_ran(passed: &BTreeSet<String>) -> Result<(), String> {
    told(rows(&page()?), |test| {
        if passed.contains(test) { Ok(()) } else { Err("it did not run, or failed") }
    })
}

fn page() -> Result<String, String> {
    let page = root().join("docs/capabilities.md");
    fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))
}

fn told(rows: Vec<Row>, shows: impl Fn(&str) -> Result<(), &'static str>) -> Result<(), String> {
    let mut wrong = Vec::new();
    if rows.is_empty() {
        wrong.push("docs/capabilities.md has no row".to_owned());
    }
    for Row { claim, tests } in rows {
        if tests.is_empty() {
            wrong.push(format!("docs/capabilities.md: `{claim}` names no test"));
        }
        for test in tests {
            if let Err(why) = shows(&test) {
                wrong.push(format!("docs/capabilities.md: `{claim}` is shown by `{test}`: {why}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The rows of the tables whose last column is `test`.
fn rows(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let Some(cells) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'))
        else {
            inside = false;
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
        if *last == "test" {
            inside = true;
        } else if inside && !first.starts_with("--") {
            let tests = last.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            rows.push(Row { claim: (*first).to_owned(), tests });
        }
    }
    rows
}

/// The names of all functions in the workspace's sources.
fn functions(folder: &Path) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path: PathBuf = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).map_err(failed)?;
                names.extend(text.split("fn ").skip(1).map(|rest| {
                    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
                    rest[..end.unwrap_or(rest.len())].to_owned()
                }));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "text | with | bars\n\n| capability | test |\n|---|---|\n\
        | one | `a::b`, `c` |\n| two | – |\n\nand\n\n| other | table |\n|---|---|\n| x | `y` |\n";

    #[test]
    fn rows_are_those_of_the_tables_with_tests() {
        let row = |claim: &str, tests: &[&str]| Row {
            claim: claim.to_owned(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        };
        assert_eq!(rows(PAGE), [row("one", &["a::b", "c"]), row("two", &[])]);
    }

    #[test]
    fn a_claim_without_a_test_that_ran_is_told() {
        let ran = |names: &[&str]| {
            let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            told(rows(PAGE), |test| if names.contains(test) { Ok(()) } else { Err("no") })
        };
        let wrong = ran(&["a::b"]).unwrap_err();
        assert!(wrong.contains("`one` is shown by `c`") && wrong.contains("`two` names no test"));
        assert!(!ran(&["a::b", "c"]).unwrap_err().contains("one"));
        assert!(told(Vec::new(), |_| Ok(())).is_err());
    }
}
