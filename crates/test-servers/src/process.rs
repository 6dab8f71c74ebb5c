//! A server process.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to end after it was asked to; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A running process, which is ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    address: SocketAddr,
    stop: &'static str,
}

impl Process {
    /// Starts `command`, whose output goes to the file `log`, and waits until it listens on
    /// `port`.
    ///
    /// # Errors
    /// If it cannot be started, ends, or does not listen within 30 s; with the end of its log.
    pub fn start(command: &mut Command, port: u16, log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut process = Self { child, address, stop: "TERM" };
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            let ended = process.child.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let said: Vec<&str> = said.lines().rev().take(10).collect();
                let text = format!("{command:?} does not listen ({ended:?}): {said:#?}");
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// Asks it to end by the signal of this name instead of `TERM`.
    #[must_use]
    pub fn stop_with(mut self, signal: &'static str) -> Self {
        self.stop = signal;
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it for a while (SIGSTOP): connections stay open, and nobody answers.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{name}"))) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // A paused process takes the signal only once it goes on.
        let _ = self.signal(self.stop);
        let _ = self.signal("CONT");
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.kill();
    }
}
