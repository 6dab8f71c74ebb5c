//! The folder: locked, made so that a crash in between leaves nothing half, and opened.
//!
//! `lock` is ours and held while the store is open; `db` is fjall's; `made` says that `db`
//! was made completely. Without it, `db` never held a commit and is made anew.

use crate::{OpenError, Options, journal, keys, values};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

const FORMAT: u64 = 1;

/// An open folder. Fields are dropped in order: the lock last.
pub(crate) struct Folder {
    pub(crate) data: Keyspace,
    pub(crate) db: Database,
    pub(crate) dir: PathBuf,
    _lock: File,
}

impl Folder {
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let lock = lock(dir)?;
        let (db_dir, made) = (dir.join("db"), dir.join("made"));
        let is_new = !made.try_exists().map_err(io)?;
        if is_new && db_dir.try_exists().map_err(io)? {
            std::fs::remove_dir_all(&db_dir).map_err(io)?;
        }
        if !is_new {
            journal::check(&db_dir).map_err(|damage| match damage {
                journal::Damage::Io(source) => io(source),
                journal::Damage::At { file, offset } => OpenError::Damaged {
                    dir: dir.to_owned(),
                    detail: format!("journal {} at byte {offset}", file.display()),
                },
            })?;
        }
        let engine =
            |error: fjall::Error| OpenError::Engine { dir: dir.into(), source: error.into() };
        let db = Database::builder(&db_dir)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(128))
            .max_journaling_size(128 << 20)
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()
            .map_err(engine)?;
        let create = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .manual_journal_persist(true)
        };
        let data = db.keyspace("data", create).map_err(engine)?;
        let folder = Self { data, db, dir: dir.to_owned(), _lock: lock };
        if is_new {
            let version = values::number(keys::VERSION, FORMAT);
            folder.data.insert(keys::VERSION, version).map_err(engine)?;
            folder.db.persist(PersistMode::SyncAll).map_err(engine)?;
            finish(dir, &db_dir, &made).map_err(io)?;
        } else {
            folder.check_format()?;
        }
        Ok(folder)
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let dir = || self.dir.clone();
        let engine = |source: fjall::Error| OpenError::Engine { dir: dir(), source: source.into() };
        let found = self.data.get(keys::VERSION).map_err(engine)?;
        let found = found.ok_or_else(|| OpenError::Damaged {
            dir: dir(),
            detail: "there is no format version".to_owned(),
        })?;
        let found = values::open(keys::VERSION, &found)
            .and_then(|mut reader| reader.number())
            .map_err(|error| OpenError::Damaged { dir: dir(), detail: error.to_string() })?;
        if found == FORMAT {
            Ok(())
        } else {
            Err(OpenError::Format { dir: dir(), found, known: FORMAT })
        }
    }

    /// Bytes that are free for us on the disk.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { dir: dir.to_owned(), source };
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Everything of `db` is on the disk before `made` is.
fn finish(dir: &Path, db_dir: &Path, made: &Path) -> io::Result<()> {
    let sync = |path: &Path| File::open(path)?.sync_all();
    // fjall 3.1 does not sync the folder that names its keyspaces after it has made them:
    // a loss of power would take all of a keyspace, acknowledged commits included.
    sync(&db_dir.join("keyspaces"))?;
    sync(db_dir)?;
    sync(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync(parent)?;
    }
    File::create(made)?.sync_all()?;
    sync(dir)
}
