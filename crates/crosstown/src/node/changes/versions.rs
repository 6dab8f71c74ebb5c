//! The configurations that a node has had, as files beside its own.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Configurations that are kept; the oldest goes first.
const KEPT_MAX: usize = 50;

/// The file of a configuration, and those that it held before.
#[derive(Debug)]
pub(super) struct Versions {
    file: PathBuf,
    folder: PathBuf,
}

/// One that was kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) digest: String,
}

/// The name of a configuration, by its text.
pub(super) fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

impl Versions {
    pub(super) fn beside(file: &Path) -> Self {
        let mut folder = file.as_os_str().to_owned();
        folder.push(".versions");
        Self { file: file.to_owned(), folder: folder.into() }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// What the file holds; nothing if there is none.
    pub(super) fn text(&self) -> io::Result<String> {
        match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        }
    }

    /// Those that are kept, the newest first.
    pub(super) fn list(&self) -> io::Result<Vec<Kept>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let mut kept = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let parsed = name.to_str().and_then(|name| {
                let (number, digest) = name.strip_suffix(".toml")?.split_once('-')?;
                Some(Kept { number: number.parse().ok()?, digest: digest.to_owned() })
            });
            kept.extend(parsed);
        }
        kept.sort_by(|a, b| b.cmp(a));
        Ok(kept)
    }

    /// The text of one that is kept.
    pub(super) fn get(&self, kept: &Kept) -> io::Result<String> {
        fs::read_to_string(self.path(kept))
    }

    /// Replaces the file's text at once and whole, and keeps both what it was and what it is. A
    /// crash leaves one or the other.
    pub(super) fn replace(&self, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        self.keep(&self.text()?)?;
        self.keep(text)?;
        write_whole(&self.file, text)?;
        for old in self.list()?.iter().skip(KEPT_MAX) {
            fs::remove_file(self.path(old))?;
        }
        Ok(())
    }

    fn keep(&self, text: &str) -> io::Result<()> {
        let newest = self.list()?.into_iter().next();
        let digest = digest(text);
        if newest.as_ref().is_some_and(|newest| newest.digest == digest) {
            return Ok(());
        }
        let number = newest.map_or(1, |newest| newest.number + 1);
        write_whole(&self.path(&Kept { number, digest }), text)
    }

    fn path(&self, kept: &Kept) -> PathBuf {
        self.folder.join(format!("{:06}-{}.toml", kept.number, kept.digest))
    }
}

/// Writes a file beside the one it becomes, so that nobody sees half of it; it may hold secrets,
/// so only its owner reads it, unless the file that was there said otherwise.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_in_force_is_kept_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let versions = Versions::beside(&file);
        assert!(versions.text().unwrap().is_empty() && versions.list().unwrap().is_empty());
        fs::write(&file, "a").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        for text in ["b", "c", "b", "b"] {
            versions.replace(text).unwrap();
            assert_eq!(versions.text().unwrap(), text);
        }
        let kept = versions.list().unwrap();
        let texts: Vec<_> = kept.iter().map(|kept| versions.get(kept).unwrap()).collect();
        assert_eq!(texts, ["b", "c", "b", "a"]);
        // What somebody wrote by hand in between is kept, too.
        fs::write(&file, "by hand").unwrap();
        versions.replace("d").unwrap();
        let texts: Vec<_> =
            versions.list().unwrap().iter().map(|kept| versions.get(kept).unwrap()).collect();
        assert_eq!(texts[..3], ["d", "by hand", "b"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o640);
        assert_eq!(mode(&versions.path(&kept[0])), 0o600);
        for number in 0..60 {
            versions.replace(&number.to_string()).unwrap();
        }
        assert_eq!(versions.list().unwrap().len(), KEPT_MAX);
    }
}
