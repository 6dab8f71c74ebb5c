//! A process that does one operation for as long as it is told to.

use crate::process::{Cpu, cpu_of_tree};
use serde_json::Value as Json;
use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// A driver, ready to go; it ends when dropped.
pub(super) struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What a driver did in a turn.
pub(super) struct Turn {
    pub(super) operations: u64,
    pub(super) cpu: Cpu,
}

impl Driver {
    /// Starts one and waits until it is prepared.
    ///
    /// # Errors
    /// What it said.
    pub(super) fn start(
        program: &Path,
        url: &str,
        operation: &str,
        by: &str,
        tasks: usize,
    ) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args([url, operation, by, &tasks.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a driver without output")?;
        let lines = BufReader::new(output).lines();
        let mut driver = Self { child, input, lines };
        match driver.line()? {
            ready if ready["ready"] == true => Ok(driver),
            other => Err(format!("{operation} {by}: {other}")),
        }
    }

    fn line(&mut self) -> Result<Json, String> {
        let line = self.lines.next().ok_or("a driver ended early")?;
        let line = line.map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))
    }

    /// Lets it go for so long.
    ///
    /// # Errors
    /// If an operation failed.
    pub(super) fn turn(&mut self, within: Duration) -> Result<Turn, String> {
        let before = cpu_of_tree(self.child.id());
        let input = self.input.as_mut().ok_or("a driver that was ended")?;
        writeln!(input, "{}", within.as_millis()).map_err(|error| error.to_string())?;
        let said = self.line()?;
        let cpu = cpu_of_tree(self.child.id()).since(before);
        match (&said["error"], said["operations"].as_u64()) {
            (Json::Null, Some(operations)) => Ok(Turn { operations, cpu }),
            (error, _) => Err(format!("an operation failed: {error}")),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.input.take());
        for _ in 0..250 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
