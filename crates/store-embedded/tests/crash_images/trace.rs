//! What a traced process did to files, from the log of `strace -f -y -xx`.

use std::{collections::HashMap, path::PathBuf};

/// A system call, or the beginning of one.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<Arg>,
    /// What it returned; `None` at the beginning.
    pub(crate) result: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg {
    Text(Vec<u8>),
    /// A descriptor with its path, a number or flags.
    Other(String),
}

impl Arg {
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Text(bytes) => PathBuf::from(String::from_utf8(bytes.clone()).unwrap()),
            Self::Other(other) => panic!("`{other}` is no path"),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Other(other) => panic!("`{other}` is no data"),
        }
    }

    pub(crate) fn flags(&self) -> &str {
        match self {
            Self::Text(_) => "",
            Self::Other(flags) => flags,
        }
    }

    /// The number of a descriptor or a plain number.
    pub(crate) fn number(&self) -> i64 {
        let text = self.flags();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
        text[..end].parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
    }

    /// The path that strace shows for a descriptor.
    pub(crate) fn shown_path(&self) -> Option<PathBuf> {
        let shown = self.flags().split_once('<')?.1.strip_suffix('>')?;
        Some(PathBuf::from(String::from_utf8(unescape(shown)).unwrap()))
    }
}

/// The calls in the order of the log: each twice, as it begins and as it ends.
pub(crate) fn parse(log: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            calls.push(call(begun, None));
            unfinished.insert(pid, begun.to_owned());
            continue;
        }
        let whole = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => match unfinished.remove(pid) {
                Some(begun) => begun + rest,
                None => continue,
            },
            None => {
                calls.push(call(rest, None));
                rest.to_owned()
            }
        };
        let Some((text, result)) = whole.rsplit_once(" = ") else { continue };
        let result = result.split([' ', '<']).next().unwrap();
        let result = result.parse().unwrap_or_else(|_| i64::from(!result.starts_with("0x")) - 1);
        calls.push(call(text.trim_end(), Some(result)));
    }
    calls
}

fn call(text: &str, result: Option<i64>) -> Call {
    let (name, rest) = text.split_once('(').unwrap_or((text, ""));
    let mut args = Vec::new();
    let mut rest = rest.split(" = ").next().unwrap().trim_end().trim_end_matches(')');
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (bytes, after) = quoted.split_once('"').expect("a closing quote");
            assert!(!after.starts_with("..."), "strace cut a string");
            args.push(Arg::Text(unescape(bytes)));
            rest = after.trim_start_matches([',', ' ']);
        } else {
            let (arg, after) = rest.split_once(", ").unwrap_or((rest, ""));
            args.push(Arg::Other(arg.trim_end_matches(',').to_owned()));
            rest = after;
        }
    }
    Call { name: name.to_owned(), args, result }
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4);
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\\x") {
            let digit = |at: usize| char::from(bytes[at]).to_digit(16).unwrap() as u8;
            out.push(digit(at + 2) << 4 | digit(at + 3));
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}
