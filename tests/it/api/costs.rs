//! What clicks cost: what links said, what is said later, the price of the campaign, and the same figures click by click.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree},
};

/// A range of whole hours around now, as a query and as JSON.
struct Hours {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Hours {
    fn around_now() -> Self {
        let now = Utc::now();
        let hour = now
            - TimeDelta::seconds(now.timestamp() % 3600)
            - TimeDelta::nanoseconds(now.timestamp_subsec_nanos().into());
        Self { from: hour - TimeDelta::hours(2), to: hour + TimeDelta::hours(2) }
    }

    fn said(&self, more: &Value) -> Value {
        let mut body = json!({"campaign": "demo", "from": text(self.from), "to": text(self.to)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

async fn say(tracker: &Tracker, body: &Value) -> Value {
    let (status, said) = answer(tracker.api(Method::POST, "/costs").json(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}: {said}");
    said
}

async fn figures(tracker: &Tracker, hours: &Hours) -> Value {
    let path = format!("/campaigns/demo/costs?from={}&to={}", text(hours.from), text(hours.to));
    tracker.show(&path).await
}

/// One figure of the totals.
async fn total(tracker: &Tracker, hours: &Hours, currency: &str, figure: &str) -> Value {
    let shown = figures(tracker, hours).await;
    let totals = shown["totals"].as_array().unwrap();
    totals
        .iter()
        .find(|total| total["currency"] == currency)
        .map_or(Value::Null, |total| total[figure].clone())
}

/// The sums of the function for owners must be those of the API, to the last millionth.
async fn assert_click_by_click(tracker: &Tracker, hours: &Hours) {
    let shown = figures(tracker, hours).await;
    let id: uuid::Uuid = shown["campaign_id"].as_str().unwrap().parse().unwrap();
    let sql =
        "SELECT currency, sum(cost) AS cost, count(*) AS clicks FROM octo_click_costs($1, $2, $3) GROUP BY 1";
    let rows =
        sqlx::query(sql).bind(id).bind(hours.from).bind(hours.to).fetch_all(&tracker.pool).await.unwrap();
    let mut wanted: Vec<(Option<String>, Decimal, i64)> = shown["totals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|total| {
            let currency = total["currency"].as_str().map(str::to_owned);
            (
                currency,
                total["effective"].as_str().unwrap().parse().unwrap(),
                total["clicks"].as_i64().unwrap(),
            )
        })
        .filter(|(_, _, clicks)| *clicks > 0)
        .collect();
    let sum = |row: &sqlx::postgres::PgRow| row.get::<Option<Decimal>, _>("cost").unwrap_or_default();
    let mut found: Vec<_> =
        rows.iter().map(|row| (row.get("currency"), sum(row), row.get("clicks"))).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted, "{shown}");
}

/// 3 clicks of `a`, 4 of `b`; of each one said a cost.
async fn seven_clicks(tracker: &Tracker) {
    tracker.simple_campaign("demo").await;
    for query in [
        "sub1=a&cost=0,05&currency=EUR",
        "sub1=a",
        "sub1=a",
        "sub1=b&cost=0.10&currency=USD",
        "sub1=b",
        "sub1=b",
        "sub1=b",
    ] {
        tracker.click(&format!("/c/demo?{query}")).await;
    }
    tracker.wait_rows(Table::Clicks, 7).await;
    sqlx::query("UPDATE clicks SET is_valid = true, invalid_reason = NULL")
        .execute(&tracker.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE campaign_costs_hourly SET valid_clicks = clicks")
        .execute(&tracker.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE campaign_stats_hourly SET valid_clicks = clicks")
        .execute(&tracker.pool)
        .await
        .unwrap();
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn an_adjustment_counts_before_the_link_and_a_void_one_gives_back_what_was() {
    let tracker = Tracker::start("costs_adjust").await;
    seven_clicks(&tracker).await;
    let hours = Hours::around_now();
    assert_eq!(total(&tracker, &hours, "EUR", "token").await, "0.05");
    assert_eq!(total(&tracker, &hours, "USD", "provenance").await, "token");
    assert_click_by_click(&tracker, &hours).await;

    let whole =
        say(&tracker, &hours.said(&json!({"kind": "total", "amount": "10,00", "currency": "EUR"}))).await;
    assert_eq!(total(&tracker, &hours, "EUR", "effective").await, "10.00");
    assert_eq!(total(&tracker, &hours, "USD", "effective").await, Value::Null, "the total is of all clicks");
    assert_click_by_click(&tracker, &hours).await;

    // the part first, the rest over the others
    let part = hours
        .said(&json!({"kind": "per_click", "amount": "1", "currency": "EUR", "filters": {"sub1": ["a"]}}));
    let part = say(&tracker, &part).await;
    assert_eq!(total(&tracker, &hours, "EUR", "effective").await, "10.00");
    assert_click_by_click(&tracker, &hours).await;
    let of_a: Decimal = sqlx::query_scalar(
        "SELECT sum(c.cost) FROM clicks k JOIN octo_click_costs(k.campaign_id, $1, $2) c ON c.click_id = k.id WHERE k.sub1 = 'a'",
    )
    .bind(hours.from)
    .bind(hours.to)
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!(of_a, Decimal::from(3));

    // another for the same range supersedes, and void restores
    let again =
        say(&tracker, &hours.said(&json!({"kind": "total", "amount": "2.5", "currency": "EUR"}))).await;
    assert_eq!(again["supersedes"], whole["id"]);
    let shown = figures(&tracker, &hours).await;
    assert_eq!(shown["warnings"][0]["code"], "parts_exceed_total", "{shown}");
    assert_eq!(total(&tracker, &hours, "EUR", "effective").await, "3.00", "parts win");
    assert_click_by_click(&tracker, &hours).await;
    for id in [&again["id"], &part["id"], &whole["id"]] {
        let path = format!("/costs/{}/void", id.as_str().unwrap());
        let (status, voided) = answer(tracker.api(Method::POST, &path)).await;
        assert_eq!((status, &voided["is_live"]), (StatusCode::OK, &json!(false)), "{voided}");
        assert_click_by_click(&tracker, &hours).await;
    }
    assert_eq!(total(&tracker, &hours, "USD", "effective").await, "0.10", "as the links said");
    let voided = tracker.show("/costs?campaign_id=demo&is_voided=true").await;
    assert_eq!(voided["data"].as_array().unwrap().len(), 3);
    let live = tracker.show("/costs?campaign_id=demo&is_voided=false").await;
    assert_eq!(live["data"], json!([]));
}

#[tokio::test]
async fn totals_that_nobody_bears_factors_and_prices_are_shown_where_they_are_from() {
    let tracker = Tracker::start("costs_kinds").await;
    seven_clicks(&tracker).await;
    let hours = Hours::around_now();
    let price = json!({"cost_model": "cpm", "cost": {"amount": "2", "currency": "EUR"}});
    assert_eq!(answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&price)).await.0, StatusCode::OK);
    assert_eq!(total(&tracker, &hours, "EUR", "model").await, "0.01", "five clicks that said nothing");
    assert_eq!(total(&tracker, &hours, "EUR", "provenance").await, "mixed");
    assert_click_by_click(&tracker, &hours).await;
    say(&tracker, &hours.said(&json!({"kind": "factor", "amount": "1.5"}))).await;
    assert_eq!(total(&tracker, &hours, "USD", "effective").await, "0.15");
    assert_eq!(total(&tracker, &hours, "EUR", "effective").await, "0.085");
    assert_click_by_click(&tracker, &hours).await;
    let nobody = hours
        .said(&json!({"kind": "total", "amount": "4", "currency": "GBP", "filters": {"country": ["FR"]}}));
    say(&tracker, &nobody).await;
    assert_eq!(total(&tracker, &hours, "GBP", "unallocated").await, "4.00");
    assert_eq!(total(&tracker, &hours, "GBP", "effective").await, "0.00");
    assert_eq!(total(&tracker, &hours, "GBP", "provisional").await, true, "the range is not over");
    assert_click_by_click(&tracker, &hours).await;
    // a running total takes the place of what it was
    let running = |amount: &str| {
        json!({
            "campaign": "demo", "kind": "total", "amount": amount, "currency": "CHF",
            "running_total": {"account": "a", "external_id": "7", "day": Utc::now().date_naive().to_string()},
        })
    };
    say(&tracker, &running("3")).await;
    say(&tracker, &running("5")).await;
    let live = tracker.show("/costs?campaign_id=demo").await;
    let live = live["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cost| cost["is_live"] == true && cost["currency"] == "CHF");
    assert_eq!(live.map(|cost| cost["amount"].clone()).collect::<Vec<_>>(), ["5.00"]);
}

#[tokio::test]
async fn a_running_total_that_is_as_it_was_is_not_said_again_and_is_of_late_clicks_too() {
    let tracker = Tracker::start("costs_running").await;
    tracker.simple_campaign("demo").await;
    let day = Utc::now().date_naive();
    let hours = Hours { from: day.and_time(chrono::NaiveTime::MIN).and_utc(), to: Hours::around_now().to };
    let running = |amount: &str| {
        json!({
            "campaign": "demo", "kind": "total", "amount": amount, "currency": "EUR",
            "running_total": {"account": "a", "external_id": "7", "day": day.to_string()},
        })
    };
    let first = say(&tracker, &running("3")).await;
    assert_eq!(total(&tracker, &hours, "EUR", "unallocated").await, "3.00", "no click bears it");
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let again = answer(tracker.api(Method::POST, "/costs").json(&running("3.00"))).await;
    assert_eq!((again.0, &again.1["id"]), (StatusCode::OK, &first["id"]), "{}", again.1);
    let list = json!([running("3")]);
    let (_, results) = answer(tracker.api(Method::POST, "/costs").json(&list)).await;
    assert_eq!(results["results"][0]["id"], first["id"], "{results}");
    assert_eq!(tracker.show("/costs").await["data"].as_array().unwrap().len(), 1, "one row");
    let shown = figures(&tracker, &hours).await;
    assert_eq!(shown["totals"][0]["effective"], "3.00", "spread anew: {shown}");
    // what it was before is no reason not to say it: only what counts is
    say(&tracker, &running("4")).await;
    say(&tracker, &running("3")).await;
    let fixed = hours.said(&json!({"kind": "total", "amount": "1", "currency": "EUR"}));
    say(&tracker, &fixed).await;
    say(&tracker, &fixed).await;
    assert_eq!(tracker.show("/costs").await["data"].as_array().unwrap().len(), 5);
}

/// Tells of the state of a conversion, and waits until it has it.
async fn convert(tracker: &Tracker, click: uuid::Uuid, status: &str, payout: (&str, &str)) {
    let body = json!({
        "click_id": click, "status": status, "txid": payout.1, "payout": {"amount": payout.0, "currency": payout.1},
    });
    let (code, said) = answer(tracker.api(Method::POST, "/conversions").json(&body)).await;
    assert_eq!(code, StatusCode::ACCEPTED, "{said}");
    eventually(SOON, async || {
        let page = tracker.show(&format!("/conversions?click_id={click}")).await;
        let mut all = page["data"].as_array().unwrap().iter();
        anyhow::ensure!(all.any(|c| c["status"] == status && c["txid"] == payout.1), "{page}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn conversions_are_paid_for_and_revenue_is_shared_while_they_are_approved() {
    let tracker = Tracker::start("costs_conversions").await;
    let budget = json!({"amount": "100", "currency": "EUR"});
    tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "cost_model": "cpa", "cost": {"amount": "1.50", "currency": "EUR"},
            "total_budget": budget, "offers": [{"name": "o", "url": "https://offer.example/"}],
        }))
        .await;
    let mut clicks = Vec::new();
    for query in ["sub1=a", "sub1=a", "sub1=b", "sub1=b&cost=0.25&currency=EUR", "sub1=b"] {
        clicks.push(tracker.click(&format!("/c/demo?{query}")).await.1);
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let hours = Hours::around_now();
    convert(&tracker, clicks[0], "approved", ("10.00", "USD")).await;
    convert(&tracker, clicks[0], "approved", ("3.333333", "EUR")).await;
    convert(&tracker, clicks[2], "approved", ("7.00", "USD")).await;
    convert(&tracker, clicks[3], "approved", ("8.00", "USD")).await;
    convert(&tracker, clicks[4], "pending", ("9.00", "USD")).await;
    let effective = async |currency| total(&tracker, &hours, currency, "effective").await;
    let spent = async || tracker.show("/campaigns/demo/budget").await["total"]["spent"]["amount"].clone();
    assert_eq!(effective("EUR").await, "4.75", "three conversions, and what a link said");
    assert_eq!(spent().await, "4.75");
    assert_click_by_click(&tracker, &hours).await;
    convert(&tracker, clicks[2], "refunded", ("7.00", "USD")).await;
    assert_eq!(effective("EUR").await, "3.25", "a refund takes it back");
    assert_eq!(spent().await, "3.25");
    assert_click_by_click(&tracker, &hours).await;
    convert(&tracker, clicks[4], "approved", ("9.00", "USD")).await;

    // of an adjustment's clicks no conversion is paid for besides
    let of_a =
        hours.said(&json!({"kind": "per_click", "amount": "0.5", "currency": "EUR", "spread": "all", "filters": {"sub1": ["a"]}}));
    let of_a = say(&tracker, &of_a).await;
    assert_eq!(effective("EUR").await, "2.75", "two clicks, one conversion of another, and what a link said");
    assert_click_by_click(&tracker, &hours).await;
    let path = format!("/costs/{}/void", of_a["id"].as_str().unwrap());
    assert_eq!(answer(tracker.api(Method::POST, &path)).await.0, StatusCode::OK);

    // a share of what is approved, in its own currencies, from the same hour on
    let share = json!({"cost_model": "revshare", "revenue_share": "12.5"});
    assert_eq!(answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&share)).await.0, StatusCode::OK);
    assert_eq!(effective("USD").await, "2.375", "of 19");
    assert_eq!(effective("EUR").await, "0.666666", "of 3.333333, and what a link said");
    assert_eq!(total(&tracker, &hours, "USD", "provenance").await, "model");
    assert_eq!(spent().await, "0.666666");
    let shown = figures(&tracker, &hours).await;
    let sum: i64 = shown["totals"].as_array().unwrap().iter().map(|t| t["clicks"].as_i64().unwrap()).sum();
    assert_eq!(sum, 5, "a click with revenue in two currencies is one: {shown}");
    // with one currency each, the function has a row a click
    convert(&tracker, clicks[0], "rejected", ("10.00", "USD")).await;
    assert_eq!(effective("USD").await, "1.125");
    assert_click_by_click(&tracker, &hours).await;
    let refused = json!({"revenue_share": "100.5"});
    let (status, problem) = answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&refused)).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/revenue_share"))
    );
}

#[tokio::test]
async fn lists_files_and_keitaros_form_say_costs_too() {
    let tracker = Tracker::start("costs_files").await;
    tracker.simple_campaign("demo").await;
    let hours = Hours::around_now();
    let good = hours.said(&json!({"kind": "total", "amount": "1", "currency": "EUR"}));
    let list = json!([good, {"campaign": "demo"}, hours.said(&json!({"campaign": "nobody", "kind": "total", "amount": "1", "currency": "EUR"}))]);
    let (status, results) = answer(tracker.api(Method::POST, "/costs").json(&list)).await;
    assert_eq!(
        (status, &results["accepted"], &results["refused"]),
        (StatusCode::OK, &json!(1), &json!(2)),
        "{results}"
    );
    assert_eq!(results["results"][2]["errors"][0]["pointer"], "/campaign");

    let binom = "campaign;zone;date;cost;token;value\ndemo;Europe/Berlin;2026-11-01;12,50;sub1;a\ndemo;Asia/Kolkata;2026-11-01;1;;\n";
    let request =
        tracker.api(Method::POST, "/costs?currency=EUR").header("content-type", "text/csv").body(binom);
    let (status, results) = answer(request).await;
    assert_eq!((status, &results["accepted"]), (StatusCode::OK, &json!(1)), "{results}");
    let refused = &results["results"][1];
    assert_eq!((&refused["line"], &refused["errors"][0]["code"]), (&json!(3), &json!("whole_hour")));
    let detail = refused["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("2026-10-31T18:00:00Z or 2026-10-31T19:00:00Z"), "{detail}");

    let keitaro = json!({
        "start_date": "2026-11-02 00:00", "end_date": "2026-11-02 23:59", "timezone": "Europe/Berlin", "cost": 19.22,
        "currency": "EUR", "only_campaign_uniques": true,
    });
    let url = tracker.octo.url("/admin_api/v1/campaigns/demo/update_costs");
    let request = tracker.octo.client().post(&url).json(&keitaro);
    assert_eq!(request.try_clone().unwrap().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let (status, done) = answer(request.bearer_auth(&tracker.token)).await;
    assert_eq!((status, done), (StatusCode::OK, json!({"success": true})));
    let newest = &tracker.show("/costs?limit=1").await["data"][0];
    assert_eq!(
        (&newest["from"], &newest["to"]),
        (&json!("2026-11-01T23:00:00Z"), &json!("2026-11-02T23:00:00Z"))
    );
    assert_eq!((&newest["spread"], &newest["amount"]), (&json!("unique"), &json!("19.22")));
}

#[tokio::test]
async fn a_request_that_is_sent_again_says_a_cost_once() {
    let tracker = Tracker::start("costs_again").await;
    tracker.simple_campaign("demo").await;
    let body = Hours::around_now().said(&json!({"kind": "total", "amount": "1", "currency": "EUR"}));
    let send = || answer(tracker.api(Method::POST, "/costs").header("idempotency-key", "k1").json(&body));
    let (first, second) = (send().await, send().await);
    assert_eq!(first, second);
    assert_eq!(tracker.show("/costs").await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_command_line_says_lists_takes_back_and_imports() {
    let tracker = Tracker::start("costs_cli").await;
    tracker.simple_campaign("demo").await;
    let run = async |arguments: &[&str]| {
        let octo = crate::harness::Octo::builder().database_url(tracker.database.url());
        let done = octo.run(&[&["cost"], arguments].concat()).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let set = [
        "set",
        "--campaign",
        "demo",
        "--from",
        "2026-11-01",
        "--to",
        "2026-11-02",
        "--zone",
        "Europe/Berlin",
        "--total",
        "12.50",
        "--currency",
        "EUR",
        "--filter",
        "source=3",
        "--note",
        "invoice",
    ];
    let (code, said, error) = run(&set).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(
        said.contains("2026-10-31T23Z 2026-11-01T23Z  total 12.5 EUR  {\"source\":[\"3\"]}  invoice"),
        "{said}"
    );
    let id = said.split(' ').next().unwrap().to_owned();
    assert_eq!(run(&["list", "--campaign", "demo"]).await.1, said);
    assert!(run(&["void", &id]).await.1.contains("void"), "it says so");
    assert_eq!(run(&["list", "--live"]).await.1, "");
    let (code, _, error) =
        run(&["set", "--campaign", "demo", "--from", "x", "--to", "2026-11-02", "--total", "1"]).await;
    assert!(code == Some(1) && error.contains("from must be a time"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("costs.csv");
    std::fs::write(&path, "campaign,from,to,kind,amount,currency\ndemo,2026-11-01,2026-11-02,total,1,EUR\nnobody,2026-11-01,2026-11-02,total,1,EUR\n").unwrap();
    let (code, _, error) = run(&["import", path.to_str().unwrap()]).await;
    assert!(code == Some(1) && error.contains("line 3: there is no campaign nobody"), "{error}");
    let rejected = std::fs::read_to_string(dir.path().join("costs.csv.rejected")).unwrap();
    assert_eq!(rejected, "nobody,2026-11-01,2026-11-02,total,1,EUR\n");

    let piped = "campaign,from,to,kind,amount,currency\ndemo,2026-11-03,2026-11-04,total,2,EUR\n,,,,,\n";
    let octo = crate::harness::Octo::builder().database_url(tracker.database.url());
    let done = octo.run_with_input(&["cost", "import", "-"], piped.as_bytes()).await;
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && error.contains("1 are stored, 1 are refused"), "{error}");
    assert!(run(&["list", "--live"]).await.1.contains("total 2 EUR"), "from standard input");
}

/// Fills 30 days with 10 M clicks of a campaign in its hours, and prints how long saying and reading costs takes; with
/// OCTO_COSTS_CLICKS as many raw clicks too, for a filter.
#[tokio::test]
async fn a_cost_of_thirty_days_is_said_and_read_within_a_second() {
    let tracker = Tracker::start("costs_speed").await;
    let id = tracker.simple_campaign("demo").await["id"].as_str().unwrap().to_owned();
    let fill = format!(
        "INSERT INTO campaign_costs_hourly
         SELECT '{id}', date_trunc('hour', now(), 'UTC') - n * interval '1 hour', c, 4630, 4000, 2000,
                CASE WHEN c = '' THEN 0 ELSE 4630 END, CASE WHEN c = '' THEN 0 ELSE 231.5 END
         FROM generate_series(1, 720) n, unnest(ARRAY['', 'EUR', 'USD']) c"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&tracker.pool).await.unwrap();
    let now = Hours::around_now();
    let hours = Hours { from: now.from - TimeDelta::days(30), to: now.to };
    let begin = std::time::Instant::now();
    say(&tracker, &hours.said(&json!({"kind": "total", "amount": "1234.56", "currency": "EUR"}))).await;
    let said = begin.elapsed();
    let shown = figures(&tracker, &hours).await;
    let both = begin.elapsed();
    println!("10 M clicks of 30 days: said in {said:?}, read in {:?}", both.saturating_sub(said));
    assert_eq!(shown["totals"][0]["effective"], "1234.56");
    assert_eq!(shown["totals"][0]["clicks"], 720 * 3 * 4630);
    assert!(both.as_millis() < 1000, "{both:?}");
    if let Ok(clicks) = std::env::var("OCTO_COSTS_CLICKS") {
        let clicks: i64 = clicks.parse().unwrap();
        let fill = format!(
            "INSERT INTO clicks (id, campaign_id, is_valid, is_bot, sub1, country, created_at, updated_at)
             SELECT gen_random_uuid(), '{id}', true, false, 's' || n % 10, 'DE', at, at
             FROM generate_series(1, {clicks}) n,
                  LATERAL (SELECT now() - n * interval '29 days' / {clicks} AS at) t"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&tracker.pool).await.unwrap();
        let filter =
            json!({"kind": "total", "amount": "100", "currency": "EUR", "filters": {"sub1": ["s3"]}});
        let begin = std::time::Instant::now();
        say(&tracker, &hours.said(&filter)).await;
        let said = begin.elapsed();
        figures(&tracker, &hours).await;
        println!(
            "with a filter over {clicks} raw clicks: said in {said:?}, read in {:?}",
            begin.elapsed().saturating_sub(said)
        );
    }
}
