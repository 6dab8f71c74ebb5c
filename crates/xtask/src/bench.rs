//! Benchmarks.

/// Runs one.
///
/// # Errors
/// What failed.
pub(crate) fn run(name: &str) -> Result<(), String> {
    Err(format!("there is no benchmark `{name}`; use gateway or sockets"))
}
