//! Answers made shorter on the way out (RFC 9110, section 8.4).

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use serde::{Deserialize, Serialize};
use soa::{Body, BoxError};
use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Brotli's effort, of 11: near gzip's cost, and shorter.
const BROTLI_QUALITY: u32 = 4;
/// 2 to this power is how far back Brotli looks.
const BROTLI_WINDOW: u32 = 20;
const BROTLI_BUFFER: usize = 4096;

/// Which answers of a route are compressed. A page that mixes secrets with what others may put
/// into it should not be (BREACH, 2013), so none is unless a route says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressConfig {
    /// Codings in the order of our preference: `br`, `gzip`. Default both.
    pub codings: Vec<Coding>,
    /// Bytes of a body of known length from which it is worth it. Default 1,024.
    pub bytes_min: u64,
    /// Media types; one that ends with `/*` takes all below it. Default text, JSON, XML,
    /// JavaScript and SVG.
    pub types: Vec<String>,
}

impl Default for CompressConfig {
    fn default() -> Self {
        let types = [
            "text/*",
            "application/json",
            "application/problem+json",
            "application/javascript",
            "application/xml",
            "image/svg+xml",
        ];
        Self {
            codings: vec![Coding::Br, Coding::Gzip],
            bytes_min: 1_024,
            types: types.map(str::to_owned).into(),
        }
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// What a client takes.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Option<Coding>);

impl CompressConfig {
    /// Takes out of a request what its client takes: the service is asked for the plain answer.
    pub(crate) fn accepted(&self, method: &Method, headers: &mut HeaderMap) -> Accepted {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let coding = self.choose(&accepted.join(","));
        headers.remove(header::ACCEPT_ENCODING);
        Accepted(coding.filter(|_| *method != Method::HEAD))
    }

    /// The first of our codings that the client takes at least as gladly as any other (RFC 9110,
    /// section 12.5.3).
    fn choose(&self, accepted: &str) -> Option<Coding> {
        let quality = |coding: Coding| {
            let mut any = 0;
            for item in accepted.split(',') {
                let (name, rest) = item.split_once(';').unwrap_or((item, ""));
                let quality = thousandths(rest.trim());
                match name.trim() {
                    name if name.eq_ignore_ascii_case(coding.as_str()) => return quality,
                    "*" => any = quality,
                    _ => {}
                }
            }
            any
        };
        let best = self.codings.iter().map(|coding| quality(*coding)).max()?;
        let mut codings = self.codings.iter().copied();
        codings.find(|coding| best > 0 && quality(*coding) == best)
    }

    /// Compresses an answer if it may be, and is worth it.
    pub(crate) fn apply(&self, accepted: &Accepted, answer: Response<Body>) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        if !self.fits(parts.status, &parts.headers, &body) {
            return Response::from_parts(parts, body);
        }
        parts.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let Accepted(Some(coding)) = accepted else { return Response::from_parts(parts, body) };
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::ACCEPT_RANGES);
        let name = HeaderValue::from_static(coding.as_str());
        parts.headers.insert(header::CONTENT_ENCODING, name);
        // It is the same thing, and not the same bytes.
        let tag = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(weak) = tag.filter(|tag| !tag.starts_with("W/")).map(|tag| format!("W/{tag}"))
            && let Ok(weak) = HeaderValue::from_str(&weak)
        {
            parts.headers.insert(header::ETAG, weak);
        }
        let encoder = Encoder::new(*coding);
        let boxed: soa::LocalBody = Box::pin(Compressed { body, encoder, unflushed: false });
        Response::from_parts(parts, Body::from(boxed))
    }

    fn fits(&self, status: StatusCode, headers: &HeaderMap, body: &Body) -> bool {
        let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.and_then(|media| media.split(';').next()).unwrap_or_default().trim();
        let named = |wanted: &String| match wanted.strip_suffix('*') {
            Some(family) => media.len() > family.len() && media.starts_with(family),
            None => media.eq_ignore_ascii_case(wanted),
        };
        let no_transform = headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            text.split(',').any(|directive| directive.trim() == "no-transform")
        });
        let hint = body.size_hint();
        status != StatusCode::PARTIAL_CONTENT
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !no_transform
            // Events come one by one, each too short.
            && media != "text/event-stream"
            && self.types.iter().any(named)
            && !body.is_end_stream()
            && hint.exact().is_none_or(|length| length >= self.bytes_min)
    }
}

/// `q=0.5` in thousandths; one without it.
fn thousandths(parameter: &str) -> u32 {
    let Some(text) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) else {
        return 1000;
    };
    let quality: f64 = text.trim().parse().unwrap_or(0.0);
    (quality.clamp(0.0, 1.0) * 1000.0) as u32
}

enum Encoder {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
    /// Everything was given out.
    Ended,
}

impl Encoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Br => Self::Br(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Br(writer) => {
                writer.write_all(data)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::Gzip(writer) => {
                writer.write_all(data)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::Ended => Ok(Bytes::new()),
        }
    }

    /// All that can be read of what was written.
    fn flush(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Br(writer) => writer.flush()?,
            Self::Gzip(writer) => writer.flush()?,
            Self::Ended => {}
        }
        self.write(&[])
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        match std::mem::replace(self, Self::Ended) {
            Self::Br(writer) => Ok(writer.into_inner().into()),
            Self::Gzip(writer) => Ok(writer.finish()?.into()),
            Self::Ended => Ok(Bytes::new()),
        }
    }
}

/// A body that is compressed as it comes; what has come is given out whenever nothing more is
/// there.
struct Compressed {
    body: Body,
    encoder: Encoder,
    unflushed: bool,
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if matches!(this.encoder, Encoder::Ended) {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            let written = match polled {
                Poll::Pending if this.unflushed => {
                    this.unflushed = false;
                    this.encoder.flush()
                }
                polled @ (Poll::Ready(_) | Poll::Pending) => match ready!(polled) {
                    Some(Ok(frame)) => {
                        let Some(data) = frame.data_ref() else { continue };
                        this.unflushed = true;
                        this.encoder.write(data)
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => this.encoder.finish(),
                },
            };
            match written {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.encoder, Encoder::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_that_the_client_likes_best_is_taken() {
        let both = CompressConfig::default();
        for (accepted, expected) in [
            ("", None),
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("gzip, br", Some(Coding::Br)),
            ("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip)),
            ("br;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("*", Some(Coding::Br)),
            ("*;q=0.5, br;q=0", Some(Coding::Gzip)),
            ("br;q=0, *;q=0", None),
            ("br;q=nonsense", None),
            ("deflate, zstd", None),
        ] {
            assert_eq!(both.choose(accepted), expected, "{accepted}");
        }
    }
}
