//! What a process tree costs, as the kernel counts it (proc(5)).

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// CPU time since a process tree began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// The CPU time of `pid` and of all below it, ended children included.
pub(crate) fn cpu_of_tree(pid: u32) -> Cpu {
    let mut sum = Cpu::default();
    for member in tree(pid) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{member}/stat")) else { continue };
        // The name in brackets may hold spaces; fields are counted after it, from field 3.
        let fields: Vec<u64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        let ticks = |at: usize| fields.get(at - 3).copied().unwrap_or(0);
        // Linux counts in hundredths of a second for every program (sysconf(_SC_CLK_TCK)).
        sum.user += Duration::from_millis(10 * (ticks(14) + ticks(16)));
        sum.system += Duration::from_millis(10 * (ticks(15) + ticks(17)));
    }
    sum
}

fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", found[at]));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| format!("process {pid} cannot be read: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("process {pid} tells no memory"))
}

/// A command for a program that runs on one `core` only, if that is given.
pub(crate) fn on_core(core: Option<u8>, program: &Path) -> Command {
    match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
    }
}

/// A process that ends when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts a server and waits until something listens on `port`.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut server = Self(child);
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("{command:?} ended with {status}"));
            }
            if Instant::now() > until {
                return Err(format!("{command:?} does not listen on {port}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first, so that a server with workers takes them along.
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        for _ in 0..100 {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `N` free ports, unlike each other.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    test_servers::free_ports().map_err(|error| format!("no free port: {error}"))
}
