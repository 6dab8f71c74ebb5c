//! The head of a request.

use crate::{Decoder, Refusal, names, spare};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};
use httparse::Status;
use memchr::{memchr, memchr_iter};
use protocol::Code;
use std::mem::MaybeUninit;

/// What a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the request target.
    pub target_bytes_max: usize,
    /// Bytes of all header fields, line ends included.
    pub header_bytes_max: usize,
    /// Whether a field of this name must not come behind the body.
    pub is_forbidden_trailer: fn(&str) -> bool,
}

/// Header fields of a message, at most.
pub const FIELDS_MAX: usize = 100;

/// Bytes of the request line besides the target: method, version, spaces.
const LINE_EXTRA: usize = 64;

/// A request, as far as its head says.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and fields, as they came.
    pub parts: Box<Parts>,
    /// The body that follows.
    pub body: Decoder,
    /// Whether the client may send another request afterwards.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether it asks for another protocol: what follows is nobody's until that is answered.
    pub switches: bool,
}

/// Finds the heads of the requests of one connection.
#[derive(Debug)]
pub struct Requests {
    search: Search,
    /// A head that is not complete.
    held: Vec<u8>,
    /// A host that was found well formed, which the next request nearly always repeats.
    host: Vec<u8>,
    bounds: Bounds,
}

impl Requests {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { search: Search::default(), held: Vec::new(), host: Vec::new(), bounds }
    }

    /// Whether a head has begun and is not complete.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        !self.held.is_empty() || self.search.skipped_blank()
    }

    /// Looks at bytes that came behind the last message, all of which it takes: gives the head
    /// that they complete, and the bytes behind it.
    ///
    /// # Errors
    /// What comes is no request, or not one that can be read in one way only. Nothing more is
    /// to be read.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<(RequestHead, Bytes)>, Refusal> {
        if self.held.is_empty() {
            let input = self.search.skip_blank(input)?;
            if input.is_empty() {
                return Ok(None);
            }
            let Some(length) = self.search.find_end(input, &self.bounds)? else {
                self.held.extend_from_slice(input);
                return Ok(None);
            };
            return self.read(Bytes::copy_from_slice(input), length).map(Some);
        }
        self.held.extend_from_slice(input);
        let Some(length) = self.search.find_end(&self.held, &self.bounds)? else {
            return Ok(None);
        };
        let bytes = std::mem::take(&mut self.held).into();
        self.read(bytes, length).map(Some)
    }

    fn read(&mut self, mut bytes: Bytes, length: usize) -> Result<(RequestHead, Bytes), Refusal> {
        self.search = Search::default();
        let head = bytes.split_to(length);
        Ok((read(&head, &self.bounds, &mut self.host)?, bytes))
    }
}

/// The search for a head's end, which never looks at a byte twice.
#[derive(Debug, Default)]
struct Search {
    blank: Blank,
    /// Where the current line begins, and how many came before it.
    line: usize,
    lines: usize,
    /// Bytes searched.
    searched: usize,
    /// Where the request line ended.
    fields: Option<usize>,
}

/// The one empty line that may come before a head.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Blank {
    #[default]
    None,
    Cr,
    Skipped,
}

impl Search {
    fn skipped_blank(&self) -> bool {
        self.blank == Blank::Cr
    }

    /// Leaves out one empty line before the head, and checks that a head begins.
    fn skip_blank<'a>(&mut self, mut input: &'a [u8]) -> Result<&'a [u8], Refusal> {
        if self.blank == Blank::None && input.first() == Some(&b'\r') {
            self.blank = Blank::Cr;
            input = &input[1..];
        }
        if self.blank == Blank::Cr {
            match input.first() {
                None => return Ok(input),
                Some(b'\n') => {
                    self.blank = Blank::Skipped;
                    input = &input[1..];
                }
                Some(_) => return Err(Refusal::framing("a carriage return without a line feed")),
            }
        }
        match input.first() {
            Some(first) if !is_token(*first) => {
                Err(Refusal::framing("a request begins with its method"))
            }
            Some(_) | None => Ok(input),
        }
    }

    /// The length of the head that `bytes` begin with, once it is complete.
    fn find_end(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Option<usize>, Refusal> {
        for offset in memchr_iter(b'\n', &bytes[self.searched..]) {
            let end = self.searched + offset;
            let Some((b'\r', line)) = bytes[self.line..end].split_last() else {
                return Err(Refusal::framing("a line feed without a carriage return"));
            };
            self.line = end + 1;
            self.lines += 1;
            match self.fields {
                None => {
                    if line.len() > bounds.target_bytes_max + LINE_EXTRA {
                        return Err(too_long());
                    }
                    self.fields = Some(end + 1);
                }
                Some(fields) => {
                    if end + 1 - fields > bounds.header_bytes_max + 2 {
                        return Err(too_large());
                    }
                    if line.is_empty() {
                        // Each line has one at its end.
                        if memchr_iter(b'\r', &bytes[..=end]).count() != self.lines {
                            let detail = "a carriage return without a line feed";
                            return Err(Refusal::framing(detail));
                        }
                        return Ok(Some(end + 1));
                    }
                }
            }
        }
        self.searched = bytes.len();
        match self.fields {
            None if bytes.len() > bounds.target_bytes_max + LINE_EXTRA => Err(too_long()),
            Some(fields) if bytes.len() - fields > bounds.header_bytes_max => Err(too_large()),
            Some(_) | None => Ok(None),
        }
    }
}

fn too_long() -> Refusal {
    Refusal::new(Code::UriTooLong, "the request target is longer than allowed")
}

fn too_large() -> Refusal {
    Refusal::new(Code::HeadersTooLarge, "the header fields are larger than allowed")
}

/// Reads a complete head. `known` is a host that was found well formed before; another one
/// replaces it.
fn read(head: &Bytes, bounds: &Bounds, known: &mut Vec<u8>) -> Result<RequestHead, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(Status::Complete(_) | Status::Partial) => {
            return Err(Refusal::framing("the head is malformed"));
        }
        Err(error) => return Err(explain(error, head)),
    }
    let (method, target) = match (request.method, request.path) {
        (Some(method), Some(target)) => (method, target),
        (Some(_) | None, _) => return Err(Refusal::framing("the request line is malformed")),
    };
    let old = request.version == Some(0);
    let mut fields = Fields::default();
    let mut headers = spare::headers(request.headers.len());
    for field in request.headers.iter() {
        fields.take(field, old)?;
        let (name, value) =
            owned(head, field).ok_or_else(|| Refusal::framing("a header field is malformed"))?;
        headers.append(name, value);
    }
    check_method(method)?;
    let authority = check_target(method, target, bounds)?;
    match (fields.host, old) {
        (None, false) => return Err(Refusal::framing("a request has one `Host` field")),
        (None, true) => {}
        (Some(host), _) => {
            if known.is_empty() || host != known.as_slice() {
                if !is_authority(host) {
                    return Err(Refusal::framing("`Host` is not a host and an optional port"));
                }
                known.clear();
                known.extend_from_slice(host);
            }
            if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
                return Err(Refusal::framing("the request target and `Host` name two hosts"));
            }
        }
    }
    if fields.expects_other {
        let detail = "the only expectation understood is `100-continue`";
        return Err(Refusal::new(Code::ExpectationFailed, detail));
    }
    let body = match (fields.length, fields.chunked) {
        (Some(_), true) => {
            return Err(Refusal::framing("`Content-Length` beside `Transfer-Encoding`"));
        }
        (None, true) => Decoder::chunked(bounds.is_forbidden_trailer),
        (Some(length), false) => Decoder::Length(length),
        (None, false) => Decoder::EMPTY,
    };
    let switches = fields.switches && !old;
    if switches && !body.is_end() {
        return Err(Refusal::framing("a request for another protocol has no body"));
    }
    let malformed = |_| Refusal::framing("the request line is malformed");
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| malformed(()))?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
        .map_err(|_| Refusal::framing("the request target is malformed"))?;
    parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    Ok(RequestHead {
        parts: Box::new(parts),
        body,
        keeps_alive: if old { fields.keeps } else { !fields.closes },
        expects_continue: fields.expects && !old,
        switches,
    })
}

/// A field whose value is a part of `head`.
pub(crate) fn owned(
    head: &Bytes,
    field: &httparse::Header<'_>,
) -> Option<(HeaderName, HeaderValue)> {
    let name = names::name(field.name.as_bytes())?;
    // An empty value may lie anywhere.
    let value = if field.value.is_empty() { Bytes::new() } else { head.slice_ref(field.value) };
    Some((name, HeaderValue::from_maybe_shared(value).ok()?))
}

fn explain(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(Code::HeadersTooLarge, "there are more header fields than allowed")
        }
        httparse::Error::Version => {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let mut words = line.split(|byte| *byte == b' ').skip(2);
            let version = words.next().filter(|_| words.next().is_none()).unwrap_or_default();
            match version {
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    Refusal::new(Code::UnsupportedVersion, "HTTP/1.0, 1.1 and 2 are supported")
                }
                _ => Refusal::framing("the request line is malformed"),
            }
        }
        httparse::Error::HeaderName => Refusal::framing("the name of a header field is malformed"),
        httparse::Error::HeaderValue => {
            Refusal::framing("the value of a header field is malformed")
        }
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Refusal::framing("the request line is malformed")
        }
    }
}

/// What the fields that frame a message say.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    /// `Connection` lists `upgrade`, and `Upgrade` was or will be seen.
    connection_upgrade: bool,
    switches: bool,
    closes: bool,
    keeps: bool,
    expects: bool,
    expects_other: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, field: &httparse::Header<'a>, old: bool) -> Result<(), Refusal> {
        let name = field.name;
        let value = field.value;
        // The length decides before the letters do: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                let another = self.host.replace(value);
                refuse_if(another.is_some(), "a request has one `Host` field")?;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects = true;
                self.expects_other |= !value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case("upgrade") => {
                self.upgrade |= !asks_for_h2c(value);
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    self.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let another = self.length.replace(length(value)?);
                refuse_if(another.is_some(), "two `Content-Length` fields")?;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                refuse_if(old, "`Transfer-Encoding` in HTTP/1.0")?;
                let other = self.chunked || !value.eq_ignore_ascii_case(b"chunked");
                refuse_if(other, "`Transfer-Encoding` other than `chunked`")?;
                self.chunked = true;
            }
            _ => {}
        }
        self.switches = self.upgrade && self.connection_upgrade;
        Ok(())
    }
}

fn refuse_if(wrong: bool, detail: &'static str) -> Result<(), Refusal> {
    if wrong { Err(Refusal::framing(detail)) } else { Ok(()) }
}

/// HTTP/2 is spoken from the first byte or not at all, so this is an ordinary request
/// (RFC 9113, section 3.1). The field is removed before anyone else sees it.
#[must_use]
pub fn asks_for_h2c(upgrade: &[u8]) -> bool {
    upgrade.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    let number = digits.then(|| std::str::from_utf8(value).ok()).flatten();
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Refusal::framing("`Content-Length` is not one decimal number"))
}

fn check_method(method: &str) -> Result<(), Refusal> {
    let refused = |detail| Err(Refusal::new(Code::NotImplemented, detail));
    match method {
        "CONNECT" => refused("this is not a forward proxy"),
        "TRACE" => refused("`TRACE` is not answered here"),
        _ if method.len() <= 24
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') =>
        {
            Ok(())
        }
        _ => Err(Refusal::framing("the method is malformed")),
    }
}

/// Checks the form of the target; gives the authority of an absolute one.
fn check_target<'a>(
    method: &str,
    target: &'a str,
    bounds: &Bounds,
) -> Result<Option<&'a [u8]>, Refusal> {
    let malformed = || Refusal::framing("the request target is malformed");
    if target.len() > bounds.target_bytes_max {
        return Err(too_long());
    }
    let bytes = target.as_bytes();
    if bytes.first() == Some(&b'/') {
        return if is_path_and_query(bytes) { Ok(None) } else { Err(malformed()) };
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(None) } else { Err(malformed()) };
    }
    let scheme_end = target.find("://").ok_or_else(malformed)?;
    let (scheme, rest) = (&target[..scheme_end], &bytes[scheme_end + 3..]);
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !known || !is_authority(authority) || !is_path_and_query(path) {
        return Err(malformed());
    }
    Ok(Some(authority))
}

/// Characters of RFC 3986 and the three that browsers leave unescaped in queries; an escape
/// is complete.
fn is_path_and_query(bytes: &[u8]) -> bool {
    let kind = |byte: &u8| IN_TARGETS[usize::from(*byte)];
    let is_escape = |at: usize| match &bytes[at + 1..] {
        [high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    };
    // Most have no escape.
    bytes.iter().all(|byte| kind(byte) == USUAL)
        || (bytes.iter().all(|byte| kind(byte) != REFUSED)
            && memchr_iter(b'%', bytes).all(is_escape))
}

/// What a byte is in a path or query: one of its characters, the begin of an escape, or refused.
const USUAL: u8 = 0;
const ESCAPE: u8 = 1;
const REFUSED: u8 = 2;
const IN_TARGETS: [u8; 256] = in_targets();

const fn in_targets() -> [u8; 256] {
    let mut kinds = [REFUSED; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        kinds[byte as usize] = match byte {
            b'%' => ESCAPE,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'?' | b'-' | b'.' | b'_' | b'~' => {
                USUAL
            }
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => USUAL,
            b':' | b'@' | b'[' | b']' | b'|' => USUAL,
            _ => REFUSED,
        };
        byte += 1;
    }
    kinds
}

/// A host and an optional port (RFC 3986, section 3.2), without user information or escapes.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = if bytes.first() == Some(&b'[') {
        let Some(end) = memchr(b']', bytes) else { return false };
        let address = std::str::from_utf8(&bytes[1..end]).ok();
        if address.and_then(|text| text.parse::<std::net::Ipv6Addr>().ok()).is_none() {
            return false;
        }
        (&bytes[..=end], &bytes[end + 1..])
    } else {
        let end = memchr(b':', bytes).unwrap_or(bytes.len());
        (&bytes[..end], &bytes[end..])
    };
    let name = host.first() == Some(&b'[') || host.iter().all(|byte| IN_HOST[usize::from(*byte)]);
    let port = match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    };
    !host.is_empty() && host.len() <= 255 && name && port
}

/// Whether `text` is a host without a port.
#[must_use]
pub fn is_host(text: &str) -> bool {
    is_authority(text.as_bytes()) && (text.starts_with('[') || !text.contains(':'))
}

/// Letters, digits and the three marks that names have.
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0, |number: u16, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u16::try_from(digit).ok()?)
    });
    !digits.is_empty() && number.is_some()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
        || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}
