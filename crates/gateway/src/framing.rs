//! Where one HTTP/1 message ends and the next begins, decided strictly and before anyone acts.
//!
//! [`Framing`] looks at the bytes of a connection before the HTTP codec does. It hands on only
//! what cannot be read in two ways; a message that could be is refused, and nothing after it is
//! looked at. It is a pure state machine: bytes in, what to hand on out.
//!
//! Rules are from RFC 9112 with every leniency that it permits left out, except one empty line
//! before a request line (section 2.2). Chunk extensions are checked, bounded and dropped;
//! trailer fields are checked, bounded and dropped.

mod chunked;
mod head;

pub(crate) use head::{Bounds, FIELDS_MAX, asks_for_h2c, is_authority};

use chunked::Chunked;
use head::{Follows, Search};
use protocol::{Code, Problem};
use smallvec::SmallVec;
use std::ops::Range;

/// Why a message was refused. The connection ends with the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) detail: &'static str,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: &'static str) -> Self {
        Self { code, detail }
    }

    pub(crate) fn framing(detail: &'static str) -> Self {
        Self::new(Code::BadFraming, detail)
    }

    pub(crate) fn problem(self) -> Problem {
        Problem::new(self.code, self.detail)
    }
}

/// What of the bytes given to [`Framing::advance`] is to be handed on: first `held`, bytes of
/// earlier calls, then these ranges of the input.
#[derive(Debug, Default)]
pub(crate) struct Approved {
    pub(crate) held: Vec<u8>,
    pub(crate) ranges: SmallVec<[Range<usize>; 2]>,
    /// Request heads among them.
    pub(crate) heads: u64,
    /// What ended the message that is not handed on, or not to its end.
    pub(crate) refusal: Option<(Refusal, Scope)>,
}

/// How much of the refused message was handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing: it can be answered as if it were a request of its own.
    Whole,
    /// Its head and perhaps some of its body.
    Rest,
}

impl Approved {
    fn push(&mut self, range: Range<usize>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(_) | None if range.is_empty() => {}
            Some(_) | None => self.ranges.push(range),
        }
    }

    fn truncate(&mut self, end: usize) {
        while let Some(last) = self.ranges.last_mut() {
            if last.end <= end {
                return;
            }
            if last.start < end {
                last.end = end;
                return;
            }
            self.ranges.pop();
        }
    }
}

/// Whether `text` is a host without a port.
pub(crate) fn is_host(text: &str) -> bool {
    is_authority(text.as_bytes()) && (text.starts_with('[') || !text.contains(':'))
}

#[derive(Debug)]
enum State {
    /// In a head, or before one.
    Head(Search),
    /// In a body of which this much is missing.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// After a head that asks for another protocol: nothing more is HTTP, or anyone's.
    Switching,
    /// Something was refused: nothing more is looked at.
    Refused,
}

/// The state of one connection's inbound direction.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// An incomplete head; after a switch, the bytes that followed the head.
    held: Vec<u8>,
    /// The last host; empty before the first.
    host: Vec<u8>,
    bounds: Bounds,
}

impl Framing {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { state: State::Head(Search::default()), held: Vec::new(), host: Vec::new(), bounds }
    }

    /// Whether a head has begun but not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        match &self.state {
            State::Head(search) => !self.held.is_empty() || search.skipped_blank(),
            State::Length(_) | State::Chunked(_) | State::Switching | State::Refused => false,
        }
    }

    /// Whether a body is being read.
    pub(crate) fn is_in_body(&self) -> bool {
        match &self.state {
            State::Length(_) | State::Chunked(_) => true,
            State::Head(_) | State::Switching | State::Refused => false,
        }
    }

    /// Whether no byte may be read any more.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.state {
            State::Switching | State::Refused => true,
            State::Head(_) | State::Length(_) | State::Chunked(_) => false,
        }
    }

    /// Whether the last message ended and no other has begun.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Head(_)) && !self.is_in_head()
    }

    /// Refuses whatever comes next, for instance because it takes too long.
    pub(crate) fn refuse(&mut self) {
        self.state = State::Refused;
        self.held = Vec::new();
    }

    /// The bytes that followed a head that asked for another protocol.
    pub(crate) fn into_early(self) -> Vec<u8> {
        match self.state {
            State::Switching => self.held,
            State::Head(_) | State::Length(_) | State::Chunked(_) | State::Refused => Vec::new(),
        }
    }

    /// Looks at bytes that just came in.
    pub(crate) fn advance(&mut self, input: &[u8]) -> Approved {
        let mut approved = Approved::default();
        let mut at = 0;
        // Where the message that is being read began in this input; none if a part of it was
        // handed on before.
        let mut began: Option<Begin> = self.is_head().then_some(Begin::Input(0));
        while at < input.len() {
            let step = match &mut self.state {
                State::Head(_) => {
                    let start = if self.held.is_empty() { Begin::Input(at) } else { Begin::Held };
                    began = Some(start);
                    self.head(input, &mut at, &mut approved)
                }
                State::Length(left) => {
                    let here = (input.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    approved.push(at..at + here);
                    at += here;
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = State::Head(Search::default());
                    }
                    Ok(())
                }
                State::Chunked(chunked) => {
                    match chunked.advance(input, &mut at, |range| approved.push(range)) {
                        Ok(true) => {
                            self.state = State::Head(Search::default());
                            Ok(())
                        }
                        Ok(false) => Ok(()),
                        Err(refusal) => Err(refusal),
                    }
                }
                State::Switching => {
                    self.held.extend_from_slice(&input[at..]);
                    at = input.len();
                    Ok(())
                }
                State::Refused => break,
            };
            if let Err(refusal) = step {
                let scope = match began {
                    Some(Begin::Held) => {
                        if !approved.held.is_empty() {
                            approved.held = Vec::new();
                            approved.heads -= 1;
                        }
                        approved.ranges.clear();
                        Scope::Whole
                    }
                    Some(Begin::Input(start)) => {
                        if approved.ranges.last().is_some_and(|last| last.end > start) {
                            approved.heads -= 1;
                        }
                        approved.truncate(start);
                        Scope::Whole
                    }
                    None => Scope::Rest,
                };
                approved.refusal = Some((refusal, scope));
                self.refuse();
                break;
            }
        }
        approved
    }

    fn is_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Completes a head, or holds what there is of it.
    fn head(
        &mut self,
        input: &[u8],
        at: &mut usize,
        approved: &mut Approved,
    ) -> Result<(), Refusal> {
        let State::Head(search) = &mut self.state else { return Ok(()) };
        if self.held.is_empty() {
            let rest = search.skip_blank(&input[*at..])?;
            *at = input.len() - rest.len();
            if rest.is_empty() {
                return Ok(());
            }
            let Some(length) = search.find_end(rest, &self.bounds)? else {
                self.held.extend_from_slice(rest);
                *at = input.len();
                return Ok(());
            };
            let follows = head::check(&rest[..length], &self.bounds, &mut self.host)?;
            approved.push(*at..*at + length);
            *at += length;
            approved.heads += 1;
            self.follow(follows);
            return Ok(());
        }
        let before = self.held.len();
        self.held.extend_from_slice(&input[*at..]);
        let Some(length) = search.find_end(&self.held, &self.bounds)? else {
            *at = input.len();
            return Ok(());
        };
        let follows = head::check(&self.held[..length], &self.bounds, &mut self.host)?;
        *at += length - before;
        self.held.truncate(length);
        approved.held = std::mem::take(&mut self.held);
        approved.heads += 1;
        self.follow(follows);
        Ok(())
    }

    fn follow(&mut self, follows: Follows) {
        self.state = match follows {
            Follows::Length(0) => State::Head(Search::default()),
            Follows::Length(length) => State::Length(length),
            Follows::Chunks => State::Chunked(Chunked::default()),
            Follows::OtherProtocol => State::Switching,
        };
    }
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    Held,
    Input(usize),
}

#[cfg(test)]
mod tests;
