//! `/api/v1/dead-letters`: records that PostgreSQL refused for what they hold. Show them, try them again once the
//! cause is gone, forget them.

use axum::{
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::{
        ingest::MALFORMED,
        store::dead_letters::{self, Retried},
    },
    http::{
        api::{
            manners::{
                answer::{answer, no_content},
                auth::{Admin, Read},
                etag,
                page::{Page, Params, number_cursor, rows_for},
                problems::Problems,
            },
            views::dead_letter::DeadLetter,
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(retry_many))
        .routes(routes!(get, delete))
        .routes(routes!(retry))
}

/// What became of a letter that was tried again and is gone.
#[derive(Debug, Serialize, ToSchema)]
struct Settled {
    /// `stored`, or `already_stored` when the record was stored before.
    #[schema(value_type = String, example = "stored")]
    outcome: &'static str,
}

/// What became of several letters.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Outcomes {
    /// How many are stored now.
    pub(crate) stored: usize,
    /// How many had been stored before.
    pub(crate) already_stored: usize,
    /// Those that were refused again, and stay.
    pub(crate) refused: Vec<Refused>,
    /// Whether there are more letters to try.
    has_more: bool,
    /// `cursor` of the next call.
    #[schema(example = "000000000000002a")]
    next_cursor: Option<String>,
}

/// A letter that was refused again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// The journal's stream it came in.
    stream: Uuid,
    /// Its sequence in the stream.
    seq: i64,
    /// Why PostgreSQL refuses it now.
    #[schema(example = "22003")]
    sqlstate: String,
    /// What PostgreSQL says.
    #[schema(example = "value overflows numeric format")]
    message: String,
}

/// List dead letters
///
/// Newest first, each with its record as it would be stored. A record that is long is left out of a list.
#[utoipa::path(
    get, path = "/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(
        ("sqlstate" = Option<String>, Query, description = "Refused for this reason.", example = "22003", pattern = "^(?:[0-9A-Z]{5}|malformed)?$"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<DeadLetter>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let Choice { sqlstate, after, limit } = Choice::parse(query.as_deref())?;
    let rows = dead_letters::list(&app.db, sqlstate, after, rows_for(limit)).await?;
    answer(StatusCode::OK, &Page::new(rows, limit, |row| number_cursor(row.id)).shown::<DeadLetter>())
}

/// Show a dead letter
///
/// With its record as it would be stored, and why it is not.
#[utoipa::path(
    get, path = "/dead-letters/{stream}/{seq}", tag = "dead letters", operation_id = "get_dead_letter",
    params(
        Letter,
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The letter.", body = DeadLetter,
            headers(("ETag" = String, description = "Its state."))),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    letter: Letter,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = dead_letters::get(&app.db, letter.stream, letter.seq).await?;
    etag::tagged(&headers, &DeadLetter::from(found.ok_or_else(no_such_letter)?))
}

/// Try a dead letter again
///
/// Its record is stored and the letter is gone, or it is refused again (409) and the letter says why.
#[utoipa::path(
    post, path = "/dead-letters/{stream}/{seq}/retry", tag = "dead letters", operation_id = "retry_dead_letter",
    params(Letter),
    responses(
        (status = 200, description = "It is stored, and the letter is gone.", body = Settled),
        (status = 409, description = "It is refused again, for the reason in `sqlstate`."),
        Problems,
    ),
)]
async fn retry(_: Admin, State(app): State<App>, letter: Letter) -> Result<Response, Problem> {
    let retried = dead_letters::retry(&app.db, letter.stream, letter.seq).await?;
    let outcome = match retried.ok_or_else(no_such_letter)? {
        Retried::Stored => "stored",
        Retried::AlreadyStored => "already_stored",
        Retried::Refused { sqlstate, message } => return Err(refused(sqlstate, &message)),
    };
    answer(StatusCode::OK, &Settled { outcome })
}

/// Try many dead letters again
///
/// Oldest first, at most `limit` of them, each in a transaction of its own. What is refused again stays.
#[utoipa::path(
    post, path = "/dead-letters/retry", tag = "dead letters", operation_id = "retry_dead_letters",
    params(
        ("sqlstate" = Option<String>, Query, description = "Those refused for this reason.", example = "22003", pattern = "^(?:[0-9A-Z]{5}|malformed)?$"),
        ("limit" = Option<u32>, Query, description = "Letters to try.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the call before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "What became of them.", body = Outcomes), Problems),
)]
async fn retry_many(
    _: Admin,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    answer(StatusCode::OK, &tried_again(&app, Choice::parse(query.as_deref())?).await?)
}

/// Tries the letters of a choice again, the oldest first; says what became of them.
pub(crate) async fn tried_again(app: &App, choice: Choice) -> Result<Outcomes, Problem> {
    let Choice { sqlstate, after, limit } = choice;
    let keys = dead_letters::list_keys(&app.db, sqlstate, after, rows_for(limit)).await?;
    let page = Page::new(keys, limit, |key| number_cursor(key.id));
    let mut outcomes =
        Outcomes { has_more: page.has_more, next_cursor: page.next_cursor, ..Outcomes::default() };
    for key in page.data {
        match dead_letters::retry(&app.db, key.stream, key.seq).await? {
            Some(Retried::Stored) => outcomes.stored += 1,
            Some(Retried::AlreadyStored) => outcomes.already_stored += 1,
            Some(Retried::Refused { sqlstate, message }) => {
                outcomes.refused.push(Refused { stream: key.stream, seq: key.seq, sqlstate, message });
            }
            None => {} // somebody else was faster
        }
    }
    Ok(outcomes)
}

/// Forget a dead letter
///
/// Its record is gone for good.
#[utoipa::path(
    delete, path = "/dead-letters/{stream}/{seq}", tag = "dead letters", operation_id = "delete_dead_letter",
    params(Letter),
    responses((status = 204, description = "It is gone."), Problems),
)]
async fn delete(_: Admin, State(app): State<App>, letter: Letter) -> Result<Response, Problem> {
    let is_found = dead_letters::delete(&app.db, letter.stream, letter.seq).await?;
    if is_found { Ok(no_content()) } else { Err(no_such_letter()) }
}

/// Which letters a query asks for.
pub(crate) struct Choice {
    sqlstate: Option<String>,
    after: Option<i64>,
    limit: usize,
}

impl Choice {
    /// So many of them, whatever the reason.
    pub(crate) fn of_all(limit: usize) -> Self {
        Self { sqlstate: None, after: None, limit }
    }

    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query, &["sqlstate", "limit", "cursor"]);
        let (limit, after, sqlstate) = (params.limit(), params.number_cursor(), sqlstate(&mut params));
        params.finish()?;
        Ok(Self { sqlstate, after, limit })
    }
}

/// The letter in the path.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct Letter {
    /// The journal's stream it came in.
    stream: Uuid,
    /// Its sequence in the stream.
    seq: i64,
}

impl FromRequestParts<App> for Letter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((stream, seq)) = path.map_err(|_| no_such_letter())?;
        let (stream, seq) = (Uuid::try_parse(&stream), seq.parse());
        match (stream, seq) {
            (Ok(stream), Ok(seq)) => Ok(Self { stream, seq }),
            _ => Err(no_such_letter()),
        }
    }
}

fn sqlstate(params: &mut Params<'_>) -> Option<String> {
    let text = params.text("sqlstate")?.to_owned();
    let is_code = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    if !is_code && text != MALFORMED {
        params.refuse("sqlstate", "pattern", format!("must be a SQLSTATE such as 22003, or {MALFORMED}"));
    }
    Some(text)
}

fn no_such_letter() -> Problem {
    Problem::not_found("dead letter")
}

fn refused(sqlstate: String, message: &str) -> Problem {
    let detail = format!("The record is refused again: {message}");
    Problem::new(StatusCode::CONFLICT, "refused_again", detail).with_sqlstate(sqlstate)
}
