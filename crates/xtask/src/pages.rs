//! Every public error code has a page, and every page a code.

use crate::command::root;
use protocol::Code;
use std::{collections::BTreeSet, fs};

/// Checks `docs/errors`.
///
/// # Errors
/// Codes without a page, pages without a code, and pages that do not tell the status.
pub(crate) fn check() -> Result<(), String> {
    let folder = root().join("docs/errors");
    let listed = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut pages = BTreeSet::new();
    for entry in listed {
        let entry = entry.map_err(|error| error.to_string())?;
        if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".md") {
            pages.insert(name.to_owned());
        }
    }
    let mut wrong = Vec::new();
    for code in Code::ALL {
        if !pages.remove(code.as_str()) {
            wrong.push(format!("docs/errors/{code}.md is missing"));
            continue;
        }
        let text = fs::read_to_string(folder.join(format!("{code}.md")));
        let facts = format!(
            "HTTP status {} · close code {} · retry `{}`",
            code.status().as_u16(),
            code.close_code(),
            code.retry().as_str()
        );
        if !text.is_ok_and(|text| text.contains(&facts)) {
            wrong.push(format!("docs/errors/{code}.md must say: {facts}"));
        }
    }
    wrong.extend(pages.iter().map(|page| format!("docs/errors/{page}.md names no code")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
