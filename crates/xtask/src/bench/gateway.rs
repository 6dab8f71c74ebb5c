//! CPU per request, against nginx in the same run.

pub(super) fn run() -> Result<(), String> {
    Err("not yet".into())
}
