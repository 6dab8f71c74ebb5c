//! The head of a response.

use crate::{
    Decoder,
    request::{FIELDS_MAX, owned},
    spare,
};
use bytes::Bytes;
use http::{Method, Response, StatusCode, Version, header, response::Parts};
use httparse::Status;
use std::mem::MaybeUninit;

/// Fields that are likely to be added to a response on its way.
const FIELDS_ADDED: usize = 4;

/// Bytes of a head, at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What came is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// A response, as far as its head says.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and fields, as they came.
    pub parts: Parts,
    /// The body that follows.
    pub body: Decoder,
    /// Whether the server takes another request afterwards.
    pub keeps_alive: bool,
}

/// Finds the heads of the responses of one connection.
#[derive(Debug, Default)]
pub struct Responses {
    /// A head that is not complete.
    held: Vec<u8>,
}

impl Responses {
    /// Looks at bytes that came, all of which it takes: gives the head that they complete, and
    /// the bytes behind it. `asked` is the method of the request.
    ///
    /// # Errors
    /// [`Malformed`]; nothing more is to be read.
    pub fn next(
        &mut self,
        input: &[u8],
        asked: &Method,
    ) -> Result<Option<(ResponseHead, Bytes)>, Malformed> {
        let bytes = if self.held.is_empty() {
            Bytes::copy_from_slice(input)
        } else {
            self.held.extend_from_slice(input);
            Bytes::from(std::mem::take(&mut self.held))
        };
        let Some((head, length)) = read(&bytes, asked)? else {
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(Malformed("the head is too large"));
            }
            self.held = bytes.into();
            return Ok(None);
        };
        if length > HEAD_BYTES_MAX {
            return Err(Malformed("the head is too large"));
        }
        Ok(Some((head, bytes.slice(length..))))
    }
}

fn read(bytes: &Bytes, asked: &Method) -> Result<Option<(ResponseHead, usize)>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("too many header fields")),
        Err(_) => return Err(Malformed("the head is malformed")),
    };
    let old = response.version == Some(0);
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("the status is malformed"))?;
    let mut framing = Framing::default();
    let mut headers = spare::headers(response.headers.len() + FIELDS_ADDED);
    for field in response.headers.iter() {
        let (name, value) = owned(bytes, field).ok_or(Malformed("a header field is malformed"))?;
        if framing.take(&name, value.as_bytes())? {
            headers.append(name, value);
        }
    }
    let body = framing.body(status, asked, old)?;
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    let keeps_alive = match &body {
        Decoder::Close => false,
        Decoder::Length(_) | Decoder::Chunked(_) if old => framing.keeps,
        Decoder::Length(_) | Decoder::Chunked(_) => !framing.closes,
    };
    Ok(Some((ResponseHead { parts, body, keeps_alive }, length)))
}

/// What the fields that frame a response say.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps: bool,
}

impl Framing {
    /// Whether the field says anything to others than this connection.
    fn take(&mut self, name: &http::HeaderName, value: &[u8]) -> Result<bool, Malformed> {
        if *name == header::CONTENT_LENGTH {
            let text = std::str::from_utf8(value).ok();
            let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = text.and_then(|text| text.parse().ok());
            let length = length.ok_or(Malformed("`Content-Length` is no number"))?;
            if self.length.replace(length).is_some_and(|other| other != length) {
                return Err(Malformed("its answer has two lengths"));
            }
        } else if *name == header::TRANSFER_ENCODING {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("`Transfer-Encoding` other than `chunked`"));
            }
            self.chunked = true;
        } else if *name == header::CONNECTION {
            let mut names_others = false;
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let closes = option.eq_ignore_ascii_case(b"close");
                let keeps = option.eq_ignore_ascii_case(b"keep-alive");
                self.closes |= closes;
                self.keeps |= keeps;
                names_others |= !closes && !keeps;
            }
            return Ok(names_others);
        }
        Ok(true)
    }

    /// RFC 9112, section 6.3; two lengths are refused.
    fn body(&self, status: StatusCode, asked: &Method, old: bool) -> Result<Decoder, Malformed> {
        if self.chunked && self.length.is_some() {
            return Err(Malformed("its answer has two lengths"));
        }
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *asked == Method::HEAD;
        Ok(match self.length {
            _ if bodiless => Decoder::EMPTY,
            _ if self.chunked && old => {
                return Err(Malformed("`Transfer-Encoding` in HTTP/1.0"));
            }
            _ if self.chunked => Decoder::chunked(|_| false),
            Some(length) => Decoder::Length(length),
            None => Decoder::Close,
        })
    }
}
