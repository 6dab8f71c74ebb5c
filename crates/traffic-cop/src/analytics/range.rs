//! How far back a report on limits looks.

/// A time up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Sixty seconds.
    OneMinute,
    /// Three hundred seconds.
    FiveMinutes,
    /// Sixty minutes.
    OneHour,
}

impl Range {
    /// Reads `1m`, `5m` or `1h`.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1m" => Ok(Self::OneMinute),
            "5m" => Ok(Self::FiveMinutes),
            "1h" => Ok(Self::OneHour),
            other => Err(format!("`{other}` is not a range; use `1m`, `5m` or `1h`")),
        }
    }

    /// The range as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneMinute => "1m",
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
        }
    }
}
