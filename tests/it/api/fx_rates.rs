//! Rates of currencies: what is stored, listed and changed, and that the database converts as octo does.

use chrono::{Days, NaiveDate};
use reqwest::{Method, StatusCode};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use octo::{
    config::{Flags, Loaded},
    db::{Db, store::fx_rates},
    model::money::Currency,
    money::{
        ecb,
        rates::{Rate, RateSource},
    },
};

use crate::{
    harness::{Database, Octo, api::answer, eventually},
    tracker::{SOON, Tracker},
};

fn db(database: &Database) -> Db {
    let config = Loaded::load(None, [], &Flags::default()).unwrap().config.database;
    Db::new(&database.url().into(), &config).unwrap()
}

async fn put(tracker: &Tracker, rates: Value) -> (StatusCode, Value) {
    answer(tracker.api(Method::PUT, "/fx-rates").json(&json!({ "rates": rates }))).await
}

/// What the first entries of a page say, and the page.
async fn page(tracker: &Tracker, path: &str) -> (Vec<String>, Value) {
    let page = tracker.show(path).await;
    let line = |rate: &Value| {
        let text = |name: &str| rate[name].as_str().unwrap_or_default().to_owned();
        [text("currency"), text("day"), text("rate"), text("source")].join(" ")
    };
    (page["data"].as_array().unwrap().iter().map(line).collect(), page)
}

#[tokio::test]
async fn own_rates_are_given_changed_and_listed_and_each_change_is_kept() {
    let tracker = Tracker::start("fx_own").await;
    let uah = json!({ "currency": "UAH", "day": "2026-10-01", "rate": "48.20" });
    let kzt = json!({ "currency": "kzt", "day": "2026-10-01", "rate": "600" });
    let (status, said) = put(&tracker, json!([uah, kzt])).await;
    assert_eq!((status, said), (StatusCode::OK, json!({ "new": 2, "unchanged": 0, "restated": [] })));

    let changed = json!({ "currency": "UAH", "day": "2026-10-01", "rate": "48.35" });
    let later = json!({ "currency": "UAH", "day": "2026-11-01", "rate": "49" });
    let (status, said) = put(&tracker, json!([changed, later, kzt])).await;
    assert_eq!((status, &said["new"], &said["unchanged"]), (StatusCode::OK, &json!(1), &json!(1)), "{said}");
    let [restated] = said["restated"].as_array().unwrap().as_slice() else { panic!("{said}") };
    assert_eq!(
        (&restated["currency"], &restated["day"], &restated["old_rate"], &restated["new_rate"]),
        (&json!("UAH"), &json!("2026-10-01"), &json!("48.2"), &json!("48.35"))
    );
    assert!(restated["restated_by"].as_str().unwrap().starts_with("token "), "{restated}");
    let listed = tracker.show("/fx-rates/restatements").await;
    assert_eq!(listed["data"], said["restated"]);
    assert_eq!(tracker.show("/fx-rates/restatements?currency=KZT").await["data"], json!([]));

    let wanted = ["UAH 2026-11-01 49 manual", "UAH 2026-10-01 48.35 manual", "KZT 2026-10-01 600 manual"];
    assert_eq!(page(&tracker, "/fx-rates").await.0, wanted);
    assert_eq!(page(&tracker, "/fx-rates?currency=uah&from=2026-10-02").await.0, wanted[..1]);
    assert_eq!(page(&tracker, "/fx-rates?to=2026-10-31").await.0, wanted[1..]);
    let mut seen = Vec::new();
    let mut path = "/fx-rates?limit=1".to_owned();
    loop {
        let (lines, page) = page(&tracker, &path).await;
        seen.extend(lines);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/fx-rates?limit=1&cursor={cursor}");
    }
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_rate_against_another_currency_needs_a_rate_of_that_one_and_all_are_taken_or_none() {
    let tracker = Tracker::start("fx_base").await;
    let by_usd = json!({ "currency": "UAH", "day": "2026-10-01", "rate": "41.5", "base": "USD" });
    let kzt = json!({ "currency": "KZT", "day": "2026-10-01", "rate": "600" });
    let (status, problem) = put(&tracker, json!([kzt, by_usd])).await;
    let fault = &problem["errors"][0];
    assert_eq!(
        (status, &fault["pointer"], &fault["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/rates/1/base"), &json!("no_rate")),
        "{problem}"
    );
    assert_eq!(page(&tracker, "/fx-rates").await.0, [""; 0]);

    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    let rate = "1.1172".parse().unwrap();
    let usd = Rate { currency: Currency::USD, day: day("2026-09-30"), rate, source: RateSource::Ecb };
    fx_rates::put(&db(&tracker.database), vec![usd], "a test".to_owned(), |_| {}).await.unwrap();
    assert_eq!(put(&tracker, json!([kzt, by_usd])).await.0, StatusCode::OK);
    let wanted = ["UAH 2026-10-01 46.3638 manual", "KZT 2026-10-01 600 manual", "USD 2026-09-30 1.1172 ecb"];
    assert_eq!(page(&tracker, "/fx-rates").await.0, wanted);

    let (status, problem) =
        put(&tracker, json!([{ "currency": "EUR", "day": "1.10.2026", "rate": "0" }])).await;
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert_eq!((status, pointers), (StatusCode::UNPROCESSABLE_ENTITY, vec!["/rates/0/day", "/rates/0/rate"]));
}

#[tokio::test]
async fn the_database_converts_as_octo_does() {
    let database = Database::create("fx_same").await;
    let (db, pool, seed) = (db(&database), database.pool().await, fastrand::u64(..));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let codes = ["USD", "JPY", "UAH", "RUB", "KWD", "IDR"];
    let begin: NaiveDate = "2026-01-01".parse().unwrap();
    let mut rates = Vec::new();
    for code in codes {
        for offset in 0..90 {
            for source in [RateSource::Ecb, RateSource::Manual] {
                let is_there = match source {
                    RateSource::Ecb => code != "UAH" && offset < 45 && random.u8(..) < 60,
                    RateSource::Manual => matches!(code, "UAH" | "RUB") && random.u8(..) < 20,
                };
                if is_there {
                    let rate = Decimal::new(random.i64(1_000..1_000_000), random.u32(0..=5));
                    let rate = rate.max(Decimal::new(1, 2));
                    let (currency, day) = (code.parse().unwrap(), begin + Days::new(offset));
                    rates.push(Rate { currency, day, rate, source });
                }
            }
        }
    }
    let (count, last) = (rates.len() as u64, begin + Days::new(100));
    let written = fx_rates::put(&db, rates, "a test".to_owned(), |_| {}).await.unwrap();
    assert_eq!((written.new, written.unchanged, written.restated.len()), (count, 0, 0));

    for age_days_max in [10, 3] {
        let known = fx_rates::load(&db, begin, last, age_days_max).await.unwrap();
        let mut asked = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5_000 {
            let mut code =
                || ["EUR", "XXX", "CHF"].iter().chain(&codes).nth(random.usize(..9)).unwrap().to_string();
            asked.0.push(code());
            asked.1.push(code());
            asked.2.push(begin + Days::new(random.u64(0..=100)));
        }
        let said: Vec<Option<Decimal>> = sqlx::query_scalar(
            "SELECT octo_fx(f, t, d, $4)
             FROM unnest($1::text[], $2::text[], $3::date[]) WITH ORDINALITY AS a (f, t, d, n)
             ORDER BY n",
        )
        .bind(&asked.0)
        .bind(&asked.1)
        .bind(&asked.2)
        .bind(i32::from(age_days_max))
        .fetch_all(&pool)
        .await
        .unwrap();
        let (mut with, mut without) = (0, 0);
        for (i, said) in said.iter().enumerate() {
            let (from, to, day) = (&asked.0[i], &asked.1[i], asked.2[i]);
            let rate = known.rate(from.parse().unwrap(), to.parse().unwrap(), day);
            assert_eq!(rate, *said, "{from} in {to} on {day}, {age_days_max} days");
            *(if rate.is_some() { &mut with } else { &mut without }) += 1;
        }
        println!("{age_days_max} days: {with} with a rate, {without} without");
        assert!(with > 500 && without > 500);
    }
    let by_default: Option<Decimal> = sqlx::query_scalar("SELECT round(12.5 * octo_fx('USD', 'USD', $1), 6)")
        .bind(begin)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(by_default, Some(Decimal::new(125, 1)));
}

#[tokio::test]
async fn a_database_without_rates_begins_with_the_built_in_ones_and_is_never_given_them_twice() {
    let database = Database::create("fx_built_in").await;
    let pool = database.pool().await;
    let start = async || {
        let builder = Octo::builder().database_url(database.url());
        builder.env("OCTO_MONEY__BUILT_IN_RATES", "true").start().await
    };
    let count = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM fx_rates").fetch_one(&pool).await.unwrap()
    };
    let octo = start().await;
    let built_in = i64::try_from(ecb::built_in().len()).unwrap();
    eventually(SOON, async || {
        anyhow::ensure!(count().await == built_in, "{} rates", count().await);
        Ok(())
    })
    .await;
    let rate: Decimal =
        sqlx::query_scalar("SELECT octo_fx('EUR', 'USD', '2026-11-01')").fetch_one(&pool).await.unwrap();
    assert_eq!(rate, "1.1172".parse().unwrap());
    let newest = ecb::built_in().iter().map(|rate| rate.day).max().unwrap();
    let newest = newest.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp();
    eventually(SOON, async || {
        let measured = octo.metric("octo_fx_newest_rate_timestamp_seconds").await;
        anyhow::ensure!(i64::try_from(measured) == Ok(newest), "{measured}");
        Ok(())
    })
    .await;
    drop(octo);

    // what the owner has now stays as it is
    sqlx::query("DELETE FROM fx_rates WHERE day < '2026-10-30'").execute(&pool).await.unwrap();
    let left = count().await;
    let octo = start().await;
    let token = octo.admin_token().await;
    eventually(SOON, async || {
        let queries = octo.api(&token).show("/system/queries").await;
        let asked =
            queries["data"].as_array().unwrap().iter().find(|q| q["query"] == "fx_rate.has_published");
        anyhow::ensure!(asked.is_some_and(|q| q["count"].as_u64() > Some(0)), "{asked:?}");
        Ok(())
    })
    .await;
    assert_eq!(count().await, left);
}
