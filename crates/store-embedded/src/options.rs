//! How a folder is opened, and why it may not be.

use std::path::PathBuf;

/// How a folder is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of blocks of tables kept in memory; all reads share them. 8 MiB: the files are
    /// in the page cache anyway, and the node has better uses for its memory.
    pub cache_bytes: u64,
    /// Bytes of recent writes kept in memory before they go to a table; up to five times as
    /// much where the disk is slow to take them, and then commits wait. 8 MiB.
    pub memtable_bytes: u64,
    /// Bytes of commits that may wait for the writer; beyond, callers wait. 16 MiB.
    pub queue_bytes: u32,
    /// Bytes of commits that share one fsync at most. 4 MiB.
    pub group_bytes: usize,
    /// Commits that share one fsync at most. 1,024.
    pub group_commits: usize,
    /// Bytes that must be free on the disk; with less, commits get [`store::Error::Full`]
    /// and nothing changes. 256 MiB: what a journal and the tables made of it may still take.
    pub free_bytes_min: u64,
    /// Acknowledges what may be lost. Only for the test that must see it caught.
    #[doc(hidden)]
    pub unsafe_ack_before_sync_for_tests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            memtable_bytes: 8 << 20,
            queue_bytes: 16 << 20,
            group_bytes: 4 << 20,
            group_commits: 1024,
            free_bytes_min: 256 << 20,
            unsafe_ack_before_sync_for_tests: false,
        }
    }
}

/// Why a folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has it open.
    #[error("`{}` is in use: stop the other crosstown that uses it, or choose another folder", .dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// It was written by a version that this one does not know.
    #[error("`{}` has format {found}, this version reads {known}: use the version that wrote it", .dir.display())]
    Format {
        /// The folder.
        dir: PathBuf,
        /// The format that was found.
        found: u64,
        /// The format that is known.
        known: u64,
    },
    /// What was acknowledged cannot be read back. Nothing was changed.
    #[error("`{}` is damaged ({detail}): restore it from a backup", .dir.display())]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What was found, and where.
        detail: String,
    },
    /// The operating system refused.
    #[error("`{}` cannot be opened", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// The engine refused.
    #[error("`{}` cannot be opened", .dir.display())]
    Engine {
        /// The folder.
        dir: PathBuf,
        /// Its error.
        #[source]
        source: store::BoxError,
    },
}
