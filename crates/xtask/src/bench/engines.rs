//! Each layer on each engine, beside the raw engine; and what several nodes cost on shared
//! stores. See `bench/engines/README.md`.

mod driver;
mod far;
mod layers;
mod limits;
mod nodes;
mod rounds;
mod scaling;

use crate::{
    bench::{print_circumstances, release},
    command::{run as run_command, target},
    install,
};
use serde_json::{Map, Value as Json};
use std::path::PathBuf;

/// Takes a figure by its name.
type Add<'a> = dyn FnMut(&str, f64) + 'a;

/// Runs all, or the part that `only` names: rows of the table by `engine/operation`, `limits`
/// or `nodes`.
///
/// # Errors
/// What failed.
pub(super) fn run(only: Option<&str>) -> Result<(), String> {
    let packages = ["curl", "nginx-light", "postgresql", "redis-server", "redis-tools", "wrk"];
    install::debian(&packages)?;
    let crosstown = release("crosstown")?;
    print_circumstances();
    let mut figures = Map::new();
    let mut add = |name: &str, value: f64| {
        let rounded = (value * 10_000.0).round() / 10_000.0;
        figures.insert(name.to_owned(), Json::from(rounded));
    };
    let failed = match only {
        Some("limits") => limits::run(&crosstown, &mut add)?,
        Some("nodes") => scaling::run(&crosstown, &mut add)?,
        rows => {
            layers::run(&driver()?, rows.unwrap_or_default(), &mut add)?;
            match rows {
                Some(_) => 0,
                None => limits::run(&crosstown, &mut add)? + scaling::run(&crosstown, &mut add)?,
            }
        }
    };
    println!("{}", Json::Object(figures));
    if failed == 0 { Ok(()) } else { Err(format!("{failed} requests failed")) }
}

/// Builds what drives the layers and the raw engines.
fn driver() -> Result<PathBuf, String> {
    let args = ["build", "--release", "--locked", "--package", "integration-tests"];
    run_command("cargo", &[&args[..], &["--example", "engines"]].concat())?;
    Ok(target().join("release/examples/engines"))
}
