//! What the nouns of the library have in common: their lists, who uses them, and that what is used cannot go.

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{
        RefOr,
        schema::{Object, Schema},
    },
};
use uuid::Uuid;

use crate::{
    app::Parts,
    db::store::{
        traffic_sources::Filter,
        uses::{self, Thing, Use},
    },
    http::{
        api::manners::{
            answer::{ROOT, answer},
            page::{Page, Params, id_cursor, rows_for},
        },
        error::Problem,
    },
    model::campaign::Status,
};

/// Attempts at a change that others keep overtaking.
pub(super) const CHANGE_ATTEMPTS: u32 = 5;

/// Longest part of a name that is looked for, in characters.
const Q_CHARS_MAX: usize = 255;

/// Campaigns that a refusal names.
const NAMED_MAX: usize = 5;

/// A campaign that uses what is asked about.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignUse {
    /// The campaign's.
    id: Uuid,
    /// What links show.
    #[schema(example = "summer-sale")]
    key: String,
    /// For people.
    #[schema(example = "Summer sale")]
    name: String,
    /// Whether it takes clicks.
    status: Status,
}

impl From<Use> for CampaignUse {
    fn from(Use { id, key, name, status }: Use) -> Self {
        Self { id, key, name, status }
    }
}

/// What a list is asked for: which ones, before which, how many.
pub(super) fn read_list(query: Option<&str>) -> Result<(Filter, Option<i64>, usize), Problem> {
    let mut params = Params::parse(query, &["q", "is_archived", "limit", "cursor"]);
    let q = search(&mut params);
    let is_archived = params.boolean("is_archived");
    let (limit, after) = (params.limit(), params.number_cursor());
    params.finish()?;
    Ok((Filter { q, is_archived }, after, limit))
}

/// `q`: part of a name.
pub(super) fn search(params: &mut Params<'_>) -> Option<String> {
    let q = params.text("q").map(str::to_owned)?;
    if q.chars().count() > Q_CHARS_MAX {
        params.refuse("q", "length", format!("must have at most {Q_CHARS_MAX} characters"));
    }
    Some(q.replace('\0', "\u{fffd}"))
}

/// A page of the campaigns that use it.
pub(super) async fn used_by(app: &Parts, thing: Thing, query: Option<&str>) -> Result<Response, Problem> {
    let mut params = Params::parse(query, &["limit", "cursor"]);
    let (limit, after) = (params.limit(), params.id_cursor());
    params.finish()?;
    let rows = uses::list(&app.db, thing, after, rows_for(limit)).await?;
    let page = Page::new(rows, limit, |row| id_cursor(row.id)).shown::<CampaignUse>();
    answer(StatusCode::OK, &page)
}

/// 409: who uses it. `path` is where it is under the API.
pub(super) async fn in_use(app: &Parts, thing: Thing, path: &str) -> Result<Problem, Problem> {
    let rows = uses::list(&app.db, thing, None, rows_for(NAMED_MAX)).await?;
    let named: Vec<_> = rows.iter().take(NAMED_MAX).map(|row| row.key.as_str()).collect();
    let more = if rows.len() > NAMED_MAX { " and others" } else { "" };
    let remedy = "Take it out there first, or archive it.";
    let detail = match named.as_slice() {
        [] => format!("It is used by something that is no campaign. {remedy}"),
        named => {
            let all = format!("GET {ROOT}{path}/campaigns lists them");
            format!("It is used by campaigns: {}{more}; {all}. {remedy}", named.join(", "))
        }
    };
    Ok(Problem::new(StatusCode::CONFLICT, "in_use", detail))
}

/// The number in a path that is an id of ours.
pub(super) fn parse_number(text: &str, what: &str) -> Result<i64, Problem> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).ok_or_else(|| Problem::not_found(what))
}

/// The schema of terms as they are asked for: nothing is required, and what is `left_out` cannot be asked for.
pub(super) fn asked_schema(
    terms: RefOr<Schema>,
    description: &str,
    example: Value,
    left_out: &[&str],
) -> Object {
    let RefOr::T(Schema::Object(mut object)) = terms else { return Object::default() };
    object.required.clear();
    object.properties.retain(|name, _| !left_out.contains(&name.as_str()));
    object.description = Some(description.to_owned());
    object.example = Some(example);
    object
}

/// The names of the fields of a schema.
pub(super) fn names(schema: RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.properties.into_keys().collect(),
        _ => Vec::new(),
    }
}
