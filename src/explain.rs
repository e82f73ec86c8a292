//! Explains where a visitor who is only made up would go: the parts of a click that need no visitor, put together for
//! people who ask why.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    facts::click::Click,
    model::{id::ClickId, link::Params},
    routing::{
        self, CapTarget, Routes, Visit,
        destination::Known,
        explain::{Explanation, explain},
    },
    visitor::{Enricher, Signs},
};

/// A visitor who is made up; what is not given is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MadeUp {
    /// The query of the link.
    pub query: String,
    /// Where he comes from.
    pub ip: Option<IpAddr>,
    /// What his browser says of itself.
    pub user_agent: String,
    /// `Accept-Language`
    pub language: String,
    /// `Referer`
    pub referrer: Option<String>,
    /// When he comes; `None`: now.
    pub at: Option<DateTime<Utc>>,
    /// The id of his click, which his draw hangs on; `None`: a new one.
    pub click_id: Option<ClickId>,
    /// Whether he came to the campaign before.
    pub is_returning: Option<bool>,
    /// Whether it is his first click of the campaign today.
    pub is_unique: Option<bool>,
}

/// Where a visitor would go, and why.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Explained {
    /// What is known of the visitor.
    pub visitor: Seen,
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Where this visit is redirected to; null: nowhere.
    #[schema(format = "uri", example = "https://offer.example/?click=019aaf3c-5f00-7abc-8def-0123456789ab")]
    pub location: Option<String>,
}

/// What is known of a visitor; null is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Seen {
    /// Two letters of ISO 3166-1.
    #[schema(example = "DE")]
    pub country: Option<String>,
    /// The part of ISO 3166-2 behind the country.
    #[schema(example = "BY")]
    pub region: Option<String>,
    /// Its English name.
    #[schema(example = "Munich")]
    pub city: Option<String>,
    /// Who provides the connection.
    #[schema(example = "Example Telecom")]
    pub isp: Option<String>,
    /// The kind of connection.
    #[schema(example = "cellular")]
    pub connection: Option<String>,
    /// The language the browser asks for most.
    #[schema(example = "de")]
    pub language: Option<String>,
    /// What the agent says it is; rules see this of bots too.
    #[schema(example = "mobile")]
    pub device: String,
    /// Operating system.
    #[schema(example = "iOS")]
    pub os: Option<String>,
    /// Its version.
    #[schema(example = "17.5")]
    pub os_version: Option<String>,
    /// Browser.
    #[schema(example = "Safari")]
    pub browser: Option<String>,
    /// Its version.
    #[schema(example = "17.5")]
    pub browser_version: Option<String>,
}

/// Where a made-up visitor would go.
pub fn explain_visitor(
    routes: &Routes,
    enricher: &Enricher,
    made_up: &MadeUp,
    is_full: &dyn Fn(CapTarget) -> bool,
    is_spent: bool,
) -> Explained {
    let id = made_up.click_id.unwrap_or_else(ClickId::now);
    let mut params = Params::parse(&made_up.query);
    if let Some(source) = &routes.campaign.source {
        params.read_as(source);
    }
    let visitor = enricher.describe(&Signs {
        user_agent: &made_up.user_agent,
        accept_language: &made_up.language,
        ip: made_up.ip,
        ..Signs::default()
    });
    let visit = Visit {
        referrer: made_up.referrer.as_deref(),
        is_returning: made_up.is_returning,
        is_unique: made_up.is_unique,
        is_full,
        is_spent,
        ..Visit::new(&params, &visitor, made_up.at.unwrap_or_else(|| id.created_at()), id.seed())
    };
    let decision = routing::decide(routes, &visit);
    let explanation = explain(routes, &visit, &decision);
    let mut click = Click::of_link(id, routes.campaign.id, params.clone());
    visitor.describe(&mut click);
    click.landing_page_id = decision.landing_page_id();
    click.campaign_offer_id = decision.offer_id();
    let unknown = if routes.campaign.terms.pass_through { params.unknown.as_slice() } else { &[] };
    let values = routes.values(&decision, Known::Click(&click));
    let location = decision.template.map(|template| template.expand(&values, unknown));
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let seen = Seen {
        country: visitor.country.map(|country| country.to_string()),
        region: text(visitor.region),
        city: text(visitor.city),
        isp: text(visitor.isp),
        connection: text(visitor.connection),
        language: visitor.language.map(|language| language.to_string()),
        device: visitor.device.as_str().to_owned(),
        os: text(Some(visitor.os)),
        os_version: visitor.os_version.map(|version| version.to_string()),
        browser: text(Some(visitor.browser)),
        browser_version: visitor.browser_version.map(|version| version.to_string()),
    };
    Explained { visitor: seen, explanation, location }
}
