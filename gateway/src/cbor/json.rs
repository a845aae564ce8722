//! CBOR to JSON text, as clients of all generations read it.
//!
//! What JSON lacks is written the way `JSON.stringify` or the protocol's markers do: BigInt and bytes as markers of
//! the oldest generation, dates as ISO text, sets and maps as `{}`, undefined as null (members are left out).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bignum::{content_of, text_of, to_decimal};
use super::{
    ARRAY, BREAK, BYTES, CborError, Head, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNDEFINED, UNSIGNED, integer,
    is_safe, scan, tag, whole,
};

/// Appends `item` to `out` as JSON.
///
/// # Errors
/// Unless `item` is exactly one CBOR item with UTF-8 texts; `out` may then end in part of it.
pub(crate) fn write(item: &[u8], out: &mut Vec<u8>) -> Result<(), CborError> {
    whole(item)?;
    Writer {
        bytes: item,
        at: 0,
        out,
    }
    .item()
}

/// Appends a JSON string.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            let hex = |nibble: u8| HEX[usize::from(nibble)];
            out.extend_from_slice(&[b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
        }
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

struct Writer<'a, 'o> {
    bytes: &'a [u8],
    at: usize,
    out: &'o mut Vec<u8>,
}

impl<'a> Writer<'a, '_> {
    /// Writes one item; recursion is bounded, because a scan has bounded the depth.
    fn item(&mut self) -> Result<(), CborError> {
        let start = self.at;
        let head = Head::read(self.bytes, start)?;
        match head.major {
            UNSIGNED | NEGATIVE => {
                self.at = head.next;
                self.integer(integer(head));
                Ok(())
            }
            BYTES => {
                let content = self.byte_string(head)?;
                self.uint8_array(&content);
                Ok(())
            }
            TEXT => {
                let text = self.text(head)?;
                string(&text, self.out);
                Ok(())
            }
            ARRAY => self.array(head),
            MAP => self.map(head),
            TAG => self.tagged(head),
            _ => {
                self.at = head.next;
                self.simple(head);
                Ok(())
            }
        }
    }

    fn integer(&mut self, value: i128) {
        if is_safe(value) {
            self.out.extend_from_slice(value.to_string().as_bytes());
        } else {
            self.big_int(&value.to_string());
        }
    }

    fn big_int(&mut self, digits: &str) {
        self.out.extend_from_slice(b"[\"$BigInt\",\"");
        self.out.extend_from_slice(digits.as_bytes());
        self.out.extend_from_slice(b"\"]");
    }

    fn uint8_array(&mut self, content: &[u8]) {
        self.out.extend_from_slice(b"[\"$Uint8Array\",\"");
        self.out.extend_from_slice(STANDARD.encode(content).as_bytes());
        self.out.extend_from_slice(b"\"]");
    }

    fn simple(&mut self, head: Head) {
        let number = match head.info {
            20 => return self.out.extend_from_slice(b"false"),
            21 => return self.out.extend_from_slice(b"true"),
            25 => half(head.argument),
            26 => f64::from(f32::from_bits(head.argument as u32)),
            27 => f64::from_bits(head.argument),
            _ => return self.out.extend_from_slice(b"null"),
        };
        float(number, self.out);
    }

    /// The parts of a string, joined.
    fn byte_string(&mut self, head: Head) -> Result<Vec<u8>, CborError> {
        let start = self.at;
        self.at = scan(self.bytes, start)?.0;
        if !head.indefinite() {
            return Ok(head.content(self.bytes).to_vec());
        }
        let mut joined = Vec::new();
        let mut part = head.next;
        while self.bytes.get(part) != Some(&BREAK) {
            let inner = Head::read(self.bytes, part)?;
            let content = inner.content(self.bytes);
            joined.extend_from_slice(content);
            part = inner.next + content.len();
        }
        Ok(joined)
    }

    fn text(&mut self, head: Head) -> Result<Cow<'a, str>, CborError> {
        let at = self.at;
        if !head.indefinite() {
            let bytes: &'a [u8] = self.bytes;
            let content = head.content(bytes);
            self.at = head.next + content.len();
            return std::str::from_utf8(content)
                .map(Into::into)
                .map_err(|_| CborError::Utf8 { at });
        }
        let joined = self.byte_string(head)?;
        String::from_utf8(joined)
            .map(Into::into)
            .map_err(|_| CborError::Utf8 { at })
    }

    fn array(&mut self, head: Head) -> Result<(), CborError> {
        // A user's own `["$x", …]` must not be read as a marker.
        let escape = head.argument == 2
            && !head.indefinite()
            && text_of(self.bytes, head.next).is_some_and(|text| text.starts_with('$'));
        self.at = head.next;
        self.out.push(b'[');
        let mut left = head.argument;
        let mut first = true;
        while self.more(head, &mut left) {
            if !first {
                self.out.push(b',');
            }
            let from = self.out.len();
            self.item()?;
            if first && escape {
                // Behind the quote.
                self.out.insert(from + 1, b'$');
            }
            first = false;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, head: Head) -> Result<(), CborError> {
        self.at = head.next;
        self.out.push(b'{');
        let mut left = head.argument;
        let mut first = true;
        while self.more(head, &mut left) {
            let (value, _) = scan(self.bytes, self.at)?;
            if self.bytes.get(value) == Some(&UNDEFINED) {
                self.at = value + 1;
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.key()?;
            self.out.push(b':');
            self.item()?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A member name: texts as they are, all else as its own JSON inside a string.
    fn key(&mut self) -> Result<(), CborError> {
        let head = Head::read(self.bytes, self.at)?;
        if head.major == TEXT {
            return self.item();
        }
        let from = self.out.len();
        self.item()?;
        let name = String::from_utf8_lossy(&self.out[from..]).into_owned();
        self.out.truncate(from);
        string(&name, self.out);
        Ok(())
    }

    /// Whether another element follows; steps over the break that says no.
    fn more(&mut self, head: Head, left: &mut u64) -> bool {
        if head.indefinite() {
            let ended = self.bytes.get(self.at) == Some(&BREAK);
            self.at += usize::from(ended);
            return !ended;
        }
        let more = *left > 0;
        *left = left.saturating_sub(1);
        more
    }

    fn tagged(&mut self, head: Head) -> Result<(), CborError> {
        match head.argument {
            tag::BIGNUM | tag::BIGNUM_NEGATIVE => {
                if let Some(content) = content_of(self.bytes, head.next) {
                    let digits = to_decimal(content, head.argument == tag::BIGNUM_NEGATIVE)?;
                    self.at = scan(self.bytes, head.next)?.0;
                    self.big_int(&digits);
                    return Ok(());
                }
            }
            tag::DATE_EPOCH => {
                if let Some(text) = iso_date(self.bytes, head.next) {
                    self.at = scan(self.bytes, head.next)?.0;
                    string(&text, self.out);
                    return Ok(());
                }
            }
            tag::SET | tag::MAP => {
                self.at = scan(self.bytes, head.next)?.0;
                self.out.extend_from_slice(b"{}");
                return Ok(());
            }
            // A date as text is one already; bytes say for themselves what they are.
            tag::DATE_TEXT | tag::UINT8_ARRAY => {}
            _ => {}
        }
        self.at = head.next;
        self.item()
    }
}

/// A float as a JSON number that reads back the same; what is none is null, as in JavaScript.
fn float(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if value == 0.0 || (1e-5..1e17).contains(&size) {
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        out.extend_from_slice(format!("{value:e}").as_bytes());
    }
}

fn half(bits: u64) -> f64 {
    let exponent = (bits >> 10 & 31) as i32;
    let fraction = (bits & 1023) as f64;
    let size = match exponent {
        0 => fraction * f64::powi(2.0, -24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * f64::powi(2.0, exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The ISO text of the epoch seconds at `at`, when they are a number in the range of JavaScript's dates.
fn iso_date(bytes: &[u8], at: usize) -> Option<String> {
    let head = Head::read(bytes, at).ok()?;
    let seconds = match (head.major, head.info) {
        (UNSIGNED | NEGATIVE, _) => integer(head) as f64,
        (SIMPLE, 25) => half(head.argument),
        (SIMPLE, 26) => f64::from(f32::from_bits(head.argument as u32)),
        (SIMPLE, 27) => f64::from_bits(head.argument),
        _ => return None,
    };
    let ms = (seconds * 1000.0).round();
    if ms.is_nan() || ms.abs() > 8.64e15 {
        return None;
    }
    let ms = ms as i64;
    let (day, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(day);
    let year = if (0..=9999).contains(&year) {
        format!("{year:04}")
    } else {
        format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs())
    };
    let (second, milli) = (in_day / 1000, in_day % 1000);
    Some(format!(
        "{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{milli:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    ))
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar without a beginning.
fn civil(day: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last of its year.
    let from_0000_03_01 = day + 719_468;
    let era = from_0000_03_01.div_euclid(146_097);
    let in_era = from_0000_03_01.rem_euclid(146_097);
    let year_in_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_in_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciborium::Value;
    use proptest::prelude::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write(bytes, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_that_json_has_are_written_as_such() {
        assert_eq!(json(&[0x18, 42]), "42");
        assert_eq!(json(&[0x38, 99]), "-100");
        assert_eq!(
            json(&[0x84, 0xf4, 0xf5, 0xf6, 0x61, b'a']),
            r#"[false,true,null,"a"]"#
        );
        assert_eq!(
            json(&[0xbf, 0x61, b'a', 0x9f, 1, 0xff, 0x61, b'b', 0xa0, 0xff]),
            r#"{"a":[1],"b":{}}"#
        );
        assert_eq!(json(&[0x7f, 0x61, b'a', 0x61, b'b', 0xff]), r#""ab""#);
        assert_eq!(json(&[0xf9, 0x3e, 0]), "1.5");
        assert_eq!(json(&[0xfa, 0x3f, 0xc0, 0, 0]), "1.5");
        assert_eq!(json(&[0xf9, 0x7c, 0]), "null");
        assert_eq!(json(&[0xf9, 0, 1]), "5.960464477539063e-8");
    }

    #[test]
    fn integers_are_numbers_up_to_2_to_the_53rd_and_big_beyond() {
        assert_eq!(
            json(&[0x1b, 0, 0x1f, 255, 255, 255, 255, 255, 255]),
            "9007199254740991"
        );
        assert_eq!(
            json(&[0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0]),
            r#"["$BigInt","9007199254740992"]"#
        );
        assert_eq!(
            json(&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]),
            r#"["$BigInt","-18446744073709551616"]"#
        );
        assert_eq!(
            json(&[&[0xc2, 0x49, 1][..], &[0; 8]].concat()),
            r#"["$BigInt","18446744073709551616"]"#
        );
    }

    #[test]
    fn values_that_json_lacks_are_written_as_clients_expect() {
        assert_eq!(json(&[0x43, 1, 2, 255]), r#"["$Uint8Array","AQL/"]"#);
        assert_eq!(json(&[0xd8, 64, 0x41, 1]), r#"["$Uint8Array","AQ=="]"#);
        assert_eq!(json(&[UNDEFINED]), "null");
        assert_eq!(json(&[0x81, UNDEFINED]), "[null]");
        assert_eq!(json(&[0xa2, 0x61, b'a', UNDEFINED, 0x61, b'b', 1]), r#"{"b":1}"#);
        assert_eq!(json(&[0xd9, 1, 2, 0x81, 1]), "{}");
        assert_eq!(
            json(&[0xc1, 0x1a, 0x65, 0x53, 0xf1, 0]),
            r#""2023-11-14T22:13:20.000Z""#
        );
        assert_eq!(json(&[0xa2, 1, 2, 0xf5, 3]), r#"{"1":2,"true":3}"#);
    }

    #[test]
    fn a_users_own_marker_is_escaped() {
        assert_eq!(json(&[0x82, 0x62, b'$', b'x', 1]), r#"["$$x",1]"#);
        assert_eq!(json(&[0x83, 0x62, b'$', b'x', 1, 2]), r#"["$x",1,2]"#);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds: f64| iso_date(&[&[0xfb][..], &seconds.to_be_bytes()].concat(), 0);
        assert_eq!(date(0.0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_400.001).unwrap(), "2000-02-29T00:00:00.001Z");
        assert_eq!(date(-0.001).unwrap(), "1969-12-31T23:59:59.999Z");
        assert_eq!(date(8.64e12).unwrap(), "+275760-09-13T00:00:00.000Z");
        assert_eq!(date(-62_198_755_200.0).unwrap(), "-000001-01-01T00:00:00.000Z");
        assert_eq!(date(1e13), None);
        assert_eq!(date(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn strings_read_back_as_they_were(text in any::<String>()) {
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn floats_read_back_as_they_were(value in any::<f64>()) {
            let mut out = Vec::new();
            float(value, &mut out);
            let back: Option<f64> = serde_json::from_slice(&out).unwrap();
            if value.is_finite() {
                prop_assert_eq!(back.unwrap().to_bits(), value.to_bits());
            } else {
                prop_assert_eq!(back, None);
            }
        }

        #[test]
        fn whatever_the_bytes_the_output_is_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            if write(&bytes, &mut out).is_ok() {
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
            }
        }

        #[test]
        fn plain_values_agree_with_the_library(items in prop::collection::vec(("[a-z]{1,3}", any::<i32>()), 0..5)) {
            let value = Value::Map(items.iter().map(|(k, v)| (k.as_str().into(), (*v).into())).collect());
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            let ours: serde_json::Value = serde_json::from_str(&json(&bytes)).unwrap();
            let theirs: serde_json::Map<_, _> = items.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
            prop_assert_eq!(ours, serde_json::Value::Object(theirs));
        }
    }
}
