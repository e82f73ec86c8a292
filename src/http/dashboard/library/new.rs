//! A new entry of the library: from scratch, or as a template says.

use askama::Template;
use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Shelf,
    entry::{choices_of, done, on, refused},
    form::Form,
    texts::Texts,
};
use crate::{
    app::App,
    db::store::{
        affiliate_networks::AffiliateNetwork, landing_pages::LandingPage, offers::Offer,
        traffic_sources::TrafficSource,
    },
    http::{
        api::{
            library::{self, Used},
            manners::request::Name,
        },
        dashboard::{
            failure::Failure,
            frame::{Frame, Section},
            html,
            session::{Opened, Posted},
        },
        error::Problem,
    },
    model::id::new_uuid,
    templates,
};

/// What an entry can begin with.
struct Begun {
    name: String,
    note: Option<String>,
    documentation: Vec<String>,
    read: String,
}

#[derive(Template)]
#[template(path = "library_new.html")]
struct NewPage {
    frame: Frame,
    shelf: Shelf,
    tabs: Vec<(String, &'static str, bool)>,
    form: Form,
    attempt: Uuid,
    /// Key and name of each template, and whether it is the one.
    templates: Vec<(String, String, bool)>,
    template: String,
    begun: Option<Begun>,
    all: String,
}

/// `GET /ui/library/{shelf}/new`: empty, or as a template says.
pub(in crate::http::dashboard) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(shelf): Name,
) -> Result<Response, Failure> {
    let shelf = Shelf::of(&shelf)?;
    if !opened.viewer.may_change() {
        let detail = format!("A token of scope read makes no {}.", shelf.one());
        return Err(Problem::forbidden(detail).into());
    }
    let spec = shelf.spec();
    let template = template_of(shelf, opened.fields.text("template"))?;
    let mut texts = Texts::stored(spec, template.as_ref().unwrap_or(&Value::Null));
    texts.fill("retry_window_s", &crate::model::network::RETRY_WINDOW_S.to_string());
    texts.fill("repeats", "update");
    texts.fill("payout_currency", &app.config.dashboard.currency.to_string());
    let form = Form::of(spec, &texts, &choices_of(&app, shelf).await?, false);
    shown_new(&app, &opened, shelf, form, new_uuid())
}

/// The template with this key; nothing where none is named, or there is no such.
fn template_of(shelf: Shelf, key: &str) -> Result<Option<Value>, Problem> {
    let value = match shelf {
        Shelf::Sources => templates::source(key).map(serde_json::to_value),
        Shelf::Networks => templates::network(key).map(serde_json::to_value),
        Shelf::Landers | Shelf::Offers => None,
    };
    value.transpose().map_err(Problem::internal)
}

fn shown_new(
    app: &App,
    opened: &Opened,
    shelf: Shelf,
    form: Form,
    attempt: Uuid,
) -> Result<Response, Failure> {
    let path = format!("{}/new", shelf.path());
    let frame =
        Frame::of(app, opened, Section::Library, &path, &["template"]).titled(format!("New {}", shelf.one()));
    let template = opened.fields.text("template");
    let found = template_of(shelf, template)?;
    let template = if found.is_some() { template.to_owned() } else { String::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let begun = found.map(|it| Begun {
        name: text(&it["name"]),
        note: it["note"].as_str().map(str::to_owned),
        documentation: it["documentation"].as_array().into_iter().flatten().map(text).collect(),
        read: text(&it["read"]),
    });
    let named = |key: &String, name: &str| (key.clone(), name.to_owned(), *key == template);
    let templates = match shelf {
        Shelf::Sources => templates::sources().iter().map(|it| named(&it.key, it.name())).collect(),
        Shelf::Networks => templates::networks().iter().map(|it| named(&it.key, it.name())).collect(),
        Shelf::Landers | Shelf::Offers => Vec::new(),
    };
    html(&NewPage {
        tabs: shelf.tabs(&frame.view),
        all: frame.view.link(&shelf.path()),
        shelf,
        form,
        attempt,
        templates,
        template,
        begun,
        frame,
    })
}

/// `POST /ui/library/{shelf}/new`: sent twice it is made once.
pub(in crate::http::dashboard) async fn create(
    State(app): State<App>,
    Name(shelf): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    let shelf = Shelf::of(&shelf)?;
    let fields = &posted.opened.fields;
    let attempt = fields.attempt();
    let spec = shelf.spec();
    let texts = Texts::typed(spec, fields);
    let has_more = fields.text("action") == "more";
    let mut form = Form::of(spec, &texts, &choices_of(&app, shelf).await?, has_more);
    if has_more {
        return shown_new(&app, &posted.opened, shelf, form, attempt);
    }
    let mut asked = texts.body(spec);
    if !fields.text("template").is_empty() {
        asked["template"] = fields.text("template").into();
    }
    match on!(shelf, made(&app, attempt, &posted.headers, &asked)) {
        Ok(id) => Ok(done(shelf, Some(id), "made")),
        Err(problem) if problem.status().is_client_error() => {
            form.refuse(&problem);
            let page = shown_new(&app, &posted.opened, shelf, form, attempt)?;
            Ok(refused(page, problem.status()))
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn made<N: Used>(app: &App, attempt: Uuid, headers: &HeaderMap, asked: &Value) -> Result<i64, Problem> {
    library::made::<N>(app, attempt, true, headers, asked).await.map(|entry| entry.id())
}
