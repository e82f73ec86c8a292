//! Whose postback it is: the key in its address, and the token that its network may send.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What is shown in the place of a token.
pub const HIDDEN: &str = "***";

/// The key of a network in the address to which it sends postbacks: 8 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PostbackKey(String);

impl PostbackKey {
    /// As it stands in the address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PostbackKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if (8..=64).contains(&text.len()) && text.bytes().all(is_fit) {
            return Ok(Self(text.to_owned()));
        }
        Err("must have 8 to 64 characters of A-Z a-z 0-9 _ -")
    }
}

impl TryFrom<String> for PostbackKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PostbackKey> for String {
    fn from(key: PostbackKey) -> Self {
        key.0
    }
}

impl std::borrow::Borrow<str> for PostbackKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The SHA-256 of the token of a network. The token itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PostbackToken([u8; 32]);

impl PostbackToken {
    /// Of what is stored.
    pub fn of_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// What is stored.
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is this one. It takes as long whatever is given.
    pub fn is(&self, given: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(given).into();
        hash.ct_eq(&self.0).into()
    }
}

impl FromStr for PostbackToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (8..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(Sha256::digest(text).into()));
        }
        Err("must have 8 to 128 characters of ASCII without spaces")
    }
}

impl fmt::Debug for PostbackToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for PostbackToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_stand_in_an_address_and_is_not_short() {
        for good in ["abcdefgh", "A-Z_0189", &"a".repeat(64)] {
            assert_eq!(good.parse::<PostbackKey>().unwrap().as_str(), good);
        }
        for bad in ["", "abcdefg", "abcd/efgh", "abcdefg\u{e9}", "abcd efgh", &"a".repeat(65)] {
            assert!(bad.parse::<PostbackKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_known_again_and_shown_to_nobody() {
        let token: PostbackToken = "s3cret-token".parse().unwrap();
        assert!(token.is("s3cret-token") && !token.is("s3cret-toke") && !token.is(""));
        assert_eq!(
            (format!("{token:?}"), serde_json::to_string(&token).unwrap()),
            ("***".into(), "\"***\"".into())
        );
        for bad in ["short", "with space", &"t".repeat(129), ""] {
            assert!(bad.parse::<PostbackToken>().is_err(), "{bad}");
        }
    }
}
