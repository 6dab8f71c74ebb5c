//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says first ("The
//! PROXY protocol", HAProxy Technologies, 2020).
//!
//! Stricter than the text where that leaves a choice: one space between words, numbers without
//! leading zeros, TCP only, and a length that is bounded. What comes behind the addresses of
//! version 2 is passed over, its checksum included: TCP has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses of version 2; version 1 has 15 at least.
const HEAD_BYTES: usize = 16;
/// Bytes of a line of version 1 (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// Bytes behind the head of version 2 that are taken.
const REST_BYTES_MAX: usize = 2048;

/// From where the connection comes that a proxy passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From this address.
    Address(IpAddr),
    /// From the proxy itself, or from somewhere that it does not tell.
    Unknown,
}

/// How far the header is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Whole(Source),
    /// So many bytes are missing.
    Missing(usize),
    /// The rest of a line is missing.
    Line,
}

/// It is no header, or not one that we take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY header is malformed: {0}")]
pub(crate) struct Malformed(&'static str);

/// Reads the header of a connection, and not a byte more.
///
/// # Errors
/// The socket's; `InvalidData` if there is no valid header.
pub(crate) async fn read(socket: &mut TcpStream) -> std::io::Result<Source> {
    let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let mut header = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        let more = match progress(&header).map_err(invalid)? {
            Progress::Whole(source) => return Ok(source),
            Progress::Missing(count) => count,
            Progress::Line => {
                let mut ahead = [0; LINE_BYTES_MAX];
                let count = socket.peek(&mut ahead).await?;
                match ahead[..count].iter().position(|byte| *byte == b'\n') {
                    Some(end) => end + 1,
                    // All of it belongs to the line; at the end of the connection, one byte more
                    // does not come.
                    None => count.max(1),
                }
            }
        };
        let had = header.len();
        header.resize(had + more, 0);
        socket.read_exact(&mut header[had..]).await?;
    }
}

/// What the first bytes of a connection say. Given bytes as it asks for them, it is never given
/// one that is not of the header.
fn progress(bytes: &[u8]) -> Result<Progress, Malformed> {
    let first = bytes.len().min(SIGNATURE.len());
    if bytes[..first] == SIGNATURE[..first] && first > 0 {
        return version_2(bytes);
    }
    let word = bytes.len().min(6);
    if bytes[..word] != b"PROXY "[..word] {
        return Err(Malformed("it begins with neither signature"));
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 == bytes.len() && bytes.len() <= LINE_BYTES_MAX => {
            let line = bytes.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
            version_1(line.ok_or(Malformed("the line does not end as it should"))?)
                .map(Progress::Whole)
        }
        Some(_) => Err(Malformed("the line has the wrong length")),
        None if bytes.len() >= LINE_BYTES_MAX => Err(Malformed("the line is too long")),
        // Nothing is shorter, in either version.
        None if bytes.len() < HEAD_BYTES - 1 => Ok(Progress::Missing(HEAD_BYTES - 1 - bytes.len())),
        None => Ok(Progress::Line),
    }
}

fn version_1(line: &str) -> Result<Source, Malformed> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        // What follows is to be ignored.
        ["PROXY", "UNKNOWN", ..] => Ok(Source::Unknown),
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ip = |text: &str| match family {
                "TCP4" => text.parse().ok().map(IpAddr::V4),
                _ => text.parse().ok().map(IpAddr::V6),
            };
            let (Some(from), Some(_)) = (ip(from), ip(to)) else {
                return Err(Malformed("an address cannot be read"));
            };
            if ![from_port, to_port].into_iter().all(is_port) {
                return Err(Malformed("a port cannot be read"));
            }
            Ok(Source::Address(from.to_canonical()))
        }
        _ => Err(Malformed("it is not five words of TCP4 or TCP6")),
    }
}

fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Result<Progress, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(Progress::Missing(HEAD_BYTES - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > REST_BYTES_MAX {
        return Err(Malformed("it is longer than is taken"));
    }
    if rest.len() < length {
        return Ok(Progress::Missing(length - rest.len()));
    }
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("its version or command is unknown")),
    };
    // Family and transport: addresses and ports of both ends, then what else there is.
    let (addresses, source) = match head[13] {
        0x00 => (0, Source::Unknown),
        0x11 => (12, rest.first_chunk().map_or(Source::Unknown, v4)),
        0x21 => (36, rest.first_chunk().map_or(Source::Unknown, v6)),
        // A path on the proxy's own machine.
        0x31 => (216, Source::Unknown),
        _ => return Err(Malformed("it is not of TCP")),
    };
    let Some(mut more) = rest.get(addresses..) else {
        return Err(Malformed("its addresses are missing"));
    };
    // Of an unknown family, nothing is known of the rest either.
    while addresses > 0 && !more.is_empty() {
        let Some(([_, high, low], value)) = more.split_first_chunk() else {
            return Err(Malformed("a vector is cut short"));
        };
        more = value
            .get(usize::from(u16::from_be_bytes([*high, *low]))..)
            .ok_or(Malformed("a vector is cut short"))?;
    }
    Ok(Progress::Whole(if is_local { Source::Unknown } else { source }))
}

fn v4(bytes: &[u8; 4]) -> Source {
    Source::Address(Ipv4Addr::from(*bytes).into())
}

fn v6(bytes: &[u8; 16]) -> Source {
    Source::Address(IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` as they are asked for; whether any is left.
    fn read(bytes: &[u8]) -> Result<(Source, bool), Malformed> {
        let mut at = 0;
        loop {
            let more = match progress(&bytes[..at])? {
                Progress::Whole(source) => return Ok((source, at < bytes.len())),
                Progress::Missing(count) => count,
                Progress::Line => {
                    let end = bytes[at..].iter().position(|byte| *byte == b'\n');
                    end.map_or(bytes.len() - at, |end| end + 1)
                }
            };
            if more == 0 || at + more > bytes.len() {
                return Err(Malformed("it ended early"));
            }
            at += more;
        }
    }

    fn from(ip: &str) -> Option<Source> {
        Some(Source::Address(ip.parse().unwrap()))
    }

    #[test]
    fn lines_of_version_1() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
        assert_eq!(long.len(), LINE_BYTES_MAX);
        let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
        for (line, expected) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", from("203.0.113.7")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", from("255.255.255.255")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 56324 0\r\n", from("2001:db8::7")),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", from("203.0.113.7")),
            ("PROXY UNKNOWN\r\n", Some(Source::Unknown)),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Some(Source::Unknown)),
            (&long, Some(Source::Unknown)),
            (&too_long, None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\n", None),
            ("PROXY TCP4  203.0.113.7 192.0.2.1 56324 443\r\n", None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 \r\n", None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n", None),
            ("PROXY TCP4 203.0.113.07 192.0.2.1 56324 443\r\n", None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 056324 443\r\n", None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n", None),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 +1 443\r\n", None),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", None),
            ("PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n", None),
            ("PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n", None),
            ("PROXY TCP4 a b 1 2 aaaaaaaa\r\n", None),
            ("proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n", None),
            ("PROXYTCP4 203.0.113.7 192.0.2.1 1 2\r\n", None),
            ("PROXY TCP4 203.0.113.7", None),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("", None),
        ] {
            let followed = format!("{line}GET / HTTP/1.1\r\n");
            let read = read(followed.as_bytes());
            assert_eq!(read.ok(), expected.map(|source| (source, true)), "{line}");
        }
    }

    fn header(command: u8, family: u8, length: usize, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [203, 0, 113, 7, 192, 0, 2, 1, 0xdb, 0xe4, 1, 0xbb];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let with = |tail: &[u8]| [&v4[..], tail].concat();
        let exact = |command, family, rest: &[u8]| header(command, family, rest.len(), rest);
        for (bytes, expected) in [
            (exact(0x21, 0x11, &v4), from("203.0.113.7")),
            (exact(0x21, 0x21, &v6), from("2001:db8::7")),
            // ALPN, and a checksum that nobody looks at.
            (exact(0x21, 0x11, &with(b"\x01\0\x02h2\x03\0\x04abcd")), from("203.0.113.7")),
            (exact(0x21, 0x11, &with(&[0xee, 0, 0])), from("203.0.113.7")),
            (exact(0x21, 0x11, &with(&[1, 0, 3, 0, 0])), None),
            (exact(0x21, 0x11, &with(&[1, 0])), None),
            (exact(0x20, 0x11, &v4), Some(Source::Unknown)),
            (exact(0x20, 0x00, &[]), Some(Source::Unknown)),
            (exact(0x21, 0x00, b"anything"), Some(Source::Unknown)),
            (exact(0x21, 0x31, &[0; 216]), Some(Source::Unknown)),
            (exact(0x21, 0x11, &v4[..11]), None),
            (exact(0x21, 0x21, &v4), None),
            (exact(0x21, 0x12, &v4), None),
            (exact(0x21, 0x22, &v6), None),
            (exact(0x22, 0x11, &v4), None),
            (exact(0x11, 0x11, &v4), None),
            (
                exact(0x21, 0x11, &[&v4[..], &[0xee, 7, 0xf1], &[0; 2033]].concat()),
                from("203.0.113.7"),
            ),
            (header(0x21, 0x11, REST_BYTES_MAX + 1, &v4), None),
        ] {
            let followed = [&bytes[..], b"GET /"].concat();
            assert_eq!(read(&followed).ok(), expected.map(|source| (source, true)), "{bytes:?}");
        }
        let whole = exact(0x21, 0x11, &v4);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err());
        }
        assert_eq!(read(&whole).unwrap().0, Source::Address("203.0.113.7".parse().unwrap()));
    }
}
