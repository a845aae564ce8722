//! Percent-decoding that refuses what is wrong instead of passing it on.

use std::borrow::Cow;

/// A `%` without two hexadecimal digits behind it, or bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad percent-encoding")]
pub(crate) struct BadEncoding;

/// Decodes a path segment.
pub(crate) fn path(text: &str) -> Result<Cow<'_, str>, BadEncoding> {
    decode(text, false)
}

/// Decodes a value of a query string, where `+` is a space.
pub(crate) fn form(text: &str) -> Result<Cow<'_, str>, BadEncoding> {
    decode(text, true)
}

fn decode(text: &str, plus: bool) -> Result<Cow<'_, str>, BadEncoding> {
    let special = |b: u8| b == b'%' || (plus && b == b'+');
    let Some(first) = text.bytes().position(special) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text.as_bytes()[..first]);
    let mut rest = text.as_bytes()[first..].iter();
    while let Some(&b) = rest.next() {
        out.push(match b {
            b'%' => hex(rest.next())? << 4 | hex(rest.next())?,
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| BadEncoding)
}

fn hex(digit: Option<&u8>) -> Result<u8, BadEncoding> {
    digit
        .and_then(|&d| char::from(d).to_digit(16))
        .and_then(|d| u8::try_from(d).ok())
        .ok_or(BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_is_refused_and_plus_is_a_space_only_in_forms() {
        assert_eq!(form("a%2Cb+c").unwrap(), "a,b c");
        assert_eq!(path("a%2fb+c").unwrap(), "a/b+c");
        assert_eq!(path("%E6%BC%A2").unwrap(), "漢");
        for wrong in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(path(wrong), Err(BadEncoding), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_text_survives_the_encoding_of_all_its_bytes(text in ".{0,40}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(path(&encoded).unwrap(), text.as_str());
            prop_assert_eq!(form(&encoded).unwrap(), text.as_str());
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = form(&text);
        }
    }
}
