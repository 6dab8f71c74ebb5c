//! Why a message is not taken.

use protocol::{Code, Problem};

/// Why a message was refused. The connection ends with the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// What the client is told.
    pub code: Code,
    /// The same in a sentence.
    pub detail: &'static str,
}

impl Refusal {
    /// A refusal of this kind.
    #[must_use]
    pub fn new(code: Code, detail: &'static str) -> Self {
        Self { code, detail }
    }

    /// The message can be read in more than one way, or in none.
    #[must_use]
    pub fn framing(detail: &'static str) -> Self {
        Self::new(Code::BadFraming, detail)
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        Problem::new(self.code, self.detail)
    }
}
