//! A disk of which we know what was synced: names and contents, durable and pending.
//!
//! Nothing is durable before the file, or for a name its directory, was synced by a call that
//! began after the change had ended and that has itself ended.

use crate::trace::Call;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const SECTOR: usize = 512;

type Inode = usize;

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone)]
enum FileChange {
    Write { at: usize, data: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Inode),
}

#[derive(Debug, Default)]
struct Node {
    is_dir: bool,
    durable: Content,
    pending: Vec<(u64, FileChange)>,
    /// The length with all that is pending.
    len: usize,
}

#[derive(Debug)]
struct Open {
    inode: Inode,
    offset: usize,
    append: bool,
}

/// What an image keeps of what was not synced.
pub(crate) enum Keep<'a> {
    Nothing,
    /// By random numbers below a bound.
    Some(&'a mut dyn FnMut(usize) -> usize),
}

#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    pending_names: Vec<(u64, NameChange)>,
    open: HashMap<i64, Open>,
    /// Number of changes so far.
    clock: u64,
    /// Syncs that have begun: by descriptor, how much they cover.
    syncs: HashMap<i64, u64>,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        let root_node = Node { is_dir: true, ..Node::default() };
        let names = BTreeMap::from([(root.to_owned(), 0)]);
        Self {
            root: root.to_owned(),
            nodes: vec![root_node],
            durable_names: names.clone(),
            names,
            pending_names: vec![],
            open: HashMap::new(),
            clock: 0,
            syncs: HashMap::new(),
        }
    }

    /// Follows a call. Answers whether the disk changed.
    pub(crate) fn apply(&mut self, call: &Call) -> bool {
        let arg = |at: usize| &call.args[at];
        let Some(result) = call.result else {
            match call.name.as_str() {
                "fsync" | "fdatasync" => drop(self.syncs.insert(arg(0).number(), self.clock)),
                "close" => drop(self.open.remove(&arg(0).number())),
                _ => {}
            }
            return false;
        };
        if result < 0 {
            assert!(!call.name.contains("sync"), "a sync failed");
            return false;
        }
        match call.name.as_str() {
            "openat" => self.openat(call, result),
            "write" => self.write(arg(0).number(), arg(1).bytes(), None, result),
            "pwrite64" => {
                let at = arg(3).number() as usize;
                self.write(arg(0).number(), arg(1).bytes(), Some(at), result)
            }
            "lseek" => {
                if let Some(open) = self.open.get_mut(&arg(0).number()) {
                    open.offset = result as usize;
                }
                false
            }
            "ftruncate" => match self.open.get(&arg(0).number()).map(|open| open.inode) {
                Some(inode) => {
                    self.change(inode, FileChange::Truncate(arg(1).number() as usize));
                    true
                }
                None => false,
            },
            "fsync" | "fdatasync" => self.sync(arg(0).number()),
            "mkdir" => self.mkdir(arg(0).path()),
            "mkdirat" => self.mkdir(self.at(call, 0)),
            "unlink" | "rmdir" => self.unlink(arg(0).path()),
            "unlinkat" => self.unlink(self.at(call, 0)),
            "rename" => self.rename(arg(0).path(), arg(1).path()),
            "renameat" | "renameat2" => self.rename(self.at(call, 0), self.at(call, 2)),
            "close" => false,
            "mmap" => {
                let shared = arg(3).flags().contains("MAP_SHARED");
                let writes = arg(2).flags().contains("PROT_WRITE");
                let ours = arg(4).shown_path().is_some_and(|path| path.starts_with(&self.root));
                assert!(!(shared && writes && ours), "writes through memory are not followed");
                false
            }
            other => {
                let ours = call
                    .args
                    .iter()
                    .any(|arg| arg.shown_path().is_some_and(|path| path.starts_with(&self.root)));
                assert!(!ours, "`{other}` is not followed");
                false
            }
        }
    }

    fn at(&self, call: &Call, dir: usize) -> PathBuf {
        let name = call.args[dir + 1].path();
        let dir = call.args[dir].shown_path();
        dir.map_or(name.clone(), |dir| dir.join(name))
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn link(&mut self, path: PathBuf, is_dir: bool) -> Inode {
        let inode = self.nodes.len();
        self.nodes.push(Node { is_dir, ..Node::default() });
        self.names.insert(path.clone(), inode);
        let at = self.tick();
        self.pending_names.push((at, NameChange::Link(path, inode)));
        inode
    }

    fn openat(&mut self, call: &Call, fd: i64) -> bool {
        let path = self.at(call, 0);
        self.open.remove(&fd);
        if !path.starts_with(&self.root) {
            return false;
        }
        let flags = call.args[2].flags();
        let mut changed = false;
        let inode = match self.names.get(&path) {
            Some(inode) => *inode,
            None => {
                assert!(flags.contains("O_CREAT"), "{} is not known", path.display());
                changed = true;
                self.link(path, false)
            }
        };
        if flags.contains("O_TRUNC") && self.nodes[inode].len > 0 {
            self.change(inode, FileChange::Truncate(0));
            changed = true;
        }
        self.open.insert(fd, Open { inode, offset: 0, append: flags.contains("O_APPEND") });
        changed
    }

    fn write(&mut self, fd: i64, data: &[u8], at: Option<usize>, result: i64) -> bool {
        let Some(open) = self.open.get_mut(&fd) else { return false };
        let len = self.nodes[open.inode].len;
        let start = at.unwrap_or(if open.append { len } else { open.offset });
        let data = data[..result as usize].to_vec();
        if at.is_none() {
            open.offset = start + data.len();
        }
        let inode = open.inode;
        self.change(inode, FileChange::Write { at: start, data });
        true
    }

    fn change(&mut self, inode: Inode, change: FileChange) {
        let at = self.tick();
        let node = &mut self.nodes[inode];
        node.len = match &change {
            FileChange::Write { at, data } => node.len.max(at + data.len()),
            FileChange::Truncate(len) => *len,
        };
        node.pending.push((at, change));
    }

    fn sync(&mut self, fd: i64) -> bool {
        let covers = self.syncs.remove(&fd).expect("it has begun");
        let Some(inode) = self.open.get(&fd).map(|open| open.inode) else { return false };
        if self.nodes[inode].is_dir {
            let dir = self.names.iter().find(|(_, one)| **one == inode).unwrap().0.clone();
            let of = |path: &PathBuf| path.parent() == Some(&dir);
            let covered = |(at, change): &(u64, NameChange)| {
                *at <= covers
                    && match change {
                        NameChange::Link(path, _) | NameChange::Unlink(path) => of(path),
                        NameChange::Rename(from, to, _) => of(from) && of(to),
                    }
            };
            for change in self.pending_names.extract_if(.., |change| covered(change)) {
                rename_in(&mut self.durable_names, &change.1);
            }
        } else {
            let node = &mut self.nodes[inode];
            for (_, change) in node.pending.extract_if(.., |(at, _)| *at <= covers) {
                node.durable.change(&change);
            }
        }
        true
    }

    fn mkdir(&mut self, path: PathBuf) -> bool {
        let ours = path.starts_with(&self.root);
        if ours {
            self.link(path, true);
        }
        ours
    }

    fn unlink(&mut self, path: PathBuf) -> bool {
        if self.names.remove(&path).is_none() {
            return false;
        }
        let at = self.tick();
        self.pending_names.push((at, NameChange::Unlink(path)));
        true
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) -> bool {
        if !to.starts_with(&self.root) {
            return false;
        }
        assert_eq!(from.parent(), to.parent(), "renames over directories are not followed");
        let inode = self.names.remove(&from).expect("a known name");
        assert!(!self.nodes[inode].is_dir, "renames of directories are not followed");
        self.names.insert(to.clone(), inode);
        let at = self.tick();
        self.pending_names.push((at, NameChange::Rename(from, to, inode)));
        true
    }

    /// Writes what is left after a crash now to `dir`.
    pub(crate) fn image(&self, dir: &Path, mut keep: Keep<'_>) {
        let mut names = self.durable_names.clone();
        if let Keep::Some(random) = &mut keep {
            // Journalling file systems write names in order.
            let kept = random(self.pending_names.len() + 1);
            for (_, change) in &self.pending_names[..kept] {
                rename_in(&mut names, change);
            }
        }
        for (path, inode) in &names {
            let is_there = path.ancestors().skip(1).take_while(|up| up.starts_with(&self.root));
            if !is_there.into_iter().all(|up| names.contains_key(up)) {
                continue;
            }
            let place = dir.join(path.strip_prefix(&self.root).unwrap());
            let node = &self.nodes[*inode];
            if node.is_dir {
                std::fs::create_dir_all(place).unwrap();
                continue;
            }
            let mut content = node.durable.clone();
            if let Keep::Some(random) = &mut keep {
                keep_some(&mut content, &node.pending, random);
            }
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            let file = File::create(place).unwrap();
            file.write_all_at(&content.bytes, 0).unwrap();
            file.set_len(content.len as u64).unwrap();
        }
    }
}

/// Of each sector some of its writes, in order, whatever happened to the others: that is what
/// a page cache that is written back in any order leaves.
fn keep_some(
    content: &mut Content,
    pending: &[(u64, FileChange)],
    random: &mut &mut dyn FnMut(usize) -> usize,
) {
    let prefix = random(2) == 0;
    let whole = random(pending.len() + 1);
    let mut last_of: HashMap<usize, usize> = HashMap::new();
    for (at, (_, change)) in pending.iter().enumerate() {
        match change {
            FileChange::Write { at: start, data } => {
                let mut done = 0;
                while done < data.len() {
                    let sector = (start + done) / SECTOR;
                    let next = ((sector + 1) * SECTOR - start).min(data.len());
                    let last =
                        *last_of.entry(sector).or_insert_with(|| match (prefix, random(3)) {
                            (true, 0) => whole + 1,
                            (true, _) => whole,
                            (false, _) => random(pending.len() + 1),
                        });
                    if at < last {
                        let data = data[done..next].to_vec();
                        content.change(&FileChange::Write { at: start + done, data });
                    }
                    done = next;
                }
            }
            FileChange::Truncate(_) => {
                if at < whole {
                    content.change(change);
                }
            }
        }
    }
}

fn rename_in(names: &mut BTreeMap<PathBuf, Inode>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        NameChange::Unlink(path) => drop(names.remove(path)),
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

impl Content {
    fn change(&mut self, change: &FileChange) {
        match change {
            FileChange::Write { at, data } => {
                let end = at + data.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[*at..end].copy_from_slice(data);
                self.len = self.len.max(end);
            }
            FileChange::Truncate(len) => {
                self.bytes.truncate(*len);
                self.len = *len;
            }
        }
    }
}
