//! Tokens of the admin API: what one may do, and how one is told from a stray text. The secret itself is
//! shown once and kept nowhere; what is stored is its SHA-256.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::text::must_be_one_of;

/// What every token begins with, so that secret scanners and people know it.
pub const PREFIX: &str = "octo_";

/// Hexadecimal digits after the prefix: 256 bits.
pub const DIGITS: usize = 64;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Every GET, the list of tokens too: it holds no secret.
    Read,
    /// Events and conversions.
    Ingest,
    /// `/metrics` and the detailed `/health`.
    Metrics,
}

impl Scope {
    /// Whether a token of this scope may do what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        // who may read everything may read figures
        self == Self::Admin || self == needed || (self, needed) == (Self::Read, Self::Metrics)
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// Ours, a UUIDv7.
    pub id: Uuid,
    /// For people.
    #[schema(example = "reporting")]
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it is refused.
    #[schema(example = "2099-12-31T12:00:00Z")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl Token {
    /// `active`, `expired` or `revoked`.
    pub fn state(&self, now: DateTime<Utc>) -> &'static str {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            (None, _) => "active",
        }
    }
}

/// What is stored of a secret.
pub type Hash = [u8; 32];

/// The hash of what may be a token; `None` for what has not the shape of one.
pub fn hash(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix(PREFIX)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits.len() == DIGITS && digits.bytes().all(is_hex)).then(|| digest(text))
}

/// The hash of a token.
pub fn digest(token: &str) -> Hash {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_may_everything_and_the_others_their_own() {
        assert!(Scope::Admin.allows(Scope::Read) && Scope::Admin.allows(Scope::Ingest));
        assert!(Scope::Read.allows(Scope::Read) && !Scope::Read.allows(Scope::Admin));
        assert!(!Scope::Ingest.allows(Scope::Read));
        assert!(Scope::Read.allows(Scope::Metrics) && !Scope::Ingest.allows(Scope::Metrics));
        for other in [Scope::Admin, Scope::Read, Scope::Ingest] {
            assert!(!Scope::Metrics.allows(other));
        }
    }

    #[test]
    fn only_what_looks_like_a_token_is_hashed() {
        let good = format!("{PREFIX}{}", "0f".repeat(32));
        assert!(hash(&good).is_some());
        for bad in ["", "octo_", &good[..68], &good.to_uppercase(), &good[5..], &format!("{good}0")] {
            assert!(hash(bad).is_none(), "{bad}");
        }
    }
}
