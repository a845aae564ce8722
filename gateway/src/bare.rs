//! BARE messages of actions and queues over HTTP, and the few primitives that these and frames are made of.

/// Versions of the protocol spoken; a client that speaks another refuses ours, so we refuse theirs.
pub(crate) const VERSION_MIN: u16 = 2;
/// See [`VERSION_MIN`].
pub(crate) const VERSION_MAX: u16 = 4;
/// From this version on, payloads inside a message may hold markers.
pub(crate) const VERSION_MARKERS_READ: u16 = 3;
/// From this version on, clients undo markers in what they get.
pub(crate) const VERSION_MARKERS_WRITTEN: u16 = 4;
/// From this version on, errors say which actor they are of.
pub(crate) const VERSION_ACTOR_IN_ERRORS: u16 = 4;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BareError {
    #[error("the message ends early, after {len} bytes")]
    Short { len: usize },
    #[error("protocol version {version} is not spoken here, {VERSION_MIN} to {VERSION_MAX} are")]
    Version { version: u16 },
    #[error("a length that is no 64-bit number")]
    Length,
    #[error("there is no message of kind {tag}")]
    Tag { tag: u64 },
    #[error("a byte {byte} where 0 or 1 is expected")]
    Bool { byte: u8 },
    #[error("a text that is not UTF-8")]
    Utf8,
    #[error("{extra} bytes after the end of the message")]
    Trailing { extra: usize },
}

/// Reads `HttpActionRequest`: the version and the arguments.
pub(crate) fn action_request(bytes: &[u8]) -> Result<(u16, &[u8]), BareError> {
    let (version, mut reader) = Reader::versioned(bytes)?;
    let args = reader.data()?;
    reader.end()?;
    Ok((version, args))
}

/// A request to add to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueSend<'a> {
    /// CBOR.
    pub(crate) body: &'a [u8],
    pub(crate) wait: bool,
    /// In milliseconds.
    pub(crate) timeout: Option<u64>,
}

/// Reads `HttpQueueSendRequest`: the version and what is asked. The name repeats what is in the path.
pub(crate) fn queue_request(bytes: &[u8]) -> Result<(u16, QueueSend<'_>), BareError> {
    let (version, mut reader) = Reader::versioned(bytes)?;
    let body = reader.data()?;
    if reader.bool()? {
        reader.text()?;
    }
    let wait = reader.bool()? && reader.bool()?;
    let timeout = match reader.bool()? {
        true => Some(reader.u64()?),
        false => None,
    };
    reader.end()?;
    Ok((version, QueueSend { body, wait, timeout }))
}

/// Writes `HttpQueueSendResponse`.
pub(crate) fn queue_response(version: u16, status: &str, response: Option<&[u8]>) -> Vec<u8> {
    let mut out = version.to_le_bytes().to_vec();
    write_data(&mut out, status.as_bytes());
    out.push(u8::from(response.is_some()));
    if let Some(response) = response {
        write_data(&mut out, response);
    }
    out
}

/// Takes a message apart, front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    /// Reads the version in front, which must be one that is spoken here.
    pub(crate) fn versioned(bytes: &'a [u8]) -> Result<(u16, Self), BareError> {
        let len = bytes.len();
        let Some((version, rest)) = bytes.split_first_chunk::<2>() else {
            return Err(BareError::Short { len });
        };
        let version = u16::from_le_bytes(*version);
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(BareError::Version { version });
        }
        Ok((version, Self { rest, len }))
    }

    fn short(&self) -> BareError {
        BareError::Short { len: self.len }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, BareError> {
        let (value, rest) = read_uint(self.rest).map_err(|cut| match cut {
            true => self.short(),
            false => BareError::Length,
        })?;
        self.rest = rest;
        Ok(value)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BareError> {
        let (value, rest) = self.rest.split_first_chunk::<8>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*value))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, BareError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.short())?;
        self.rest = rest;
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(BareError::Bool { byte }),
        }
    }

    pub(crate) fn data(&mut self) -> Result<&'a [u8], BareError> {
        let len = usize::try_from(self.uint()?).map_err(|_| self.short())?;
        let (data, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(data)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, BareError> {
        std::str::from_utf8(self.data()?).map_err(|_| BareError::Utf8)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), BareError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(BareError::Trailing { extra }),
        }
    }
}

/// Writes `HttpActionResponse`.
pub(crate) fn action_response(version: u16, output: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(output.len() + 12);
    out.extend_from_slice(&version.to_le_bytes());
    write_uint(&mut out, output.len() as u64);
    out.extend_from_slice(output);
    out
}

/// LEB128. The error says whether the bytes ended; else the number is too large.
fn read_uint(bytes: &[u8]) -> Result<(u64, &[u8]), bool> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate() {
        // The tenth byte holds the last bit of 64.
        if index == 9 && byte > 1 {
            return Err(false);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(true)
}

/// Writes bytes behind their length.
pub(crate) fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    write_uint(out, data.len() as u64);
    out.extend_from_slice(data);
}

pub(crate) fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Exact: the low seven bits.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recorded_messages_are_read_and_written() {
        assert_eq!(action_request(&[2, 0, 1, 0x80]), Ok((2, &[0x80][..])));
        assert_eq!(action_response(2, &[0xf7]), [2, 0, 1, 0xf7]);
        assert_eq!(action_response(4, &[0x18, 0x2a]), [4, 0, 2, 0x18, 0x2a]);
        let long = action_response(4, &[7; 300]);
        assert_eq!(long[..4], [4, 0, 0xac, 2]);
        assert_eq!(action_request(&long), Ok((4, &[7; 300][..])));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        assert_eq!(action_request(&[]), Err(BareError::Short { len: 0 }));
        assert_eq!(action_request(&[4, 0]), Err(BareError::Short { len: 2 }));
        assert_eq!(action_request(&[4, 0, 2, 1]), Err(BareError::Short { len: 4 }));
        assert_eq!(action_request(&[1, 0, 0]), Err(BareError::Version { version: 1 }));
        assert_eq!(action_request(&[5, 0, 0]), Err(BareError::Version { version: 5 }));
        assert_eq!(
            action_request(&[4, 0, 1, 1, 1]),
            Err(BareError::Trailing { extra: 1 })
        );
        let endless = [&[4, 0][..], &[0xff; 20]].concat();
        assert_eq!(action_request(&endless), Err(BareError::Length));
    }

    #[test]
    fn recorded_queue_messages_are_read_and_written() {
        let plain = b"\x04\0\x06\xb9\0\x01\x61n\x01\x01\x04jobs\x01\0\0";
        let send = QueueSend {
            body: b"\xb9\0\x01\x61n\x01",
            wait: false,
            timeout: None,
        };
        assert_eq!(queue_request(plain), Ok((4, send)));
        let waiting = b"\x04\0\x01\x01\x01\x06parked\x01\x01\x01\x2c\x01\0\0\0\0\0\0";
        let send = QueueSend {
            body: &[1],
            wait: true,
            timeout: Some(300),
        };
        assert_eq!(queue_request(waiting), Ok((4, send)));
        assert_eq!(queue_response(4, "timedOut", None), b"\x04\0\x08timedOut\0");
        assert_eq!(
            queue_response(4, "completed", Some(&[5])),
            b"\x04\0\x09completed\x01\x01\x05"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = queue_request(&bytes);
            let _ = queue_request(&[&[4, 0][..], &bytes].concat());
            let _ = action_request(&bytes);
        }

        #[test]
        fn numbers_survive(value in any::<u64>()) {
            let mut out = Vec::new();
            write_uint(&mut out, value);
            prop_assert_eq!(read_uint(&out), Ok((value, &[][..])));
        }
    }
}
