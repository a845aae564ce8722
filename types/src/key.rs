//! Actor keys: a list of text components, its serialized form, and the slot it falls into.
//!
//! Invariant: the slot of a key never changes, in any process, release or architecture; golden values in the
//! tests hold it. `std::hash::Hash` is not used, because its byte stream is not promised.

use std::fmt;

use bincode::{Decode, Encode};

use crate::{Slot, limits};

/// The name of an actor, unique per namespace and actor type. May be empty (a type with a single actor).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Key(Vec<String>);

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// One component is too long.
    #[error(
        "key component {index} has {len} bytes, at most {} are allowed",
        limits::KEY_COMPONENT_MAX
    )]
    Component {
        /// Which component, from 0.
        index: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// All components together, with their separators, are too long.
    #[error("key has {len} bytes, at most {} are allowed", limits::KEY_MAX)]
    Whole {
        /// Length of the serialized form in bytes.
        len: usize,
    },
}

impl Key {
    /// Checks the limits ([`limits::KEY_COMPONENT_MAX`], [`limits::KEY_MAX`]).
    pub fn new(components: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, KeyError> {
        let key = Self(components.into_iter().map(Into::into).collect());
        key.check()?;
        Ok(key)
    }

    /// The key without components.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Checks the limits of a key that came from outside already assembled (a decoded frame).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn check(&self) -> Result<(), KeyError> {
        for (index, component) in self.0.iter().enumerate() {
            if component.len() > limits::KEY_COMPONENT_MAX {
                return Err(KeyError::Component {
                    index,
                    len: component.len(),
                });
            }
        }
        match self.serialized_len() {
            len if len > limits::KEY_MAX => Err(KeyError::Whole { len }),
            _ => Ok(()),
        }
    }

    /// Length of the serialized form in bytes, without writing it: this is asked of every call.
    fn serialized_len(&self) -> usize {
        let of = |component: &String| match component.len() {
            0 => 2,
            len => len + component.bytes().filter(|b| matches!(b, b'\\' | b'/')).count(),
        };
        let separators = self.0.len().saturating_sub(1);
        match self.0.is_empty() {
            true => 1,
            false => self.0.iter().map(of).sum::<usize>() + separators,
        }
    }

    /// The components, in order.
    pub fn components(&self) -> &[String] {
        &self.0
    }

    /// Reads the serialized form back: components joined by `/`, with `\` as escape and `\0` for an empty one.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() || text == "/" {
            return Ok(Self::empty());
        }
        let mut components = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let last = components.len() - 1;
            match c {
                '/' => components.push(String::new()),
                '\\' => match chars.next() {
                    // An empty component: the mark adds nothing.
                    Some('0') => {}
                    Some(escaped) => components[last].push(escaped),
                    None => components[last].push('\\'),
                },
                other => components[last].push(other),
            }
        }
        Self::new(components)
    }
}

/// The serialized form, the inverse of [`Key::parse`].
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for (index, component) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            if component.is_empty() {
                f.write_str("\\0")?;
            }
            for c in component.chars() {
                if c == '\\' || c == '/' {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// The slot of an actor: xxh3-64 over length-prefixed parts, modulo [`Slot::COUNT`].
///
/// Hashed bytes: for namespace, actor name and each key component, its length as u32 little-endian, then its bytes.
pub fn slot_of(namespace: &str, name: &str, key: &Key) -> Slot {
    let mut bytes = Vec::with_capacity(64);
    for part in [namespace, name]
        .into_iter()
        .chain(key.0.iter().map(String::as_str))
    {
        // Parts are bounded far below 4 GiB by the limits.
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Slot((xxhash_rust::xxh3::xxh3_64(&bytes) % u64::from(Slot::COUNT)) as u16)
}

/// A 128-bit name for a list of byte strings, the same in every process: xxh3-128 over length-prefixed parts.
///
/// Not for secrets and not against an attacker who chooses both inputs.
pub fn hash_128(parts: &[&[u8]]) -> u128 {
    let mut bytes = Vec::with_capacity(64);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(parts: &[&str]) -> Key {
        Key::new(parts.iter().copied()).unwrap()
    }

    #[test]
    fn serialized_keys_are_those_the_clients_write() {
        assert_eq!(key(&[]).to_string(), "/");
        assert_eq!(key(&["room", "a/b"]).to_string(), r"room/a\/b");
        assert_eq!(
            key(&["k", "a/b", "", r"c\d", "e,f"]).to_string(),
            r"k/a\/b/\0/c\\d/e,f"
        );
        assert_eq!(
            Key::parse(r"k/a\/b/\0/c\\d/e,f").unwrap(),
            key(&["k", "a/b", "", r"c\d", "e,f"])
        );
        assert_eq!(key(&[""]).to_string(), r"\0");
    }

    #[test]
    fn a_key_over_its_limits_is_refused_with_its_length() {
        assert_eq!(
            Key::new(["a", &"x".repeat(129)]),
            Err(KeyError::Component { index: 1, len: 129 })
        );
        let parts = vec!["y".repeat(128); 8];
        assert_eq!(Key::new(parts), Err(KeyError::Whole { len: 8 * 128 + 7 }));
    }

    /// A change here moves every actor of every existing cluster: it must never pass review.
    #[test]
    fn the_slot_of_a_key_never_changes() {
        assert_eq!(
            slot_of("default", "counter", &key(&["my-counter"])),
            Slot(GOLDEN[0])
        );
        assert_eq!(slot_of("default", "counter", &key(&[])), Slot(GOLDEN[1]));
        assert_eq!(slot_of("default", "room", &key(&["a", "b"])), Slot(GOLDEN[2]));
        assert_eq!(slot_of("default", "room", &key(&["ab", ""])), Slot(GOLDEN[3]));
        assert_eq!(slot_of("", "ü", &key(&["日本"])), Slot(GOLDEN[4]));
    }
    const GOLDEN: [u16; 5] = [556, 553, 866, 440, 978];

    proptest! {
        #[test]
        fn every_key_survives_its_serialized_form(parts in prop::collection::vec(".{0,8}", 0..6)) {
            let key = Key::new(parts).unwrap();
            prop_assert_eq!(key.serialized_len(), key.to_string().len());
            prop_assert_eq!(Key::parse(&key.to_string()).unwrap(), key);
        }
    }
}
