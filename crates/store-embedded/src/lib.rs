//! The store in a local folder: fjall with group commit, one fsync before acknowledging.
//!
//! [`EmbeddedStore`] says what is promised and when; start there. One writer thread turns
//! the commits that wait into one fjall batch (`writer`, `group`), reads go through snapshots
//! on the caller's thread (`reads`). `keys` and `values` are the format on disk, `folder` and
//! `journal` open it and refuse what is damaged.

mod folder;
mod group;
mod journal;
mod keys;
mod options;
mod reads;
mod store;
mod time;
mod values;
mod writer;

pub use crate::store::EmbeddedStore;
pub use options::{OpenError, Options};
