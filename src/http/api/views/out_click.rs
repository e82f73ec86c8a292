//! An out-click as the API shows it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::store::out_clicks;

/// An out-click as it is stored: a visitor who went on from a landing page to an offer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutClick {
    /// Ours; a UUIDv7, so also its time.
    pub(crate) id: Uuid,
    /// The click it belongs to; none of a visitor without one.
    pub(crate) click_id: Option<Uuid>,
    /// The campaign; none where the global fallback took the visitor.
    pub(crate) campaign_id: Option<Uuid>,
    /// The campaign's key of today.
    #[schema(example = "summer-sale")]
    pub(crate) campaign_key: Option<String>,
    /// The rule of the click, 0 the default one.
    #[schema(example = 0)]
    pub(crate) rule_id: Option<i64>,
    /// The path whose offers were to choose from, 0 the campaign's only one.
    #[schema(example = 0)]
    pub(crate) path_id: Option<i64>,
    /// The landing page of the click.
    #[schema(example = 5)]
    pub(crate) landing_page_id: Option<i64>,
    /// The offer it was sent to; none where a fallback took the visitor.
    #[schema(example = 6)]
    pub(crate) offer_id: Option<i64>,
    /// The offer that the link named, by its place in the path from 1.
    #[schema(example = 2)]
    pub(crate) position: Option<i64>,
    /// Why it went where it went, where that was not the first choice: `named` (the link names the offer), `bound`, `cap`,
    /// `inactive`, `overflow`, `fallback`.
    #[schema(example = json!(["named"]))]
    pub(crate) routed: Vec<String>,
    /// What told of the click: `token`, `cookie` or `none`.
    #[schema(example = "token")]
    pub(crate) carrier: String,
    /// Why there is no click, or not the one that the link named: `no_token`, `bad_token`, `old_token`, `foreign` (a
    /// token of an installation or key that is not known here) or `unknown_campaign`.
    #[schema(example = "old_token")]
    pub(crate) problem: Option<String>,
    /// Whether it counts.
    pub(crate) is_valid: bool,
    /// Why it does not count: the reason of its click, else one of its own, or `exit` where the link says `exit=1`.
    #[schema(example = "prefetch")]
    pub(crate) invalid_reason: Option<String>,
    /// Whether the user agent is a known robot's.
    pub(crate) is_bot: bool,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "DE")]
    pub(crate) country: Option<String>,
    /// `desktop`, `mobile`, ...
    #[schema(example = "mobile")]
    pub(crate) device: Option<String>,
    /// Operating system.
    #[schema(example = "Android")]
    pub(crate) os: Option<String>,
    /// Browser.
    #[schema(example = "Chrome")]
    pub(crate) browser: Option<String>,
    /// When it was made: the time in its id.
    pub(crate) created_at: DateTime<Utc>,
}

impl From<out_clicks::OutClick> for OutClick {
    fn from(out: out_clicks::OutClick) -> Self {
        Self {
            id: out.id,
            click_id: out.click_id,
            campaign_id: out.campaign_id,
            campaign_key: out.campaign_key,
            rule_id: out.rule_id,
            path_id: out.path_id,
            landing_page_id: out.landing_page_id,
            offer_id: out.offer_id,
            position: out.position,
            routed: out.routed,
            carrier: out.carrier,
            problem: out.problem,
            is_valid: out.is_valid,
            invalid_reason: out.invalid_reason,
            is_bot: out.is_bot,
            country: out.country,
            device: out.device,
            os: out.os,
            browser: out.browser,
            created_at: out.created_at,
        }
    }
}
