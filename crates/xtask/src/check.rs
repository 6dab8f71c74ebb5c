//! The fast half of what CI runs.

use crate::{capabilities, command::run, layers, pages};

/// A check with its name.
pub(crate) type Check = (&'static str, fn() -> Result<(), String>);

/// Every check.
pub(crate) const ALL: &[Check] = &[
    ("format", || run("cargo", &["fmt", "--all", "--check"])),
    ("lints", || {
        let features = "crosstown/echo";
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--features", features];
        run("cargo", &[&clippy[..], &["--quiet", "--", "-D", "warnings"]].concat())
    }),
    ("docs", || {
        run(
            "env",
            &[
                "RUSTDOCFLAGS=-D warnings",
                "cargo",
                "doc",
                "--workspace",
                "--no-deps",
                "--locked",
                "--quiet",
                "--document-private-items",
            ],
        )
    }),
    ("layers", layers::check),
    ("error pages", pages::check),
    ("capabilities", capabilities::check),
];

/// Runs every check.
///
/// # Errors
/// The first one that fails.
pub(crate) fn run_all() -> Result<(), String> {
    for (name, check) in ALL {
        println!("check: {name}");
        check().map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}
