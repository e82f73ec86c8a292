//! The library: traffic sources, affiliate networks, landing pages and offers, each listed with the campaigns that use it, made,
//! changed, put away and removed.

mod entry;
mod fields;
mod form;
mod new;
mod texts;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::Value;
use strum::{EnumString, IntoStaticStr};
use uuid::Uuid;

pub(super) use entry::{page as entry_page, save};
pub(super) use new::{create, page as new_page};

use super::{
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    query::Query,
    session::Opened,
    view::View,
};
use crate::{
    app::App,
    db::store::{
        affiliate_networks, landing_pages,
        library::{Entry, Filter},
        offers, traffic_sources,
        uses::{self, Thing},
    },
    http::{
        api::{
            library::{Noun, read_list},
            manners::{
                page::{Page, number_cursor, rows_for},
                request::Name,
            },
        },
        error::Problem,
    },
};

/// What this page is asked beside what all are.
const OWN: [&str; 3] = ["q", "archived", "cursor"];

/// Entries of a page.
const ROWS: &str = "50";

/// Campaigns that the list names of each entry.
const USES_MAX: usize = 3;

/// Entries to choose from in a form.
const CHOICES_MAX: i64 = 500;

/// A part of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Shelf {
    Sources,
    Networks,
    Landers,
    Offers,
}

impl Shelf {
    const ALL: [Self; 4] = [Self::Sources, Self::Networks, Self::Landers, Self::Offers];

    /// The one that an address names.
    fn of(name: &str) -> Result<Self, Problem> {
        name.parse().map_err(|_| Problem::not_found("page"))
    }

    fn path(self) -> String {
        format!("/ui/library/{}", <&str>::from(self))
    }

    /// What its entries are called.
    fn title(self) -> &'static str {
        match self {
            Self::Sources => "Traffic sources",
            Self::Networks => "Affiliate networks",
            Self::Landers => "Landing pages",
            Self::Offers => "Offers",
        }
    }

    /// What one of them is called.
    fn one(self) -> &'static str {
        match self {
            Self::Sources => "traffic source",
            Self::Networks => "affiliate network",
            Self::Landers => "landing page",
            Self::Offers => "offer",
        }
    }

    /// What they are for, where there is none yet.
    fn purpose(self) -> &'static str {
        match self {
            Self::Sources => {
                "A traffic source says what an ad network calls its parameters, so that links carry its macros."
            }
            Self::Networks => {
                "An affiliate network tells of conversions. Make it, enter its postback address there, and name it in its offers."
            }
            Self::Landers => {
                "A landing page that is kept here serves many campaigns: change it once, and all follow."
            }
            Self::Offers => "An offer that is kept here serves many campaigns, with its payout and its caps.",
        }
    }

    /// What putting one away does.
    fn archiving(self) -> &'static str {
        match self {
            Self::Sources => {
                "It is offered to no new campaign; those that have it go on. It can be taken back."
            }
            Self::Networks => {
                "It is offered to no new offer; those that have it go on. It can be taken back."
            }
            Self::Landers | Self::Offers => {
                "It takes no clicks any more: campaigns send them to what else their paths have. It can be taken back."
            }
        }
    }

    fn thing(self, id: i64) -> Thing {
        match self {
            Self::Sources => Thing::TrafficSource(id),
            Self::Networks => Thing::AffiliateNetwork(id),
            Self::Landers => Thing::LandingPage(id),
            Self::Offers => Thing::Offer(id),
        }
    }

    /// What stands beside the name in the list.
    fn headings(self) -> &'static [&'static str] {
        match self {
            Self::Sources => &["Parameters", "Clicks of 7 days", "Macros not filled"],
            Self::Networks => &["Our click id", "Currency", "Words"],
            Self::Landers => &["Address"],
            Self::Offers => &["Address", "Payout"],
        }
    }

    /// The cells below the headings.
    fn cells(self, body: &Value) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = |value: &Value| value.as_array().map_or(0, Vec::len).to_string();
        match self {
            Self::Sources => vec![
                count(&body["parameters"]),
                body["recent"]["clicks"].to_string(),
                body["recent"]["unexpanded"].to_string(),
            ],
            Self::Networks => {
                vec![text(&body["click_id_parameter"]), text(&body["currency"]), count(&body["status_map"])]
            }
            Self::Landers => vec![text(&body["url"])],
            Self::Offers => {
                let payout = &body["payout"];
                let payout = format!("{} {}", text(&payout["amount"]), text(&payout["currency"]));
                vec![text(&body["url"]), payout.trim().to_owned()]
            }
        }
    }

    /// The way to each part: address, name, whether it is here.
    fn tabs(self, view: &View) -> Vec<(String, &'static str, bool)> {
        Self::ALL.map(|shelf| (view.link(&shelf.path()), shelf.title(), shelf == self)).into()
    }
}

/// A campaign that uses an entry.
struct UseRow {
    address: String,
    name: String,
    key: String,
    status: &'static str,
}

impl UseRow {
    fn of(id: Uuid, name: String, key: String, status: &'static str, view: &View) -> Self {
        Self { address: view.link(&format!("/ui/campaigns/{id}")), name, key, status }
    }
}

struct Row {
    address: String,
    name: String,
    cells: Vec<String>,
    uses: Vec<UseRow>,
    has_more_uses: bool,
}

#[derive(Template)]
#[template(path = "library.html")]
struct LibraryPage {
    frame: Frame,
    shelf: Shelf,
    tabs: Vec<(String, &'static str, bool)>,
    rows: Vec<Row>,
    q: String,
    kept: Vec<(String, String)>,
    is_archived: bool,
    is_searched: bool,
    other: String,
    all: String,
    new: String,
    more: Option<String>,
}

/// `GET /ui/library`
pub(super) async fn begin(opened: Opened) -> Response {
    let query = Query::new(Shelf::Sources.path()).keeping(&opened.fields, &super::view::COMMON);
    Redirect::to(&query.to_string()).into_response()
}

/// `GET /ui/library/{shelf}`
pub(super) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(shelf): Name,
) -> Result<Response, Failure> {
    let shelf = Shelf::of(&shelf)?;
    let fields = &opened.fields;
    let mut frame = Frame::of(&app, &opened, Section::Library, &shelf.path(), &OWN).titled(shelf.title());
    frame.notice = notice(fields, shelf);
    let is_archived = fields.text("archived") == "true";
    let asked = Query::new("")
        .with("q", fields.text("q"))
        .with("cursor", fields.text("cursor"))
        .with("is_archived", if is_archived { "true" } else { "false" })
        .with("limit", ROWS);
    let (filter, after, limit) = read_list(Some(&asked.text()))?;
    let page = Page::new(listed(&app, shelf, filter, after, rows_for(limit)).await?, limit, |(id, _)| {
        number_cursor(*id)
    });
    let ids = page.data.iter().map(|(id, _)| *id).collect();
    let mut uses = uses::list_of_each(&app.db, shelf.thing(0), ids, rows_for(USES_MAX)).await?;
    let view = &frame.view;
    let row = |(id, body): &(i64, Value)| {
        let named = uses.remove(id).unwrap_or_default();
        Row {
            address: view.link(&format!("{}/{id}", shelf.path())),
            name: body["name"].as_str().unwrap_or_default().to_owned(),
            cells: shelf.cells(body),
            has_more_uses: named.len() > USES_MAX,
            uses: named
                .into_iter()
                .take(USES_MAX)
                .map(|it| UseRow::of(it.id, it.name, it.key, it.status.into(), view))
                .collect(),
        }
    };
    let without = frame.query.without("cursor");
    html(&LibraryPage {
        rows: page.data.iter().map(row).collect(),
        tabs: shelf.tabs(view),
        q: fields.text("q").to_owned(),
        kept: without.hidden(&["q"]),
        is_archived,
        is_searched: !fields.text("q").is_empty(),
        other: without.with("archived", if is_archived { "" } else { "true" }).to_string(),
        all: view.link(&shelf.path()),
        new: view.link(&format!("{}/new", shelf.path())),
        more: page.next_cursor.as_ref().map(|cursor| frame.query.with("cursor", cursor).to_string()),
        shelf,
        frame,
    })
}

/// Entries as the API shows them, newest first.
async fn listed(
    app: &App,
    shelf: Shelf,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<(i64, Value)>, Problem> {
    match shelf {
        Shelf::Sources => bodies(app, traffic_sources::list(&app.db, filter, after, limit).await?),
        Shelf::Networks => bodies(app, affiliate_networks::list(&app.db, filter, after, limit).await?),
        Shelf::Landers => bodies(app, landing_pages::list(&app.db, filter, after, limit).await?),
        Shelf::Offers => bodies(app, offers::list(&app.db, filter, None, after, limit).await?),
    }
}

fn bodies<N: Noun>(app: &App, entries: Vec<N>) -> Result<Vec<(i64, Value)>, Problem> {
    entries.into_iter().map(|entry| Ok((Entry::id(&entry), body(app, entry)?))).collect()
}

/// An entry as the API shows it.
fn body<N: Noun>(app: &App, entry: N) -> Result<Value, Problem> {
    serde_json::to_value(entry.shown(app)).map_err(Problem::internal)
}

/// What can be chosen of a part of the library: id and name.
async fn choices(app: &App, shelf: Shelf) -> Result<Vec<(String, String)>, Problem> {
    let filter = Filter { q: None, is_archived: Some(false) };
    let found = listed(app, shelf, filter, None, CHOICES_MAX).await?;
    let name = |body: &Value| body["name"].as_str().unwrap_or_default().to_owned();
    Ok(found.iter().map(|(id, body)| (id.to_string(), name(body))).collect())
}

/// What was just done, in a sentence.
fn notice(fields: &Fields, shelf: Shelf) -> Option<String> {
    let done = match fields.text("done") {
        "made" => "is made",
        "saved" => "is saved",
        "archived" => "is put away",
        "restored" => "is taken back",
        "removed" => "is removed",
        _ => return None,
    };
    Some(format!("The {} {done}.", shelf.one()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_library_is_named_by_its_address_and_what_was_done_in_our_words() {
        for shelf in Shelf::ALL {
            let name = shelf.path().rsplit('/').next().unwrap_or_default().to_owned();
            assert_eq!(Shelf::of(&name).unwrap(), shelf);
        }
        assert!(Shelf::of("evil").is_err());
        let notice = |done: &str| notice(&Fields::parse(&format!("done={done}")), Shelf::Offers);
        assert_eq!(notice("archived").as_deref(), Some("The offer is put away."));
        assert_eq!(notice("<b>"), None);
    }
}
