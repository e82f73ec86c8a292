//! What the nouns of the library have in common: their lists, who uses them, and that what is used cannot go.

use std::borrow::Cow;

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
        api::{
            campaigns::{Allowed, Kind},
            manners::{
                answer::{ROOT, answer},
                page::{Page, Params, id_cursor, rows_for},
            },
        },
        error::Problem,
        fields::{Fields, Given},
    },
    model::{campaign::Status, link::split_tail},
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
    let asked = list_query(&mut params);
    params.finish()?;
    Ok(asked)
}

/// [`read_list`] of parameters among which are others.
pub(super) fn list_query(params: &mut Params<'_>) -> (Filter, Option<i64>, usize) {
    let q = search(params);
    let is_archived = params.boolean("is_archived");
    (Filter { q, is_archived }, params.number_cursor(), params.limit())
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
    let detail = match (named.as_slice(), thing) {
        ([], Thing::AffiliateNetwork(id)) => {
            format!("Offers name it; GET {ROOT}/offers?affiliate_network_id={id} lists them. {remedy}")
        }
        ([], _) => format!("Other offers lead to it by overflow_offer_id. {remedy}"),
        (named, _) => {
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

/// Reads the `url` of a landing page or an offer that `was`; what stays as it was is not checked again.
pub(super) fn read_url(
    f: &mut Fields<'_>,
    was: Option<&str>,
    kind: Kind,
    allowed: &Allowed,
) -> Option<String> {
    match (f.given("url"), was) {
        (Given::Absent, Some(was)) => Some(was.to_owned()),
        (Given::Value(Value::String(text)), Some(was)) if text == was => Some(was.to_owned()),
        _ => {
            let url = allowed.url(f, "url", kind)?;
            Some(with_one_query(&url).into_owned())
        }
    }
}

/// Reads the `web_url` of a landing page or an offer that `was`.
pub(super) fn read_web_url(
    f: &mut Fields<'_>,
    was: Option<String>,
    url: Option<&str>,
    kind: Kind,
    allowed: &Allowed,
) -> Option<String> {
    match f.given("web_url") {
        Given::Absent => was,
        _ => allowed.web_url(f, "web_url", url, kind),
    }
}

/// A URL in which a second `?` is `&`, where it begins a parameter: who pastes `?tid=..` behind a link with a query means
/// that. Not in what is an address itself, which may have a query of its own.
fn with_one_query(url: &str) -> Cow<'_, str> {
    let end = url.find('#').unwrap_or(url.len());
    let Some(begin) = url[..end].find('?') else { return Cow::Borrowed(url) };
    let (head, rest) = url.split_at(begin + 1);
    let (query, fragment) = rest.split_at(end - begin - 1);
    if !query.contains('?') {
        return Cow::Borrowed(url);
    }
    let parts: Vec<String> = query.split('&').map(with_ampersands).collect();
    Cow::Owned(format!("{head}{}{fragment}", parts.join("&")))
}

fn with_ampersands(part: &str) -> String {
    let mut pieces = vec![part];
    while let (value, Some(tail)) = split_tail(pieces[pieces.len() - 1]) {
        pieces.pop();
        pieces.extend([value, tail]);
    }
    pieces.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_question_mark_is_an_ampersand_where_a_parameter_begins() {
        for (url, wanted) in [
            ("https://o.example/?a=1?b={click_id}", "https://o.example/?a=1&b={click_id}"),
            ("https://o.example/?a=1?b=2?c=3&d=4?e=5#x?f=6", "https://o.example/?a=1&b=2&c=3&d=4&e=5#x?f=6"),
            ("https://o.example/?a=what?", "https://o.example/?a=what?"),
            ("https://o.example/?u=https://x.example/?b=2", "https://o.example/?u=https://x.example/?b=2"),
            ("https://o.example/#a?b=1?c=2", "https://o.example/#a?b=1?c=2"),
            ("https://o.example/", "https://o.example/"),
        ] {
            assert_eq!(with_one_query(url), wanted);
        }
    }
}
