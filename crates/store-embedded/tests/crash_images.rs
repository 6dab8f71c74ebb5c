//! Loss of power: the disk as it may be after a crash at any moment still holds everything
//! that was acknowledged before it, and each commit whole.
//!
//! `kill -9` leaves the page cache, so it cannot show a missing fsync. Here a child process
//! writes under strace; from the log the disk is rebuilt as it would be after a crash between
//! any two calls, with nothing or some of what was not synced, and each image is opened.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "crash_images/disk.rs"]
mod disk;
#[path = "crash_images/trace.rs"]
mod trace;

use clock::SystemClock;
use disk::{Disk, Keep};
use std::{collections::BTreeMap, io::Write, path::Path, process::Command, sync::Arc};
use store::{Commit, Key, Kind, Partition, Position, Store, StreamName};
use store_embedded::{EmbeddedStore, Options};
use types::TenantId;

const TASKS: usize = 16;
const COMMITS: usize = 30;
const STREAM: StreamName = StreamName::new("stream");

fn options(wrong: bool) -> Options {
    Options {
        // Small, so that tables are written and merged as well.
        memtable_bytes: 64 << 10,
        free_bytes_min: 0,
        unsafe_ack_before_sync_for_tests: wrong,
        ..Options::default()
    }
}

fn partition(task: usize) -> Partition {
    let tenant = TenantId::new("tenant").unwrap();
    Partition::new(tenant, Kind::new("task"), &task.to_string()).unwrap()
}

fn key(at: usize) -> Key {
    Key::new(format!("{at:04}")).unwrap()
}

/// Different for each commit, and mostly of no sector's size.
fn value(task: usize, at: usize) -> Vec<u8> {
    let mut random = Random((task * 1000 + at) as u64);
    let len = [20, 300, 700, 3000][random.below(4)] + random.below(90);
    (0..len).map(|_| random.below(256) as u8).collect()
}

struct Random(u64);

impl Random {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Run by [`images`] in a process of its own; by itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var("CRASH_CHILD") else { return };
    let wrong = std::env::var("CRASH_WRONG").is_ok();
    let store = EmbeddedStore::open(dir, options(wrong), SystemClock::shared()).unwrap();
    let store = Arc::new(store);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for at in 0..COMMITS {
                let value = value(task, at);
                let commit = Commit::new(partition(task)).put(key(at), value.clone());
                let last = Key::new("last").unwrap();
                let commit = commit.put(last, at.to_string()).append(STREAM, value);
                let Position { incarnation, .. } = store.commit(commit).await.unwrap().position;
                let told = format!("ACK {task} {at} {}\n", incarnation.0);
                std::io::stderr().write_all(told.as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

/// Acknowledged: by task, how many and in which incarnation.
type Told = BTreeMap<usize, (usize, u64)>;

fn trace_child(dir: &Path, log: &Path, wrong: bool) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "8000000", "-e", "signal=none", "-o"]).arg(log).args([
        "-e",
        "trace=openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,\
         msync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,ftruncate,truncate,\
         fallocate,copy_file_range,mkdir,mkdirat,mmap,close,lseek",
    ]);
    strace.arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "child", "--nocapture"]).env("CRASH_CHILD", dir);
    if wrong {
        strace.env("CRASH_WRONG", "1");
    }
    let output = strace.output().expect("this test needs strace (apt-get install strace)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[derive(Debug, Default)]
struct Outcome {
    images: usize,
    violations: Vec<String>,
    acknowledged: usize,
}

fn images(wrong: bool, seed: u64, most: usize) -> Outcome {
    let work = tempfile::tempdir().unwrap();
    let (dir, log) = (work.path().join("store"), work.path().join("log"));
    std::fs::create_dir(&dir).unwrap();
    trace_child(&dir, &log, wrong);
    let calls = trace::parse(&std::fs::read_to_string(&log).unwrap());

    let mut random = Random(seed);
    let mut replay = Replay::new(&dir);
    let changes = calls.iter().filter(|call| replay.follow(call)).count();
    let acknowledged: usize = replay.told.values().map(|(count, _)| count).sum();
    assert_eq!(acknowledged, TASKS * COMMITS);
    let boundaries = most / 2;
    let mut due = random.below(changes);

    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    let place = place.unwrap();
    let mut outcome = Outcome { acknowledged, ..Outcome::default() };
    let mut replay = Replay::new(&dir);
    for (at, call) in calls.iter().enumerate() {
        if !replay.follow(call) {
            continue;
        }
        // Evenly spread, and all of them if there are no more.
        due += boundaries.min(changes);
        if due < changes {
            continue;
        }
        due -= changes;
        for torn in [false, true] {
            let image = place.path().join(format!("{at}-{torn}"));
            std::fs::create_dir(&image).unwrap();
            let mut some = |bound| random.below(bound);
            let keep = if torn { Keep::Some(&mut some) } else { Keep::Nothing };
            replay.disk.image(&image, keep);
            outcome.images += 1;
            match check(&image, &replay.told) {
                Ok(()) => std::fs::remove_dir_all(&image).unwrap(),
                Err(violation) => {
                    if std::env::var("CRASH_KEEP").is_ok() {
                        let kept = std::env::temp_dir().join(format!("crash-{seed}-{at}-{torn}"));
                        let _ = Command::new("cp").arg("-a").arg(&image).arg(&kept).status();
                    }
                    std::fs::remove_dir_all(&image).unwrap();
                    outcome.violations.push(format!("call {at}, torn {torn}: {violation}"));
                }
            }
        }
    }
    outcome
}

struct Replay {
    disk: Disk,
    told: Told,
}

impl Replay {
    fn new(dir: &Path) -> Self {
        Self { disk: Disk::new(dir), told: Told::new() }
    }

    /// Answers whether there is a new boundary after the call.
    fn follow(&mut self, call: &trace::Call) -> bool {
        // Acknowledged is what is about to be told.
        if call.name == "write" && call.result.is_none() && call.args[0].number() == 2 {
            let text = String::from_utf8_lossy(call.args[1].bytes());
            let mut words = text.split_whitespace();
            if words.next() == Some("ACK") {
                let mut number = || words.next().unwrap().parse::<u64>().unwrap();
                let (task, at, incarnation) = (number(), number(), number());
                self.told.insert(task as usize, (at as usize + 1, incarnation));
                return true;
            }
        }
        self.disk.apply(call)
    }
}

fn check(image: &Path, told: &Told) -> Result<(), String> {
    let store = EmbeddedStore::open(image, options(false), SystemClock::shared())
        .map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for task in 0..TASKS {
            check_task(&store, task, told.get(&task).copied()).await?;
        }
        Ok(())
    })
}

async fn check_task(
    store: &EmbeddedStore,
    task: usize,
    told: Option<(usize, u64)>,
) -> Result<(), String> {
    let p = partition(task);
    let error = |error: store::Error| format!("{p}: {error}");
    let Some(head) = store.head(&p).await.map_err(error)? else {
        return match told {
            None => Ok(()),
            Some((count, _)) => Err(format!("{p} is gone, {count} commits were acknowledged")),
        };
    };
    let revision = head.position.revision as usize;
    if let Some((count, incarnation)) = told {
        if revision < count {
            return Err(format!("{p} has {revision} commits, {count} were acknowledged"));
        }
        if head.position.incarnation.0 != incarnation {
            return Err(format!("{p} has another incarnation"));
        }
    }
    let mut records = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.scan(&p, b"", after.as_ref(), 1000).await.map_err(error)?;
        after = page.records.last().map(|(key, _)| key.clone());
        records.extend(page.records.into_iter().map(|(key, record)| (key, record.value.to_vec())));
        if !page.more {
            break;
        }
    }
    let entries = store.read(&p, &STREAM, 1, 1000).await.map_err(error)?;
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.value.to_vec()).collect();
    let wanted: Vec<_> = (0..revision).map(|at| value(task, at)).collect();
    let mut wanted_records: BTreeMap<_, _> =
        wanted.iter().enumerate().map(|(at, value)| (key(at), value.clone())).collect();
    wanted_records.insert(Key::new("last").unwrap(), (revision - 1).to_string().into_bytes());
    let changes = store.changes(&p, Position::ZERO).await.map_err(error)?;
    if records != wanted_records || entries != wanted || changes.keys.len() != revision + 1 {
        return Err(format!("{p} at {revision} is not what was written"));
    }
    Ok(())
}

fn seed() -> u64 {
    let random = || u64::from_le_bytes(clock::random(&*SystemClock::shared()));
    std::env::var("CRASH_SEED").map_or_else(|_| random(), |seed| seed.parse().unwrap())
}

#[test]
fn everything_acknowledged_survives_the_loss_of_power() {
    let seed = seed();
    let most = std::env::var("CRASH_IMAGES").map_or(1100, |most| most.parse().unwrap());
    let outcome = images(false, seed, most);
    let Outcome { images, violations, acknowledged } = &outcome;
    println!(
        "images {images}, violations {}, seed {seed}, acknowledged {acknowledged}",
        violations.len()
    );
    assert!(violations.is_empty(), "{:#?}", &violations[..violations.len().min(10)]);
    assert!(*images >= most - 2, "only {images} images: let the child write more");
}

#[test]
fn a_store_that_acknowledges_before_the_sync_is_caught() {
    let seed = seed();
    let outcome = images(true, seed, 200);
    println!(
        "wrongly: images {}, violations {}, seed {seed}",
        outcome.images,
        outcome.violations.len()
    );
    let lost = outcome.violations.iter().filter(|told| told.contains("acknowledged")).count();
    assert!(lost > 0, "the check cannot fail, so it checks nothing");
}
