//! Costs in reports: what `GET /campaigns/{id}/costs` says, in whatever rows it is told apart, to the last millionth.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Table, Tracker},
};

/// A currency that has no rate but one's own.
const OTHER: &str = "KZT";

/// Groups that are read from the sums of one dimension, of days, of hours, and from facts.
const GROUPS: [&[&str]; 8] = [
    &["country"],
    &["offer", "day"],
    &["country", "hour"],
    &["campaign", "country", "offer"],
    &["sub1", "country"],
    &["currency", "day"],
    &["hour_of_day"],
    &["sub1", "sub2", "hour"],
];

/// A campaign with clicks of the last days, whole hours around them.
struct Filled {
    tracker: Tracker,
    id: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap_or_else(|| panic!("{value} is no amount")).parse().unwrap()
}

impl Filled {
    /// 240 clicks of two days: some do not count, some are the first of their visitor, some said a cost, some converted.
    async fn start(name: &str) -> Self {
        let tracker = Tracker::start(name).await;
        let id: Uuid = tracker.simple_campaign("demo").await["id"].as_str().unwrap().parse().unwrap();
        let hour = Utc::now().timestamp() / 3600 * 3600;
        let to = DateTime::from_timestamp(hour, 0).unwrap() - TimeDelta::hours(1);
        let filled = Self { tracker, id, from: to - TimeDelta::hours(50), to };
        let from = text(filled.from);
        filled
            .run(&format!(
                "INSERT INTO clicks (
                     id, campaign_id, is_valid, is_bot, is_unique, invalid_reason, country, device, sub1, sub2,
                     campaign_offer_id, cost, currency, created_at, updated_at
                 )
                 SELECT
                     gen_random_uuid(), '{id}', n % 7 <> 0, false, n % 7 <> 0 AND n % 2 = 0,
                     CASE WHEN n % 7 = 0 THEN 'rate' END,
                     (ARRAY['DE', 'FR', NULL])[n % 3 + 1], (ARRAY['mobile', 'desktop'])[n / 3 % 2 + 1],
                     's' || n % 5, (ARRAY['x', NULL])[n % 2 + 1], 1 + n % 2,
                     CASE n % 4 WHEN 0 THEN 0.05 + n * 0.000001 WHEN 1 THEN 0.1 END,
                     CASE n % 4 WHEN 0 THEN 'EUR' WHEN 1 THEN '{OTHER}' END,
                     at, at
                 FROM generate_series(1, 240) n, LATERAL (SELECT '{from}'::timestamptz + n * interval '737 s' AS at) t;
                 INSERT INTO campaign_costs_hourly
                 SELECT
                     campaign_id, date_trunc('hour', created_at, 'UTC'),
                     CASE WHEN cost IS NULL THEN '' ELSE currency END, count(*), count(*) FILTER (WHERE is_valid),
                     count(*) FILTER (WHERE is_unique), count(cost), coalesce(sum(cost), 0)
                 FROM clicks
                 GROUP BY 1, 2, 3;
                 INSERT INTO conversions (
                     id, campaign_id, click_id, goal, txid, nth, kind, status, payout, currency, flags, country, device,
                     sub1, sub2, offer_id, is_click_valid, converted_at, first_at, last_at, created_at
                 )
                 SELECT
                     gen_random_uuid(), '{id}', k.id, '', t.txid, 0, t.kind, t.status, t.payout, t.currency, '{{}}',
                     k.country, k.device, k.sub1, k.sub2, k.campaign_offer_id, k.is_valid, now(), now(), now(), k.created_at
                 FROM (SELECT *, row_number() OVER (ORDER BY created_at) AS n FROM clicks) k
                 JOIN (
                     VALUES
                         (0, 'a', 'conversion', 'approved', 3.333333, 'EUR'),
                         (0, 'b', 'conversion', 'approved', 777.77, '{OTHER}'),
                         (1, 'c', 'conversion', 'pending', 5, 'EUR'),
                         (2, 'd', 'conversion', 'approved', 1.000001, 'EUR'),
                         (2, 'd', 'rebill', 'approved', 0.7, 'EUR'),
                         (3, 'e', 'correction', 'approved', -0.123457, 'EUR')
                 ) AS t (m, txid, kind, status, payout, currency) ON t.m = k.n / 2 % 6;"
            ))
            .await;
        filled.recount().await;
        filled
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.tracker.pool).await.unwrap();
    }

    /// The sums of the days from their facts.
    async fn recount(&self) {
        let mut day = self.from.date_naive();
        while day <= self.to.date_naive() {
            eventually(SOON, async || {
                let counted: i64 = sqlx::query_scalar("SELECT octo_recount_day($1)")
                    .bind(day)
                    .fetch_one(&self.tracker.pool)
                    .await?;
                anyhow::ensure!(counted >= 0, "somebody else is about it");
                Ok(())
            })
            .await;
            day = day.succ_opt().unwrap();
        }
    }

    /// Prices of the campaign, each since so many hours after the beginning.
    async fn price(&self, prices: &[(i64, &str, &str, Option<&str>)]) {
        self.run("DELETE FROM campaign_prices").await;
        for (hours, model, amount, currency) in prices {
            let since = text(self.from + TimeDelta::hours(*hours));
            let currency = currency.map_or("NULL".to_owned(), |code| format!("'{code}'"));
            self.run(&format!(
                "INSERT INTO campaign_prices VALUES ('{}', '{since}', '{model}', {amount}, {currency})",
                self.id
            ))
            .await;
        }
    }

    /// Says costs of hours after the beginning; gives the id.
    async fn say(&self, hours: (i64, i64), more: &Value) -> String {
        let time = |hours| text(self.from + TimeDelta::hours(hours));
        let mut body = json!({"campaign": "demo", "from": time(hours.0), "to": time(hours.1)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, said) = answer(self.tracker.api(Method::POST, "/costs").json(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}: {said}");
        said["id"].as_str().unwrap().to_owned()
    }

    async fn void(&self, id: &str) {
        let (status, voided) = answer(self.tracker.api(Method::POST, &format!("/costs/{id}/void"))).await;
        assert_eq!(status, StatusCode::OK, "{voided}");
    }

    async fn report(&self, more: Value) -> Value {
        let mut body = json!({
            "from": text(self.from), "to": text(self.to), "measures": ["cost"], "currency": "EUR", "limit": 10000,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, report) = answer(self.tracker.api(Method::POST, "/reports").json(&body)).await;
        assert_eq!(status, StatusCode::OK, "{body}: {report}");
        report
    }

    /// What the campaign's costs are by currency.
    async fn effective(&self, (from, to): (DateTime<Utc>, DateTime<Utc>)) -> BTreeMap<String, Decimal> {
        let path = format!("/campaigns/demo/costs?from={}&to={}", text(from), text(to));
        let shown = self.tracker.show(&path).await;
        let mut of = BTreeMap::new();
        for total in shown["totals"].as_array().unwrap() {
            if let Some(currency) = total["currency"].as_str() {
                of.insert(currency.to_owned(), decimal(&total["effective"]));
            }
        }
        of
    }

    /// The costs of reports are those of the campaign, in whatever rows, of all the time and of a part of it.
    async fn assert_same(&self, what: &str) {
        let part = (self.from + TimeDelta::hours(7), self.from + TimeDelta::hours(29));
        let (all, named) = (json!([]), json!([{"dimension": "campaign", "is": ["demo"]}]));
        // each currency with and without the filter, each range with both: a report takes some 30 ms
        for ((from, to), [in_euros, in_other]) in
            [((self.from, self.to), [&all, &named]), (part, [&named, &all])]
        {
            let wanted = self.effective((from, to)).await;
            for (currency, other, filters) in [("EUR", OTHER, in_euros), (OTHER, "EUR", in_other)] {
                let base = json!({
                    "from": text(from), "to": text(to), "currency": currency, "filters": filters, "group_by": [],
                });
                let whole = self.report(base.clone()).await;
                let said = |currency: &str| wanted.get(currency).copied().unwrap_or_default();
                assert_eq!(decimal(&whole["totals"]["cost"]), said(currency), "{what}: {base} {whole}");
                assert_eq!(without_rate(&whole, other), said(other), "{what}: {base} {whole}");
                for group_by in GROUPS {
                    let mut asked = base.clone();
                    asked["group_by"] = json!(group_by);
                    let report = self.report(asked).await;
                    assert_eq!(report["totals"], whole["totals"], "{what}: {group_by:?}");
                    assert_eq!(sum(&report), said(currency), "{what}: {group_by:?} {report}");
                    assert_eq!(without_rate(&report, other), said(other), "{what}: {group_by:?}");
                }
            }
        }
        self.assert_each_bears_its_own(what).await;
    }

    /// Each row costs what its clicks cost one by one, but for what is finer than a millionth of each.
    async fn assert_each_bears_its_own(&self, what: &str) {
        let report = self.report(json!({"group_by": ["sub1", "country"], "currency": "EUR"})).await;
        let clicks: Vec<(String, Option<String>, Decimal)> = sqlx::query_as(
            "SELECT k.sub1, k.country, sum(c.cost)
             FROM octo_click_costs($1, $2, $3) c
             JOIN clicks k ON k.created_at = c.created_at AND k.id = c.click_id
             WHERE c.currency = 'EUR'
             GROUP BY 1, 2",
        )
        .bind(self.id)
        .bind(self.from)
        .bind(self.to)
        .fetch_all(&self.tracker.pool)
        .await
        .unwrap();
        for (sub1, country, cost) in clicks {
            let is_it =
                |row: &&Value| row["keys"]["sub1"] == json!(sub1) && row["keys"]["country"] == json!(country);
            let row = report["rows"].as_array().unwrap().iter().find(is_it);
            let found = row.map_or(Decimal::ZERO, |row| decimal(&row["figures"]["cost"]));
            let most = Decimal::new(60, 6); // there are 16 clicks in a row, and 51 hours
            assert!((found - cost).abs() <= most, "{what}: {sub1} {country:?}: {found}, not {cost}");
        }
    }
}

fn sum(report: &Value) -> Decimal {
    assert_eq!(report["has_more"], false);
    report["rows"].as_array().unwrap().iter().map(|row| decimal(&row["figures"]["cost"])).sum()
}

fn without_rate(report: &Value, currency: &str) -> Decimal {
    let all = report["notes"]["without_rate"].as_array().unwrap();
    let of = all.iter().filter(|of| of["currency"] == currency);
    of.map(|of| decimal(&of["cost"])).sum()
}

#[tokio::test]
async fn what_each_model_costs_is_in_reports() {
    let filled = Filled::start("report_costs_models").await;
    filled.assert_same("links").await;
    let report = filled.report(json!({})).await;
    assert_eq!(report["notes"]["cost_from"], json!(["token"]), "{report}");
    for (model, amount, currency) in [
        ("cpc", "0.013", Some("EUR")),
        ("cpm", "1.000007", Some("EUR")),
        ("cpuc", "0.07", Some(OTHER)),
        ("cpa", "1.25", Some("EUR")),
        ("revshare", "12.5", None),
    ] {
        filled.price(&[(-1000, model, amount, currency)]).await;
        filled.assert_same(model).await;
        filled
            .price(&[
                (3, model, amount, currency),
                (20, "cpm", "2.3", Some(OTHER)),
                (40, "none", "NULL", None),
            ])
            .await;
        filled.assert_same(&format!("{model}, then others")).await;
        let report = filled.report(json!({})).await;
        assert_eq!(report["notes"]["cost_from"], json!(["token", "model"]), "{report}");
        assert_eq!(report["notes"]["provisional"], false);
    }
}

#[tokio::test]
async fn adjustments_are_in_reports_with_what_nobody_bears_beside_them() {
    let filled = Filled::start("report_costs_adjusted").await;
    filled.price(&[(-1000, "cpm", "1.7", Some("EUR")), (30, "revshare", "10", None)]).await;
    let eur = |kind: &str, amount: &str, more: Value| {
        let mut said = json!({"kind": kind, "amount": amount, "currency": "EUR"});
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said
    };
    for (what, said) in [
        ("total", eur("total", "10.000001", json!({}))),
        ("per_click", eur("per_click", "0.01", json!({"spread": "all"}))),
        ("per_mille", eur("per_mille", "3.3", json!({"spread": "unique"}))),
        ("factor", json!({"kind": "factor", "amount": "1.337"})),
        ("of a country", eur("total", "7", json!({"filters": {"country": ["DE", "unknown"]}}))),
        ("of a sub1", eur("total", "7", json!({"filters": {"sub1": ["s1", "s4"]}, "spread": "unique"}))),
        ("another currency", json!({"kind": "total", "amount": "1000.01", "currency": OTHER})),
    ] {
        let id = filled.say((5, 35), &said).await;
        filled.assert_same(what).await;
        filled.void(&id).await;
    }
    // of whole days: nothing is read by hour then
    let midnight = 24 - i64::from(chrono::Timelike::hour(&filled.from));
    filled.price(&[(-1000, "cpm", "1.7", Some("EUR")), (midnight, "cpc", "0.011", Some(OTHER))]).await;
    let day = filled.say((midnight, midnight + 24), &eur("total", "10.000001", json!({}))).await;
    filled.assert_same("of a day").await;
    let of_it = json!({"filters": {"country": ["DE"], "device": ["mobile"]}});
    let part = filled.say((midnight - 24, midnight + 24), &eur("total", "3.1", of_it)).await;
    filled.assert_same("of days and a country").await;
    filled.void(&day).await;
    filled.void(&part).await;
    filled.price(&[(-1000, "cpm", "1.7", Some("EUR")), (30, "revshare", "10", None)]).await;

    // nested, and overlapping in time
    filled.say((0, 45), &eur("total", "100", json!({}))).await;
    filled.say((10, 60), &eur("total", "20.5", json!({"filters": {"device": ["mobile"]}}))).await;
    filled.say((10, 60), &json!({"kind": "factor", "amount": "2", "filters": {"offer": ["1"]}})).await;
    filled.assert_same("nested by what sums know").await;
    filled
        .say(
            (12, 14),
            &json!({"kind": "per_click", "amount": "3", "currency": OTHER, "filters": {"sub2": ["x"]}}),
        )
        .await;
    filled.assert_same("nested with what no sum knows").await;
    let report = filled.report(json!({})).await;
    assert_eq!(report["notes"]["provisional"], true, "one ends in the future: {report}");
    assert_eq!(
        report["notes"]["cost_from"],
        json!(["token", "adjusted"]),
        "no price has a click left: {report}"
    );
    assert_eq!(report["notes"]["unallocated"], json!([]));
    filled.say((1, 2), &eur("total", "4.2", json!({"filters": {"country": ["JP"]}}))).await;
    filled.assert_same("with what nobody bears").await;
    let nobody = json!([{"campaign_id": filled.id, "currency": "EUR", "amount": "4.20"}]);
    assert_eq!(filled.report(json!({})).await["notes"]["unallocated"], nobody);
    let others = json!({"filters": [{"dimension": "campaign", "is_not": ["demo"]}]});
    assert_eq!(filled.report(others).await["notes"]["unallocated"], json!([]));

    // filters of the question, hours cut in two, and a time zone that cuts others: rows add up to their own total
    for more in [
        json!({"filters": [{"dimension": "country", "is": ["DE"]}], "group_by": ["sub1"]}),
        json!({"filters": [{"dimension": "sub2", "is_not": ["x"]}], "group_by": ["country", "day"]}),
        json!({"tz": "Asia/Kolkata", "group_by": ["day", "country"]}),
        json!({"from": text(filled.from + TimeDelta::minutes(631)), "group_by": ["offer"]}),
    ] {
        let report = filled.report(more.clone()).await;
        assert_eq!(sum(&report), decimal(&report["totals"]["cost"]), "{more}: {report}");
    }
    let countries = filled.report(json!({"group_by": ["country"]})).await;
    let only = filled.report(json!({"filters": [{"dimension": "country", "is": ["DE"]}]})).await;
    let of_it =
        countries["rows"].as_array().unwrap().iter().find(|row| row["keys"]["country"] == "DE").unwrap();
    let differ = decimal(&of_it["figures"]["cost"]) - decimal(&only["totals"]["cost"]);
    assert!(differ.abs() < Decimal::new(20, 6), "a millionth for each adjustment and day: {differ}");
    let kolkata = filled.report(json!({"tz": "Asia/Kolkata", "group_by": ["day"]})).await;
    assert_eq!(kolkata["totals"]["cost"], countries["totals"]["cost"]);
}

#[tokio::test]
async fn costs_are_converted_by_the_rate_of_the_day_of_their_clicks() {
    let filled = Filled::start("report_costs_rates").await;
    filled.price(&[(-1000, "cpc", "7.7", Some(OTHER))]).await;
    filled
        .say(
            (5, 35),
            &json!({"kind": "total", "amount": "1000.01", "currency": OTHER, "filters": {"country": ["DE"]}}),
        )
        .await;
    let begin = filled.from.date_naive();
    let second = begin.succ_opt().unwrap();
    let rates = json!({"rates": [
        {"currency": OTHER, "day": begin.to_string(), "rate": "500"},
        {"currency": OTHER, "day": second.to_string(), "rate": "400"},
    ]});
    let (status, said) = answer(filled.tracker.api(Method::PUT, "/fx-rates").json(&rates)).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let path = format!("/campaigns/demo/costs?from={}&to={}", text(filled.from), text(filled.to));
    let costs = filled.tracker.show(&path).await;
    let mut wanted = Decimal::ZERO;
    for bucket in costs["data"].as_array().unwrap() {
        let worth = match (bucket["currency"].as_str(), bucket["date"] == begin.to_string()) {
            (Some(OTHER), true) => Decimal::new(2, 3),
            (Some(OTHER), false) => Decimal::new(25, 4),
            _ => Decimal::ONE,
        };
        wanted += decimal(&bucket["effective"]) * worth;
    }
    for group_by in GROUPS {
        let report = filled.report(json!({"group_by": group_by})).await;
        assert_eq!(decimal(&report["totals"]["cost"]), wanted.round_dp(6), "{group_by:?} {report}");
        let rows = Decimal::from(report["rows"].as_array().unwrap().len());
        assert!((sum(&report) - wanted).abs() <= rows * Decimal::new(5, 7), "each is rounded once: {report}");
        assert_eq!(report["notes"]["without_rate"], json!([]));
    }
}

#[tokio::test]
async fn clicks_that_just_came_and_their_conversions_cost_at_once() {
    let tracker = Tracker::start("report_costs_fresh").await;
    tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "cost_model": "cpa", "cost": {"amount": "1.50", "currency": "EUR"},
            "offers": [{"name": "o", "url": "https://offer.example/"}],
        }))
        .await;
    tracker.simple_campaign("plain").await;
    let mut clicks = Vec::new();
    for link in ["demo?sub1=a", "demo?sub1=b&cost=0.25&currency=EUR", "plain?cost=2&currency=EUR", "plain"] {
        clicks.push(tracker.click(&format!("/c/{link}")).await.1);
    }
    tracker.wait_rows(Table::Clicks, 4).await;
    let body = json!({
        "click_id": clicks[0], "status": "approved", "txid": "1", "payout": {"amount": "9", "currency": "EUR"},
    });
    assert_eq!(answer(tracker.api(Method::POST, "/conversions").json(&body)).await.0, StatusCode::ACCEPTED);
    let asked = json!({
        "group_by": ["campaign", "sub1"], "measures": ["cost", "profit", "roi"], "currency": "EUR", "order": "-cost",
    });
    eventually(SOON, async || {
        let (_, report) = answer(tracker.api(Method::POST, "/reports").json(&asked)).await;
        let rows = report["rows"].as_array().unwrap();
        let shown: Vec<_> =
            rows.iter().map(|row| (row["keys"]["sub1"].clone(), row["figures"].clone())).collect();
        let figures =
            |cost: &str, profit: &str, roi: Value| json!({"cost": cost, "profit": profit, "roi": roi});
        let wanted = vec![
            (Value::Null, figures("2.00", "-2.00", json!("-1"))),
            (json!("a"), figures("1.50", "7.50", json!("5"))),
            (json!("b"), figures("0.25", "-0.25", json!("-1"))),
        ];
        anyhow::ensure!(shown == wanted, "{report}");
        anyhow::ensure!(
            report["totals"]["cost"] == "3.75" && report["totals"]["profit"] == "5.25",
            "{report}"
        );
        anyhow::ensure!(report["notes"]["cost_from"] == json!(["token", "model"]), "{report}");
        Ok(())
    })
    .await;
}

/// Fills 30 days of 100 campaigns that have a price each, some of them adjustments, with sums that nobody clicked, and prints how long
/// reports take; OCTO_REPORT_ROWS are the rows of an hour of a campaign.
#[tokio::test]
async fn a_report_of_a_hundred_campaigns_with_prices_is_quick() {
    let tracker = Tracker::start("report_costs_speed").await;
    let rows: i64 = std::env::var("OCTO_REPORT_ROWS").map_or(5, |rows| rows.parse().unwrap());
    let fill = format!(
        "SELECT octo_make_report_day((now() AT TIME ZONE 'UTC')::date - n) FROM generate_series(0, 31) n;
         CREATE TABLE made_up AS SELECT gen_random_uuid() AS id, n FROM generate_series(1, 100) n;
         INSERT INTO report_hours (
             hour, campaign_id, offer_id, country, device, clicks, valid_clicks, unique_clicks
         )
         SELECT
             date_trunc('day', now(), 'UTC') - h * interval '1 hour', c.id, r % 2, 'C' || r / 2 % 40,
             (ARRAY['mobile', 'desktop'])[r / 80 % 2 + 1], 12, 11, 10
         FROM made_up c, generate_series(1, 720) h, generate_series(0, {rows} - 1) r;
         INSERT INTO report_days (
             day, time_kind, campaign_id, offer_id, country, device, clicks, valid_clicks, unique_clicks
         )
         SELECT
             (hour AT TIME ZONE 'UTC')::date, 0, campaign_id, offer_id, country, device, sum(clicks), sum(valid_clicks),
             sum(unique_clicks)
         FROM report_hours
         GROUP BY 1, 2, 3, 4, 5, 6;
         INSERT INTO report_parts (
             dimension, value, day, time_kind, campaign_id, offer_id, clicks, valid_clicks, unique_clicks
         )
         SELECT 'country', country, day, 0, campaign_id, offer_id, sum(clicks), sum(valid_clicks), sum(unique_clicks)
         FROM report_days
         GROUP BY 2, 3, 5, 6;
         INSERT INTO report_dimensions (
             dimension, day, campaign_id, value, time_kind, clicks, valid_clicks, unique_clicks
         )
         SELECT d.dimension, day, campaign_id, d.value, 0, sum(clicks), sum(valid_clicks), sum(unique_clicks)
         FROM report_days, LATERAL (VALUES ('campaign', ''), ('country', country)) AS d (dimension, value)
         GROUP BY 1, 2, 3, 4;
         INSERT INTO campaign_costs_hourly
         SELECT campaign_id, hour, '', sum(clicks), sum(valid_clicks), sum(unique_clicks), 0, 0
         FROM report_hours
         GROUP BY 1, 2;
         ANALYZE;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&tracker.pool).await.unwrap();
    let prices = "INSERT INTO campaign_prices
         SELECT id, now() - interval '90 days', (ARRAY['cpc', 'cpm', 'cpuc'])[n % 3 + 1], 0.01, 'EUR' FROM made_up";
    let adjustments = "INSERT INTO cost_adjustments (
             id, campaign_id, begins_at, ends_at, time_zone, filters, scope, kind, amount, currency, spread, author
         )
         SELECT
             gen_random_uuid(), id, date_trunc('day', now(), 'UTC') - interval '30 days', date_trunc('day', now(), 'UTC'),
             'UTC', '{}', 'whole', 'total', 100 + n, 'EUR', 'valid', 'test'
         FROM made_up";
    for (what, fill) in [("no", ""), ("prices", prices), ("adjustments", adjustments)] {
        sqlx::raw_sql(fill).execute(&tracker.pool).await.unwrap();
        for (currency, group_by) in
            [("EUR", vec!["country"]), ("EUR", vec!["campaign", "day"]), ("USD", vec!["country", "offer"])]
        {
            let midnight = Utc::now().date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
            let asked = json!({
                "group_by": group_by, "measures": ["clicks", "cost"], "currency": currency, "limit": 10000,
                "from": text(midnight - TimeDelta::days(30)), "to": text(midnight),
            });
            let begin = std::time::Instant::now();
            let (status, report) = answer(tracker.api(Method::POST, "/reports").json(&asked)).await;
            let took = begin.elapsed();
            assert_eq!(status, StatusCode::OK, "{report}");
            println!("100 campaigns with {what}, {group_by:?} in {currency}: {took:?}, {}", report["totals"]);
            if what == "adjustments" && currency == "EUR" {
                assert_eq!(report["totals"]["cost"], "15050.00", "every total, whole");
                assert_eq!(sum(&report), Decimal::from(15050));
            }
        }
    }
}
