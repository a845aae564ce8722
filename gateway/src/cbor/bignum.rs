//! Integers beyond 64 bits: decimal text on one side, big-endian bytes on the other.
//!
//! Both ways are quadratic, so both are bounded by [`BYTES_MAX`].

use super::{BYTES, CborError, Head, NEGATIVE, TAG, TEXT, UNSIGNED, head, tag};

/// Longest integer converted: 8,192 bits.
pub(crate) const BYTES_MAX: usize = 1024;
/// Digits of the largest such integer.
const DIGITS_MAX: usize = 2467;

/// Writes the integer of a decimal text: the 8-byte form (a BigInt to the client) within 64 bits, a bignum beyond.
pub(crate) fn from_decimal(text: &str, out: &mut Vec<u8>) -> Result<(), CborError> {
    let bad = CborError::Marker { marker: "$BigInt" };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad);
    }
    if digits.len() > DIGITS_MAX {
        return Err(CborError::Bignum {
            len: digits.len() * 10 / 24,
        });
    }
    let mut magnitude = to_bytes(digits);
    if negative && magnitude.iter().any(|&b| b != 0) {
        // CBOR counts negative integers from -1.
        decrement(&mut magnitude);
    }
    let negative = negative && digits.bytes().any(|b| b != b'0');
    let magnitude = &magnitude[magnitude.iter().take_while(|&&b| b == 0).count()..];
    if magnitude.len() <= 8 {
        let mut wide = [0; 8];
        wide[8 - magnitude.len()..].copy_from_slice(magnitude);
        let major = if negative { NEGATIVE } else { UNSIGNED };
        out.push(major << 5 | 27);
        out.extend_from_slice(&wide);
        return Ok(());
    }
    let tag = if negative {
        tag::BIGNUM_NEGATIVE
    } else {
        tag::BIGNUM
    };
    head(out, TAG, tag);
    super::bytes(out, magnitude);
    Ok(())
}

/// The decimal text of a bignum's bytes.
pub(crate) fn to_decimal(bytes: &[u8], negative: bool) -> Result<String, CborError> {
    if bytes.len() > BYTES_MAX {
        return Err(CborError::Bignum { len: bytes.len() });
    }
    let mut magnitude = bytes.to_vec();
    if negative {
        increment(&mut magnitude);
    }
    // Least significant group of nine digits first.
    let mut groups: Vec<u32> = Vec::new();
    let mut start = 0;
    while start < magnitude.len() {
        let mut remainder: u64 = 0;
        for byte in &mut magnitude[start..] {
            let value = remainder << 8 | u64::from(*byte);
            // Exact: the remainder is below the divisor, so the quotient is below 256.
            *byte = (value / 1_000_000_000) as u8;
            remainder = value % 1_000_000_000;
        }
        groups.push(remainder as u32);
        start += magnitude[start..].iter().take_while(|&&b| b == 0).count();
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let mut groups = groups.into_iter().rev().skip_while(|&group| group == 0);
    text.push_str(&groups.next().unwrap_or(0).to_string());
    for group in groups {
        text.push_str(&format!("{group:09}"));
    }
    Ok(text)
}

/// The byte string at `at`, if there is a definite one: what a bignum consists of.
pub(crate) fn content_of(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let head = Head::read(bytes, at).ok()?;
    (head.major == BYTES && !head.indefinite()).then(|| head.content(bytes))
}

/// The text at `at`, if there is a definite one.
pub(crate) fn text_of(bytes: &[u8], at: usize) -> Option<&str> {
    let head = Head::read(bytes, at).ok()?;
    if head.major != TEXT || head.indefinite() {
        return None;
    }
    std::str::from_utf8(head.content(bytes)).ok()
}

/// Big-endian bytes of decimal digits, perhaps with zeroes in front.
fn to_bytes(digits: &str) -> Vec<u8> {
    // log2(10) / 8 < 0.416 bytes a digit.
    let mut bytes = vec![0u8; digits.len() * 416 / 1000 + 1];
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            let value = u16::from(*byte) * 10 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
    }
    bytes
}

fn decrement(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().rev() {
        let (value, borrow) = byte.overflowing_sub(1);
        *byte = value;
        if !borrow {
            return;
        }
    }
}

fn increment(bytes: &mut Vec<u8>) {
    for byte in bytes.iter_mut().rev() {
        let (value, carry) = byte.overflowing_add(1);
        *byte = value;
        if !carry {
            return;
        }
    }
    bytes.insert(0, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        from_decimal(text, &mut out).unwrap();
        out
    }

    #[test]
    fn integers_within_64_bits_take_the_8_byte_form_and_larger_ones_a_tag() {
        assert_eq!(written("5"), [0x1b, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(written("-0"), [0x1b, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written("-1"), [0x3b, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            written("18446744073709551615")[..],
            [&[0x1b][..], &[0xff; 8]].concat()
        );
        assert_eq!(
            written("18446744073709551616")[..],
            [&[0xc2, 0x49, 1][..], &[0; 8]].concat()
        );
        assert_eq!(
            written("-18446744073709551616")[..],
            [&[0x3b][..], &[0xff; 8]].concat()
        );
        assert_eq!(
            written("-18446744073709551617")[..],
            [&[0xc3, 0x49, 1][..], &[0; 8]].concat()
        );
    }

    #[test]
    fn what_is_no_bounded_decimal_is_refused() {
        for text in ["", "-", "1x", "--1", "0x10", " 1", "1e3"] {
            assert!(from_decimal(text, &mut Vec::new()).is_err(), "{text:?}");
        }
        assert!(from_decimal(&"9".repeat(DIGITS_MAX + 1), &mut Vec::new()).is_err());
        assert!(from_decimal(&"9".repeat(DIGITS_MAX), &mut Vec::new()).is_ok());
        assert!(to_decimal(&[0xff; BYTES_MAX + 1], false).is_err());
        assert_eq!(to_decimal(&[0xff; BYTES_MAX], false).unwrap().len(), DIGITS_MAX);
        assert_eq!(to_decimal(&[], false).unwrap(), "0");
        assert_eq!(to_decimal(&[], true).unwrap(), "-1");
    }

    proptest! {
        #[test]
        fn decimal_text_survives_both_ways(text in "-?[1-9][0-9]{20,200}") {
            let out = written(&text);
            let negative = out[0] == 0xc3;
            prop_assert_eq!(to_decimal(content_of(&out, 1).unwrap(), negative).unwrap(), text);
        }

        #[test]
        fn decimal_text_agrees_with_machine_integers(value in any::<u128>(), negative in any::<bool>()) {
            let expected = if negative {
                // -1 - value
                value.checked_add(1).map(|v| format!("-{v}"))
            } else {
                Some(value.to_string())
            };
            if let Some(expected) = expected {
                prop_assert_eq!(to_decimal(&value.to_be_bytes(), negative).unwrap(), expected);
            }
        }
    }
}
