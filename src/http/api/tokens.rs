//! `/api/v1/tokens`: make, list and revoke tokens.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::tokens,
    http::{
        api::manners::{
            answer::{ROOT, answer, located, no_content},
            auth::{Admin, Read},
            etag,
            idempotency::{Attempt, WithoutSecret},
            page::{Page, Params, id_cursor, rows_for},
            problems::Problems,
            request::{Json, Name},
        },
        error::{FieldError, Problem},
        fields::Fields,
    },
    model::token::{Scope, Token},
};

/// The name of a token that was given none.
const NAME_DEFAULT: &str = "unnamed";

const FIELDS: &[&str] = &["scope", "name", "expires_at"];

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(get, revoke))
}

/// A token as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(example = json!({"scope": "read", "name": "reporting", "expires_at": "2027-01-01T00:00:00Z"}))]
pub(crate) struct TokenInput {
    /// What it may do.
    pub scope: Scope,
    /// 1 to 255 characters.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, default = "unnamed")]
    pub name: String,
    /// From when on it is refused; never when it is not given.
    #[schema(example = "2099-12-31T12:00:00Z")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A new token; the only time its secret is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewToken {
    #[serde(flatten)]
    shown: Token,
    /// The secret: `octo_` and 64 hexadecimal digits. It is stored nowhere, so it is null where an answer is given
    /// again for its `Idempotency-Key`: revoke that token and make another one, if the first answer was lost.
    #[schema(example = "octo_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
    token: Option<String>,
}

/// Make a token
///
/// The secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", operation_id = "create_token",
    request_body = TokenInput,
    responses(
        (status = 201, description = "It is made.", body = NewToken,
            headers(("Location" = String, description = "What to delete to revoke it."))),
        Problems,
    ),
)]
async fn create(
    _: Admin,
    State(app): State<App>,
    attempt: Attempt,
    Json(body): Json,
) -> Result<Response, Problem> {
    let (shown, token) = made(&app, &body, attempt.id, attempt.is_again).await?;
    created(NewToken { shown, token })
}

/// A token as a body asks for, made with this id, and its secret, which is shown now or never; `is_again`: unless there is one, whose
/// secret nobody knows any more.
pub(crate) async fn made(
    app: &Parts,
    body: &Value,
    id: Uuid,
    is_again: bool,
) -> Result<(Token, Option<String>), Problem> {
    let input = TokenInput::read(body, Utc::now())?;
    if is_again && let Some(token) = tokens::get(&app.db, id).await? {
        return Ok((token, None));
    }
    let (token, secret) = tokens::create_as(&app.db, id, input.scope, &input.name, input.expires_at).await?;
    Ok((token, Some(secret)))
}

fn created(mut new: NewToken) -> Result<Response, Problem> {
    let location = format!("{ROOT}/tokens/{}", new.shown.id);
    let mut response = located(answer(StatusCode::CREATED, &new)?, &location)?;
    new.token = None;
    let without_secret = serde_json::to_vec(&new).map_err(Problem::internal)?;
    response.extensions_mut().insert(WithoutSecret(without_secret.into()));
    Ok(response)
}

/// Show a token
///
/// Without its secret; a revoked or expired one too.
#[utoipa::path(
    get, path = "/tokens/{id}", tag = "tokens", operation_id = "get_token",
    params(
        ("id" = Uuid, Path, description = "Its id."),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The token.", body = Token,
            headers(("ETag" = String, description = "Its state."))),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found("token"))?;
    let token = tokens::get(&app.db, id).await?.ok_or_else(|| Problem::not_found("token"))?;
    etag::tagged(&headers, &token)
}

/// List tokens
///
/// Newest first, without their secrets; revoked and expired ones too.
#[utoipa::path(
    get, path = "/tokens", tag = "tokens", operation_id = "list_tokens",
    params(
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:[0-9a-f]{32})?$", example = "019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<Token>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["limit", "cursor"]);
    let (limit, after) = (params.limit(), params.id_cursor());
    params.finish()?;
    let rows = tokens::list(&app.db, after, rows_for(limit)).await?;
    answer(StatusCode::OK, &Page::new(rows, limit, |row| id_cursor(row.id)))
}

/// Revoke a token
///
/// It is refused from now on, on every node. Revoking a revoked one is no error.
#[utoipa::path(
    delete, path = "/tokens/{id}", tag = "tokens", operation_id = "revoke_token",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 204, description = "It is refused from now on."), Problems),
)]
async fn revoke(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    revoked(&app, &id).await.map(|()| no_content())
}

/// Refuses the token with this id from now on, and ends its sessions.
pub(crate) async fn revoked(app: &Parts, id: &str) -> Result<(), Problem> {
    let id = Uuid::try_parse(id).map_err(|_| Problem::not_found("token"))?;
    let is_found = tokens::revoke(&app.db, id).await?;
    if is_found { Ok(()) } else { Err(Problem::not_found("token")) }
}

impl TokenInput {
    /// Reads a token as it is asked for; names everything that is wrong with it.
    fn read(body: &Value, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let mut f = Fields::new(body, "").map_err(|e| vec![e])?;
        let scope = f.parsed("scope", "choice");
        let name = f.optional_text("name", 1..=255).unwrap_or(NAME_DEFAULT).to_owned();
        let expires_at = f.time("expires_at");
        if expires_at.is_some_and(|at| at <= now) {
            f.refuse("expires_at", "range", "must be in the future");
        }
        f.refuse_unknown(FIELDS, &["id", "token", "created_at", "revoked_at", "last_used_at"]);
        f.finish_with(scope.map(|scope| Self { scope, name, expires_at }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn a_scope_is_enough() {
        let input = TokenInput::read(&json!({"scope": "ingest"}), Utc::now()).unwrap();
        assert_eq!((input.scope, input.name.as_str(), input.expires_at), (Scope::Ingest, NAME_DEFAULT, None));
    }

    #[test]
    fn every_fault_of_a_token_is_named() {
        let body = json!({"scope": "root", "name": "", "expires_at": "2020-01-01T00:00:00Z", "token": "x"});
        let errors = TokenInput::read(&body, Utc::now()).unwrap_err();
        let found: Vec<_> = errors.iter().map(|e| (e.pointer.as_str(), e.code)).collect();
        assert_eq!(
            found,
            [("/scope", "choice"), ("/name", "length"), ("/expires_at", "range"), ("/token", "read_only")]
        );
    }

    #[test]
    fn the_document_describes_the_fields_that_are_read() {
        let schema = serde_json::to_value(TokenInput::schema()).unwrap();
        let mut described: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let mut read: Vec<_> = FIELDS.iter().map(ToString::to_string).collect();
        described.sort();
        read.sort();
        assert_eq!(described, read);
    }
}
