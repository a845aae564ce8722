//! CBOR of values as clients write and read them (RFC 8949 with JavaScript's view of numbers).
//!
//! Invariant: nothing here panics, recurses or allocates beyond bounds, whatever the bytes: [`scan`] reads every
//! item to its end first, iteratively, refusing more than [`DEPTH_MAX`] levels; only what it accepted is walked
//! again. Bytes that need no change are not copied.
//! Not here: typed values; the actor's codec decodes what passed here.

mod bignum;
pub(crate) mod from_json;
pub(crate) mod json;
pub(crate) mod rewrite;
mod scan;

pub(crate) use scan::{field, scan, whole};

/// Deepest nesting accepted, tags included. Also `serde_json`'s own limit.
pub(crate) const DEPTH_MAX: usize = 128;

/// Largest integer that JavaScript's numbers hold exactly: 2^53 - 1.
pub(crate) const SAFE_MAX: u64 = (1 << 53) - 1;

pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;
pub(crate) const SIMPLE: u8 = 7;

pub(crate) const UNDEFINED: u8 = 0xf7;
pub(crate) const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;
const FLOAT64: u8 = 0xfb;

/// Tags of values that JSON does not have.
pub(crate) mod tag {
    pub(crate) const DATE_TEXT: u64 = 0;
    pub(crate) const DATE_EPOCH: u64 = 1;
    pub(crate) const BIGNUM: u64 = 2;
    pub(crate) const BIGNUM_NEGATIVE: u64 = 3;
    /// A typed array of unsigned bytes.
    pub(crate) const UINT8_ARRAY: u64 = 64;
    pub(crate) const SET: u64 = 258;
    pub(crate) const MAP: u64 = 259;
}

/// Why bytes are not the CBOR they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CborError {
    #[error("CBOR ends early, at byte {at}")]
    Short { at: usize },
    #[error("byte {at} begins no CBOR item")]
    Malformed { at: usize },
    #[error("CBOR is nested more than {DEPTH_MAX} deep at byte {at}")]
    Depth { at: usize },
    #[error("{extra} bytes after the end of the CBOR item")]
    Trailing { extra: usize },
    #[error("text at byte {at} is not UTF-8")]
    Utf8 { at: usize },
    #[error("not a CBOR map")]
    NoMap,
    #[error("the value behind the marker {marker} is not what it says")]
    Marker { marker: &'static str },
    #[error("an integer of {len} bytes, at most {} are allowed", bignum::BYTES_MAX)]
    Bignum { len: usize },
}

/// The first bytes of an item: what it is, and its argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) major: u8,
    /// The low five bits; 31 is an indefinite length or a break.
    pub(crate) info: u8,
    pub(crate) argument: u64,
    /// Where the content begins.
    pub(crate) next: usize,
}

impl Head {
    pub(crate) fn indefinite(self) -> bool {
        self.info == 31
    }

    /// Reads the head at `at`.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Result<Self, CborError> {
        let short = CborError::Short { at: bytes.len() };
        let Some(&first) = bytes.get(at) else {
            return Err(short);
        };
        let (major, info) = (first >> 5, first & 31);
        let width = match info {
            0..24 | 31 => 0,
            24..28 => 1usize << (info - 24),
            _ => return Err(CborError::Malformed { at }),
        };
        let next = at + 1 + width;
        let Some(tail) = bytes.get(at + 1..next) else {
            return Err(short);
        };
        let argument = if width == 0 {
            u64::from(info)
        } else {
            tail.iter().fold(0, |value, &b| value << 8 | u64::from(b))
        };
        Ok(Self {
            major,
            info,
            argument,
            next,
        })
    }

    /// The bytes of a definite string whose head this is. Empty past the end, which a scan has excluded.
    pub(crate) fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let len = usize::try_from(self.argument).unwrap_or(usize::MAX);
        bytes
            .get(self.next..self.next.saturating_add(len))
            .unwrap_or_default()
    }
}

/// Writes a head in its shortest form.
pub(crate) fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    // Each cast is exact: the range pattern bounds the value.
    match argument {
        0..24 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

/// Writes a text string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a byte string.
pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a number of JavaScript: as an integer when it is a safe one, for typed actors take integers only from
/// integers; else as a float.
pub(crate) fn number(out: &mut Vec<u8>, value: f64) {
    match as_integer(value) {
        Some(integer) if integer < 0 => head(out, NEGATIVE, !integer as u64),
        Some(integer) => head(out, UNSIGNED, integer as u64),
        None => float64(out, value),
    }
}

fn float64(out: &mut Vec<u8>, value: f64) {
    out.push(FLOAT64);
    out.extend_from_slice(&value.to_be_bytes());
}

/// The integer a float stands for, when it is safe and not a negative zero.
fn as_integer(value: f64) -> Option<i64> {
    let safe = value.fract() == 0.0 && value.abs() <= SAFE_MAX as f64;
    (safe && !(value == 0.0 && value.is_sign_negative())).then_some(value as i64)
}

/// The value of an integer head: its sign and magnitude fit an `i128`.
fn integer(head: Head) -> i128 {
    match head.major {
        NEGATIVE => -1 - i128::from(head.argument),
        _ => i128::from(head.argument),
    }
}

/// Whether JavaScript's numbers hold this integer exactly.
fn is_safe(value: i128) -> bool {
    value.unsigned_abs() <= u128::from(SAFE_MAX)
}
