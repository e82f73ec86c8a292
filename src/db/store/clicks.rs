//! Stored clicks: read, and corrected. The drain is who stores them (see `db::ingest`).

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session, statement::statements, text::Text},
    facts::{self, table::Sql},
    model::{
        id::{ClickId, time_of_uuid},
        money::{Currency, Money},
    },
};

/// A click as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Click {
    /// Ours; a UUIDv7, so also its time.
    pub id: Uuid,
    /// The campaign that took it.
    pub campaign_id: Uuid,
    /// The campaign's key of today.
    pub campaign_key: Option<String>,
    /// The visitor's address, or what `privacy.ip_mode` leaves of it.
    pub ip_address: Option<String>,
    /// As sent, cleaned and cut.
    pub user_agent: Option<String>,
    /// As sent, cleaned and cut.
    pub referrer: Option<String>,
    /// Whether it counts.
    pub is_valid: bool,
    /// Why it does not count: an `InvalidReason`, or what a correction says.
    pub invalid_reason: Option<String>,
    /// Whether the user agent is a known robot's.
    pub is_bot: bool,
    /// ISO 3166-1 alpha-2.
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
    pub cost: Option<Json<Money>>,
    /// The currency of the cost, as it is stored; `XXX` where the link named none that is known.
    pub currency: Option<String>,
    /// What of the link could not be kept as it was sent: `cut` (a value longer than 1,024 characters),
    /// `id_too_long` (`click_id` likewise, left out), `unexpanded_macro` (a value such as `{campaign}` that the source did
    /// not fill, left out), `cost_unreadable`, `cost_negative` (left out), `currency_unknown`.
    pub adjusted: Vec<String>,
    /// The rule that took it; 0 is the default rule, null: none did.
    pub rule_id: Option<i64>,
    /// The path it took; 0 is the only path of a default rule.
    pub path_id: Option<i64>,
    /// Why it went where it went, where that was not the first choice: `named` (by the link), `bound` (came before), `cap`
    /// (what was first is full), `inactive`, `overflow`, `fallback`, `next_rule`.
    pub routed: Vec<String>,
    /// The language the browser asks for most.
    pub language: Option<String>,
    /// The part of ISO 3166-2 behind the country.
    pub region: Option<String>,
    /// Its English name.
    pub city: Option<String>,
    /// Who provides the connection.
    pub isp: Option<String>,
    /// The kind of connection.
    pub connection: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Version of the browser.
    pub browser_version: Option<String>,
    /// The traffic source of its campaign, in the library.
    pub source_id: Option<i64>,
    /// The keyword the source says.
    pub keyword: Option<String>,
    /// The creative the source says.
    pub creative: Option<String>,
    /// The placement the source says.
    pub placement: Option<String>,
    /// Whether it is the first valid one of its visitor in this campaign on its day (UTC).
    pub is_unique: Option<bool>,
    /// How it came: `script` told by a page (`POST /visit`); null is a link that redirected.
    pub via: Option<String>,
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
impl From<&facts::click::Click<'_>> for Click {
    fn from(click: &facts::click::Click<'_>) -> Self {
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
            invalid_reason: click.invalid_reason.map(|reason| reason.to_string()),
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
            adjusted: click.adjusted.iter().map(|adjustment| adjustment.to_string()).collect(),
            rule_id: click.rule_id,
            path_id: click.path_id,
            routed: click.routed.iter().map(|why| why.to_string()).collect(),
            language: text(&click.language),
            region: text(&click.region),
            city: text(&click.city),
            isp: text(&click.isp),
            connection: text(&click.connection),
            os_version: text(&click.os_version),
            browser_version: text(&click.browser_version),
            source_id: click.source_id,
            keyword: text(&click.keyword),
            creative: text(&click.creative),
            placement: text(&click.placement),
            is_unique: Some(click.is_unique),
            via: click.via.map(|via| via.to_string()),
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

/// What is put right about a click.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Correction {
    /// Why it does not count; cleared, it does.
    pub invalid_reason: Change<String>,
    /// What it cost us.
    pub cost: Change<Money>,
    /// The kind of its first conversion.
    pub conversion_type: Change<String>,
    /// When it first converted.
    pub converted_at: Change<DateTime<Utc>>,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It holds nothing any more.
    Clear,
    /// It holds this.
    Set(T),
}

impl<T> Change<T> {
    /// Whether the field stays, and what it holds otherwise.
    fn split(self) -> (bool, Option<T>) {
        match self {
            Self::Keep => (true, None),
            Self::Clear => (false, None),
            Self::Set(value) => (false, Some(value)),
        }
    }
}

/// `SELECT` of whole clicks from a table, with what comes before it and what follows the join.
const fn select(before: &str, table: &str, tail: &str) -> Text<8192> {
    let text = Text::new()
        .and(before)
        .and("\n    SELECT\n        c.key AS campaign_key,\n        k.conversion_type");
    let text = columns(text.and(",\n        k.converted_at"));
    let text =
        text.and("\n    FROM ").and(table).and(" k\n    LEFT JOIN campaigns c ON c.id = k.campaign_id");
    text.and(tail)
}

/// What the drain stored, as it is read.
const fn columns<const N: usize>(mut text: Text<N>) -> Text<N> {
    let mut i = 0;
    while i < facts::click::Click::COLUMNS.len() {
        let column = facts::click::Click::COLUMNS[i];
        let (before, after) = match column.sql {
            Sql::Inet => ("host(k.", ")"),
            Sql::Texts => ("coalesce(k.", ", '{}')"),
            // the cost; what is no money (NaN) is left out
            Sql::Numeric => (
                "CASE WHEN k.cost BETWEEN 0 AND 999999999999 THEN jsonb_build_object(
            'currency', CASE WHEN k.currency ~ '^[A-Za-z]{3}$' THEN k.currency ELSE 'USD' END,
            'amount', k.",
                "::text
        ) END",
            ),
            _ => ("k.", ""),
        };
        text = text.and(",\n        ").and(before).and(column.name).and(after).and(" AS ").and(column.name);
        i += 1;
    }
    text
}

/// Hours that are looked up at a time.
const HOURS_MAX: usize = 1000;

statements! {
    GET = "click.get": const { select("", "clicks", "
    WHERE k.created_at = $1
      AND k.id = $2") }.as_str();

    LIST = "click.list": const { select("", "clicks", "
    WHERE k.created_at >= $1
      AND k.created_at < $2
      AND (k.created_at, k.id) < ($3, $4)
      AND ($6::boolean IS NULL OR k.is_valid = $6)
    ORDER BY k.created_at DESC, k.id DESC
    LIMIT $5") }.as_str();

    LIST_OF_IDS = "click.list_of_ids": const { select("", "clicks", "
    JOIN unnest($1::timestamptz[], $2::uuid[]) AS t (at, id) ON k.created_at = t.at AND k.id = t.id
    ORDER BY k.created_at, k.id") }.as_str();

    /// No index of the clicks begins with the campaign: it would take a third of the drain's speed (measured). The
    /// roll-ups say in which hours there may be any, and how many at most: they are added in the transaction that stores
    /// the clicks, and stay when clicks are erased or deleted by hand.
    HOURS = "click.hours": "
    SELECT
        hour,
        sum(CASE WHEN $4 THEN valid_clicks WHEN NOT $4 THEN clicks - valid_clicks ELSE clicks END)::bigint AS clicks
    FROM campaign_stats_hourly
    WHERE campaign_id = ANY ($1)
      AND hour > $2::timestamptz - interval '1 hour'
      AND hour < $3
    GROUP BY hour
    HAVING sum(CASE WHEN $4 THEN valid_clicks WHEN NOT $4 THEN clicks - valid_clicks ELSE clicks END) > 0
    ORDER BY hour DESC
    LIMIT $5";

    /// Of these hours alone.
    LIST_OF_CAMPAIGNS = "click.list_of_campaigns": const { select("
    WITH page AS (
        SELECT found.*
        FROM unnest($8::timestamptz[]) AS hour
        CROSS JOIN LATERAL (
            SELECT *
            FROM clicks
            WHERE created_at >= hour
              AND created_at < hour + interval '1 hour'
              AND created_at >= $1
              AND created_at < $2
              AND (created_at, id) < ($3, $4)
              AND campaign_id = ANY ($7)
              AND ($6::boolean IS NULL OR is_valid = $6)
            ORDER BY created_at DESC, id DESC
            LIMIT $5
        ) AS found
        ORDER BY created_at DESC, id DESC
        LIMIT $5
    )", "page", "
    ORDER BY k.created_at DESC, k.id DESC") }.as_str();

    /// The row comes from the stored one, so a click that is not stored stays so: its record is in a journal, and the
    /// drain, which inserts, would find the row and take the record for a refused one.
    UPSERT = "click.upsert": const { select("
    WITH old AS (
        SELECT *
        FROM clicks
        WHERE created_at = $1
          AND id = $2
          AND updated_at = coalesce($12, updated_at)
        FOR UPDATE
    ), corrected AS (
        INSERT INTO clicks AS k (
            id,
            campaign_id,
            is_valid,
            invalid_reason,
            is_bot,
            cost,
            currency,
            conversion_type,
            converted_at,
            created_at,
            updated_at
        )
        SELECT
            id,
            campaign_id,
            CASE WHEN $3 THEN is_valid ELSE $4::text IS NULL END,
            CASE WHEN $3 THEN invalid_reason ELSE $4 END,
            is_bot,
            CASE WHEN $5 THEN cost ELSE $6 END,
            CASE WHEN $5 THEN currency ELSE $7 END,
            CASE WHEN $8 THEN conversion_type ELSE $9 END,
            CASE WHEN $10 THEN converted_at ELSE $11 END,
            created_at,
            now()
        FROM old
        ON CONFLICT (created_at, id) DO UPDATE
        SET is_valid = excluded.is_valid,
            invalid_reason = excluded.invalid_reason,
            cost = excluded.cost,
            currency = excluded.currency,
            conversion_type = excluded.conversion_type,
            converted_at = excluded.converted_at,
            updated_at = excluded.updated_at
        RETURNING k.*
    ), counted AS (
        UPDATE campaign_stats_hourly s
        SET valid_clicks = s.valid_clicks + delta,
            lander_views = s.lander_views + delta * (corrected.landing_page_id IS NOT NULL)::integer,
            lander_clicks = s.lander_clicks + delta * EXISTS (
                SELECT FROM out_click_keys o WHERE o.click_id = corrected.id AND o.is_counted
            )::integer
        FROM corrected
        JOIN old USING (created_at, id)
        CROSS JOIN LATERAL (SELECT corrected.is_valid::integer - old.is_valid::integer AS delta) change
        WHERE s.campaign_id = corrected.campaign_id
          AND s.hour = date_trunc('hour', created_at, 'UTC')
          AND corrected.is_valid <> old.is_valid
        RETURNING s.hour
    ), priced AS (
        -- out of the row of the old currency, into that of the new one; rows are locked in the order of the drain
        INSERT INTO campaign_costs_hourly AS s (
            campaign_id,
            hour,
            currency,
            clicks,
            valid_clicks,
            unique_clicks,
            costed_clicks,
            cost
        )
        SELECT
            campaign_id,
            date_trunc('hour', created_at, 'UTC'),
            CASE WHEN cost IS NULL THEN '' ELSE coalesce(currency, 'XXX') END,
            sum(sign),
            sum(sign * is_valid::integer),
            sum(sign * coalesce(is_unique, false)::integer),
            sum(sign * (cost IS NOT NULL)::integer),
            sum(sign * coalesce(cost, 0))
        FROM (
            SELECT -1 AS sign, campaign_id, created_at, cost, currency, is_valid, is_unique
            FROM old
            WHERE EXISTS (SELECT FROM corrected)
              AND (SELECT count(*) FROM counted) >= 0 -- after it
            UNION ALL
            SELECT 1, n.campaign_id, n.created_at, n.cost, n.currency, n.is_valid, o.is_unique
            FROM corrected n
            JOIN old o USING (created_at, id)
        ) change
        GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        ON CONFLICT (campaign_id, hour, currency) DO UPDATE
        SET clicks = s.clicks + excluded.clicks,
            valid_clicks = s.valid_clicks + excluded.valid_clicks,
            unique_clicks = s.unique_clicks + excluded.unique_clicks,
            costed_clicks = s.costed_clicks + excluded.costed_clicks,
            cost = s.cost + excluded.cost
    )", "corrected", "") }.as_str();
}

/// The click with this id; its id says in which partition it is.
pub async fn get(db: &Db, id: ClickId) -> Result<Option<Click>, Error> {
    db.read(GET, move |c| Box::pin(GET.query_as().bind(id.created_at()).bind(id.uuid()).fetch_optional(c)))
        .await
}

/// As [`get`], and never an older state of it than another node has written.
pub async fn get_newest(db: &Db, id: ClickId) -> Result<Option<Click>, Error> {
    db.read_primary(GET, move |c| {
        Box::pin(GET.query_as().bind(id.created_at()).bind(id.uuid()).fetch_optional(c))
    })
    .await
}

/// Some clicks of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listed {
    /// Newest first.
    pub clicks: Vec<Click>,
    /// Where the search stopped because it took too long: there may be more before this time. `None`: it went on to
    /// the limit or to the end.
    pub searched_to: Option<DateTime<Utc>>,
}

/// Clicks, newest first, after (older than) the click of `after`, at most `limit`; fewer are all there are, unless the
/// search for a campaign's took longer than `time_max`.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
    time_max: Duration,
) -> Result<Listed, Error> {
    let from = filter.from.unwrap_or(DateTime::UNIX_EPOCH);
    let to = filter.to.unwrap_or(crate::db::FAR_FUTURE);
    let (after_time, after_id) = after.unwrap_or((crate::db::FAR_FUTURE, Uuid::max()));
    let Some(campaign_ids) = filter.campaign_ids else {
        let listing = db.read(LIST, move |c| {
            let query = LIST.query_as().bind(from).bind(to).bind(after_time).bind(after_id);
            Box::pin(query.bind(limit).bind(filter.is_valid).fetch_all(c))
        });
        return Ok(Listed { clicks: listing.await?, searched_to: None });
    };
    let search = Search {
        campaign_ids,
        from,
        to,
        after: (after_time, after_id),
        is_valid: filter.is_valid,
        limit: usize::try_from(limit).unwrap_or(0).max(1),
        time_max,
    };
    db.read(LIST_OF_CAMPAIGNS, move |c| Box::pin(search.run(c))).await
}

/// For the clicks of campaigns, through the hours that may have some.
#[derive(Debug, Clone)]
struct Search {
    campaign_ids: Vec<Uuid>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: (DateTime<Utc>, Uuid),
    is_valid: Option<bool>,
    limit: usize,
    time_max: Duration,
}

impl Search {
    /// Reads as many hours as should fill the page, and goes on while it is not full: the roll-ups promise more than
    /// there is where clicks were erased.
    async fn run(self, c: &mut Session<'_>) -> sqlx::Result<Listed> {
        let since = Instant::now();
        let mut listed = Listed::default();
        // hours that begin before this have not been searched
        let (time, id) = self.after;
        let mut before = self.to.min(if id.is_nil() { time } else { time + TimeDelta::microseconds(1) });
        loop {
            let hours = self.hours(c, before).await?;
            let is_end = hours.len() < HOURS_MAX;
            let mut hours = hours.into_iter().peekable();
            while hours.peek().is_some() {
                if since.elapsed() > self.time_max && listed.searched_to.is_some() {
                    return Ok(listed);
                }
                let missing = self.limit - listed.clicks.len();
                let mut batch = Vec::new();
                let mut promised = 0;
                while promised < missing
                    && let Some((hour, clicks)) = hours.next()
                {
                    promised = promised.saturating_add(usize::try_from(clicks).unwrap_or(usize::MAX));
                    batch.push(hour);
                    before = hour;
                }
                listed.clicks.extend(self.clicks(c, batch, missing).await?);
                if listed.clicks.len() >= self.limit {
                    listed.searched_to = None;
                    return Ok(listed);
                }
                listed.searched_to = Some(before);
            }
            if is_end {
                listed.searched_to = None;
                return Ok(listed);
            }
        }
    }

    async fn hours(
        &self,
        c: &mut Session<'_>,
        before: DateTime<Utc>,
    ) -> sqlx::Result<Vec<(DateTime<Utc>, i64)>> {
        let query = HOURS.query_as().bind(&self.campaign_ids).bind(self.from).bind(before);
        let query = query.bind(self.is_valid).bind(i64::try_from(HOURS_MAX).unwrap_or(i64::MAX));
        query.fetch_all(c).await
    }

    async fn clicks(
        &self,
        c: &mut Session<'_>,
        hours: Vec<DateTime<Utc>>,
        limit: usize,
    ) -> sqlx::Result<Vec<Click>> {
        let query = LIST_OF_CAMPAIGNS
            .query_as()
            .bind(self.from)
            .bind(self.to)
            .bind(self.after.0)
            .bind(self.after.1)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(self.is_valid)
            .bind(&self.campaign_ids)
            .bind(hours);
        query.fetch_all(c).await
    }
}

/// The stored ones of these clicks, oldest first, from the primary.
pub async fn list_of_ids(db: &Db, ids: Vec<Uuid>) -> Result<Vec<Click>, Error> {
    let times: Vec<DateTime<Utc>> = ids.iter().copied().map(time_of_uuid).collect();
    db.maintain(LIST_OF_IDS, move |c| Box::pin(LIST_OF_IDS.query_as().bind(times).bind(ids).fetch_all(c)))
        .await
}

/// Corrects a click and its roll-up; returns it as it is now, or `None` when it is not stored (yet), or is not the
/// one that was last changed at `expected`.
///
/// The sums stay exact under any number of drains and other corrections, because all of it is one statement: it
/// waits for the row, sees what the last one left in it, and adds the difference to the roll-up. A row that it sees
/// is counted, because the drain commits both together; and the drain locks no stored click, so neither waits for
/// the other in a circle.
pub async fn upsert(
    db: &Db,
    id: ClickId,
    expected: Option<DateTime<Utc>>,
    correction: Correction,
) -> Result<Option<Click>, Error> {
    let (keeps_validity, invalid_reason) = correction.invalid_reason.split();
    let (keeps_cost, cost) = correction.cost.split();
    let (keeps_type, conversion_type) = correction.conversion_type.split();
    let (keeps_time, converted_at) = correction.converted_at.split();
    let query = UPSERT
        .query_as()
        .bind(id.created_at())
        .bind(id.uuid())
        .bind(keeps_validity)
        .bind(invalid_reason)
        .bind(keeps_cost)
        .bind(cost.map(|money| money.amount))
        .bind(cost.map(|money| money.currency.to_string()))
        .bind(keeps_type)
        .bind(conversion_type)
        .bind(keeps_time)
        .bind(converted_at)
        .bind(expected);
    db.write(UPSERT, move |c| Box::pin(query.fetch_optional(c))).await
}
