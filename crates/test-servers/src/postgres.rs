//! PostgreSQL, and PgBouncer before it.

use crate::{Process, free_ports};
use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The password of every role.
pub const PASSWORD: &str = "a-password-of-tests";
/// The role that owns the database of the same name, an ordinary one.
pub const ROLE: &str = "crosstown";
/// Where Debian keeps the programs of each version, newest last.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// How long the processes of a killed server may take until they are gone.
const GONE_MAX: Duration = Duration::from_secs(20);

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Settings beyond the defaults, for instance `("fsync", "off")`.
    pub settings: Vec<(String, String)>,
    /// A certificate and its key (PEM); with them the server takes TLS.
    pub tls: Option<(String, String)>,
}

impl PostgresOptions {
    /// With one setting more.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server with a folder of its own, where the role [`ROLE`] owns a database.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    folder: TempDir,
    options: PostgresOptions,
    port: u16,
}

impl Postgres {
    /// Starts a server with an empty database.
    ///
    /// # Errors
    /// If the programs are missing or the server does not start.
    pub fn start(options: PostgresOptions) -> io::Result<Self> {
        let folder = folder()?;
        let [port] = free_ports()?;
        let secret = folder.path().join("password");
        write(&secret, PASSWORD)?;
        let data = folder.path().join("data");
        let made = as_postgres(&program("initdb")?)?
            .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg(format!("--pwfile={}", secret.display()))
            .arg(&data)
            .output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        if let Some((certificate, key)) = &options.tls {
            write(&data.join("server.crt"), certificate)?;
            write(&data.join("server.key"), key)?;
        }
        let process = run(folder.path(), port, &options)?;
        let server = Self { process, folder, options, port };
        server.ready()?;
        server.sql("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"))?;
        server.sql("postgres", &format!("CREATE DATABASE {ROLE} OWNER {ROLE}"))?;
        Ok(server)
    }

    /// Where [`ROLE`] finds its database; `parameters` follow the `?`.
    #[must_use]
    pub fn url(&self, parameters: &str) -> String {
        url(self.port, parameters)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process, to pause it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs statements as the superuser and answers what they print, unaligned.
    ///
    /// # Errors
    /// If psql cannot be started, or what the server said.
    pub fn sql(&self, database: &str, text: &str) -> io::Result<String> {
        let output = as_postgres(&program("psql")?)?
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--username=postgres"])
            .arg(format!("--host={}", self.folder.path().display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--dbname={database}"))
            .arg(format!("--command={text}"))
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }

    /// Kills it at once, all of its processes, as a crash of the machine would.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        // Stopped, it starts no more of them.
        self.process.pause()?;
        self.signal_all("KILL")?;
        self.process.kill()
    }

    /// Stops all of its processes for a while (SIGSTOP): connections stay, and nobody answers.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()?;
        self.signal_all("STOP")
    }

    /// Lets them go on after [`Self::pause`].
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&self) -> io::Result<()> {
        self.signal_all("CONT")
    }

    /// Together, so that none of them still works when the first has got it.
    fn signal_all(&self, signal: &str) -> io::Result<()> {
        let pid = self.process.pid().to_string();
        let children = Command::new("pgrep").args(["-P", &pid]).output()?;
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        let mut kill = Command::new("kill");
        kill.args([&format!("-{signal}"), &pid]).args(children.split_whitespace());
        kill.output().map(drop)
    }

    /// Starts it again on its folder and port after [`Self::kill`].
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        let until = Instant::now() + GONE_MAX;
        self.process = loop {
            match run(self.folder.path(), self.port, &self.options) {
                // A process that was killed holds the shared memory until it is gone for good,
                // and one that was just being forked until it has noticed.
                Err(error)
                    if error.to_string().contains("shared memory") && Instant::now() < until =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                started => break started?,
            }
        };
        self.ready()
    }

    /// It listens before it has recovered.
    fn ready(&self) -> io::Result<()> {
        let mut tried = self.sql("postgres", "SELECT 1");
        for _ in 0..1000 {
            if tried.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            tried = self.sql("postgres", "SELECT 1");
        }
        tried.map(drop)
    }
}

/// PgBouncer in transaction mode before a server.
#[derive(Debug)]
pub struct PgBouncer {
    process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler before `server`.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub fn start(server: &Postgres) -> io::Result<Self> {
        let folder = folder()?;
        let [port] = free_ports()?;
        let users = folder.path().join("users");
        write(&users, &format!("\"{ROLE}\" \"{PASSWORD}\"\n"))?;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\npool_mode = transaction\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\ndefault_pool_size = 8\n\
             max_client_conn = 500\n",
            server.port,
            users.display()
        );
        let settings = folder.path().join("pgbouncer.ini");
        write(&settings, &text)?;
        let mut command = as_postgres(Path::new("/usr/sbin/pgbouncer"))?;
        command.arg("-q").arg(&settings);
        let log = folder.path().join("pgbouncer.log");
        let process = Process::start(&mut command, port, &log)?.stop_with("INT");
        Ok(Self { process, _folder: folder })
    }

    /// Where [`ROLE`] finds its database through it.
    #[must_use]
    pub fn url(&self, parameters: &str) -> String {
        url(self.process.address().port(), parameters)
    }
}

fn url(port: u16, parameters: &str) -> String {
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{ROLE}{mark}{parameters}")
}

fn run(folder: &Path, port: u16, options: &PostgresOptions) -> io::Result<Process> {
    let mut command = as_postgres(&program("postgres")?)?;
    command.arg("-D").arg(folder.join("data"));
    let mut set = |name: &str, value: &str| {
        command.arg("-c").arg(format!("{name}={value}"));
    };
    set("port", &port.to_string());
    set("listen_addresses", "127.0.0.1");
    set("unix_socket_directories", &folder.display().to_string());
    set("max_connections", "200");
    if options.tls.is_some() {
        set("ssl", "on");
    }
    options.settings.iter().for_each(|(name, value)| set(name, value));
    // Fast shutdown: SIGTERM would wait for the clients.
    Ok(Process::start(&mut command, port, &folder.join("postgres.log"))?.stop_with("INT"))
}

/// The newest version's program.
fn program(name: &str) -> io::Result<PathBuf> {
    let missing = |error: io::Error| {
        io::Error::new(error.kind(), format!("{PROGRAMS}: {error}; run `cargo xtask install`"))
    };
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(PROGRAMS)
        .map_err(missing)?
        .filter_map(|entry| {
            let version = entry.ok()?.path();
            let number = version.file_name()?.to_str()?.parse().ok()?;
            Some((number, version.join("bin").join(name))).filter(|(_, path)| path.exists())
        })
        .collect();
    found.sort();
    let found = found.pop().map(|(_, path)| path);
    found.ok_or_else(|| missing(io::Error::other(format!("no {name}"))))
}

/// These programs refuse to run as root, so root runs them as the user `postgres`.
fn as_postgres(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = owner()? {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGUSER");
    Ok(command)
}

/// Whose the folders are to be, if not the caller's.
fn owner() -> io::Result<Option<(u32, u32)>> {
    let id = |flag: &str, user: &[&str]| -> io::Result<u32> {
        let output = Command::new("id").arg(flag).args(user).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let wrong = |_| io::Error::other(format!("there is no user {user:?}"));
        text.trim().parse().map_err(wrong)
    };
    if id("-u", &[])? != 0 {
        return Ok(None);
    }
    Ok(Some((id("-u", &["postgres"])?, id("-g", &["postgres"])?)))
}

fn folder() -> io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("crosstown-postgres-").tempdir()?;
    give(folder.path())?;
    Ok(folder)
}

/// Writes a file that only the server may read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    give(path)
}

fn give(path: &Path) -> io::Result<()> {
    match owner()? {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
