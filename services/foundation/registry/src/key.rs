//! Keys and prefixes of keys: slash-separated text, without the cluster's own
//! prefix, which an adapter adds and takes away.

use std::fmt;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is empty.
    #[error("a key must not be empty")]
    Empty,
    /// It is longer than [`KEY_BYTES_MAX`].
    #[error("a key must not be longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// It starts or ends with `/` or holds a control character.
    #[error("a key must not start or end with '/' nor hold control characters")]
    BadCharacter,
}

/// The name of one value, such as `rooms/{room}/spec`. Keys order by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a text.
    ///
    /// # Errors
    /// If it is empty, too long, starts or ends with `/` or holds a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        if text.starts_with('/') || text.ends_with('/') || text.chars().any(char::is_control) {
            return Err(KeyError::BadCharacter);
        }
        Ok(Self(text))
    }

    /// A key built by the schema from checked ids.
    pub(crate) fn from_checked(text: String) -> Self {
        debug_assert!(Self::new(text.clone()).is_ok(), "the schema makes keys only");
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All keys below a folder: a text that ends in `/`, or nothing for all keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Every key.
    pub const ALL: Self = Self(String::new());

    /// The keys below `folder`, a key without its last `/`.
    ///
    /// # Errors
    /// If `folder` is no key.
    pub fn below(folder: impl Into<String>) -> Result<Self, KeyError> {
        let folder = Key::new(folder)?;
        Ok(Self(folder.0 + "/"))
    }

    /// A prefix built by the schema.
    pub(crate) fn from_checked(text: String) -> Self {
        debug_assert!(text.ends_with('/'), "a prefix ends with a slash");
        Self(text)
    }

    /// The text; empty for all keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a key is below it.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_refuse_what_could_escape_their_folder() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new("/a"), Err(KeyError::BadCharacter));
        assert_eq!(Key::new("a/"), Err(KeyError::BadCharacter));
        assert_eq!(Key::new("a\0b"), Err(KeyError::BadCharacter));
        assert_eq!(Key::new("x".repeat(1025)), Err(KeyError::TooLong));
        assert!(Key::new("rooms/Zürich am See/spec").is_ok());
    }

    #[test]
    fn a_prefix_ends_at_its_slash() {
        let prefix = Prefix::below("nodes").unwrap();
        assert!(prefix.contains(&Key::new("nodes/a").unwrap()));
        assert!(!prefix.contains(&Key::new("nodesandmore/a").unwrap()));
        assert!(Prefix::ALL.contains(&Key::new("nodes/a").unwrap()));
    }
}
