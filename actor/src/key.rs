//! What may stand as an actor's key.

use clinch_types::{ActorId, Key, KeyError};

/// One component of a key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a component of a key",
    label = "not a component",
    note = "components are text, numbers and actor ids"
)]
pub trait KeyPart {
    /// As text.
    fn into_part(self) -> String;
}

macro_rules! parts {
    ($($ty:ty)*) => {$(
        impl KeyPart for $ty {
            fn into_part(self) -> String {
                self.to_string()
            }
        }

        impl IntoKey for $ty {
            fn into_key(self) -> Result<Key, KeyError> {
                Key::new([self.into_part()])
            }
        }
    )*};
}

/// A key, or what one is made of: text, a number, a tuple or list of them. `()` is the key without components, of a
/// type with a single actor. For a struct of your own: `#[derive(ActorKey)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of an actor",
    label = "not a key",
    note = "a key is text, a number, or a tuple or array of them; for a struct of yours write `#[derive(ActorKey)]`"
)]
pub trait IntoKey {
    /// Checks the limits.
    ///
    /// # Errors
    /// Names the component or the whole, its length and the limit.
    fn into_key(self) -> Result<Key, KeyError>;
}

parts!(&str &String u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize ActorId);

impl KeyPart for String {
    fn into_part(self) -> String {
        self
    }
}

impl IntoKey for String {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new([self])
    }
}

impl IntoKey for () {
    fn into_key(self) -> Result<Key, KeyError> {
        Ok(Key::empty())
    }
}

impl IntoKey for Key {
    fn into_key(self) -> Result<Key, KeyError> {
        Ok(self)
    }
}

impl IntoKey for &Key {
    fn into_key(self) -> Result<Key, KeyError> {
        Ok(self.clone())
    }
}

impl<P: KeyPart, const N: usize> IntoKey for [P; N] {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self.into_iter().map(KeyPart::into_part))
    }
}

impl<P: KeyPart> IntoKey for Vec<P> {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self.into_iter().map(KeyPart::into_part))
    }
}

impl IntoKey for &[String] {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self)
    }
}

macro_rules! tuples {
    ($(($($name:ident)+))*) => {$(
        impl<$($name: KeyPart),+> IntoKey for ($($name,)+) {
            fn into_key(self) -> Result<Key, KeyError> {
                #[expect(non_snake_case, reason = "named like their types")]
                let ($($name,)+) = self;
                Key::new([$($name.into_part()),+])
            }
        }
    )*};
}

tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F));

/// One component of a key, read back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read back from a component of a key",
    label = "not a component",
    note = "components are text, numbers and actor ids"
)]
pub trait FromKeyPart: Sized {
    /// `None` when the text is no such value.
    fn from_part(part: &str) -> Option<Self>;
}

macro_rules! from_parts {
    ($($ty:ty)*) => {$(
        impl FromKeyPart for $ty {
            fn from_part(part: &str) -> Option<Self> {
                part.parse().ok()
            }
        }
    )*};
}

from_parts!(String u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize ActorId);

/// A key read back as the type it was made of: [`crate::Ctx::key_as`]. `#[derive(ActorKey)]` writes it with [`IntoKey`].
pub trait FromKey: Sized {
    /// `None` when the key has another shape.
    fn from_key(key: &Key) -> Option<Self>;
}

impl<P: FromKeyPart> FromKey for P {
    fn from_key(key: &Key) -> Option<Self> {
        match key.components() {
            [part] => P::from_part(part),
            _ => None,
        }
    }
}

impl<A: FromKeyPart, B: FromKeyPart> FromKey for (A, B) {
    fn from_key(key: &Key) -> Option<Self> {
        match key.components() {
            [a, b] => Some((A::from_part(a)?, B::from_part(b)?)),
            _ => None,
        }
    }
}

/// Spreads what belongs to one name over a fixed number of actors: the key of the shard that `of` falls into.
///
/// ```
/// use clinch_actor::{IntoKey, ShardedKey};
/// let key = ShardedKey::hash("page-views", "visitor-17", 16).into_key().unwrap();
/// assert_eq!(key.components()[0], "page-views");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardedKey {
    name: String,
    shard: u32,
}

impl ShardedKey {
    /// The shard among `shards` that `of` always falls into.
    pub fn hash(name: impl Into<String>, of: impl AsRef<[u8]>, shards: u32) -> Self {
        let digest = clinch_types::hash_128(&[b"sharded-key", of.as_ref()]);
        let shard = digest % u128::from(shards.max(1));
        Self {
            name: name.into(),
            // Below `shards`, a `u32`.
            shard: shard as u32,
        }
    }

    /// All shards, to ask each of them.
    pub fn all(name: &str, shards: u32) -> impl Iterator<Item = Self> {
        let name = name.to_owned();
        (0..shards).map(move |shard| Self {
            name: name.clone(),
            shard,
        })
    }
}

impl IntoKey for ShardedKey {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new([self.name, self.shard.to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_of_text_numbers_tuples_and_lists() {
        let key = |parts: &[&str]| Key::new(parts.iter().copied());
        assert_eq!("a/b".into_key(), key(&["a/b"]));
        assert_eq!(String::from("x").into_key(), key(&["x"]));
        assert_eq!(42u64.into_key(), key(&["42"]));
        assert_eq!(().into_key(), key(&[]));
        assert_eq!(["a", "b"].into_key(), key(&["a", "b"]));
        assert_eq!(vec!["a".to_owned()].into_key(), key(&["a"]));
        assert_eq!(
            ("org", String::from("u"), 7u32).into_key(),
            key(&["org", "u", "7"])
        );
    }

    #[test]
    fn a_key_over_its_limit_is_refused() {
        let long = "x".repeat(129);
        assert_eq!(
            ("a", long.as_str()).into_key(),
            Err(KeyError::Component { index: 1, len: 129 })
        );
    }
}
