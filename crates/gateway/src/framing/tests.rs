use super::*;

const BOUNDS: Bounds = Bounds { target_bytes_max: 8192, header_bytes_max: 8192 };

/// What is handed on when `bytes` come in pieces of `size`, and the refusal.
fn run(bytes: &[u8], size: usize) -> (Vec<u8>, u64, Option<(Refusal, Scope)>) {
    let mut framing = Framing::new(BOUNDS);
    let (mut out, mut heads) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let approved = framing.advance(piece);
        out.extend_from_slice(&approved.held);
        for range in &approved.ranges {
            out.extend_from_slice(&piece[range.clone()]);
        }
        heads += approved.heads;
        if approved.refusal.is_some() {
            return (out, heads, approved.refusal);
        }
    }
    (out, heads, None)
}

#[test]
fn well_framed_bytes_are_handed_on_whole_however_they_are_cut() {
    let bytes = b"GET /a?b=%20 HTTP/1.1\r\nhost: a\r\n\r\n\
        POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
        POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        GET http://a/ HTTP/1.1\r\nHost: A\r\n\r\n";
    for size in 1..bytes.len() + 1 {
        let (out, heads, refusal) = run(bytes, size);
        assert_eq!((out.as_slice(), heads, refusal), (&bytes[..], 4, None), "pieces of {size}");
    }
}

#[test]
fn extensions_trailers_and_one_blank_line_are_dropped() {
    let bytes = b"\r\nPOST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        3;name=\"v\"\r\nabc\r\n0;x\r\nx-sum: 1\r\nx-b: 2\r\n\r\n";
    let expected = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\n";
    for size in 1..bytes.len() + 1 {
        let (out, heads, refusal) = run(bytes, size);
        assert_eq!((out.as_slice(), heads, refusal), (&expected[..], 1, None), "pieces of {size}");
    }
}

#[test]
fn a_refused_message_is_withdrawn_unless_a_part_was_handed_on() {
    let good = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let bad = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX\r\n";
    let both = [&good[..], &bad[..]].concat();
    let (out, heads, refusal) = run(&both, both.len());
    assert_eq!((out.as_slice(), heads), (&good[..], 1));
    assert_eq!(refusal.unwrap().1, Scope::Whole);
    for size in 1..bad.len() - 4 {
        let (out, _, refusal) = run(bad, size);
        assert!(bad.starts_with(&out), "pieces of {size}");
        assert_eq!(refusal.unwrap().1, if out.is_empty() { Scope::Whole } else { Scope::Rest });
    }
}

#[test]
fn nothing_after_a_request_for_another_protocol_is_handed_on() {
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let smuggled = b"GET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    let both = [&head[..], &smuggled[..]].concat();
    let mut framing = Framing::new(BOUNDS);
    let approved = framing.advance(&both);
    assert_eq!(approved.ranges.as_slice(), std::slice::from_ref(&(0..head.len())));
    assert!(framing.is_closed());
    assert_eq!(framing.into_early(), smuggled);
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
        let (whole, ..) = run(&bytes, bytes.len());
        let (pieces, ..) = run(&bytes, 1);
        assert!(pieces.starts_with(&whole) || whole.starts_with(&pieces));
    }
}
