//! Rounds in which the proxies take turns.

use crate::{
    bench::{numbers::median, origin::Origin, write},
    command::output,
    process::{Cpu, Server, cpu_of_tree},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Many and short, so that what else the machine does meanwhile meets all of them alike.
const ROUNDS: usize = 44;
const SECONDS: u64 = 1;
const CONNECTIONS: u64 = 64;
/// Rounds without an answer, beyond which somebody is given up.
const STALLS_MAX: u64 = 3;

/// One of those that are compared.
pub(in crate::bench) struct Subject {
    /// As its figures are called.
    pub(super) name: &'static str,
    pid: u32,
    url: String,
    /// A header field that each request carries.
    field: Option<String>,
    /// What wrk is told to send, if that is more than a `GET`.
    script: Option<PathBuf>,
    pub(super) rounds: Vec<Round>,
    /// Rounds in which no request was answered, and which were run again.
    stalls: u64,
}

pub(super) struct Round {
    pub(super) cpu: Cpu,
    pub(super) requests: u64,
    /// Answers other than 2xx and broken connections, as wrk counted them.
    pub(super) errors: u64,
}

impl Round {
    pub(super) fn micros(&self) -> f64 {
        self.cpu.total().as_micros() as f64 / self.requests as f64
    }
}

impl Subject {
    pub(in crate::bench) fn new(
        name: &'static str,
        server: &Server,
        port: u16,
        path: &str,
    ) -> Self {
        let url = format!("http://127.0.0.1:{port}{path}");
        let (pid, rounds) = (server.pid(), Vec::new());
        Self { name, pid, url, field: None, script: None, rounds, stalls: 0 }
    }

    pub(in crate::bench) fn with(self, field: String) -> Self {
        Self { field: Some(field), ..self }
    }

    /// One that posts JSON, by a script at `file`.
    pub(in crate::bench) fn posting(self, file: &Path, json: &str) -> Result<Self, String> {
        let script = format!(
            "wrk.method = \"POST\"\nwrk.body = [[{json}]]\n\
             wrk.headers[\"Content-Type\"] = \"application/json\"\n"
        );
        write(file, &script)?;
        Ok(Self { script: Some(file.to_owned()), ..self })
    }

    pub(super) fn requests(&self) -> u64 {
        self.rounds.iter().map(|round| round.requests).sum()
    }

    pub(in crate::bench) fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.errors).sum::<u64>() + self.stalls
    }

    pub(super) fn cpu(&self) -> Cpu {
        self.rounds.iter().map(|round| round.cpu).fold(Cpu::default(), Cpu::plus)
    }

    /// The median of the rounds, in microseconds of CPU per request.
    pub(super) fn median_micros(&self) -> f64 {
        median(self.rounds.iter().map(Round::micros))
    }

    /// All CPU over all requests.
    pub(super) fn total_micros(&self) -> f64 {
        self.cpu().total().as_micros() as f64 / self.requests() as f64
    }

    /// A round; none if no request was answered.
    fn load(&self, origin: &Origin, seconds: u64) -> Result<Option<Round>, String> {
        let (counted, cpu) = (origin.counted()?, cpu_of_tree(self.pid));
        let (core, connections) = (super::LOAD.to_string(), CONNECTIONS.to_string());
        let duration = format!("{seconds}s");
        let mut args = vec!["-c", &core, "wrk", "-t1", "-c", &connections, "-d", &duration];
        if let Some(field) = &self.field {
            args.extend(["-H", field]);
        }
        let script = self.script.as_ref().map(|script| script.display().to_string());
        if let Some(script) = &script {
            args.extend(["-s", script]);
        }
        args.push(&self.url);
        let said = output("taskset", &args)?;
        // What was in flight when wrk stopped is answered within this time.
        std::thread::sleep(Duration::from_millis(50));
        let cpu = cpu_of_tree(self.pid).since(cpu);
        // The question for the count is a request itself.
        let requests = origin.counted()? - counted - 1;
        Ok((requests > 0).then(|| Round { cpu, requests, errors: errors(&said) }))
    }
}

/// A round that counts. One in which nothing was answered is told, is an error, and is run again.
fn turn(subject: &mut Subject, origin: &Origin) -> Result<Round, String> {
    while subject.stalls < STALLS_MAX {
        if let Some(round) = subject.load(origin, SECONDS)? {
            return Ok(round);
        }
        subject.stalls += 1;
        println!("{} answered nothing for {SECONDS} s; once more", subject.name);
    }
    Err(format!("{} does not answer", subject.name))
}

/// Lets all of them take turns, after a second each to warm up. Every other round goes backwards,
/// so that nobody always follows the same one.
pub(in crate::bench) fn run(subjects: &mut [Subject], origin: &Origin) -> Result<(), String> {
    for subject in &*subjects {
        subject.load(origin, 1)?;
    }
    for round in 0..ROUNDS {
        for step in 0..subjects.len() {
            let at = if round % 2 == 0 { step } else { subjects.len() - 1 - step };
            let done = turn(&mut subjects[at], origin)?;
            subjects[at].rounds.push(done);
        }
    }
    Ok(())
}

/// `Non-2xx or 3xx responses: 5` and `Socket errors: connect 0, read 1, write 0, timeout 2`.
fn errors(said: &str) -> u64 {
    let lines = said.lines().map(str::trim);
    let told = lines.filter_map(|line| {
        line.strip_prefix("Non-2xx or 3xx responses:").or(line.strip_prefix("Socket errors:"))
    });
    told.flat_map(str::split_whitespace)
        .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
impl Subject {
    /// One that has had these rounds.
    pub(super) fn that_had(name: &'static str, rounds: Vec<Round>) -> Self {
        let (url, field) = (String::new(), None);
        Self { name, pid: 0, url, field, script: None, rounds, stalls: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted() {
        let clean = "  100 requests in 1.00s, 1MB read\nRequests/sec: 100.00\n";
        assert_eq!(errors(clean), 0);
        let broken = "  Socket errors: connect 0, read 1, write 0, timeout 2\n\
            \x20 Non-2xx or 3xx responses: 5\n";
        assert_eq!(errors(broken), 8);
    }
}
