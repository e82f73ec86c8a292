//! An entry of the library: its form, who uses it, and how it is put away and removed. A new one is made in `new`.

use askama::Template;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Value, json};

use super::{
    Shelf, UseRow, body, choices,
    form::{Choices, Form},
    notice,
    texts::Texts,
};
use crate::{
    app::App,
    db::store::{
        affiliate_networks::AffiliateNetwork, landing_pages::LandingPage, offers::Offer,
        traffic_sources::TrafficSource,
    },
    http::{
        api::library::{self, Used},
        dashboard::{
            failure::Failure,
            frame::{Frame, Section},
            html,
            query::Query,
            session::{Opened, Posted},
        },
        error::Problem,
    },
};

/// Campaigns that are named at once.
const USES: &str = "50";

/// Calls a function of what is on the shelf.
macro_rules! on {
    ($shelf:expr, $call:ident($($argument:expr),*)) => {
        match $shelf {
            Shelf::Sources => $call::<TrafficSource>($($argument),*).await,
            Shelf::Networks => $call::<AffiliateNetwork>($($argument),*).await,
            Shelf::Landers => $call::<LandingPage>($($argument),*).await,
            Shelf::Offers => $call::<Offer>($($argument),*).await,
        }
    };
}
pub(super) use on;

/// What a form of a shelf offers to choose.
pub(super) async fn choices_of(app: &App, shelf: Shelf) -> Result<Choices, Problem> {
    if shelf != Shelf::Offers {
        return Ok(Choices::default());
    }
    Ok(Choices { networks: choices(app, Shelf::Networks).await?, offers: choices(app, Shelf::Offers).await? })
}

/// To the entry, or to the list, with what was done.
pub(super) fn done(shelf: Shelf, id: Option<i64>, what: &str) -> Response {
    let path = match id {
        Some(id) => format!("{}/{id}", shelf.path()),
        None => shelf.path(),
    };
    Redirect::to(&Query::new(path).with("done", what).to_string()).into_response()
}

pub(super) fn refused(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

/// What stands in the form of an entry.
enum Told {
    /// What is stored.
    Stored,
    /// What was typed, with more empty rows.
    More,
    /// What was typed, and why it is not stored.
    Refused(Box<Problem>),
    /// What is stored, and why it is not put away or removed.
    Kept(Box<Problem>),
}

#[derive(Template)]
#[template(path = "library_entry.html")]
struct EntryPage {
    frame: Frame,
    shelf: Shelf,
    tabs: Vec<(String, &'static str, bool)>,
    name: String,
    is_archived: bool,
    form: Form,
    /// Why it was not put away or removed.
    kept: Option<&'static str>,
    version: i64,
    was_changed: bool,
    changed_at: String,
    /// What to look at.
    hints: Vec<String>,
    /// The address for its postbacks.
    postback: Option<String>,
    uses: Vec<UseRow>,
    more_uses: Option<String>,
    all: String,
}

/// The names in the address of an entry.
type Named = Result<Path<(String, String)>, PathRejection>;

fn named(path: Named) -> Result<(Shelf, String), Problem> {
    let Path((shelf, id)) = path.map_err(|_| Problem::not_found("page"))?;
    Ok((Shelf::of(&shelf)?, id))
}

/// `GET /ui/library/{shelf}/{id}`
pub(in crate::http::dashboard) async fn page(
    opened: Opened,
    State(app): State<App>,
    path: Named,
) -> Result<Response, Failure> {
    let (shelf, id) = named(path)?;
    on!(shelf, shown(&app, &opened, shelf, &id, Told::Stored))
}

async fn shown<N: Used>(
    app: &App,
    opened: &Opened,
    shelf: Shelf,
    id: &str,
    told: Told,
) -> Result<Response, Failure> {
    let entry: N = library::find(app, id).await?;
    let (id, version) = (entry.id(), entry.version());
    let body = body(app, entry)?;
    let path = format!("{}/{id}", shelf.path());
    let fields = &opened.fields;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let mut frame = Frame::of(app, opened, Section::Library, &path, &["uses"]).titled(&name);
    frame.notice = notice(fields, shelf);
    let spec = shelf.spec();
    let stored = Texts::stored(spec, &body);
    let is_stored = matches!(told, Told::Stored | Told::Kept(_));
    let texts = if is_stored { stored.clone() } else { Texts::typed(spec, fields) };
    let choices = choices_of(app, shelf).await?;
    let mut form = Form::of(spec, &texts, &choices, matches!(told, Told::More));
    let (mut was_changed, mut kept) = (false, None);
    match &told {
        Told::Refused(problem) if problem.status() == StatusCode::PRECONDITION_FAILED => {
            was_changed = true;
            form.compare(&texts, &stored);
        }
        Told::Refused(problem) => form.refuse(problem),
        Told::Kept(problem) => kept = Some(why_kept(problem)),
        Told::Stored | Told::More => {}
    }
    // of one that was refused for something else the version stays: nobody has seen what changed meanwhile
    let seen = fields.text("version").parse().ok().filter(|_| !is_stored && !was_changed);
    let asked = Query::new("").with("limit", USES).with("cursor", fields.text("uses")).text();
    let uses = library::used_by::<N>(app, &id.to_string(), Some(&asked)).await?;
    let view = &frame.view;
    let response = html(&EntryPage {
        tabs: shelf.tabs(view),
        all: view.link(&shelf.path()),
        name,
        is_archived: body["is_archived"] == true,
        form,
        kept,
        version: seen.unwrap_or(version),
        was_changed,
        changed_at: changed_at(&body, &frame),
        hints: hints(&body),
        postback: body["postback_url"].as_str().filter(|_| shelf == Shelf::Networks).map(str::to_owned),
        uses: uses
            .data
            .into_iter()
            .map(|it| UseRow::of(it.id, it.name, it.key, it.status.into(), view))
            .collect(),
        more_uses: uses.next_cursor.map(|cursor| frame.query.with("uses", &cursor).to_string()),
        shelf,
        frame,
    })?;
    Ok(match told {
        Told::Refused(problem) | Told::Kept(problem) => refused(response, problem.status()),
        Told::Stored | Told::More => response,
    })
}

/// Why it could not be put away or removed, in the words of the page.
fn why_kept(problem: &Problem) -> &'static str {
    match (problem.status(), problem.code()) {
        (StatusCode::PRECONDITION_FAILED, _) => {
            "Somebody else changed it meanwhile. Look at what it is now, and do it again."
        }
        (_, "in_use") => "It is in use. Take it out there first, or put it away instead.",
        _ => "It could not be done: others change it all the time. Do it again.",
    }
}

fn changed_at(body: &Value, frame: &Frame) -> String {
    let at = body["updated_at"].as_str().and_then(|at| at.parse().ok());
    at.map(|at| frame.view.moment(at)).unwrap_or_default()
}

/// What the owner of an entry should look at.
fn hints(body: &Value) -> Vec<String> {
    let own = body["hints"].as_array().into_iter().flatten();
    let own = own.filter_map(|hint| hint["detail"].as_str().map(str::to_owned));
    let (clicks, unexpanded) = (body["recent"]["clicks"].as_i64(), body["recent"]["unexpanded"].as_i64());
    let lost = clicks.zip(unexpanded).filter(|(_, unexpanded)| *unexpanded > 0).map(|(clicks, unexpanded)| {
        format!(
            "{unexpanded} of {clicks} clicks of 7 days came with a macro that the source did not fill: compare the link there with \
             the one on the page Links of the campaign."
        )
    });
    own.chain(lost).collect()
}

/// `POST /ui/library/{shelf}/{id}`: saves it, puts it away, takes it back or removes it. Where somebody else was quicker, what was
/// typed stays, beside what is stored now.
pub(in crate::http::dashboard) async fn save(
    State(app): State<App>,
    path: Named,
    posted: Posted,
) -> Result<Response, Failure> {
    let (shelf, id) = named(path)?;
    let opened = &posted.opened;
    let fields = &opened.fields;
    let headers = posted.if_match(fields.version())?;
    let archive = |is_archived: bool| json!({ "is_archived": is_archived });
    let (outcome, done_what) = match fields.text("action") {
        "more" => return on!(shelf, shown(&app, opened, shelf, &id, Told::More)),
        "archive" => (on!(shelf, changed(&app, &id, &headers, &archive(true))), "archived"),
        "restore" => (on!(shelf, changed(&app, &id, &headers, &archive(false))), "restored"),
        "remove" => (on!(shelf, removed(&app, &id, &headers)), "removed"),
        _ => {
            let spec = shelf.spec();
            let asked = Texts::typed(spec, fields).body(spec);
            (on!(shelf, changed(&app, &id, &headers, &asked)), "saved")
        }
    };
    let problem = match outcome {
        Ok(id) => return Ok(done(shelf, id, done_what)),
        Err(problem) => problem,
    };
    if !problem.status().is_client_error() || problem.status() == StatusCode::NOT_FOUND {
        return Err(problem.into());
    }
    let told = match done_what {
        "saved" => Told::Refused(Box::new(problem)),
        _ => Told::Kept(Box::new(problem)),
    };
    on!(shelf, shown(&app, opened, shelf, &id, told))
}

async fn changed<N: Used>(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    asked: &Value,
) -> Result<Option<i64>, Problem> {
    library::changed::<N>(app, id, headers, asked).await.map(|entry| Some(entry.id()))
}

async fn removed<N: Used>(app: &App, id: &str, headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    library::deleted::<N>(app, id, headers).await.map(|()| None)
}
