//! The load generator, which does as it is told and says how that went.

use super::server::{Programs, Running};
use serde_json::Value as Json;
use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The load's core.
const CORE: &str = "1";
/// Publishers at most, as in `loadgen`.
const PUBLISHERS: usize = 128;

/// Which connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// 0: none; each has two subscriptions then.
    pub(super) rooms: usize,
    /// The namespace of the rooms, with its colon; empty: none.
    pub(super) prefix: &'static str,
    /// Bytes that the kernel keeps of what was not read; 0: as many as it likes.
    pub(super) receive_buffer: u32,
}

/// A generator that runs.
pub(super) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Load {
    /// Opens connections that do as they are told; returns when all are open.
    ///
    /// # Errors
    /// If not all can be opened.
    pub(super) fn sockets(
        programs: &Programs,
        running: &Running,
        shape: Shape,
    ) -> Result<Self, String> {
        let buffer = shape.receive_buffer.to_string();
        let args = ["--wire", running.kind.wire(), "--receive-buffer", &buffer];
        Self::start(programs, running, shape, "sockets", &args)
    }

    /// Opens connections that recover.
    ///
    /// # Errors
    /// If not all can be opened.
    pub(super) fn storm(
        programs: &Programs,
        running: &Running,
        shape: Shape,
        args: &[&str],
    ) -> Result<Self, String> {
        Self::start(programs, running, shape, "storm", args)
    }

    fn start(
        programs: &Programs,
        running: &Running,
        shape: Shape,
        command: &str,
        args: &[&str],
    ) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("loadgen: {error}");
        let tokens = programs.tokens(running.kind, shape.connections + PUBLISHERS.min(shape.rooms));
        let mut child = Command::new("taskset")
            .args(["-c", CORE])
            .arg(&programs.loadgen)
            .args([command, "--address", &format!("127.0.0.1:{}", running.port)])
            .args(["--connections", &shape.connections.to_string()])
            .args(["--rooms", &shape.rooms.to_string()])
            .args(["--prefix", shape.prefix])
            .args(["--tokens", &tokens.len().to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(wrong)?;
        let mut input = child.stdin.take().ok_or("loadgen takes no input")?;
        let lines = BufReader::new(child.stdout.take().ok_or("loadgen says nothing")?).lines();
        for token in tokens {
            writeln!(input, "{token}").map_err(wrong)?;
        }
        let mut load = Self { child, input: Some(input), lines };
        let open = load.said()?["open"].as_u64().unwrap_or(0);
        if open == shape.connections as u64 {
            Ok(load)
        } else {
            Err(format!("{open} of {} connections opened", shape.connections))
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has something done, and returns what came of it.
    ///
    /// # Errors
    /// If it fails.
    pub(super) fn ask(&mut self, command: &str) -> Result<Json, String> {
        let input = self.input.as_mut().ok_or("loadgen takes no input")?;
        writeln!(input, "{command}").map_err(|error| format!("loadgen: {error}"))?;
        self.said()
    }

    /// The next line.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn said(&mut self) -> Result<Json, String> {
        let line = self.lines.next().ok_or("loadgen ended early")?;
        let line = line.map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends with its input, unless it is in the middle of something.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
