//! Stored clicks whose labels are judged once more (`octo relabel`): read hour by hour, and changed with their roll-ups.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Db, Error, monitor, statement::statements};

/// Times that clicks are changed where PostgreSQL gives way to others that change them.
const ATTEMPTS: usize = 5;

statements! {
    // No click is without its roll-up: both are stored in one transaction.
    HOURS = "relabel.hours": "
    SELECT
        hour,
        sum(clicks)::bigint AS clicks
    FROM campaign_stats_hourly
    WHERE ($1::uuid IS NULL OR campaign_id = $1)
      AND hour > $2::timestamptz - interval '1 hour'
      AND hour < $3
    GROUP BY hour
    HAVING sum(clicks) > 0
    ORDER BY hour";

    PAGE = "relabel.page": "
    SELECT
        id,
        created_at,
        host(ip_address) AS ip,
        user_agent,
        is_bot,
        invalid_reason
    FROM clicks
    WHERE created_at >= $2
      AND created_at < $3
      AND (created_at, id) > ($4, $5)
      AND ($1::uuid IS NULL OR campaign_id = $1)
    ORDER BY created_at, id
    LIMIT $6";

    // Only what is still as it was judged. Clicks first, then hours, then costs, each in the order of its key; the sums of
    // reports are told by the trigger.
    UPDATE = "relabel.update": "
    WITH judged AS (
        SELECT *
        FROM unnest(
            $3::timestamptz[], $4::uuid[], $5::boolean[], $6::text[], $7::boolean[], $8::text[], $9::boolean[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::text[]
        ) AS t (
            at, click_id, was_bot, was_reason, bot, reason, is_described, device, os, os_version, browser, browser_version
        )
    ), old AS (
        SELECT
            k.created_at,
            k.id,
            k.campaign_id,
            k.cost,
            k.currency,
            k.landing_page_id,
            j.*,
            (j.reason IS NULL)::integer - k.is_valid::integer AS more_valid,
            j.bot::integer - k.is_bot::integer AS more_bots
        FROM judged j
        JOIN clicks k ON k.created_at = j.at AND k.id = j.click_id
        WHERE k.created_at >= $1
          AND k.created_at < $2
          AND k.is_bot = j.was_bot
          AND k.invalid_reason IS NOT DISTINCT FROM j.was_reason
        ORDER BY k.created_at, k.id
        FOR UPDATE OF k
    ), changed AS (
        UPDATE clicks k
        SET is_valid = old.reason IS NULL,
            invalid_reason = old.reason,
            is_bot = old.bot,
            device = CASE WHEN old.is_described THEN old.device ELSE k.device END,
            os = CASE WHEN old.is_described THEN old.os ELSE k.os END,
            os_version = CASE WHEN old.is_described THEN old.os_version ELSE k.os_version END,
            browser = CASE WHEN old.is_described THEN old.browser ELSE k.browser END,
            browser_version = CASE WHEN old.is_described THEN old.browser_version ELSE k.browser_version END,
            updated_at = now()
        FROM old
        WHERE k.created_at = old.created_at
          AND k.id = old.id
          AND k.created_at >= $1
          AND k.created_at < $2
        RETURNING k.id
    ), counted AS (
        INSERT INTO campaign_stats_hourly AS s (
            campaign_id,
            hour,
            valid_clicks,
            bot_clicks,
            lander_views,
            lander_clicks
        )
        SELECT
            campaign_id,
            date_trunc('hour', created_at, 'UTC'),
            sum(more_valid),
            sum(more_bots),
            coalesce(sum(more_valid) FILTER (WHERE landing_page_id IS NOT NULL), 0),
            coalesce(sum(more_valid) FILTER (WHERE EXISTS (
                SELECT
                FROM out_click_keys o
                WHERE o.click_id = old.id
                  AND o.is_counted
            )), 0)
        FROM old
        WHERE (SELECT count(*) FROM changed) >= 0 -- after it
        GROUP BY 1, 2
        ORDER BY 1, 2
        ON CONFLICT (campaign_id, hour) DO UPDATE
        SET valid_clicks = s.valid_clicks + excluded.valid_clicks,
            bot_clicks = s.bot_clicks + excluded.bot_clicks,
            lander_views = s.lander_views + excluded.lander_views,
            lander_clicks = s.lander_clicks + excluded.lander_clicks
        RETURNING s.hour
    ), priced AS (
        INSERT INTO campaign_costs_hourly AS s (
            campaign_id,
            hour,
            currency,
            valid_clicks
        )
        SELECT
            campaign_id,
            date_trunc('hour', created_at, 'UTC'),
            CASE WHEN cost IS NULL THEN '' ELSE coalesce(currency, 'XXX') END,
            sum(more_valid)
        FROM old
        WHERE (SELECT count(*) FROM counted) >= 0 -- after it
        GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        ON CONFLICT (campaign_id, hour, currency) DO UPDATE
        SET valid_clicks = s.valid_clicks + excluded.valid_clicks
    )
    SELECT id
    FROM changed";
}

/// What a stored click is judged by.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Stored {
    /// Ours.
    pub id: Uuid,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// What was kept of the address.
    pub ip: Option<String>,
    /// As sent, cleaned and cut.
    pub user_agent: Option<String>,
    /// Whether it has the label of a known robot.
    pub is_bot: bool,
    /// Why it does not count.
    pub invalid_reason: Option<String>,
}

/// What becomes of a click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// It is changed where it is still this.
    pub was: Stored,
    /// Whether it is a known robot's.
    pub is_bot: bool,
    /// Why it does not count.
    pub invalid_reason: Option<String>,
    /// Its device, system, version, browser and version; `None`: they stay.
    pub described: Option<[Option<String>; 5]>,
}

/// The hours from `from` until before `to` that have clicks, of one campaign or of all, with how many.
pub async fn hours(
    db: &Db,
    campaign_id: Option<Uuid>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<(DateTime<Utc>, i64)>, Error> {
    db.maintain(HOURS, move |c| Box::pin(HOURS.query_as().bind(campaign_id).bind(from).bind(to).fetch_all(c)))
        .await
}

/// Clicks from `from` until before `to`, the oldest first, after the one of `after`; fewer than `limit` are all there are.
pub async fn page(
    db: &Db,
    campaign_id: Option<Uuid>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Stored>, Error> {
    let (after_time, after_id) = after.unwrap_or((from - TimeDelta::microseconds(1), Uuid::max()));
    db.maintain(PAGE, move |c| {
        let query = PAGE.query_as().bind(campaign_id).bind(from).bind(to).bind(after_time).bind(after_id);
        Box::pin(query.bind(limit).fetch_all(c))
    })
    .await
}

/// Changes clicks of the time from `from` until before `to` in one transaction, with the roll-ups of their hours; returns the ids of
/// those that were still as they were judged.
pub async fn update(
    db: &Db,
    range: (DateTime<Utc>, DateTime<Utc>),
    changes: &[Change],
) -> Result<Vec<Uuid>, Error> {
    for _ in 1..ATTEMPTS {
        match update_once(db, range, changes).await {
            // 40P01: deadlock_detected. The drain notes conversions at clicks too; nothing was changed.
            Err(error) if monitor::has_code(&error, "40P01") => {}
            answer => return answer,
        }
    }
    update_once(db, range, changes).await
}

async fn update_once(
    db: &Db,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    changes: &[Change],
) -> Result<Vec<Uuid>, Error> {
    let of = |place: usize| -> Vec<Option<String>> {
        changes
            .iter()
            .map(|change| change.described.as_ref().and_then(|texts| texts[place].clone()))
            .collect()
    };
    let query = UPDATE
        .query_scalar()
        .bind(from)
        .bind(to)
        .bind(changes.iter().map(|change| change.was.created_at).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.was.id).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.was.is_bot).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.was.invalid_reason.clone()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.is_bot).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.invalid_reason.clone()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.described.is_some()).collect::<Vec<_>>())
        .bind(of(0))
        .bind(of(1))
        .bind(of(2))
        .bind(of(3))
        .bind(of(4));
    db.maintain(UPDATE, move |c| Box::pin(query.fetch_all(c))).await
}
