//! A running octo on a database of its own, with a token and a client: what most tests begin with.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Acquire, PgExecutor, PgPool, Postgres};
use uuid::Uuid;

use super::{Database, Octo, OctoBuilder, eventually};

/// How long the drain may take to bring something to Postgres in a test on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Where the campaigns of tests lead.
pub(crate) const OFFER: &str = "https://offer.example/lp?cid={click_id}&s={sub1}#top";

pub(crate) struct Tracker {
    pub(crate) octo: Octo,
    pub(crate) pool: PgPool,
    pub(crate) token: String,
    // dropped last: octo holds connections to it
    #[allow(dead_code, reason = "kept for its end; some tests ask it for URLs")]
    pub(crate) database: Database,
}

impl Tracker {
    /// A tracker with the default configuration.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, |builder| builder).await
    }

    /// A tracker whose configuration `set` changes.
    pub(crate) async fn start_with(name: &str, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Self {
        let database = Database::create(name).await;
        let octo = set(Octo::builder().database_url(database.url())).start().await;
        let token = octo.admin_token().await;
        Self { pool: database.pool().await, octo, token, database }
    }

    /// A request to the API with the admin token.
    pub(crate) fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.octo.api(&self.token).request(method, path)
    }

    /// `GET` of the API, which must succeed.
    pub(crate) async fn show(&self, path: &str) -> Value {
        self.octo.api(&self.token).show(path).await
    }

    /// Creates a campaign, which must succeed.
    pub(crate) async fn campaign(&self, body: Value) -> Value {
        self.octo.api(&self.token).create(&body).await
    }

    /// An active campaign with one offer, [`OFFER`].
    pub(crate) async fn simple_campaign(&self, key: &str) -> Value {
        self.campaign(json!({ "key": key, "name": key, "offers": [{ "name": "offer", "url": OFFER }] })).await
    }

    /// Clicks a link and gives our id of the click.
    pub(crate) async fn click(&self, path: &str) -> (Response, Uuid) {
        let response = self.octo.get(path).await;
        assert_eq!(response.status(), StatusCode::FOUND, "{path}");
        let id = header(&response, "x-click-id").parse().expect("a UUID");
        (response, id)
    }

    /// Waits until Postgres holds `count` rows of a table.
    pub(crate) async fn wait_rows(&self, table: Table, count: i64) {
        eventually(SOON, async || {
            let rows = table.count(&self.pool).await?;
            anyhow::ensure!(rows == count, "{rows} rows in {table:?}, not {count}");
            Ok(())
        })
        .await;
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Clicks,
    Events,
    OutClicks,
    DeadLetters,
}

impl Table {
    pub(crate) async fn count(self, pool: &PgPool) -> sqlx::Result<i64> {
        let sql = match self {
            Self::Clicks => "SELECT count(*) FROM clicks",
            Self::Events => "SELECT count(*) FROM events",
            Self::OutClicks => "SELECT count(*) FROM out_clicks",
            Self::DeadLetters => "SELECT count(*) FROM dead_letters",
        };
        sqlx::query_scalar(sql).fetch_one(pool).await
    }
}

/// A header of an answer, or an empty text.
pub(crate) fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// The roll-ups must say what the raw rows say, each in one snapshot.
pub(crate) async fn assert_roll_ups_agree<'c>(database: impl Acquire<'c, Database = Postgres>) {
    let mut connection = database.acquire().await.expect("a connection");
    assert_agree(&mut *connection, true).await;
    assert_costs_agree(&mut *connection).await;
    assert_sums_agree(&mut *connection).await;
}

/// The sums of reports must say what the facts say, whatever of it is folded.
pub(crate) async fn assert_sums_agree(database: impl PgExecutor<'_>) {
    let compare = "SELECT to_jsonb(d)::text FROM octo_compare_figures('2020-01-01', '2100-01-01') d";
    let differences: Vec<String> = sqlx::query_scalar(compare).fetch_all(database).await.expect("sums");
    assert!(differences.is_empty(), "sums and facts differ: {differences:#?}");
}

/// As [`assert_roll_ups_agree`] without costs, of hours that an octo stored which did not count the clicks of landing pages.
pub(crate) async fn assert_old_roll_ups_agree(database: impl PgExecutor<'_>) {
    assert_agree(database, false).await;
}

async fn assert_agree(database: impl PgExecutor<'_>, has_landers: bool) {
    let differing: i64 = sqlx::query_scalar(
        "
        WITH raw AS (
            SELECT campaign_id, date_trunc('hour', created_at, 'UTC') AS hour,
                   sum(c) AS clicks, sum(v) AS valid_clicks, sum(b) AS bot_clicks, sum(e) AS events,
                   sum(l) AS lander_views, sum(o) AS lander_clicks, sum(u) AS unique_clicks
            FROM (
                SELECT campaign_id, created_at, 1 AS c, is_valid::int AS v, is_bot::int AS b, 0 AS e,
                       (is_valid AND landing_page_id IS NOT NULL)::int AS l,
                       (is_valid AND landing_page_id IS NOT NULL AND EXISTS (
                           SELECT FROM out_clicks o WHERE o.click_id = clicks.id AND o.is_valid
                       ))::int AS o,
                       coalesce(is_unique, false)::int AS u
                FROM clicks
                UNION ALL
                SELECT campaign_id, created_at, 0, 0, 0, 1, 0, 0, 0 FROM events WHERE campaign_id IS NOT NULL
            ) facts
            GROUP BY 1, 2
        )
        SELECT count(*)
        FROM raw
        FULL JOIN campaign_stats_hourly s USING (campaign_id, hour)
        WHERE (raw.clicks, raw.valid_clicks, raw.bot_clicks, raw.events)
            IS DISTINCT FROM (s.clicks, s.valid_clicks, s.bot_clicks, s.events)
           OR ($1 AND (raw.lander_views, raw.lander_clicks, raw.unique_clicks)
                IS DISTINCT FROM (s.lander_views, s.lander_clicks, s.unique_clicks))",
    )
    .bind(has_landers)
    .fetch_one(database)
    .await
    .expect("both can be read");
    assert_eq!(differing, 0, "hours whose roll-up is not the sum of its rows");
}

/// The costs of hours must be those of the raw rows, in one snapshot.
async fn assert_costs_agree(database: impl PgExecutor<'_>) {
    let differing: i64 = sqlx::query_scalar(
        "
        WITH raw AS (
            SELECT campaign_id, date_trunc('hour', created_at, 'UTC') AS hour,
                   CASE WHEN cost IS NULL THEN '' ELSE coalesce(currency, 'XXX') END AS currency,
                   count(*) AS clicks, sum(is_valid::int) AS valid_clicks,
                   sum(coalesce(is_unique, false)::int) AS unique_clicks, count(cost) AS costed_clicks,
                   coalesce(sum(cost), 0) AS cost
            FROM clicks
            GROUP BY 1, 2, 3
        )
        SELECT count(*)
        FROM raw
        FULL JOIN campaign_costs_hourly s USING (campaign_id, hour, currency)
        WHERE (coalesce(raw.clicks, 0), coalesce(raw.valid_clicks, 0), coalesce(raw.unique_clicks, 0),
               coalesce(raw.costed_clicks, 0), coalesce(raw.cost, 0))
            IS DISTINCT FROM (s.clicks, s.valid_clicks, s.unique_clicks, s.costed_clicks, s.cost)",
    )
    .fetch_one(database)
    .await
    .expect("both can be read");
    assert_eq!(differing, 0, "hours whose costs are not the sum of their clicks");
}

/// The book must add up to the conversions, each of its rows following on the one before, in one snapshot.
pub(crate) async fn assert_book_agrees(database: impl PgExecutor<'_>) {
    let wrong: (i64, i64) = sqlx::query_as(
        "
        WITH book AS (
            SELECT conversion_id, currency, sum(payout) AS payout, sum(revenue) AS revenue
            FROM conversion_changes
            GROUP BY 1, 2
        ), steps AS (
            SELECT from_status, lag(to_status) OVER (PARTITION BY conversion_id ORDER BY id) AS before
            FROM conversion_changes
        )
        SELECT
            (
                SELECT count(*)
                FROM conversions v
                FULL JOIN book b ON b.conversion_id = v.id AND b.currency = v.currency
                WHERE v.payout IS DISTINCT FROM b.payout
                   OR b.revenue IS DISTINCT FROM CASE WHEN v.status = 'approved' THEN v.payout ELSE 0 END
            ),
            (SELECT count(*) FROM steps WHERE from_status IS DISTINCT FROM before)",
    )
    .fetch_one(database)
    .await
    .expect("both can be read");
    assert_eq!(
        wrong,
        (0, 0),
        "sums of the book that are no conversion's, and rows that do not follow on another"
    );
}
