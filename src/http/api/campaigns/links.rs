//! The links of a campaign as its traffic source needs them.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use crate::{
    app::{App, Parts},
    db::store::{library, traffic_sources::TrafficSource},
    http::{
        api::manners::{answer::answer, auth::Read, problems::Problems, request::Name},
        error::Problem,
    },
    model::{
        campaign::Campaign,
        source::{Parameter, SourceTerms},
    },
};

/// Links of a campaign.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CampaignLinks)]
pub(crate) struct Links {
    /// For ads, with the macros of the traffic source as it fills them.
    #[schema(example = "https://track.example/click?cid=summer-sale&visitor_id=${SUBID}&zoneid={zoneid}")]
    pub(crate) click: String,
    /// The same, shorter.
    #[schema(example = "https://track.example/c/summer-sale?visitor_id=${SUBID}&zoneid={zoneid}")]
    pub(crate) short: String,
    /// The macros alone, for sources that want them apart from the link.
    #[schema(example = "visitor_id=${SUBID}&zoneid={zoneid}")]
    pub(crate) parameters: String,
    /// The traffic source whose macros they are.
    pub(crate) traffic_source: Option<LinkSource>,
    /// An image that tells of a conversion, for pages that have our click id: put it in place of `CLICK_ID`.
    #[schema(example = "https://track.example/event.gif?event_type=conversion&click_id=CLICK_ID")]
    pub(crate) pixel: String,
    /// From a landing page to an offer, where the page does not use `{out_url}`.
    #[schema(example = "https://track.example/out")]
    pub(crate) out: String,
}

/// The traffic source of a link.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkSource {
    /// Ours.
    #[schema(minimum = 1, example = 3)]
    pub(crate) id: i64,
    /// For people.
    #[schema(example = "PropellerAds")]
    pub(crate) name: String,
}

/// Show the links of a campaign
///
/// With the parameters of its traffic source, as the source reads them: macros are not encoded.
#[utoipa::path(
    get, path = "/campaigns/{id}/links", tag = "campaigns", operation_id = "get_campaign_links",
    params(("id" = String, Path, description = "Its id (a UUID with hyphens) or key.", example = "summer-sale")),
    responses((status = 200, description = "The links.", body = Links), Problems),
)]
pub(super) async fn links(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &of_campaign(&app, &find(&app, &id).await?).await?)
}

/// Its links.
pub(crate) async fn of_campaign(app: &Parts, campaign: &Campaign) -> Result<Links, Problem> {
    let source = match campaign.terms.traffic_source_id {
        Some(id) => library::get::<TrafficSource>(&app.db, id).await?.map(|source| (id, source.terms)),
        None => None,
    };
    Ok(Links::of(&app.public_url, campaign.key.as_str(), source))
}

impl Links {
    /// Of the campaign with this key, with the macros of a traffic source.
    pub(in crate::http) fn of(public_url: &str, key: &str, source: Option<(i64, SourceTerms)>) -> Self {
        let parameters = source.as_ref().map(|(_, terms)| query(&terms.parameters)).unwrap_or_default();
        let (and, begin) = if parameters.is_empty() { ("", "") } else { ("&", "?") };
        Self {
            click: format!("{public_url}/click?cid={key}{and}{parameters}"),
            short: format!("{public_url}/c/{key}{begin}{parameters}"),
            parameters,
            traffic_source: source.map(|(id, terms)| LinkSource { id, name: terms.name }),
            pixel: format!("{public_url}/event.gif?event_type=conversion&click_id=CLICK_ID"),
            out: format!("{public_url}/out"),
        }
    }
}

/// What a source fills; what it adds by itself is not in the link.
fn query(parameters: &[Parameter]) -> String {
    let filled = parameters.iter().filter_map(|parameter| {
        let value = parameter.r#macro.as_ref()?;
        Some(format!("{}={}", parameter.name.as_str(), value.as_str()))
    });
    filled.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates;

    #[test]
    fn a_link_has_the_macros_of_its_source_as_they_are() {
        let of = |key: &str| {
            let template = templates::source(key).unwrap();
            let terms = SourceTerms { parameters: template.parameters.clone(), ..SourceTerms::default() };
            Links::of("https://t.example", "k", Some((3, terms)))
        };
        let links = of("propellerads");
        let parameters =
            "visitor_id=${SUBID}&cost={cost}&campaignid={campaignid}&bannerid={bannerid}&zoneid={zoneid}";
        assert_eq!(links.click, format!("https://t.example/click?cid=k&{parameters}"));
        assert_eq!(links.short, format!("https://t.example/c/k?{parameters}"));
        assert!(of("adsterra").short.contains("subid_short=##SUB_ID_SHORT(action)##&"));
        assert!(!of("google-ads").parameters.contains("gclid"), "Google adds it");
        let plain = Links::of("https://t.example", "k", None);
        assert_eq!(
            (plain.click.as_str(), plain.short.as_str()),
            ("https://t.example/click?cid=k", "https://t.example/c/k")
        );
    }
}
