//! What the tests came to, read from what libtest prints.

use std::collections::BTreeSet;

/// How many lines of a test that failed are told again at the end.
const TOLD_MAX: usize = 20;

/// The sum over all that ran so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// The tests that passed.
    pub(super) ran: BTreeSet<String>,
    /// Of each failure its name and the first lines of what it said, for those who see only the
    /// end of a long log.
    pub(super) failures: Vec<String>,
    /// On which stores the tests run that come next.
    pub(super) stores: &'static str,
    reads: Reads,
}

/// Where in libtest's output the next line is.
#[derive(Debug, Default, Clone, Copy)]
enum Reads {
    #[default]
    Elsewhere,
    /// After `failures:`, where a section follows for each of them.
    Failures,
    /// In the section of the last of `failures`, with so many more lines to be told.
    Section(usize),
}

impl Outcome {
    /// Of nothing yet; the tests that come next run on these stores.
    pub(super) fn on(stores: &'static str) -> Self {
        Self { stores, ..Self::default() }
    }

    /// Counts a check of ours.
    pub(super) fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                println!("check {name} ... ok");
                self.passed += 1;
            }
            Err(why) => {
                println!("check {name} ... FAILED\n{why}");
                self.failed += 1;
                self.failures.push(format!("check {name}\n{why}"));
            }
        }
    }

    /// Takes the next line of libtest's output.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"))
        {
            self.ran.insert(name.to_owned());
        } else if let Some((passed, failed)) = counted(line) {
            self.passed += passed;
            self.failed += failed;
            self.reads = Reads::Elsewhere;
        } else if line == "failures:" {
            self.reads = Reads::Failures;
        } else if line == "successes:" {
            self.reads = Reads::Elsewhere;
        } else if let (Reads::Failures | Reads::Section(_), Some(name)) =
            (self.reads, section(line))
        {
            self.failures.push(format!("test {name}, stores: {}", self.stores));
            self.reads = Reads::Section(TOLD_MAX);
        } else if let (Reads::Section(more @ 1..), Some(last)) =
            (self.reads, self.failures.last_mut())
        {
            last.push('\n');
            last.push_str(line);
            let more = if line == "stack backtrace:" { 0 } else { more - 1 };
            self.reads = Reads::Section(more);
        }
    }
}

/// `---- sessions::ends stdout ----`
fn section(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// `test result: ok. 3 passed; 0 failed; …`
fn counted(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts.split("; ").map(|part| part.split_once(' '));
    let passed = numbers.next()??.0.parse().ok()?;
    let failed = numbers.next()??.0.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libtest printed for one test that passes and two that fail.
    const PRINTED: &str = "\
running 3 tests
test good ... ok
test bad ... FAILED
test worse ... FAILED

successes:

---- good stdout ----
seed 7


successes:
    good

failures:

---- bad stdout ----
seed 8

thread 'bad' (12) panicked at src/lib.rs:1:1:
it is bad
stack backtrace:
   0: __rustc::rust_begin_unwind

---- worse stdout ----
worse it is


failures:
    bad
    worse

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn results_are_counted_and_failures_told_without_their_stacks() {
        let mut outcome = Outcome::on("redis");
        PRINTED.lines().for_each(|line| outcome.line(line));
        assert_eq!((outcome.passed, outcome.failed), (1, 2));
        assert_eq!(outcome.ran, BTreeSet::from(["good".to_owned()]));
        let [bad, worse] = &outcome.failures[..] else { panic!("{:?}", outcome.failures) };
        assert!(bad.starts_with("test bad, stores: redis\nseed 8\n"), "{bad}");
        assert!(bad.ends_with("it is bad\nstack backtrace:"), "{bad}");
        assert!(worse.starts_with("test worse, stores: redis\nworse it is\n"), "{worse}");
    }

    #[test]
    fn of_a_test_that_says_much_only_the_beginning_is_told() {
        let mut outcome = Outcome::default();
        outcome.line("failures:");
        outcome.line("---- long stdout ----");
        (0..100).for_each(|at| outcome.line(&at.to_string()));
        assert_eq!(outcome.failures[0].lines().count(), 1 + TOLD_MAX);
    }
}
