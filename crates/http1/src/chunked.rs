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

/// Where in a chunked body we are (RFC 9112, section 7.1).
#[derive(Debug)]
pub struct Chunked {
    at: At,
    extension_bytes: u32,
    /// The trailer line being read.
    line: Vec<u8>,
    trailer_bytes: usize,
    trailers: usize,
    is_forbidden: fn(&str) -> bool,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Size { digits: u8, size: u64 },
    Extension { size: u64, quoted: Quoted },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Whether a quoted value of an extension is open; its sender and others must not differ on
/// whether the line ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
    /// What comes next is taken as it is.
    Escaped,
}

impl Quoted {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::No, b'"') | (Self::Escaped, _) => Self::Yes,
            (Self::Yes, b'"') => Self::No,
            (Self::Yes, b'\\') => Self::Escaped,
            (same, _) => same,
        }
    }
}

impl At {
    const SIZE: Self = Self::Size { digits: 0, size: 0 };
}

impl Chunked {
    pub(crate) fn new(is_forbidden: fn(&str) -> bool) -> Self {
        Self {
            at: At::SIZE,
            extension_bytes: 0,
            line: Vec::new(),
            trailer_bytes: 0,
            trailers: 0,
            is_forbidden,
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// The next stretch of data in `input` from `at` on, which moves behind it; none if there
    /// is none. Where a stretch ends the size line that follows is read with it, so that the
    /// end is known with the last stretch if it came with it.
    pub(crate) fn next(
        &mut self,
        input: &[u8],
        at: &mut usize,
    ) -> Result<Option<Range<usize>>, Refusal> {
        let mut data = None;
        while let Some(byte) = input.get(*at).copied() {
            match &mut self.at {
                At::End => break,
                At::Data { .. } if data.is_some() => break,
                At::Data { left } => {
                    let here =
                        (input.len() - *at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    data = Some(*at..*at + here);
                    *at += here;
                    *left -= here as u64;
                    if *left == 0 {
                        self.at = At::DataCr;
                    }
                }
                At::Size { .. }
                | At::Extension { .. }
                | At::SizeEnd { .. }
                | At::DataCr
                | At::DataLf
                | At::TrailerStart
                | At::Trailer
                | At::TrailerLf
                | At::EndLf => {
                    self.step(byte)?;
                    *at += 1;
                }
            }
        }
        Ok(data)
    }

    /// Takes one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.at = match self.at {
            At::Size { digits, size } => match byte {
                b'\r' if digits > 0 => At::SizeEnd { size },
                b';' if digits > 0 => At::Extension { size, quoted: Quoted::No },
                _ => {
                    let digit = (byte as char).to_digit(16).ok_or_else(bad_size)?;
                    // Sixteen digits fit into 64 bits, so the shift loses nothing.
                    if digits == 16 {
                        return Err(bad_size());
                    }
                    At::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) }
                }
            },
            At::Extension { size, quoted } => {
                self.extension_bytes += 1;
                match byte {
                    b'\r' if quoted == Quoted::No => At::SizeEnd { size },
                    b'\t' | b' '..=b'~' if self.extension_bytes <= EXTENSION_BYTES_MAX => {
                        At::Extension { size, quoted: quoted.after(byte) }
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
            At::Data { .. } | At::End => return Ok(()),
            At::DataCr if byte == b'\r' => At::DataLf,
            At::DataLf if byte == b'\n' => At::SIZE,
            At::DataCr | At::DataLf => {
                return Err(Refusal::framing("a chunk is longer than its size says"));
            }
            At::TrailerStart if byte == b'\r' => At::EndLf,
            At::EndLf if byte == b'\n' => At::End,
            At::TrailerLf if byte == b'\n' => {
                self.trailer()?;
                At::TrailerStart
            }
            At::EndLf | At::TrailerLf => {
                return Err(Refusal::framing("a carriage return without a line feed"));
            }
            At::TrailerStart | At::Trailer => match byte {
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
            },
        };
        Ok(())
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
                if memchr(b'_', field.name.as_bytes()).is_some() || (self.is_forbidden)(field.name)
                {
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
