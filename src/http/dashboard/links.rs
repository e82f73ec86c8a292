//! The links of a campaign to be copied: as each traffic source needs them, with values of one's own, and what networks and pages call.

use askama::Template;
use axum::{extract::State, response::Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    campaign::{Head, Tab, frame_of, path_of},
    failure::Failure,
    form::Fields,
    frame::Frame,
    html,
    session::Opened,
};
use crate::{
    app::App,
    db::store::{
        affiliate_networks,
        library::{self, Filter},
        traffic_sources::{self, TrafficSource},
    },
    http::{
        api::{
            campaigns::{self, links::Links},
            library::Noun as _,
            manners::request::Name,
        },
        error::Problem,
    },
    model::{campaign::Campaign, source::Macro},
};

/// What this page is asked beside what all are.
const OWN: [&str; 9] =
    ["source", "p_sub1", "p_sub2", "p_sub3", "p_sub4", "p_sub5", "p_click_id", "p_cost", "p_currency"];

/// What the builder asks for: its field, the parameter of the link, and what it is.
const PARAMETERS: [(&str, &str, &str); 8] = [
    ("p_sub1", "sub1", "sub1"),
    ("p_sub2", "sub2", "sub2"),
    ("p_sub3", "sub3", "sub3"),
    ("p_sub4", "sub4", "sub4"),
    ("p_sub5", "sub5", "sub5"),
    ("p_click_id", "click_id", "Their click id"),
    ("p_cost", "cost", "Cost of a click"),
    ("p_currency", "currency", "Currency of the cost"),
];

/// Longest value of the builder, in characters; links keep as many.
const VALUE_CHARS_MAX: usize = 1024;

/// Traffic sources to choose from.
const SOURCES_MAX: i64 = 500;

/// Networks whose postback addresses are shown.
const NETWORKS_MAX: i64 = 30;

/// What stands as it is in a value of a link.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A link to be copied.
struct Link {
    id: String,
    name: String,
    text: String,
    explained: String,
}

impl Link {
    fn new(id: &str, name: impl Into<String>, text: impl Into<String>, explained: impl Into<String>) -> Self {
        Self { id: id.to_owned(), name: name.into(), text: text.into(), explained: explained.into() }
    }
}

/// A field of the builder.
struct Part {
    field: &'static str,
    label: &'static str,
    value: String,
}

#[derive(Template)]
#[template(path = "campaign_links.html")]
struct LinksPage {
    frame: Frame,
    head: Head,
    /// Value, name, whether it is chosen.
    sources: Vec<(String, String, bool)>,
    /// Why links of the chosen source are not read as its.
    foreign: Option<String>,
    settings: String,
    tracking: Vec<Link>,
    parts: Vec<Part>,
    built: Link,
    kept: Vec<(String, String)>,
    kept_by_parts: Vec<(String, String)>,
    pages: Vec<Link>,
    postbacks: Vec<Link>,
    networks: String,
    has_more_networks: bool,
}

/// `GET /ui/campaigns/{id}/links`
pub(super) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let campaign = campaigns::find(&app, &id).await?;
    let fields = &opened.fields;
    let frame = frame_of(&app, &opened, &campaign, "/links", &OWN);
    let own = campaign.terms.traffic_source_id;
    let asked = match fields.text("source") {
        "" => own,
        text => text.parse::<i64>().ok(), // `none` is none
    };
    let source = match asked {
        Some(id) => library::get::<TrafficSource>(&app.db, id).await?,
        None => None,
    };
    let chosen = source.as_ref().map(|source| source.id);
    let links = Links::of(
        &app.public_url,
        campaign.key.as_str(),
        source.as_ref().map(|source| (source.id, source.terms.clone())),
    );
    let (postbacks, has_more_networks) = postbacks(&app).await?;
    html(&LinksPage {
        head: Head::of(&campaign, Tab::Links, &frame.view),
        sources: sources(&app, chosen, source.as_ref()).await?,
        foreign: (chosen.is_some() && chosen != own).then(|| foreign(source.as_ref())),
        settings: frame.view.link(&format!("{}/settings", path_of(&campaign))),
        tracking: tracking(&links),
        built: Link::new(
            "built",
            "Link with these values",
            with_values(&links.click, fields),
            "For one ad: the values stand in it as you typed them, macros as the source fills them.",
        ),
        parts: PARAMETERS
            .iter()
            .map(|&(field, _, label)| Part { field, label, value: cut(fields.text(field)) })
            .collect(),
        kept: frame.query.hidden(&["source"]),
        kept_by_parts: frame.query.hidden(&PARAMETERS.map(|(field, ..)| field)),
        pages: pages(&app, &campaign, &links),
        postbacks,
        networks: frame.view.link("/ui/library/networks"),
        has_more_networks,
        frame,
    })
}

/// Traffic sources to choose from; the chosen one also where it is put away.
async fn sources(
    app: &App,
    chosen: Option<i64>,
    source: Option<&TrafficSource>,
) -> Result<Vec<(String, String, bool)>, Problem> {
    let filter = Filter { q: None, is_archived: Some(false) };
    let mut found = traffic_sources::list(&app.db, filter, None, SOURCES_MAX).await?;
    if let Some(source) = source
        && !found.iter().any(|it| it.id == source.id)
    {
        found.push(source.clone());
    }
    let choice = |it: TrafficSource| (it.id.to_string(), it.terms.name, Some(it.id) == chosen);
    let none = ("none".to_owned(), "none".to_owned(), chosen.is_none());
    Ok(std::iter::once(none).chain(found.into_iter().map(choice)).collect())
}

fn foreign(source: Option<&TrafficSource>) -> String {
    let name = source.map_or("this source", |source| source.terms.name.as_str());
    format!(
        "This campaign is not one of {name}: its clicks are not read by the parameters of {name}. Choose it in the settings, or make \
         a copy of the campaign for it."
    )
}

fn tracking(links: &Links) -> Vec<Link> {
    let with = match &links.traffic_source {
        Some(source) => format!("With the parameters of {}, which fills them in.", source.name),
        None => "Choose a traffic source, and its parameters stand here too.".to_owned(),
    };
    let mut list = vec![
        Link::new("click", "Tracking link", &links.click, format!("For ads. {with}")),
        Link::new("short", "Short tracking link", &links.short, "The same, shorter."),
    ];
    if !links.parameters.is_empty() {
        let explained = "The macros alone, where the source asks for them apart from the link.";
        list.push(Link::new("parameters", "Parameters", &links.parameters, explained));
    }
    list
}

/// What landing pages and thank-you pages call.
fn pages(app: &App, campaign: &Campaign, links: &Links) -> Vec<Link> {
    let script = format!(
        "<script async src=\"{}{}\" data-campaign=\"{}\"></script>",
        app.public_url, app.config.script.path, campaign.key
    );
    vec![
        Link::new(
            "out",
            "Out-link",
            &links.out,
            "From a landing page to its offer, where the page does not use {out_url}.",
        ),
        Link::new(
            "pixel",
            "Conversion pixel",
            &links.pixel,
            "An image for thank-you pages; put our click id in the place of CLICK_ID.",
        ),
        Link::new(
            "script",
            "Script",
            script,
            "For landing pages: counts visits without a redirect and fills out-links.",
        ),
    ]
}

/// The address for the postbacks of each network, and whether there are more networks.
async fn postbacks(app: &App) -> Result<(Vec<Link>, bool), Problem> {
    let filter = Filter { q: None, is_archived: Some(false) };
    let mut found = affiliate_networks::list(&app.db, filter, None, NETWORKS_MAX + 1).await?;
    let has_more = i64::try_from(found.len()).is_ok_and(|count| count > NETWORKS_MAX);
    found.truncate(usize::try_from(NETWORKS_MAX).unwrap_or_default());
    let of_network = |network: affiliate_networks::AffiliateNetwork| {
        let (id, name) =
            (format!("postback-{}", network.id), format!("Postback URL of {}", network.terms.name));
        let explained = "Enter it at the network; what stands there as REPLACE is yours to put in.";
        Link::new(&id, name, network.shown(app).postback_url, explained)
    };
    let mut list: Vec<Link> = found.into_iter().map(of_network).collect();
    if !app.config.postbacks.key_required {
        list.push(Link::new(
            "postback",
            "Postback URL of any network",
            format!("{}/postback?click_id=CLICK_ID&payout=PAYOUT", app.public_url),
            "For a network that is not in the library; put its macros in the place of CLICK_ID and PAYOUT.",
        ));
    }
    Ok((list, has_more))
}

/// The link with what the builder was given.
fn with_values(link: &str, fields: &Fields) -> String {
    let mut built = link.to_owned();
    for (field, parameter, _) in PARAMETERS {
        let value = cut(fields.text(field));
        if !value.is_empty() {
            built.extend(["&", parameter, "=", &encoded(&value)]);
        }
    }
    built
}

/// A value as it stands in a link: a macro as it is, so that the source finds it.
fn encoded(value: &str) -> String {
    match value.parse::<Macro>() {
        Ok(it) if it.is_recognised() => value.to_owned(),
        _ => utf8_percent_encode(value, PLAIN).to_string(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(VALUE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_link_has_values_encoded_and_macros_as_they_are() {
        let fields = Fields::parse("p_sub1=a+b%26c&p_sub2=%7Bzone%7D&p_cost=0.05&p_currency=&source=3");
        assert_eq!(
            with_values("https://t.example/click?cid=k", &fields),
            "https://t.example/click?cid=k&sub1=a%20b%26c&sub2={zone}&cost=0.05"
        );
        assert_eq!(cut(&"x".repeat(2000)).len(), VALUE_CHARS_MAX);
    }
}
