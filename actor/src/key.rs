//! What may stand as an actor's key.

use clinch_types::{ActorId, Key, KeyError};

/// One component of a key.
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
/// type with a single actor.
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
