//! Frames that nobody wrote: whatever comes, it is read or refused, and the reading ends.
//!
//! `CROSSTOWN_FUZZ_SECONDS` says for how long, a second unless told otherwise; the seed is
//! printed, and taken from `CROSSTOWN_FUZZ_SEED`.

use protocol::client::{Commands, EmulationRequest, Encoding, Unreadable};
use std::time::{Duration, Instant};

/// A frame of each kind, to begin with.
const JSON: &[&str] = &[
    r#"{"id":1,"connect":{"token":"t","data":{"a":[1,2.5e3,null]},"subs":{"c":{"recover":true,"epoch":"e","offset":7}},"name":"js"}}"#,
    r#"{"id":2,"subscribe":{"channel":"room:1","token":"x","recover":true,"epoch":"é\u0000","offset":18446744073709551615,"delta":"fossil","flag":3}}"#,
    r#"{"id":3,"publish":{"channel":"c","data":"\ud83e\udd80"}}"#,
    r#"{"id":4,"history":{"channel":"c","limit":-1,"since":{"offset":1,"epoch":"e"},"reverse":true}}"#,
    "{\"id\":5,\"rpc\":{\"method\":\"m\",\"data\":{}}}\n{\"id\":6,\"ping\":{}}\n{}\n",
    r#"{"id":7,"subscribe":{"channel":"state:tenant:self","type":1,"phase":2,"cursor":"k","limit":-1,"epoch":"e","offset":9}}"#,
    r#"{"id":8,"publish":{"channel":"c","type":1,"key":"k","removed":true}}"#,
    r#"{"send":{"data":[[[[[[[[[[]]]]]]]]]]}}"#,
];
const PROTOBUF: &[&[u8]] = &[
    b"\x1b\x08\x01\x22\x17\x0a\x01t\x12\x01\xff\x22\x02js*\x0152\x06\x0a\x01a\x12\x01b8\x07",
    b"#\x08\x02*\x1f\x0a\x01c\x12\x01s\x18\x012\x01e8\xac\x02B\x01xH\x01P\x01X\x01b\x06fossil",
    b"\x11\x08\x04:\x0d\x0a\x01c\x12\x08{\x22n\x22: 1}",
    b"\x1b\x08\x05R\x17\x0a\x01c8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01B\x05\x08\x09\x12\x01eH\x01",
    b"\x0a\x08\x0cz\x06\x0a\x01c\x12\x01t",
    b"\x1a\x08\r*\x16\n\x01c2\x01e8\x07p\x01x\x01\x80\x01\x02\x8a\x01\x01k\x90\x01d",
    b"\x0e\x08\x0e:\n\n\x01c\x18\x01\x22\x01k(\x01",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 8) as usize % bound.max(1)
    }

    /// Changes a frame as faults and attackers do: bits, bytes, cuts, repeats, and parts of others.
    fn change(&mut self, frame: &mut Vec<u8>, others: &[&[u8]]) {
        const TELLING: &[&[u8]] = &[
            b"\xff", b"\x00", b"\x80", b"{", b"}", b"[", b"\"", b"\\u", b"\n", b":", b"-",
            b"1e9999",
        ];
        for _ in 0..1 + self.below(4) {
            let at = self.below(frame.len() + 1);
            let to = (at + self.below(12)).min(frame.len());
            match self.below(6) {
                0 if at < frame.len() => frame[at] ^= 1 << self.below(8),
                1 => frame.truncate(at),
                2 => drop(frame.splice(at..to, TELLING[self.below(TELLING.len())].iter().copied())),
                3 => {
                    let again = frame[at..to].repeat(1 + self.below(40));
                    drop(frame.splice(at..at, again));
                }
                4 => {
                    let other = others[self.below(others.len())];
                    let from = self.below(other.len());
                    drop(frame.splice(at..to, other[from..].iter().copied()));
                }
                _ => drop(frame.drain(at..to)),
            }
        }
        frame.truncate(64 * 1024);
    }
}

fn fuzz(encoding: Encoding, seeds: &[&[u8]]) {
    let told = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = told("CROSSTOWN_FUZZ_SECONDS").unwrap_or(1);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    let seed = told("CROSSTOWN_FUZZ_SEED").unwrap_or(now);
    println!("CROSSTOWN_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut read, mut refused) = (0_u64, 0_u64);
    while Instant::now() < until {
        let mut frame = seeds[random.below(seeds.len())].to_vec();
        random.change(&mut frame, seeds);
        let _ = EmulationRequest::read(encoding, &frame);
        let Ok(commands) = Commands::of(encoding, &frame) else {
            refused += 1;
            continue;
        };
        let mut count = 0;
        let mut ended = false;
        for command in commands {
            assert!(!ended, "it goes on after what cannot be read");
            count += 1;
            assert!(count <= frame.len() + 1, "more commands than bytes");
            match command {
                Ok(command) => {
                    read += 1;
                    assert!(command.requests() <= 12);
                }
                Err(Unreadable::Data { .. }) => refused += 1,
                Err(Unreadable::Message) => (refused, ended) = (refused + 1, true),
            }
        }
    }
    println!("{read} commands read, {refused} frames refused");
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn json_frames() {
    let seeds: Vec<&[u8]> = JSON.iter().map(|text| text.as_bytes()).collect();
    fuzz(Encoding::Json, &seeds);
}

#[test]
fn protobuf_frames() {
    fuzz(Encoding::Protobuf, PROTOBUF);
}
