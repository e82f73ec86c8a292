//! Stored clicks, for reading. The drain is who writes them (see `db::ingest`).

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, types::Json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Db, Error};
use crate::model::{
    self,
    click::InvalidReason,
    id::ClickId,
    money::{Currency, Money},
};

/// Every statement of this module, for the test that prepares them.
pub const STATEMENTS: &[(&str, &str)] = &[("click.get", GET_SQL), ("click.list", LIST_SQL)];

/// A click as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize, ToSchema)]
pub struct Click {
    /// Ours; a UUIDv7, so also its time.
    pub id: Uuid,
    /// The campaign that took it.
    pub campaign_id: Uuid,
    /// The campaign's key of today.
    #[schema(example = "summer-sale")]
    pub campaign_key: Option<String>,
    /// The visitor's address.
    #[schema(example = "192.0.2.1")]
    pub ip_address: Option<String>,
    /// As sent, cleaned and cut.
    pub user_agent: Option<String>,
    /// As sent, cleaned and cut.
    pub referrer: Option<String>,
    /// Whether it counts.
    pub is_valid: bool,
    /// Why it does not count: `draft`, `paused`, `ended`, `not_started`, `no_destination`, `prefetch`, `bot`.
    pub invalid_reason: Option<String>,
    /// Whether the user agent is a known robot's.
    pub is_bot: bool,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "DE")]
    pub country: Option<String>,
    /// `desktop`, `mobile`, ...
    pub device: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Browser.
    pub browser: Option<String>,
    /// The source's, from the link.
    pub sub1: Option<String>,
    /// The source's, from the link.
    pub sub2: Option<String>,
    /// The source's, from the link.
    pub sub3: Option<String>,
    /// The source's, from the link.
    pub sub4: Option<String>,
    /// The source's, from the link.
    pub sub5: Option<String>,
    /// The source's own id of the click: `click_id` of the link.
    pub click_id_param: Option<String>,
    /// `aff_sub` of the link.
    pub affiliate_sub: Option<String>,
    /// `aff_sub2` of the link.
    pub affiliate_sub2: Option<String>,
    /// `aff_sub3` of the link.
    pub affiliate_sub3: Option<String>,
    /// `aff_sub4` of the link.
    pub affiliate_sub4: Option<String>,
    /// `aff_sub5` of the link.
    pub affiliate_sub5: Option<String>,
    /// The landing page it was sent to.
    pub landing_page_id: Option<i64>,
    /// The offer it was sent to.
    pub campaign_offer_id: Option<i64>,
    /// The traffic source the link named.
    pub traffic_source_id: Option<String>,
    /// What it cost us.
    #[schema(value_type = Option<Money>)]
    pub cost: Option<Json<Money>>,
    /// The currency of the cost, as it is stored.
    #[schema(example = "USD")]
    pub currency: Option<String>,
    /// The kind of its first conversion.
    pub conversion_type: Option<String>,
    /// When it first converted.
    pub converted_at: Option<DateTime<Utc>>,
    /// When it was made: the time in its id.
    pub created_at: DateTime<Utc>,
    /// When the row last changed.
    pub updated_at: DateTime<Utc>,
}

/// A click that is not stored yet, as it would be.
impl From<&model::click::Click<'_>> for Click {
    fn from(click: &model::click::Click<'_>) -> Self {
        let text = |t: &Option<std::borrow::Cow<'_, str>>| t.as_deref().map(str::to_owned);
        let [sub1, sub2, sub3, sub4, sub5] = click.subs.each_ref().map(text);
        let [affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4, affiliate_sub5] =
            click.aff_subs.each_ref().map(text);
        Self {
            id: click.id.uuid(),
            campaign_id: click.campaign_id,
            campaign_key: None,
            ip_address: click.ip.map(|ip| ip.to_string()),
            user_agent: text(&click.user_agent),
            referrer: text(&click.referrer),
            is_valid: click.is_valid(),
            invalid_reason: click.invalid_reason.map(InvalidReason::as_str).map(str::to_owned),
            is_bot: click.is_bot,
            country: text(&click.country),
            device: text(&click.device),
            os: text(&click.os),
            browser: text(&click.browser),
            sub1,
            sub2,
            sub3,
            sub4,
            sub5,
            click_id_param: text(&click.click_id_param),
            affiliate_sub,
            affiliate_sub2,
            affiliate_sub3,
            affiliate_sub4,
            affiliate_sub5,
            landing_page_id: click.landing_page_id,
            campaign_offer_id: click.campaign_offer_id,
            traffic_source_id: text(&click.traffic_source_id),
            cost: click
                .cost
                .map(|amount| Json(Money { amount, currency: click.currency.unwrap_or(Currency::USD) })),
            currency: click.currency.map(|currency| currency.to_string()),
            conversion_type: None,
            converted_at: None,
            created_at: click.id.created_at(),
            updated_at: click.id.created_at(),
        }
    }
}

/// Which clicks are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of these campaigns.
    pub campaign_ids: Option<Vec<Uuid>>,
    /// Not before this time.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub to: Option<DateTime<Utc>>,
    /// Whether they count.
    pub is_valid: Option<bool>,
}

/// `SELECT` of whole clicks, with what follows the join.
macro_rules! select_clicks {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        k.id,
        k.campaign_id,
        c.key AS campaign_key,
        host(k.ip_address) AS ip_address,
        k.user_agent,
        k.referrer,
        k.is_valid,
        k.invalid_reason,
        k.is_bot,
        k.country,
        k.device,
        k.os,
        k.browser,
        k.sub1,
        k.sub2,
        k.sub3,
        k.sub4,
        k.sub5,
        k.click_id_param,
        k.affiliate_sub,
        k.affiliate_sub2,
        k.affiliate_sub3,
        k.affiliate_sub4,
        k.affiliate_sub5,
        k.landing_page_id,
        k.campaign_offer_id,
        k.traffic_source_id,
        -- what is no money (NaN) is left out
        CASE WHEN k.cost BETWEEN 0 AND 999999999999 THEN jsonb_build_object(
            'amount', k.cost::text,
            'currency', CASE WHEN k.currency ~ '^[A-Za-z]{3}$' THEN k.currency ELSE 'USD' END
        ) END AS cost,
        k.currency,
        k.conversion_type,
        k.converted_at,
        k.created_at,
        k.updated_at
    FROM clicks k
    LEFT JOIN campaigns c ON c.id = k.campaign_id",
            $tail
        )
    };
}

const GET_SQL: &str = select_clicks!(
    "
    WHERE k.created_at = $1
      AND k.id = $2"
);

const LIST_SQL: &str = select_clicks!(
    "
    WHERE k.created_at >= $1
      AND k.created_at < $2
      AND (k.created_at, k.id) < ($3, $4)
      AND ($5::uuid[] IS NULL OR k.campaign_id = ANY ($5))
      AND ($6::boolean IS NULL OR k.is_valid = $6)
    ORDER BY k.created_at DESC, k.id DESC
    LIMIT $7"
);

/// The click with this id; its id says in which partition it is.
pub async fn get(db: &Db, id: ClickId) -> Result<Option<Click>, Error> {
    db.read("click.get", move |c| {
        Box::pin(sqlx::query_as(GET_SQL).bind(id.created_at()).bind(id.uuid()).fetch_optional(c))
    })
    .await
}

/// Clicks, newest first, after (older than) the click of `after`, at most `limit`.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Click>, Error> {
    let from = filter.from.unwrap_or(DateTime::UNIX_EPOCH);
    let to = filter.to.unwrap_or(super::FAR_FUTURE);
    let (after_time, after_id) = after.unwrap_or((super::FAR_FUTURE, Uuid::max()));
    db.read("click.list", move |c| {
        let query = sqlx::query_as(LIST_SQL).bind(from).bind(to).bind(after_time).bind(after_id);
        Box::pin(query.bind(filter.campaign_ids).bind(filter.is_valid).bind(limit).fetch_all(c))
    })
    .await
}
