//! What a look at the record that a credential rests on has found.

use std::sync::Arc;
use types::{Pillars, Steering, Timestamp};

/// What a record says that still lets somebody in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Standing {
    /// In which pillars.
    pub(crate) pillars: Pillars,
    /// How requests are served.
    pub(crate) steering: Arc<Steering>,
    /// Whether connections of before the last handover go on.
    pub(crate) keeps: bool,
    /// When it ends, unless it is used.
    pub(crate) expires: Option<Timestamp>,
}

/// What a record that was read says.
#[derive(Debug)]
pub(crate) enum Looked {
    /// It lets somebody in.
    Stands(Standing),
    /// It does not any more, for this reason if it is known.
    Ended(Option<Epitaph>),
}

/// Why a record lets nobody in any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Epitaph {
    /// What those are told whom it let in.
    pub(crate) told: Box<str>,
    /// Whether its time was over, and nobody ended it.
    pub(crate) is_expiry: bool,
}
