//! The flow of a campaign: a picture of its rules, paths, landing pages and offers, and the editor that is drawn into it. Between two
//! steps everything that was typed is in the form; nothing is stored until it is saved.

mod asked;
mod controls;
mod draft;
mod explained;
mod faults;
mod fields;
mod merge;
mod parts;
mod picture;
mod shelf;
mod steps;
mod visitor;
mod words;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::Value;

use self::{
    controls::{Group, Shape},
    draft::Draft,
    explained::Seen,
    faults::Fault,
    merge::take,
    parts::RuleShown,
    picture::Drawn,
    shelf::{Shelf, named, shelf},
    steps::{Editor, Place},
    visitor::MadeUp,
};
use super::{
    campaign::{Head, Tab, frame_of, path_of},
    failure::Failure,
    frame::Frame,
    html,
    session::{self, Opened, Posted},
};
use crate::{
    app::App,
    http::{
        api::{
            campaigns::{self, explain},
            caps,
            manners::request::Name,
        },
        error::Problem,
        fields::replace_nul,
    },
    model::{
        campaign::{Campaign, Terms},
        rule::Sticky,
    },
};

/// Its place below the pages of the campaign.
const END: &str = "/flow";

/// What the page shows beside the campaign.
#[derive(Debug, Default)]
struct Shown {
    editor: Editor,
    version: i64,
    faults: Vec<Fault>,
    made_up: MadeUp,
    seen: Option<Seen>,
    /// Whether somebody else was quicker, and both versions are compared.
    is_merging: bool,
    /// Whether the step was to explain a visitor.
    is_explained: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "the template asks for each by itself")]
#[derive(Template)]
#[template(path = "campaign_flow.html")]
struct FlowPage {
    frame: Frame,
    head: Head,
    action: String,
    /// Range, zone and currency, which go along.
    kept: Vec<(String, String)>,
    rules: Vec<RuleShown>,
    only_stored: Vec<(Vec<String>, String)>,
    stored_order: Option<String>,
    groups: Vec<Group>,
    draft: String,
    version: i64,
    open: String,
    is_merging: bool,
    is_explained: bool,
    changed_at: String,
    faults: Vec<String>,
    is_refused: bool,
    made_up: MadeUp,
    seen: Option<Seen>,
    is_changed: bool,
    facts: Vec<String>,
    is_too_long: bool,
}

/// `GET /ui/campaigns/{id}/flow`
pub(super) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let campaign = campaigns::find(&app, &id).await?;
    let editor = Editor { draft: Draft::of(&campaign.terms), ..Editor::default() };
    let version = campaign.version;
    shown(&app, &opened, campaign, Shown { editor, version, ..Shown::default() }).await
}

/// `POST /ui/campaigns/{id}/flow`: one step of the editor, which changes what the form holds, or the last one, which saves it.
/// Whoever may only look has visitors explained.
pub(super) async fn step(
    State(app): State<App>,
    Name(id): Name,
    request: Request,
) -> Result<Response, Failure> {
    let posted = session::signed(request, &app).await?;
    let fields = &posted.opened.fields;
    let what = fields.text("do");
    if what != "explain" && !posted.opened.viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read changes no campaigns.").into());
    }
    let campaign = campaigns::find(&app, &id).await?;
    let mut now = Shown {
        editor: Editor {
            draft: draft_of(fields.text("draft"))?,
            open: fields.text("open").parse().ok(),
            at: None,
        },
        version: fields.version(),
        made_up: MadeUp::of(fields),
        is_merging: !fields.text("merging").is_empty(),
        ..Shown::default()
    };
    now.editor.read(fields);
    if what == "save" {
        return save(&app, &posted, campaign, now).await;
    }
    match what.strip_prefix("take.") {
        Some(part) => take(&mut now.editor, &Draft::of(&campaign.terms), part),
        None if what == "explain" => now.is_explained = true,
        None => now.editor.step(what),
    }
    let status = explain(&app, &posted, &campaign, &mut now, what).await?;
    let mut response = shown(&app, &posted.opened, campaign, now).await?;
    *response.status_mut() = status;
    Ok(response)
}

fn draft_of(text: &str) -> Result<Draft, Problem> {
    let detail = "This form is not whole. Load the page again; what is stored is as it was.";
    serde_json::from_str(text).map_err(|_| Problem::bad_request("draft", detail))
}

fn patch_of(draft: &Draft) -> Value {
    let mut patch = draft.patch();
    replace_nul(&mut patch);
    patch
}

/// Saves the draft, unless it is refused: then everything stays as it was typed.
async fn save(app: &App, posted: &Posted, campaign: Campaign, mut now: Shown) -> Result<Response, Failure> {
    let patch = patch_of(&now.editor.draft);
    let id = campaign.id.to_string();
    let asked = posted.if_match(now.version)?;
    let problem = match campaigns::patched(app, &id, &patch, &asked).await {
        Ok(campaign) => {
            return Ok(Redirect::to(&format!("{}{END}?done=saved", path_of(&campaign))).into_response());
        }
        Err(problem) => problem,
    };
    let status = problem.status();
    if !status.is_client_error() || status == StatusCode::NOT_FOUND {
        return Err(problem.into());
    }
    let mut campaign = campaign;
    if status == StatusCode::PRECONDITION_FAILED {
        campaign = campaigns::find(app, &id).await?;
        now.version = campaign.version;
        now.is_merging = true;
        now.editor.show(None);
    } else {
        now.refuse(&problem);
    }
    let mut response = shown(app, &posted.opened, campaign, now).await?;
    *response.status_mut() = status;
    Ok(response)
}

impl Shown {
    /// Says what is wrong, and opens the first part that something is wrong with.
    fn refuse(&mut self, problem: &Problem) {
        self.faults = faults::of(problem, &self.editor.draft);
        let is_open =
            self.faults.iter().any(|fault| fault.place.is_some() && fault.place == self.editor.open);
        let first = self.faults.iter().find_map(|fault| fault.place);
        self.editor.show(if is_open { self.editor.open } else { first.or(self.editor.open) });
    }
}

/// Runs the visitor through the draft, where there is one. What is wrong with a draft that is only half written is said to
/// nobody who did not ask.
async fn explain(
    app: &App,
    posted: &Posted,
    campaign: &Campaign,
    now: &mut Shown,
    what: &str,
) -> Result<StatusCode, Failure> {
    if !now.is_explained && now.made_up.is_nobody() {
        return Ok(StatusCode::OK);
    }
    if now.is_explained || now.made_up.get("click_id").is_empty() {
        now.made_up.click_again();
    }
    let view = frame_of(app, &posted.opened, campaign, END, &[]).view;
    let (id, patch) = (campaign.id.to_string(), patch_of(&now.editor.draft));
    let visitor = now.made_up.body(&view);
    let problem = match explain::with_patch(app, &id, &patch, &posted.head(), &visitor).await {
        Ok(found) => {
            now.seen = Some(Seen::new(found));
            return Ok(StatusCode::OK);
        }
        Err(problem) if problem.status().is_client_error() => problem,
        Err(problem) => return Err(problem.into()),
    };
    if !now.is_explained && what != "apply" {
        return Ok(StatusCode::OK);
    }
    now.is_explained = true;
    now.made_up.refuse(&problem);
    if !now.made_up.is_refused() {
        now.refuse(&problem);
    }
    Ok(problem.status())
}

async fn shown(app: &App, opened: &Opened, campaign: Campaign, now: Shown) -> Result<Response, Failure> {
    let frame = frame_of(app, opened, &campaign, END, &[]);
    let stored = Draft::of(&campaign.terms);
    let shelf = match now.editor.open {
        Some(Place::Path(..)) => shelf(app).await?,
        _ => Shelf::default(),
    };
    let editor = named(now.editor, &shelf);
    let head = Head::of(&campaign, Tab::Flow, &frame.view);
    let (action, facts) = (format!("{}{END}#at", path_of(&campaign)), facts(&campaign.terms));
    let changed_at = frame.view.moment(campaign.updated_at);
    // one that is broken is shown, too, so that it can be mended
    let uses = caps::uses(app, campaign).await.unwrap_or_default();
    let drawn = Drawn {
        editor: &editor,
        uses: &uses,
        faults: &now.faults,
        seen: now.seen.as_ref(),
        theirs: now.is_merging.then_some(&stored),
    };
    let draft = serde_json::to_string(&editor.draft).map_err(Problem::internal)?;
    let whole = now.faults.iter().filter(|fault| fault.place.is_none()).map(|fault| fault.text.clone());
    let open = editor.open;
    html(&FlowPage {
        rules: drawn.rules(),
        only_stored: drawn.only_stored(),
        stored_order: drawn.stored_order(),
        groups: open
            .and_then(|place| controls::groups(&editor.draft, place, &now.faults, &shelf))
            .unwrap_or_default(),
        // encoded as a form it is longer
        is_too_long: draft.len().saturating_mul(2) > app.config.dashboard.form_bytes_max,
        draft,
        version: now.version,
        open: open.map(|place| place.to_string()).unwrap_or_default(),
        is_merging: now.is_merging,
        is_explained: now.is_explained,
        changed_at,
        faults: whole.collect(),
        is_refused: !now.faults.is_empty(),
        made_up: now.made_up,
        is_changed: editor.draft != stored,
        seen: now.seen,
        kept: frame.query.hidden(&[]),
        facts,
        action,
        head,
        frame,
    })
}

/// What else decides where clicks go.
fn facts(terms: &Terms) -> Vec<String> {
    let last = match &terms.fallback_url {
        Some(url) => format!("What nothing above takes goes to the fallback, {url}."),
        None => {
            "What nothing above takes goes to the fallback of the installation; without one it gets a 404."
                .to_owned()
        }
    };
    let sticky = match terms.sticky {
        Sticky::Off => "Every click is drawn anew.",
        Sticky::Path => "A visitor gets the same path again.",
        Sticky::All => "A visitor gets the same path, landing page and offer again.",
    };
    vec![last, sticky.to_owned(), format!("Times and days are those of {}.", terms.time_zone)]
}
