//! Looks at fjall's journals before fjall does.
//!
//! fjall 3.1 refuses to open when the last batch was torn by a loss of power in such a way
//! that its checksum fails, and silently drops everything after the first byte that makes no
//! sense, wherever that is. Only the last batch of the last journal can be torn, as each is
//! synced before the next is written; a batch that makes no sense anywhere else was
//! acknowledged and is damaged. So: cut a torn tail, refuse the rest.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

const TRAILER: &[u8] = b"FJL\x03";
const SECTOR: usize = 512;

#[derive(Debug)]
pub(crate) enum Damage {
    Io(io::Error),
    At { file: PathBuf, offset: u64 },
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Cuts a torn tail of the last journal in `dir`.
pub(crate) fn check(dir: &Path) -> Result<(), Damage> {
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    let last = journals.pop();
    let mut number = None;
    for (_, file) in journals {
        let content = read_to_zeros(&file)?;
        let end = valid_until(&content, &mut number);
        if content[end..].iter().any(|byte| *byte != 0) {
            return Err(Damage::At { file, offset: end as u64 });
        }
    }
    let Some((_, file)) = last else { return Ok(()) };
    let content = read_to_zeros(&file)?;
    let end = valid_until(&content, &mut number);
    if end == content.len() {
        return Ok(());
    }
    if !is_torn(&content, end) {
        return Err(Damage::At { file, offset: end as u64 });
    }
    tracing::warn!(file = %file.display(), offset = end, "cut a commit that was never acknowledged");
    let opened = OpenOptions::new().write(true).open(&file)?;
    opened.set_len(end as u64)?;
    opened.sync_all()?;
    Ok(())
}

/// The content without the zeros at its end, which were allocated in advance.
fn read_to_zeros(file: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let opened = File::open(file)?;
    let mut content: Vec<u8> = Vec::new();
    let (mut at, mut chunk) = (0, ZEROS);
    loop {
        // Holes need not be read; where the file system cannot tell, all of it is.
        match rustix::fs::seek(&opened, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => {}
        }
        let read = opened.read_at(&mut chunk, at)?;
        if read == 0 {
            break;
        }
        if chunk[..read] != ZEROS[..read] {
            content.resize(usize::try_from(at).map_err(io::Error::other)?, 0);
            content.extend_from_slice(&chunk[..read]);
        }
        at += read as u64;
    }
    let kept = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    content.truncate(kept);
    Ok(content)
}

/// Where the batches end that are whole and whose numbers rise. fjall's checksum leaves out a
/// batch's number, by which it orders everything.
fn valid_until(content: &[u8], number: &mut Option<u64>) -> usize {
    let mut end = 0;
    while let Parsed::Whole { len, number: next } = batch(&content[end..]) {
        if number.is_some_and(|last| next <= last) {
            break;
        }
        *number = Some(next);
        end += len;
    }
    end
}

/// Whether what follows `end` can be one batch of which not every sector was written: a
/// sector holds what some of its writes left in order, so where the first byte is missing it
/// is zero up to the sector's end. A damaged last batch may look like that by chance; after an
/// orderly close it holds nothing but the time.
fn is_torn(content: &[u8], end: usize) -> bool {
    let tail = &content[end..];
    // A whole batch further on was written after this one was synced.
    let starts = (1..tail.len()).filter(|at| tail[*at] == 1);
    for at in starts {
        if matches!(batch(&tail[at..]), Parsed::Whole { .. }) {
            return false;
        }
    }
    let extent = match batch(tail) {
        Parsed::Whole { .. } => return false,
        // The zeros at the end are cut off, so the batch may well end beyond.
        Parsed::Short => return true,
        Parsed::Wrong(extent) => extent,
    };
    let extent = (end + extent).div_ceil(SECTOR) * SECTOR;
    if extent > content.len() {
        return true;
    }
    (end / SECTOR + 1..=extent / SECTOR).any(|sector| content[sector * SECTOR - 1] == 0)
}

enum Parsed {
    /// A batch of so many bytes whose checksum holds.
    Whole { len: usize, number: u64 },
    /// The content ends before the batch does.
    Short,
    /// It stops making sense within so many bytes.
    Wrong(usize),
}

/// Parses what fjall 3.1 writes (`journal/entry.rs`), without compression.
fn batch(content: &[u8]) -> Parsed {
    let mut at = 0;
    match parse(content, &mut at) {
        Some(Some(number)) => Parsed::Whole { len: at, number },
        Some(None) => Parsed::Wrong(at),
        None => Parsed::Short,
    }
}

/// The batch's number; `Some(None)`: wrong at `at`; `None`: too short.
fn parse(content: &[u8], at: &mut usize) -> Option<Option<u64>> {
    let take = |at: &mut usize, len: usize| {
        let taken = content.get(*at..at.checked_add(len)?)?;
        *at += len;
        Some(taken)
    };
    let small = |at: &mut usize| {
        take(at, 4).and_then(|four| Some(u32::from_le_bytes(four.try_into().ok()?)))
    };
    if take(at, 1)? != [1] {
        return Some(None);
    }
    let count = small(at)?;
    let number = u64::from_le_bytes(take(at, 8)?.try_into().ok()?);
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let start = *at;
        match take(at, 1)? {
            [2] => {
                take(at, 10)?;
                let key_len = u16::from_le_bytes(take(at, 2)?.try_into().ok()?);
                let (len, len_on_disk) = (small(at)?, small(at)?);
                if len != len_on_disk {
                    return Some(None);
                }
                take(at, usize::from(key_len))?;
                take(at, len as usize)?;
            }
            [4] => drop(take(at, 8)?),
            _ => return Some(None),
        }
        hash.update(&content[start..*at]);
    }
    if take(at, 1)? != [3] {
        return Some(None);
    }
    let sum = u64::from_le_bytes(take(at, 8)?.try_into().ok()?);
    Some((take(at, 4)? == TRAILER && sum == hash.digest()).then_some(number))
}
