//! A chunked body.

use super::Refusal;
use memchr::memchr;
use protocol::Code;
use std::ops::Range;

/// Bytes of chunk extensions in one body; they mean nothing to us and cost the sender nothing.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of trailer fields.
const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Trailer fields.
const TRAILERS_MAX: usize = 32;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    at: At,
    extension_bytes: u32,
    /// The trailer line being read.
    line: Vec<u8>,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

impl Default for At {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunked {
    /// Reads `input` from `at`, and gives the ranges to hand on to `approve`. True at the end
    /// of the body.
    pub(crate) fn advance(
        &mut self,
        input: &[u8],
        at: &mut usize,
        mut approve: impl FnMut(Range<usize>),
    ) -> Result<bool, Refusal> {
        while let Some(byte) = input.get(*at).copied() {
            if let At::Data { left } = &mut self.at {
                let here = (input.len() - *at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                approve(*at..*at + here);
                *at += here;
                *left -= here as u64;
                if *left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let handed_on = self.step(byte)?;
            if handed_on {
                approve(*at..*at + 1);
            }
            *at += 1;
            if matches!(self.at, At::Data { left: 0 }) {
                // The last line was read; a new body begins with a new state.
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes one byte that is not data; says whether it is handed on.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        let mut handed_on = true;
        self.at = match self.at {
            At::Size { digits, size } => match byte {
                b'\r' if digits > 0 => At::SizeEnd { size },
                b';' if digits > 0 => {
                    handed_on = false;
                    At::Extension { size }
                }
                _ => {
                    let digit = (byte as char).to_digit(16).ok_or_else(bad_size)?;
                    // Sixteen digits fit into 64 bits, so the shift loses nothing.
                    if digits == 16 {
                        return Err(bad_size());
                    }
                    At::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) }
                }
            },
            At::Extension { size } => {
                handed_on = byte == b'\r';
                self.extension_bytes += 1;
                match byte {
                    b'\r' => At::SizeEnd { size },
                    b'\t' | b' '..=b'~' if self.extension_bytes <= EXTENSION_BYTES_MAX => {
                        At::Extension { size }
                    }
                    _ => {
                        return Err(Refusal::framing("a chunk extension is malformed or too long"));
                    }
                }
            }
            At::SizeEnd { size } => match (byte, size) {
                (b'\n', 0) => At::TrailerStart,
                (b'\n', left) => At::Data { left },
                _ => return Err(bad_size()),
            },
            At::Data { .. } => return Ok(false),
            At::DataCr if byte == b'\r' => At::DataLf,
            At::DataLf if byte == b'\n' => At::default(),
            At::DataCr | At::DataLf => {
                return Err(Refusal::framing("a chunk is longer than its size says"));
            }
            At::TrailerStart if byte == b'\r' => At::EndLf,
            At::EndLf if byte == b'\n' => At::Data { left: 0 },
            At::TrailerLf if byte == b'\n' => {
                handed_on = false;
                self.trailer()?;
                At::TrailerStart
            }
            At::EndLf | At::TrailerLf => {
                return Err(Refusal::framing("a carriage return without a line feed"));
            }
            At::TrailerStart | At::Trailer => {
                handed_on = false;
                match byte {
                    b'\r' => At::TrailerLf,
                    b'\n' => {
                        return Err(Refusal::framing("a line feed without a carriage return"));
                    }
                    _ => {
                        self.trailer_bytes += 1;
                        if self.trailer_bytes > TRAILER_BYTES_MAX {
                            let detail = "the trailer fields are larger than allowed";
                            return Err(Refusal::new(Code::HeadersTooLarge, detail));
                        }
                        self.line.push(byte);
                        At::Trailer
                    }
                }
            }
        };
        Ok(handed_on)
    }

    /// Checks one trailer line. None is handed on, but a forbidden one shows what the sender
    /// is after.
    fn trailer(&mut self) -> Result<(), Refusal> {
        let mut line = std::mem::take(&mut self.line);
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            let detail = "there are more trailer fields than allowed";
            return Err(Refusal::new(Code::HeadersTooLarge, detail));
        }
        let malformed = Refusal::framing("a trailer field is malformed");
        line.extend_from_slice(b"\r\n\r\n");
        let mut fields = [httparse::EMPTY_HEADER; 2];
        match httparse::parse_headers(&line, &mut fields) {
            Ok(httparse::Status::Complete((length, [field]))) if length == line.len() => {
                if memchr(b'_', field.name.as_bytes()).is_some() || is_forbidden(field.name) {
                    return Err(Refusal::framing("a field that must not be a trailer"));
                }
            }
            Ok(_) | Err(_) => return Err(malformed),
        }
        line.clear();
        self.line = line;
        Ok(())
    }
}

fn bad_size() -> Refusal {
    Refusal::framing("a chunk size is malformed")
}

/// Fields that frame, route, authenticate or control (RFC 9110, section 6.5.1).
fn is_forbidden(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let exact = [
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "range",
        "cache-control",
        "max-forwards",
        "forwarded",
        "traceparent",
        "x-api-key",
        "x-session-token",
        "x-request-id",
        "x-real-ip",
    ];
    exact.contains(&name.as_str()) || crate::fields::is_ours_to_set(&name)
}
