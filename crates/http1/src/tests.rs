use super::*;
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use std::{
    io::IoSlice,
    task::{Context, Poll, Waker},
};

const BOUNDS: Bounds = Bounds {
    target_bytes_max: 8192,
    header_bytes_max: 8192,
    is_forbidden_trailer: |name| name.eq_ignore_ascii_case("content-length"),
};

/// A request that was found: its method and target, its body, and whether that came whole.
type Found = (String, Vec<u8>, bool);

/// The requests in `bytes` that come in pieces of `size`, and why the last was refused.
fn requests(bytes: &[u8], size: usize) -> (Vec<Found>, Option<Refusal>) {
    let mut requests = Requests::new(BOUNDS);
    let mut body = Decoder::EMPTY;
    let mut found: Vec<Found> = Vec::new();
    for piece in bytes.chunks(size) {
        let mut ahead = Bytes::copy_from_slice(piece);
        while !ahead.is_empty() {
            if body.is_end() {
                match requests.next(&std::mem::take(&mut ahead)) {
                    Ok(None) => {}
                    Ok(Some((head, rest))) => {
                        let line = format!("{} {}", head.parts.method, head.parts.uri);
                        (body, ahead) = (head.body, rest);
                        found.push((line, Vec::new(), body.is_end()));
                        if head.switches {
                            return (found, None);
                        }
                    }
                    Err(refusal) => return (found, Some(refusal)),
                }
                continue;
            }
            let last = found.last_mut().expect("a body follows a head");
            match body.next(&mut ahead) {
                Ok(data) => last.1.extend_from_slice(&data.unwrap_or_default()),
                Err(refusal) => return (found, Some(refusal)),
            }
            last.2 = body.is_end();
        }
    }
    (found, None)
}

fn found(line: &str, body: &[u8]) -> Found {
    (line.to_owned(), body.to_vec(), true)
}

#[test]
fn requests_are_found_however_they_are_cut() {
    let bytes = b"GET /a?b=%20 HTTP/1.1\r\nhost: a\r\n\r\n\
        POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
        POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
        GET http://a/ HTTP/1.1\r\nHost: A\r\n\r\n";
    let expected = [
        found("GET /a?b=%20", b""),
        found("POST /", b"abc"),
        found("POST /c", b"abcde"),
        found("GET http://a/", b""),
    ];
    for size in 1..=bytes.len() {
        assert_eq!(requests(bytes, size), (expected.to_vec(), None), "pieces of {size}");
    }
}

#[test]
fn extensions_trailers_and_one_blank_line_are_dropped() {
    let bytes = b"\r\nPOST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        3;name=\"v\"\r\nabc\r\n0;x\r\nx-sum: 1\r\nx-b: 2\r\n\r\n";
    for size in 1..=bytes.len() {
        assert_eq!(requests(bytes, size), (vec![found("POST /", b"abc")], None));
    }
}

#[test]
fn a_body_that_breaks_is_never_whole_and_nothing_follows_it() {
    let good = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for bad in [
        &b"3\r\nabcX\r\n0\r\n\r\n"[..],
        b"3\r\nabc\r\n0\r\ncontent-length: 1\r\n\r\n",
        b"3\r\nabc\r\n0\r\nx_y: 1\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"00000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\n",
    ] {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let bytes = [&good[..], head, bad, good].concat();
        for size in 1..=bytes.len() {
            let (found, refusal) = requests(&bytes, size);
            assert!(refusal.is_some(), "{bad:?} in pieces of {size}");
            assert_eq!(found.len(), 2);
            assert!(!found[1].2);
            assert!(b"abc".starts_with(&found[1].1[..]));
        }
    }
}

#[test]
fn nothing_after_a_request_for_another_protocol_is_looked_at() {
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let smuggled = b"GET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    let both = [&head[..], &smuggled[..]].concat();
    let (head, rest) = Requests::new(BOUNDS).next(&both).unwrap().unwrap();
    assert!(head.switches);
    assert_eq!(rest, &smuggled[..]);
}

#[test]
fn who_keeps_the_connection_is_known() {
    for (line, fields, keeps) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "connection: x, Close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "connection: Keep-Alive\r\n", true),
    ] {
        let bytes = format!("GET / {line}\r\nhost: a\r\n{fields}\r\n");
        let (head, _) = Requests::new(BOUNDS).next(bytes.as_bytes()).unwrap().unwrap();
        assert_eq!(head.keeps_alive, keeps, "{line} {fields}");
    }
}

#[test]
fn random_bytes_never_panic_and_never_pass() {
    let mut seed: u64 = 7;
    let alphabet = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n0;3\x00\n \tchunked:";
    for _ in 0..20_000 {
        let mut bytes =
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..40 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
        }
        let (whole, refused) = requests(&bytes, bytes.len());
        let (pieces, also) = requests(&bytes, 1);
        assert_eq!((whole.len(), refused.is_some()), (pieces.len(), also.is_some()));
        let (whole, pieces) = (&whole[0].1, &pieces[0].1);
        assert!(pieces.starts_with(whole) || whole.starts_with(pieces));
    }
}

/// The response that `bytes`, in pieces of `size`, begin with, its body, and what follows; an
/// error if it is none or not whole.
fn response(bytes: &[u8], size: usize, asked: &Method) -> Result<(u16, Vec<u8>, bool), String> {
    let mut responses = Responses::default();
    let mut head: Option<ResponseHead> = None;
    let mut data = Vec::new();
    for piece in bytes.chunks(size) {
        let mut ahead = Bytes::copy_from_slice(piece);
        while !ahead.is_empty() {
            let Some(head) = &mut head else {
                let next = responses.next(&std::mem::take(&mut ahead), asked);
                if let Some((found, rest)) = next.map_err(|error| error.to_string())? {
                    (head, ahead) = (Some(found), rest);
                }
                continue;
            };
            if head.body.is_end() {
                return Err("bytes behind the end".to_owned());
            }
            let next = head.body.next(&mut ahead).map_err(|error| error.to_string())?;
            data.extend_from_slice(&next.unwrap_or_default());
        }
    }
    let head = head.ok_or("no head")?;
    if !head.body.is_end() && !matches!(head.body, Decoder::Close) {
        return Err("not whole".to_owned());
    }
    Ok((head.parts.status.as_u16(), data, head.keeps_alive))
}

#[test]
fn responses_end_where_their_heads_say() {
    let get = Method::GET;
    for (bytes, asked, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", &get, Some((200, "abc", true))),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", &get, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd", &get, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", &Method::HEAD, Some((200, "", true))),
        ("HTTP/1.1 304 \r\ncontent-length: 3\r\n\r\n", &get, Some((304, "", true))),
        ("HTTP/1.1 204 No Content\r\n\r\n", &get, Some((204, "", true))),
        ("HTTP/1.1 200 OK\r\n\r\nabc", &get, Some((200, "abc", false))),
        (
            "HTTP/1.1 200\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            &get,
            Some((200, "", false)),
        ),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", &get, Some((200, "", false))),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            &get,
            Some((200, "", true)),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
            &get,
            Some((200, "abc", true)),
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", &get, None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &get, None),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &get, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", &get, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na", &get, None),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            &get,
            None,
        ),
        ("HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", &get, None),
        ("HTTP/2 200\r\n\r\n", &get, None),
        ("garbage\r\n\r\n", &get, None),
    ] {
        let expected =
            expected.map(|(status, body, keeps)| (status, body.as_bytes().to_vec(), keeps));
        for size in 1..=bytes.len() {
            let found = response(bytes.as_bytes(), size, asked);
            assert_eq!(found.clone().ok(), expected, "{bytes:?} in pieces of {size}: {found:?}");
        }
    }
}

#[test]
fn what_a_response_says_of_its_connection_is_for_the_connection_alone() {
    for (said, left, keeps) in [
        ("keep-alive", None, true),
        ("Close", None, false),
        ("close , keep-alive", None, false),
        ("close, x-trace", Some("close, x-trace"), false),
        ("Upgrade", Some("Upgrade"), true),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\nconnection: {said}\r\ncontent-length: 0\r\n\r\n");
        let found = Responses::default().next(&Bytes::from(bytes), &Method::GET);
        let (head, _) = found.unwrap().unwrap();
        let held = head.parts.headers.get(http::header::CONNECTION);
        assert_eq!(held.map(|value| value.to_str().unwrap()), left, "{said}");
        assert_eq!((head.keeps_alive, head.parts.headers.len() > 1), (keeps, left.is_some()));
    }
}

/// What is written of a body of `pieces`, at most `room` bytes at a time.
fn sent(framed: Framed, pieces: &[&'static [u8]], room: usize) -> Result<Vec<u8>, SendError> {
    let frames = pieces.iter().map(|piece| Ok(http_body::Frame::data(Bytes::from_static(piece))));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    let mut sending = Sending::new(framed, body, |head, _| head.extend(b"head;"));
    let mut out = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let polled = sending.poll(&mut cx, |_, slices: &[IoSlice<'_>]| {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(room);
        out.extend_from_slice(&all[..taken]);
        Poll::Ready(Ok(taken))
    });
    match polled {
        Poll::Ready(Ok(())) => {
            assert_eq!(sending.written(), out.len() as u64);
            assert!(!sending.is_blocked());
            Ok(out)
        }
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => panic!("nothing is waited for"),
    }
}

#[test]
fn what_is_sent_is_what_the_head_says_however_little_the_socket_takes() {
    const LARGE: &[u8] = &[b'x'; 20_000];
    for room in [37, 9_000, usize::MAX] {
        let chunks = sent(Framed::Chunked, &[b"abc", b"", LARGE, b"d"], room).unwrap();
        let expected = [b"head;3\r\nabc\r\n4e20\r\n", LARGE, b"\r\n1\r\nd\r\n0\r\n\r\n"].concat();
        assert_eq!(chunks, expected);
        let length = sent(Framed::Length(20_003), &[b"abc", LARGE], room).unwrap();
        assert_eq!(length, [b"head;abc", LARGE].concat());
        let all = sent(Framed::Close, &[LARGE, b"abc"], room).unwrap();
        assert_eq!(all, [b"head;", LARGE, b"abc"].concat());
        let none = sent(Framed::Bodiless, &[b"abc"], room).unwrap();
        assert_eq!(none, b"head;");
    }
    let short = sent(Framed::Length(4), &[b"abc"], 9);
    assert!(matches!(short, Err(SendError::Length)));
    let long = sent(Framed::Length(2), &[b"abc"], 9);
    assert!(matches!(long, Err(SendError::Length)));
}

#[tokio::test]
async fn a_whole_body_is_one_piece() {
    let body = Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {});
    let mut sending = Sending::new(Framed::Length(3), body, |_, _| {});
    let mut writes = 0;
    let done = std::future::poll_fn(|cx| {
        sending.poll(cx, |_, slices| {
            writes += 1;
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        })
    });
    done.await.unwrap();
    assert_eq!(writes, 1);
}

#[test]
fn targets_are_of_the_characters_of_paths_and_queries_with_whole_escapes() {
    let passes = |target: &[u8]| {
        let request = [b"GET ", target, b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
        requests(&request, request.len()).1.is_none()
    };
    for byte in 0..=255_u8 {
        let in_paths = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?[]|".contains(&byte);
        assert_eq!(passes(&[b'/', byte]), in_paths, "{byte:#x}");
    }
    for (target, whole) in
        [("/%2f%AB?%7a", true), ("/%", false), ("/%2", false), ("/%2g", false), ("/%g2/%20", false)]
    {
        assert_eq!(passes(target.as_bytes()), whole, "{target}");
    }
    assert!(!passes(b"/%20\""), "an escape allows nothing else");
}
