//! Each layer on each engine, beside the raw engine; and what several nodes cost on shared
//! stores. See `bench/engines/README.md`.

mod driver;
mod far;
mod layers;
mod rounds;

use crate::{
    bench::print_circumstances,
    command::{run as run_command, target},
    install,
};
use serde_json::{Map, Value as Json};

/// Takes a figure by its name.
type Add<'a> = dyn FnMut(&str, f64) + 'a;

/// Runs all, or the part that `only` names: rows of the table by `engine/operation`, `limits`
/// or `nodes`.
///
/// # Errors
/// What failed.
pub(super) fn run(only: Option<&str>) -> Result<(), String> {
    install::debian(&["postgresql", "redis-server", "redis-tools"])?;
    let args = ["build", "--release", "--locked", "--package", "integration-tests"];
    run_command("cargo", &[&args[..], &["--example", "engines"]].concat())?;
    let driver = target().join("release/examples/engines");
    print_circumstances();
    let mut figures = Map::new();
    let mut add = |name: &str, value: f64| {
        let rounded = (value * 10_000.0).round() / 10_000.0;
        figures.insert(name.to_owned(), Json::from(rounded));
    };
    layers::run(&driver, only.unwrap_or_default(), &mut add)?;
    println!("{}", Json::Object(figures));
    Ok(())
}
