//! A click as the API shows it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use strum::VariantNames as _;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType, Type},
};
use uuid::Uuid;

use crate::{
    db::store::clicks,
    model::{click::InvalidReason, money::Money},
};

/// A click as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Click {
    /// Ours; a UUIDv7, so also its time.
    pub(crate) id: Uuid,
    /// The campaign that took it.
    pub(crate) campaign_id: Uuid,
    /// The campaign's key of today.
    #[schema(example = "summer-sale")]
    pub(crate) campaign_key: Option<String>,
    /// The visitor's address, or what `privacy.ip_mode` leaves of it.
    #[schema(example = "192.0.2.1")]
    pub(crate) ip_address: Option<String>,
    /// As sent, cleaned and cut.
    #[schema(example = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")]
    pub(crate) user_agent: Option<String>,
    /// As sent, cleaned and cut.
    #[schema(example = "https://news.example/")]
    pub(crate) referrer: Option<String>,
    /// Whether it counts.
    pub(crate) is_valid: bool,
    #[schema(schema_with = invalid_reason)]
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
    #[schema(example = "Firefox")]
    pub(crate) browser: Option<String>,
    /// The source's, from the link.
    #[schema(example = "banner-7")]
    pub(crate) sub1: Option<String>,
    /// The source's, from the link.
    #[schema(example = "left")]
    pub(crate) sub2: Option<String>,
    /// The source's, from the link.
    #[schema(example = "c")]
    pub(crate) sub3: Option<String>,
    /// The source's, from the link.
    #[schema(example = "d")]
    pub(crate) sub4: Option<String>,
    /// The source's, from the link.
    #[schema(example = "e")]
    pub(crate) sub5: Option<String>,
    /// The source's own id of the click: `click_id` of the link.
    #[schema(example = "source-4711")]
    pub(crate) click_id_param: Option<String>,
    /// `aff_sub` of the link.
    #[schema(example = "aff-17")]
    pub(crate) affiliate_sub: Option<String>,
    /// `aff_sub2` of the link.
    #[schema(example = "b")]
    pub(crate) affiliate_sub2: Option<String>,
    /// `aff_sub3` of the link.
    #[schema(example = "c")]
    pub(crate) affiliate_sub3: Option<String>,
    /// `aff_sub4` of the link.
    #[schema(example = "d")]
    pub(crate) affiliate_sub4: Option<String>,
    /// `aff_sub5` of the link.
    #[schema(example = "e")]
    pub(crate) affiliate_sub5: Option<String>,
    /// The landing page it was sent to.
    #[schema(example = 5)]
    pub(crate) landing_page_id: Option<i64>,
    /// The offer it was sent to.
    #[schema(example = 6)]
    pub(crate) campaign_offer_id: Option<i64>,
    /// The traffic source the link named.
    #[schema(example = "ads")]
    pub(crate) traffic_source_id: Option<String>,
    /// What it cost us.
    pub(crate) cost: Option<Money>,
    /// The currency of the cost, as it is stored; `XXX` where the link named none that is known.
    #[schema(example = "USD")]
    pub(crate) currency: Option<String>,
    /// What of the link could not be kept as it was sent: `cut` (a value longer than 1,024 characters),
    /// `id_too_long` (`click_id` likewise, left out), `unexpanded_macro` (a value such as `{campaign}` that the source did
    /// not fill, left out), `cost_unreadable`, `cost_negative` (left out), `currency_unknown`.
    #[schema(example = json!(["cut"]))]
    pub(crate) adjusted: Vec<String>,
    /// The rule that took it; 0 is the default rule, null: none did.
    #[schema(example = 41)]
    pub(crate) rule_id: Option<i64>,
    /// The path it took; 0 is the only path of a default rule.
    #[schema(example = 42)]
    pub(crate) path_id: Option<i64>,
    /// Why it went where it went, where that was not the first choice: `named` (by the link), `bound` (came before), `cap`
    /// (what was first is full), `inactive`, `overflow`, `fallback`, `next_rule`.
    #[schema(example = json!(["cap"]))]
    pub(crate) routed: Vec<String>,
    /// The language the browser asks for most.
    #[schema(example = "de")]
    pub(crate) language: Option<String>,
    /// The part of ISO 3166-2 behind the country, where `tracking.city_file` knows it.
    #[schema(example = "BY")]
    pub(crate) region: Option<String>,
    /// The city's English name, at most 128 bytes, where `tracking.city_file` knows it.
    #[schema(example = "Munich")]
    pub(crate) city: Option<String>,
    /// Who provides the connection or announces the network, at most 128 bytes, where `tracking.isp_file` knows it.
    #[schema(example = "Example Telecom")]
    pub(crate) isp: Option<String>,
    /// `cellular`, `cable/dsl`, `corporate`, `satellite` or `dialup`, where `tracking.connection_file` knows it.
    #[schema(example = "cellular")]
    pub(crate) connection: Option<String>,
    /// Version of the operating system. Windows counts 7, 8, 8.1, 10, 11; null where the browser does not say it.
    #[schema(example = "17.5")]
    pub(crate) os_version: Option<String>,
    /// Version of the browser.
    #[schema(example = "126.0")]
    pub(crate) browser_version: Option<String>,
    /// The traffic source of its campaign, in the library.
    #[schema(example = 3)]
    pub(crate) source_id: Option<i64>,
    /// The keyword the source says.
    #[schema(example = "shoes")]
    pub(crate) keyword: Option<String>,
    /// The creative the source says.
    #[schema(example = "banner-7")]
    pub(crate) creative: Option<String>,
    /// The placement the source says.
    #[schema(example = "news.example")]
    pub(crate) placement: Option<String>,
    /// Whether it is the first valid one of its visitor in this campaign on its day (UTC).
    #[schema(example = true)]
    pub(crate) is_unique: Option<bool>,
    /// How it came: `script` told by a page (`POST /visit`); null is a link that redirected.
    #[schema(example = "script")]
    pub(crate) via: Option<String>,
    /// The kind of its first conversion.
    #[schema(example = "purchase")]
    pub(crate) conversion_type: Option<String>,
    /// When it first converted.
    pub(crate) converted_at: Option<DateTime<Utc>>,
    /// When it was made: the time in its id.
    pub(crate) created_at: DateTime<Utc>,
    /// When the row last changed.
    pub(crate) updated_at: DateTime<Utc>,
}

impl From<clicks::Click> for Click {
    fn from(click: clicks::Click) -> Self {
        Self {
            id: click.id,
            campaign_id: click.campaign_id,
            campaign_key: click.campaign_key,
            ip_address: click.ip_address,
            user_agent: click.user_agent,
            referrer: click.referrer,
            is_valid: click.is_valid,
            invalid_reason: click.invalid_reason,
            is_bot: click.is_bot,
            country: click.country,
            device: click.device,
            os: click.os,
            browser: click.browser,
            sub1: click.sub1,
            sub2: click.sub2,
            sub3: click.sub3,
            sub4: click.sub4,
            sub5: click.sub5,
            click_id_param: click.click_id_param,
            affiliate_sub: click.affiliate_sub,
            affiliate_sub2: click.affiliate_sub2,
            affiliate_sub3: click.affiliate_sub3,
            affiliate_sub4: click.affiliate_sub4,
            affiliate_sub5: click.affiliate_sub5,
            landing_page_id: click.landing_page_id,
            campaign_offer_id: click.campaign_offer_id,
            traffic_source_id: click.traffic_source_id,
            cost: click.cost.map(|Json(cost)| cost),
            currency: click.currency,
            adjusted: click.adjusted,
            rule_id: click.rule_id,
            path_id: click.path_id,
            routed: click.routed,
            language: click.language,
            region: click.region,
            city: click.city,
            isp: click.isp,
            connection: click.connection,
            os_version: click.os_version,
            browser_version: click.browser_version,
            source_id: click.source_id,
            keyword: click.keyword,
            creative: click.creative,
            placement: click.placement,
            is_unique: click.is_unique,
            via: click.via,
            conversion_type: click.conversion_type,
            converted_at: click.converted_at,
            created_at: click.created_at,
            updated_at: click.updated_at,
        }
    }
}

fn invalid_reason() -> Object {
    let reasons: Vec<_> = InvalidReason::VARIANTS.iter().map(|name| format!("`{name}`")).collect();
    let description = format!("Why it does not count: {}, or what a correction says.", reasons.join(", "));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some(description))
        .examples([<&str>::from(InvalidReason::Bot)])
        .build()
}
