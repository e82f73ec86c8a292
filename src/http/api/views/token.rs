//! A token as the API shows it: without its secret.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::token::{self, Scope};

/// A token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    /// Ours, a UUIDv7.
    pub(crate) id: Uuid,
    /// For people.
    #[schema(example = "reporting")]
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scope: Scope,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// From when on it is refused.
    #[schema(example = "2099-12-31T12:00:00Z")]
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

impl From<token::Token> for Token {
    fn from(token: token::Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            scope: token.scope,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
        }
    }
}
