//! How one input becomes another: small damage, lengths that lie, pieces of others.

use rand::Rng;
use rand::rngs::StdRng;

/// Bytes at which formats change their minds: heads of CBOR and BARE, ends of JSON strings and numbers, escapes of URLs.
const TELLING: &[u8] = &[
    0x00, 0x01, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x3b, 0x40, 0x5b, 0x5f, 0x60, 0x7b, 0x7f, 0x80,
    0x81, 0x9b, 0x9f, 0xa0, 0xa1, 0xbb, 0xbf, 0xc0, 0xc2, 0xc3, 0xd8, 0xf4, 0xf6, 0xf7, 0xf9, 0xfa, 0xfb,
    0xfe, 0xff, b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'%', b'/', b'&', b'=', b'$', b'@', b'-',
    b'e', b'.',
];

/// Texts that mean something to one of the decoders.
const WORDS: &[&[u8]] = &[
    b"$BigInt",
    b"$Uint8Array",
    b"$ArrayBuffer",
    b"$Undefined",
    b"$Set",
    b"$$",
    b"null",
    b"1e999",
    b"-0",
    b"\\ud800",
    b"%00",
    b"%zz",
    b"%c3%28",
    b"rvt-",
    b"rvt-namespace=",
    b"rvt-method=getOrCreate",
    b"rvt-key=",
    b"/gateway/",
    b"ActionRequest",
    b"SubscriptionRequest",
    b"{\"body\":",
    b"\"args\":",
    b"18446744073709551616",
];

/// Changes `input` in one to eight places.
pub(crate) fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut StdRng) {
    for _ in 0..1 << rng.random_range(0..4) {
        once(input, pool, rng);
    }
}

fn once(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let run = rng.random_range(1..=(input.len() - at).clamp(1, 32));
    let end = (at + run).min(input.len());
    match rng.random_range(0..10) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 if at < input.len() => input[at] = TELLING[rng.random_range(0..TELLING.len())],
        3 => input.insert(at, TELLING[rng.random_range(0..TELLING.len())]),
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].to_vec();
            let times = rng.random_range(1..=16);
            drop(input.splice(at..at, piece.repeat(times)));
        }
        6 => {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            drop(input.splice(at..at, word.iter().copied()));
        }
        7 => {
            // A length or a number, of any width and order.
            let value: u64 = match rng.random_range(0..4) {
                0 => rng.random_range(0..300),
                1 => u64::MAX >> rng.random_range(0..64),
                2 => 1 << rng.random_range(0..64),
                _ => input.len() as u64,
            };
            let width = 1 << rng.random_range(0..4);
            let bytes = match rng.random::<bool>() {
                true => value.to_le_bytes()[..width].to_vec(),
                false => value.to_be_bytes()[8 - width..].to_vec(),
            };
            let over = (at + width).min(input.len());
            drop(input.splice(at..over, bytes));
        }
        8 => {
            let other = &pool[rng.random_range(0..pool.len())];
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => input.truncate(at),
    }
}
