//! Identifiers, each its own type. Those a platform chooses are checked on the
//! way in; those that could point at a person have no `Debug` that shows them.

use std::fmt;
use std::str::FromStr;

/// Longest room id or identity, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdError {
    /// It is empty.
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    TooLong,
    /// It holds a control character or, where it is a name's segment, a `/`.
    BadCharacter,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "must not be empty",
            Self::TooLong => "must not be longer than 256 bytes",
            Self::BadCharacter => "must not hold control characters or '/'",
        })
    }
}

impl std::error::Error for IdError {}

fn check(text: &str, slash_allowed: bool) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    if text.chars().any(|c| c.is_control() || (c == '/' && !slash_allowed)) {
        return Err(IdError::BadCharacter);
    }
    Ok(())
}

macro_rules! checked_id {
    ($(#[$doc:meta])* $name:ident, slash_allowed: $slash:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes a text that the platform chose.
            ///
            /// # Errors
            /// If it is empty, longer than 256 bytes or holds a forbidden character.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text, $slash)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, owned.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

checked_id!(
    /// A room, named by the platform: the last segment of `rooms/{room}`.
    RoomId,
    slash_allowed: false
);
checked_id!(
    /// Who somebody is on the platform: an opaque text that may point at a
    /// person, so it has no readable `Debug` and is logged by [`Identity::short`] only.
    Identity,
    slash_allowed: true
);
checked_id!(
    /// A media node, named by its operator.
    NodeId,
    slash_allowed: false
);

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomId({})", self.0)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.short())
    }
}

impl Identity {
    /// A short, stable stand-in for logs: eight hex digits of an FNV-1a hash.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hash: u32 = 0x811c_9dc5;
        for byte in self.0.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        format!("{hash:08x}")
    }
}

macro_rules! server_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Wraps an id the server made (or a client repeats; then it may name nothing).
            #[must_use]
            pub fn from_raw(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

server_id!(
    /// One incarnation of a room, `RM_…`.
    RoomUid
);
server_id!(
    /// One stay of a participant, `PA_…`.
    ParticipantUid
);
server_id!(
    /// One published track, `TR_…`, or data track, `DTR_…`.
    TrackUid
);

/// Fencing number of a room's plan. It only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Index of a shard within its node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardIndex(pub u16);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_cannot_be_a_name() {
        assert_eq!(RoomId::new(""), Err(IdError::Empty));
        assert_eq!(RoomId::new("a/b"), Err(IdError::BadCharacter));
        assert_eq!(RoomId::new("a\nb"), Err(IdError::BadCharacter));
        assert_eq!(RoomId::new("x".repeat(257)), Err(IdError::TooLong));
        assert!(Identity::new("org/user").is_ok());
    }

    #[test]
    fn an_identity_is_not_shown_by_debug() {
        let identity = Identity::new("ada@example.org").unwrap();
        assert!(!format!("{identity:?}").contains("ada"));
    }
}
