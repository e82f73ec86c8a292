//! Random reports, each compared to the last unit with what DuckDB and Python make of the same facts; nodes are killed while they
//! add to the sums.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{Scratch, eventually, is_long},
    tools::Tool,
    tracker::{SOON, Tracker, assert_sums_agree},
};

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"];

/// Facts of 45 days, in which the clocks of three of these zones change: clicks of four campaigns, half of them to landing pages.
const CLICKS: &str = "
INSERT INTO clicks (
    id, campaign_id, is_valid, invalid_reason, is_bot, country, device, os, browser, sub1, sub2, keyword, referrer,
    affiliate_sub, landing_page_id, campaign_offer_id, source_id, rule_id, path_id, cost, currency, is_unique, language, region,
    os_version, created_at, updated_at
)
SELECT
    gen_random_uuid(),
    ('00000000-0000-7000-8000-00000000000' || ceil(4 * random() ^ 2)::integer)::uuid,
    reason IS NULL,
    reason,
    coalesce(reason = 'bot', false),
    (ARRAY['DE', 'AT', 'US', 'IN', NULL])[ceil(5 * random())],
    (ARRAY['mobile', 'desktop', NULL])[ceil(3 * random())],
    (ARRAY['iOS', 'Android', 'Windows'])[ceil(3 * random())],
    (ARRAY['Safari', 'Chrome'])[ceil(2 * random())],
    'zone' || ceil(40 * random() ^ 3),
    CASE WHEN random() < 0.5 THEN '100%_' || ceil(3 * random()) END,
    (ARRAY['Shoes', 'shoe shop', NULL])[ceil(3 * random())],
    (ARRAY['https://News.example:8443/a?b#c', 'https://u@blog.example', 'about:blank', NULL])[ceil(4 * random())],
    (ARRAY['x', NULL])[ceil(2 * random())],
    CASE WHEN is_page THEN ceil(3 * random()) END,
    CASE WHEN NOT is_page AND random() < 0.9 THEN ceil(4 * random()) END,
    (ARRAY[1, 2, NULL])[ceil(3 * random())],
    (ARRAY[0, 5])[ceil(2 * random())],
    (ARRAY[0, 7, 8])[ceil(3 * random())],
    CASE WHEN random() < 0.6 THEN round((random() * 2)::numeric, 6) END,
    (ARRAY['EUR', 'USD'])[ceil(2 * random())],
    reason IS NULL AND random() < 0.5,
    (ARRAY['de', 'en', NULL])[ceil(3 * random())],
    (ARRAY['BY', 'BE'])[ceil(2 * random())],
    (ARRAY['17.5', '16.0'])[ceil(2 * random())],
    at,
    at
FROM (
    SELECT
        '2026-10-10 00:00+00'::timestamptz + random() * interval '45 days' AS at,
        random() < 0.5 AS is_page,
        (ARRAY['bot', 'duplicate', NULL, NULL, NULL, NULL])[ceil(6 * random())] AS reason
    FROM generate_series(1, $1)
) made;";

const OUT_CLICKS: &str = "
INSERT INTO out_click_keys (click_id, created_at, is_counted)
SELECT id, created_at, random() < 0.9
FROM clicks
WHERE is_valid
  AND landing_page_id IS NOT NULL
  AND random() < 0.6;
INSERT INTO out_click_legs (click_id, offer_id, created_at, is_counted)
SELECT click_id, offer, created_at, is_counted
FROM out_click_keys
CROSS JOIN generate_series(1, 2) AS offer
WHERE random() < 0.7;";

/// Each as a part of the clicks, once with every state.
const CONVERSIONS: &str = "
WITH made AS (
    INSERT INTO conversions (
        id, campaign_id, click_id, goal, txid, nth, kind, status, payout, original_payout, currency, flags, rule_id, path_id,
        landing_page_id, offer_id, source_id, country, device, os, browser, sub1, sub2, keyword, is_click_valid, converted_at,
        first_at, last_at, created_at, invalid_reason, language, region, os_version, referrer_host, affiliate_sub
    )
    SELECT
        gen_random_uuid(), campaign_id, id, (ARRAY['', 'dep'])[ceil(2 * random())], '', 0,
        (ARRAY['conversion', 'conversion', 'rebill'])[ceil(3 * random())], 'pending', round((random() * 20)::numeric, 6), NULL,
        (ARRAY['EUR', 'USD', 'GBP'])[ceil(3 * random())], '{}', rule_id, path_id, landing_page_id,
        coalesce(campaign_offer_id, 2), source_id, country, device, os, browser, sub1, sub2, keyword, is_valid,
        created_at + wait, created_at + wait, created_at + wait, created_at, invalid_reason, language, region, os_version,
        octo_referrer_host(referrer), affiliate_sub
    FROM clicks
    CROSS JOIN LATERAL (SELECT id IS NOT NULL AS own, random() ^ 4 * interval '9 days' AS wait) w
    WHERE random() < $1
    RETURNING *
)
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, cause, from_status, to_status, payout, revenue, currency, changed_at, created_at
)
SELECT campaign_id, id, click_id, 'postback', NULL, 'pending', payout, 0, currency, first_at, created_at
FROM made;";

/// Every kind of change, of some conversions; some are another offer's from then on. As octo writes them: first what they are, then
/// the book.
const CHANGES: &str = "
DROP TABLE IF EXISTS proof_moves;
CREATE TABLE proof_moves (
    id uuid, from_status text, before numeric, to_status text, last_at timestamptz, offer_id bigint, payout numeric
);
INSERT INTO proof_moves
SELECT
    id, status AS from_status, payout AS before, s.to_status, last_at + interval '31 hours' AS last_at,
    CASE WHEN random() < 0.1 THEN 3 ELSE offer_id END AS offer_id,
    CASE
        WHEN s.to_status IN ('rejected', 'refunded') THEN 0
        WHEN random() < 0.5 AND payout > 0 THEN payout
        ELSE round((random() * 30)::numeric, 2)
    END AS payout
FROM conversions
CROSS JOIN LATERAL (
    SELECT (ARRAY['approved', 'approved', 'rejected', 'refunded'])[ceil(4 * (random() + 0 * payout::float))] AS to_status
) s
WHERE random() < $1;
UPDATE conversions v
SET status = m.to_status,
    original_payout = CASE WHEN m.to_status IN ('rejected', 'refunded') THEN coalesce(v.original_payout, v.payout) END,
    payout = m.payout,
    offer_id = m.offer_id,
    last_at = m.last_at
FROM proof_moves m
WHERE v.id = m.id;
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, cause, from_status, to_status, payout, revenue, currency, changed_at, created_at
)
SELECT
    v.campaign_id, v.id, v.click_id, 'postback', m.from_status, m.to_status, m.payout - m.before,
    CASE WHEN m.to_status = 'approved' THEN m.payout ELSE 0 END - CASE WHEN m.from_status = 'approved' THEN m.before ELSE 0 END,
    v.currency, m.last_at, v.created_at
FROM proof_moves m
JOIN conversions v ON v.id = m.id;";

/// Clicks that somebody puts right.
const CORRECTIONS: &str = "
UPDATE clicks
SET is_valid = NOT is_valid,
    invalid_reason = CASE WHEN is_valid THEN 'bot' END,
    is_bot = is_valid,
    cost = CASE WHEN random() < 0.5 THEN 0.25 ELSE cost END
WHERE random() < $1;";

/// Rates of every day, by the bank but for one currency.
const RATES: &str = "
DELETE FROM fx_rates;
INSERT INTO fx_rates (currency, day, rate, source)
SELECT currency, day::date, round((base * (1 + random() / 20))::numeric, 4), source
FROM (VALUES ('USD', 1.1, 'ecb'), ('GBP', 0.85, 'manual')) AS c (currency, base, source)
CROSS JOIN generate_series('2026-09-20'::date, '2026-12-20', '1 day') AS day
WHERE source = 'manual' OR extract(isodow FROM day) < 6;";

/// Reports that are asked for at once.
const IN_FLIGHT: usize = 4;

const MEASURES: [&str; 29] = [
    "clicks",
    "valid_clicks",
    "bot_clicks",
    "unique_clicks",
    "lander_views",
    "lander_clicks",
    "lp_ctr",
    "offer_clicks",
    "conversions",
    "pending",
    "approved",
    "rejected",
    "refunded",
    "unmapped",
    "cr",
    "offer_cr",
    "approve_rate",
    "approve_rate_of_all",
    "revenue",
    "revenue_pending",
    "revenue_rejected",
    "revenue_refunded",
    "cost",
    "profit",
    "profit_expected",
    "roi",
    "epc",
    "epc_offer",
    "cpa",
];

const DIMENSIONS: [&str; 28] = [
    "campaign",
    "source",
    "rule",
    "path",
    "landing_page",
    "offer",
    "country",
    "device",
    "os",
    "browser",
    "reason",
    "goal",
    "status",
    "currency",
    "hour",
    "hour_of_day",
    "day",
    "weekday",
    "week",
    "month",
    "sub1",
    "sub2",
    "keyword",
    "language",
    "region",
    "os_version",
    "referrer_host",
    "aff_sub",
];

async fn run(pool: &PgPool, sql: &'static str, value: f64) {
    for statement in sql.split_inclusive(';').filter(|statement| !statement.trim().is_empty()) {
        let query = sqlx::query(statement);
        let query = if statement.contains("generate_series(1, $1)") {
            #[expect(clippy::cast_possible_truncation, reason = "a number of rows")]
            query.bind(value as i32)
        } else if statement.contains("$1") {
            query.bind(value)
        } else {
            query
        };
        query.execute(pool).await.unwrap();
    }
}

/// Any report that can be asked for.
fn question(random: &mut Rng) -> Value {
    let tz = ZONES[random.usize(..ZONES.len())];
    let begin: DateTime<Utc> = "2026-10-08T00:00:00Z".parse().unwrap();
    let unit = [86_400, 3600, 1][random.usize(..3)];
    let mut ends = [random.i64(0..50 * 86_400 / unit) * unit, random.i64(0..50 * 86_400 / unit) * unit];
    ends.sort_unstable();
    let at = |seconds: i64| {
        (begin + TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    let mut group_by: Vec<&str> = Vec::new();
    for _ in 0..random.usize(..4) {
        // mostly those that sums know
        let known = if random.u8(..10) < 7 { 20 } else { DIMENSIONS.len() };
        let dimension = DIMENSIONS[random.usize(..known)];
        if !group_by.contains(&dimension) {
            group_by.push(dimension);
        }
    }
    let mut filters = Vec::new();
    for _ in 0..[0, 0, 1, 2][random.usize(..4)] {
        let (dimension, values): (&str, &[&str]) = [
            (
                "campaign",
                &["00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000003"][..],
            ),
            ("country", &["DE", "IN", "unknown"]),
            ("device", &["mobile", "unknown"]),
            ("offer", &["2", "3", "unknown"]),
            ("status", &["approved", "pending", "rejected"]),
            ("sub1", &["zone1", "zone2", "Zone3"]),
            ("sub2", &["100%", "100%_1"]),
            ("keyword", &["shoe", "Shoes"]),
            ("hour_of_day", &["3", "12", "23"]),
            ("weekday", &["1", "7"]),
            ("reason", &["unknown", "bot"]),
        ][random.usize(..11)];
        let matching = ["is", "is", "is_not", "contains", "starts"][random.usize(..5)];
        // campaigns are found by their ids and keys, and not by parts of them
        let matching = if dimension == "campaign" && matching.len() > 6 { "is" } else { matching };
        let count = 1 + random.usize(..values.len());
        let mut filter = json!({ "dimension": dimension });
        filter[matching] = json!(values[..count]);
        filters.push(filter);
    }
    let mut measures = MEASURES.to_vec();
    random.shuffle(&mut measures);
    measures.truncate(1 + random.usize(..MEASURES.len()));
    let time = ["click", "conversion", "change"][random.usize(..3)];
    let currency = ["USD", "EUR"][random.usize(..2)];
    let validity = ["valid", "all"][random.usize(..2)];
    json!({
        "group_by": group_by, "measures": measures, "filters": filters, "from": at(ends[0]), "to": at(ends[1] + unit), "tz": tz,
        "time": time, "currency": currency, "validity": validity, "limit": 10_000,
    })
}

/// A table's rows, one JSON object a line.
async fn dump(pool: &PgPool, select: &'static str) -> String {
    let rows: Vec<String> = sqlx::query_scalar(select).fetch_all(pool).await.unwrap();
    rows.join("\n") + "\n"
}

#[tokio::test]
async fn random_reports_are_to_the_last_unit_what_another_program_makes_of_the_same_facts() {
    let questions = if is_long() { 10_000 } else { 300 };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let mut tracker = Tracker::start_with("report_proof", |octo| {
        octo.env("OCTO_REPORTS__FOLD_INTERVAL_MS", "100").env("OCTO_REPORTS__FOLD_ROWS_MAX", "1000")
    })
    .await;
    let pool = tracker.pool.clone();
    run(&pool, RATES, 0.0).await;
    run(&pool, CLICKS, 6000.0).await; // of more, reports have more rows than an answer may have
    run(&pool, OUT_CLICKS, 0.0).await;
    // clicks are the drain's, which was not asked: they are counted from what is there, as days from before a release are
    let ask =
        "INSERT INTO report_recounts (day) SELECT generate_series('2026-10-08'::date, '2026-11-28', '1 day')";
    sqlx::query(ask).execute(&pool).await.unwrap();
    // what comes by triggers, while it counts and adds, and is killed
    for kill in 0..4 {
        run(&pool, CONVERSIONS, 0.05).await;
        run(&pool, CHANGES, 0.5).await;
        run(&pool, CORRECTIONS, 0.02).await;
        tokio::time::sleep(Duration::from_millis(random.u64(50..1500))).await;
        if kill < 3 {
            tracker.octo.kill9().await;
            tracker.octo.start_again().await;
        }
    }
    eventually(SOON * 12, async || {
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM report_recounts WHERE counted_at IS NULL")
                .fetch_one(&pool)
                .await?;
        anyhow::ensure!(waiting == 0, "{waiting} days wait to be counted");
        Ok(())
    })
    .await;
    run(&pool, CHANGES, 0.1).await; // some of it is not folded when it is asked
    assert_sums_agree(&pool).await;

    let scratch = Scratch::create();
    for (name, select) in [
        ("clicks", "SELECT to_jsonb(t)::text FROM clicks t"),
        ("keys", "SELECT to_jsonb(t)::text FROM out_click_keys t"),
        ("legs", "SELECT to_jsonb(t)::text FROM out_click_legs t"),
        ("conversions", "SELECT to_jsonb(t)::text FROM conversions t"),
        ("changes", "SELECT to_jsonb(t)::text FROM conversion_changes t"),
        ("rates", "SELECT to_jsonb(t)::text FROM fx_rates t"),
    ] {
        fs::write(scratch.dir().join(format!("{name}.ndjson")), dump(&pool, select).await).unwrap();
    }
    let client = tracker.octo.client();
    let ask = async |question: Value| {
        let request = client.post(tracker.octo.url("/api/v1/reports")).bearer_auth(&tracker.token);
        let response = request.json(&question).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{question} {answer:#}");
        json!({ "question": question, "answer": answer })
    };
    let questions: Vec<Value> = (0..questions).map(|_| question(&mut random)).collect();
    let start = Instant::now();
    let mut answers = stream::iter(questions).map(ask).buffered(IN_FLIGHT);
    let mut asked = String::new();
    while let Some(answer) = answers.next().await {
        writeln!(asked, "{answer}").unwrap();
    }
    println!("asked in {:.0} s", start.elapsed().as_secs_f64());
    fs::write(scratch.dir().join("questions.ndjson"), asked).unwrap();
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/api/report_proof/check.py");
    fs::copy(check, scratch.dir().join("check.py")).unwrap();
    let start = Instant::now();
    let said = Tool::script("duckdb", scratch.dir()).arg("check.py").run(Duration::from_mins(20)).await;
    println!("{said}worked out in {:.0} s", start.elapsed().as_secs_f64());
    assert!(said.contains(" 0 differ"), "{said}");
}
