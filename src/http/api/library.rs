//! What the nouns of the library have in common: how they are found, listed, shown, changed and deleted, who uses them, and
//! that what is used cannot go.

use std::borrow::Cow;

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
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
        campaigns::Written,
        library::{self, Entry, Filter},
        uses::{self, Removal, Thing, Use},
    },
    http::{
        api::{
            campaigns::{Allowed, Kind},
            manners::{
                answer::{ROOT, answer, located, no_content},
                etag,
                idempotency::Attempt,
                page::{Page, Params, id_cursor, number_cursor, rows_for},
            },
        },
        error::Problem,
        fields::{Fields, Given},
    },
    model::{campaign::Status, link::split_tail},
};

/// Attempts at a change that others keep overtaking.
const CHANGE_ATTEMPTS: u32 = 5;

/// Longest part of a name that is looked for, in characters.
const Q_CHARS_MAX: usize = 255;

/// Campaigns that a refusal names.
const NAMED_MAX: usize = 5;

/// What the library keeps, as the API speaks of it.
pub(in crate::http) trait Noun: Entry {
    /// How it is shown.
    type Body: Serialize;

    /// What a refusal calls it.
    const NAME: &'static str;
    /// Where they are under the API.
    const PATH: &'static str;
    /// Whether a campaign carries what it says: then the campaigns that are kept follow a change of it.
    const IS_IN_CAMPAIGNS: bool;

    /// What `asked` makes of the one that `was`, or of a new one; refused with all that is wrong with it.
    fn read(
        app: &Parts,
        headers: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> impl Future<Output = Result<Self::Terms, Problem>> + Send;

    /// How it is shown.
    fn shown(self, app: &Parts) -> Self::Body;

    /// What else has to know that one was made, changed or deleted.
    fn was_touched(_: &Parts) {}
}

/// What campaigns use.
pub(in crate::http) trait Used: Noun {
    /// The one with this id, for who asks what uses it.
    fn thing(id: i64) -> Thing;
}

/// A campaign that uses what is asked about.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CampaignUse {
    /// The campaign's.
    pub(in crate::http) id: Uuid,
    /// What links show.
    #[schema(example = "summer-sale")]
    pub(in crate::http) key: String,
    /// For people.
    #[schema(example = "Summer sale")]
    pub(in crate::http) name: String,
    /// Whether it takes clicks.
    pub(in crate::http) status: Status,
}

impl From<Use> for CampaignUse {
    fn from(Use { id, key, name, status }: Use) -> Self {
        Self { id, key, name, status }
    }
}

/// What a list is asked for: which ones, before which, how many.
pub(in crate::http) fn read_list(query: Option<&str>) -> Result<(Filter, Option<i64>, usize), Problem> {
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

/// Makes what is `asked` for, once for all attempts of a request.
pub(super) async fn create<N: Noun>(
    app: &Parts,
    attempt: &Attempt,
    headers: &HeaderMap,
    asked: &Value,
) -> Result<Response, Problem> {
    let made: N = made(app, attempt.id, attempt.is_again, headers, asked).await?;
    let location = format!("{ROOT}{}/{}", N::PATH, made.id());
    located(show(app, StatusCode::CREATED, made)?, &location)
}

/// What is `asked` for, made for the request with this id; `is_again`: unless an attempt before made it.
pub(in crate::http) async fn made<N: Noun>(
    app: &Parts,
    id: Uuid,
    is_again: bool,
    headers: &HeaderMap,
    asked: &Value,
) -> Result<N, Problem> {
    let terms = N::read(app, headers, asked, None).await?;
    let made = library::insert(&app.db, id, is_again, terms).await?;
    N::was_touched(app);
    Ok(made)
}

/// A page of those that are in `rows`, which have one more than `limit` where there are more.
pub(super) fn page<N: Noun>(app: &Parts, rows: Vec<N>, limit: usize) -> Result<Response, Problem> {
    let page = Page::new(rows, limit, |row| number_cursor(row.id()));
    answer(StatusCode::OK, &page.map(|noun| noun.shown(app)))
}

/// The one with the id that a path has.
pub(in crate::http) async fn find<N: Noun>(app: &Parts, id: &str) -> Result<N, Problem> {
    let id = parse_number(id, N::NAME)?;
    library::get(&app.db, id).await?.ok_or_else(|| Problem::not_found(N::NAME))
}

/// Shows the one with this id, unless who asks has it in this version.
pub(super) async fn get<N: Noun>(app: &Parts, id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let found: N = find(app, id).await?;
    if etag::if_none_match(headers, found.version()) {
        return Ok(etag::not_modified(found.version()));
    }
    show(app, StatusCode::OK, found)
}

/// Shows one with its version.
pub(super) fn show<N: Noun>(app: &Parts, status: StatusCode, noun: N) -> Result<Response, Problem> {
    let version = noun.version();
    Ok(etag::versioned(answer(status, &noun.shown(app))?, version))
}

/// Changes the one with this id as is `asked`; once more where another was faster.
pub(super) async fn update<N: Noun>(
    app: &Parts,
    id: &str,
    headers: &HeaderMap,
    asked: &Value,
) -> Result<Response, Problem> {
    show(app, StatusCode::OK, changed::<N>(app, id, headers, asked).await?)
}

/// The one with this id as it is with what is `asked`, unless `If-Match` names another version.
pub(in crate::http) async fn changed<N: Noun>(
    app: &Parts,
    id: &str,
    headers: &HeaderMap,
    asked: &Value,
) -> Result<N, Problem> {
    for _ in 0..CHANGE_ATTEMPTS {
        let was: N = find(app, id).await?;
        etag::if_match(headers, was.version())?;
        let terms = N::read(app, headers, asked, Some(&was)).await?;
        if terms == *was.terms() {
            return Ok(was);
        }
        match library::update::<N>(&app.db, was.id(), was.version(), terms).await? {
            Written::Done(noun) => {
                if N::IS_IN_CAMPAIGNS {
                    app.campaigns.see_library().await;
                }
                N::was_touched(app);
                return Ok(noun);
            }
            Written::Missing => return Err(Problem::not_found(N::NAME)),
            Written::Stale => {}
        }
    }
    Err(Problem::conflict("It is being changed by others all the time; try again."))
}

/// Deletes the one with this id, if nobody uses it.
pub(super) async fn delete<N: Used>(app: &Parts, id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    deleted::<N>(app, id, headers).await.map(|()| no_content())
}

/// Deletes the one with this id, if nobody uses it and `If-Match` names its version.
pub(in crate::http) async fn deleted<N: Used>(
    app: &Parts,
    id: &str,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let found: N = find(app, id).await?;
    etag::if_match(headers, found.version())?;
    let expected = headers.contains_key(header::IF_MATCH).then_some(found.version());
    match library::delete::<N>(&app.db, found.id(), expected).await? {
        Removal::Done => {
            N::was_touched(app);
            Ok(())
        }
        Removal::Missing => Err(Problem::not_found(N::NAME)),
        Removal::Stale => Err(Problem::precondition_failed()),
        Removal::InUse => Err(in_use::<N>(app, found.id()).await?),
    }
}

/// A page of the campaigns that use the one with this id.
pub(super) async fn campaigns<N: Used>(
    app: &Parts,
    id: &str,
    query: Option<&str>,
) -> Result<Response, Problem> {
    answer(StatusCode::OK, &used_by::<N>(app, id, query).await?)
}

/// The campaigns that use the one with this id, page by page.
pub(in crate::http) async fn used_by<N: Used>(
    app: &Parts,
    id: &str,
    query: Option<&str>,
) -> Result<Page<CampaignUse>, Problem> {
    let found: N = find(app, id).await?;
    let mut params = Params::parse(query, &["limit", "cursor"]);
    let (limit, after) = (params.limit(), params.id_cursor());
    params.finish()?;
    let rows = uses::list(&app.db, N::thing(found.id()), after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| id_cursor(row.id)).shown::<CampaignUse>())
}

/// 409: who uses it.
async fn in_use<N: Used>(app: &Parts, id: i64) -> Result<Problem, Problem> {
    let thing = N::thing(id);
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
            let all = format!("GET {ROOT}{}/{id}/campaigns lists them", N::PATH);
            format!("It is used by campaigns: {}{more}; {all}. {remedy}", named.join(", "))
        }
    };
    Ok(Problem::new(StatusCode::CONFLICT, "in_use", detail))
}

/// The number in a path that is an id of ours.
fn parse_number(text: &str, what: &str) -> Result<i64, Problem> {
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
