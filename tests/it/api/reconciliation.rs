//! Reports of networks beside what is stored: what was lost on the way, and where.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use octo::model::id::ClickId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Tracker, header},
};

/// Where the day is always another one than in [`EAST`].
const WEST: &str = "Pacific/Pago_Pago";
const EAST: &str = "Pacific/Kiritimati";

/// A network with a campaign for its only offer.
struct Network {
    id: i64,
    key: String,
}

async fn network(tracker: &Tracker, name: &str) -> Network {
    let body = json!({
        "name": name,
        "status_map": [{ "word": "1", "status": "approved" }, { "word": "3", "status": "rejected" },
                       { "word": "test", "status": "ignored" }],
    });
    let (status, made) = answer(tracker.api(Method::POST, "/affiliate-networks").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let offer = json!({ "name": name, "url": "https://offer.example/", "affiliate_network_id": made["id"] });
    let (status, offer) = answer(tracker.api(Method::POST, "/offers").json(&offer)).await;
    assert_eq!(status, StatusCode::CREATED, "{offer}");
    let offers = json!([{ "id": offer["id"], "library": true }]);
    tracker.campaign(json!({ "key": name, "name": name, "offers": offers })).await;
    let key = made["postback_key"].as_str().unwrap().to_owned();
    eventually(SOON, async || {
        let asked = tracker.octo.client().head(tracker.octo.url(&format!("/postback/{key}"))).send().await?;
        anyhow::ensure!(asked.status() == 200, "the key is not known yet");
        Ok(())
    })
    .await;
    Network { id: made["id"].as_i64().unwrap(), key }
}

async fn click(tracker: &Tracker, campaign: &str) -> Uuid {
    tracker.click(&format!("/click?cid={campaign}")).await.1
}

async fn post(tracker: &Tracker, network: &Network, query: &str) {
    let told = tracker.octo.get(&format!("/postback/{}?{query}", network.key)).await;
    assert_eq!(told.status(), StatusCode::OK, "{query}");
    // ids, and so the order of postbacks, count whole milliseconds
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
}

/// The range that holds everything of a test.
fn range() -> String {
    let today = chrono::Utc::now().date_naive();
    format!("from={}&to={}", today - chrono::Days::new(2), today + chrono::Days::new(3))
}

/// Asks about a report with this token.
async fn ask(tracker: &Tracker, token: &str, query: &str, report: &str) -> (StatusCode, Value) {
    let request = tracker.octo.api(token).post(&format!("/reconciliations?{query}"));
    answer(request.header("content-type", "text/csv").body(report.to_owned())).await
}

/// The entries in words: line, outcome, differences, hop and reason, their and our state and amount.
fn in_words(answer: &Value) -> Vec<String> {
    let entry = |entry: &Value| {
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("+"),
            other => other.to_string(),
        };
        let side = |side: &Value| match side {
            Value::Null => "-".to_owned(),
            side => ["status", "amount", "currency"].map(|name| text(&side[name])).join(" "),
        };
        let head =
            ["line", "outcome", "differences", "hop", "reason"].map(|name| text(&entry[name])).join(" ");
        format!("{head} | {} | {}", side(&entry["theirs"]), side(&entry["ours"]))
    };
    answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(entry).collect()
}

/// `outcome count: theirs ours currency` of those that there are.
fn totals(answer: &Value) -> Vec<String> {
    let amounts = |total: &Value| {
        let of = |it: &Value| format!("{} {} {}", it["theirs"], it["ours"], it["currency"]).replace('"', "");
        total["amounts"].as_array().unwrap().iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let all = answer["totals"].as_array().unwrap().iter().filter(|total| total["count"] != 0);
    all.map(|total| format!("{} {}: {}", total["outcome"].as_str().unwrap(), total["count"], amounts(total)))
        .collect()
}

/// Rows of every table that an import or a postback changes.
async fn rows(tracker: &Tracker) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for table in [
        "postbacks",
        "conversions",
        "conversion_changes",
        "conversion_clicks",
        "deliveries",
        "idempotency_keys",
    ] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&tracker.pool).await.unwrap();
        rows.insert(table.to_owned(), count);
    }
    rows
}

/// What happened: a network, its report as lines, and the report's clicks by their names.
struct History {
    network: Network,
    lines: Vec<String>,
    clicks: BTreeMap<&'static str, Uuid>,
}

impl History {
    fn report(&self) -> String {
        format!("click_id,txid,payout,status,date\n{}\n", self.lines.join("\n"))
    }
}

async fn history(tracker: &Tracker) -> History {
    let (network, other) = (network(tracker, "net").await, network(tracker, "other").await);
    let mut clicks = BTreeMap::new();
    for name in [
        "matched", "unmapped", "amount", "rejected", "refused", "silent", "twice", "day", "there", "ignored",
        "lost", "merged", "status",
    ] {
        clicks.insert(name, click(tracker, "net").await);
    }
    clicks.insert("other", click(tracker, "other").await);
    for name in ["waiting", "orphan", "unknown"] {
        clicks.insert(name, ClickId::now().uuid());
    }
    let of = |name: &str| clicks[name];
    let clicked_at = ClickId::from_uuid(of("day")).unwrap().created_at();
    for query in [
        format!("subid={}&txid=m1&payout=5&status=1", of("matched")),
        format!("subid={}&txid=u1&payout=7&status=what", of("unmapped")),
        format!("subid={}&txid=w1&payout=5.10&status=1", of("amount")),
        format!("subid={}&txid=r1&payout=4&status=1", of("rejected")),
        format!("subid={}&txid=r1&status=3", of("rejected")),
        format!("subid={}&txid=d1&payout=3&status=1", of("twice")),
        format!("subid={}&payout=2&status=1&time={}", of("day"), clicked_at.timestamp_millis()), // without a transaction id
        format!("subid={}&txid=x1&payout=8&status=lead", of("there")),
        format!("subid={}&txid=i1&payout=1&status=test", of("ignored")),
        "subid={sub1}&txid=l1&payout=1&status=1".to_owned(),
        format!("subid={}&payout=6&status=1", of("merged")),
        format!("subid={}&payout=6&status=1", of("merged")),
        format!("subid={}&txid=s1&payout=9&status=lead", of("status")),
        format!("subid={}&txid=q1&payout=1&status=1", of("waiting")),
        format!("subid={}&txid=o1&payout=1&status=1", of("orphan")),
    ] {
        post(tracker, &network, &query).await;
    }
    post(tracker, &other, &format!("subid={}&txid=f1&payout=1&status=1", of("other"))).await;
    let refused =
        tracker.octo.get(&format!("/postback/nobodysnetwork?subid={}&txid=n1", of("refused"))).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let day = clicked_at.with_timezone(&EAST.parse::<chrono_tz::Tz>().unwrap()).date_naive();
    let lines = [
        format!("{},m1,\"5,00\",1,", of("matched")),
        format!("{},u1,7,what,", of("unmapped")),
        format!("{},w1,5.1001,1,", of("amount")),
        format!("{},r1,4,1,", of("rejected")),
        format!("{},n1,2,1,", of("refused")),
        format!("{},n2,2,1,", of("silent")),
        format!("{},d1,3,1,", of("twice")),
        format!("{},d1,3,1,", of("twice")),
        format!("{},y1,2,1,{day}", of("day")),
        format!("{},i1,1,1,", of("ignored")),
        format!("{},l1,1,1,", of("lost")),
        format!("{},g1,6,1,", of("merged")),
        format!("{},g2,6,1,", of("merged")),
        format!("{},s1,9,1,", of("status")),
        format!("{},q1,1,1,", of("waiting")),
        format!("{},o1,1,1,", of("orphan")),
        format!("{},f1,1,1,", of("other")),
        format!("{},k1,1,1,", of("unknown")),
        "another-trackers,z1,1,1,".to_owned(),
        format!("{},i2,1,test,", of("ignored")), // no conversion, say both
    ];
    History { network, lines: lines.into(), clicks }
}

#[tokio::test]
async fn each_line_of_a_report_and_each_conversion_that_it_lacks_is_told_with_the_hop_where_it_was_lost() {
    let tracker = Tracker::start("reconciliation").await;
    let history = history(&tracker).await;
    let report = history.report();
    let query = format!("network={}&{}&tz={EAST}&currency=usd", history.network.id, range());
    let wanted = [
        "3 other_status status unmapped - | unmapped 7.00 USD | unmapped 0.00 USD",
        "4 other_amount amount changed - | approved 5.1001 USD | approved 5.10 USD",
        "5 other_status status+amount changed - | approved 4.00 USD | rejected 0.00 USD",
        "6 missing_here  refused wrong_key | approved 2.00 USD | -",
        "7 missing_here  never_arrived - | approved 2.00 USD | -",
        "9 doubled  twice_there - | approved 3.00 USD | -",
        "11 missing_here  ignored ignored_status | approved 1.00 USD | -",
        "12 missing_here  ignored no_click_id | approved 1.00 USD | -",
        "14 missing_here  merged repeat | approved 6.00 USD | -",
        "15 other_status status changed - | approved 9.00 USD | pending 9.00 USD",
        "16 missing_here  waiting - | approved 1.00 USD | -",
        "17 missing_here  orphan - | approved 1.00 USD | -",
        "18 missing_here  other_network - | approved 1.00 USD | -",
        "19 missing_here  unknown_click - | approved 1.00 USD | -",
        "20 missing_here  bad_click_id - | approved 1.00 USD | -",
        "- missing_there  pending - | - | pending 8.00 USD",
    ];
    eventually(SOON, async || {
        // seven days later, and nobody else's
        let orphan = "UPDATE conversion_clicks SET first_at = now() - interval '8 days' WHERE click_id = $1";
        sqlx::query(orphan).bind(history.clicks["orphan"]).execute(&tracker.pool).await?;
        let (status, found) = ask(&tracker, &tracker.token, &query, &report).await;
        anyhow::ensure!(status == StatusCode::OK, "{found}");
        let found = in_words(&found);
        anyhow::ensure!(found == wanted, "{found:#?}");
        Ok(())
    })
    .await;
    let read = tracker.octo.token("read").await;
    let before = rows(&tracker).await;
    let (_, found) = ask(&tracker, &read, &query, &report).await;
    let by_outcome = [
        "matched 5: 16.00 16.00 USD",
        "missing_here 10: 17.00 0.00 USD",
        "missing_there 1: 0.00 8.00 USD",
        "other_status 3: 13.00 9.00 USD",
        "other_amount 1: 5.1001 5.10 USD",
        "doubled 1: 3.00 0.00 USD",
    ];
    assert_eq!(totals(&found), by_outcome, "{found:#}");
    assert_eq!((&found["lines"], &found["conversions"]), (&json!(20), &json!(9)), "{found:#}");
    assert_eq!(found["unsaid"], json!({ "status": 0, "amount": 0, "day": 19 }));

    check_an_entry(&tracker, &history, &found).await;

    // the same in the zone of another day: that line's day is another one, and nothing else
    let west = query.replace(EAST, WEST);
    let (_, far) = ask(&tracker, &read, &west, &report).await;
    let other_days: Vec<String> =
        in_words(&far).into_iter().filter(|entry| entry.contains("other_day")).collect();
    assert_eq!(other_days, ["10 other_day day changed - | approved 2.00 USD | approved 2.00 USD"]);
    assert_eq!(in_words(&far).len(), in_words(&found).len() + 1);

    // of a range before, nothing is missing there; and lines are paired all the same
    let past = format!("network={}&from=2020-01-01&to=2020-02-01&tz={EAST}&currency=usd", history.network.id);
    let (_, early) = ask(&tracker, &read, &past, &report).await;
    assert_eq!(early["conversions"], 0);
    assert_eq!(in_words(&early), wanted[..wanted.len() - 1]);
    assert_eq!(rows(&tracker).await, before, "it was only asked");

    check_the_files(&tracker, &history, &query, &found).await;
}

/// One entry as a whole, and what its ids lead to.
async fn check_an_entry(tracker: &Tracker, history: &History, found: &Value) {
    let entry = found["data"].as_array().unwrap().iter().find(|entry| entry["line"] == 5).unwrap();
    let id = entry["ours"]["conversion_id"].as_str().unwrap();
    let whole = tracker.show(&format!("/conversions/{id}")).await;
    let change = whole["changes"].as_array().unwrap().last().unwrap();
    let at = whole["converted_at"].as_str().unwrap();
    let time: chrono::DateTime<chrono::Utc> = at.parse().unwrap();
    let day = time.with_timezone(&EAST.parse::<chrono_tz::Tz>().unwrap()).date_naive();
    let wanted = json!({
        "outcome": "other_status", "differences": ["status", "amount"], "line": 5,
        "click_id": history.clicks["rejected"], "transaction_id": "r1", "goal": null,
        "theirs": { "status": "approved", "status_text": "1", "amount": "4.00", "currency": "USD", "at": null, "day": null },
        "ours": { "conversion_id": id, "status": "rejected", "amount": "0.00", "currency": "USD", "at": at, "day": day },
        "hop": "changed", "reason": null, "postback_id": change["postback_id"],
        "last_change": {
            "postback_id": change["postback_id"], "cause": "postback", "from_status": "approved", "to_status": "rejected",
            "changed_at": change["changed_at"],
        },
        "detail": entry["detail"],
    });
    assert_eq!(*entry, wanted);
    assert!(entry["detail"].as_str().unwrap().starts_with("It is rejected here since "), "{entry}");
    let lost = found["data"].as_array().unwrap().iter().find(|entry| entry["line"] == 12).unwrap();
    let postback = tracker.show(&format!("/postbacks/{}", lost["postback_id"].as_str().unwrap())).await;
    assert_eq!((&postback["params"]["txid"], &postback["click_id"]), (&json!("l1"), &Value::Null));
}

/// As CSV, by the command, and again under a key.
async fn check_the_files(tracker: &Tracker, history: &History, query: &str, found: &Value) {
    let report = history.report();
    let request = || {
        let request = tracker.api(Method::POST, &format!("/reconciliations?{query}"));
        request.header("content-type", "text/csv").body(report.clone())
    };
    let csv = request().header("accept", "text/csv").send().await.unwrap();
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8");
    let csv = csv.text().await.unwrap();
    let entries = found["data"].as_array().unwrap();
    assert_eq!(csv.lines().count(), entries.len() + 1, "{csv}");
    assert!(csv.starts_with("outcome,differences,line,click_id,transaction_id,"), "{csv}");
    let line = format!(
        "doubled,,9,{},d1,,approved,3.00,USD,,,,,,,twice_there,,,,Line 8 says the same.",
        history.clicks["twice"]
    );
    assert!(csv.lines().any(|it| it == line), "{line}\n{csv}");

    for _ in 0..2 {
        let keyed = request().header("idempotency-key", "once").send().await.unwrap();
        assert_eq!((keyed.status(), header(&keyed, "idempotency-replayed")), (StatusCode::OK, String::new()));
        assert_eq!(keyed.json::<Value>().await.unwrap()["data"], found["data"]);
    }

    let file = tracker.octo.dir().join("report.csv");
    fs::write(&file, &report).unwrap();
    let (file, id) = (file.to_str().unwrap(), history.network.id.to_string());
    let options: Vec<&str> = query.split('&').skip(1).map(|pair| pair.split_once('=').unwrap().1).collect();
    let [from, to, tz, currency] = options[..] else { panic!("{query}") };
    let mut args =
        vec!["conversions", "reconcile", file, "--network", &id, "--from", from, "--to", to, "--tz", tz];
    args.extend(["--currency", currency]);
    let out = tracker.octo.dir().join("differences.csv");
    let run = async |more: &[&str]| {
        let output = tracker.octo.run(&[&args[..], more].concat()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&["--differences", out.to_str().unwrap()]).await;
    let missing = table.lines().find(|line| line.starts_with("missing here")).unwrap_or_default();
    let words: Vec<&str> = missing.split_whitespace().collect();
    assert_eq!(words, ["missing", "here", "10", "USD", "17.00", "0.00", "17.00"], "{table}");
    assert!(table.lines().all(|line| !line.ends_with(' ')), "{table}");
    assert_eq!(fs::read_to_string(&out).unwrap(), csv);
    assert_eq!(serde_json::from_str::<Value>(&run(&["--json"]).await).unwrap(), *found);
    assert_eq!(run(&["--csv"]).await, csv);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_by_name() {
    let tracker = Tracker::start_with("reconciliation_bounds", |builder| {
        builder.env("OCTO_POSTBACKS__RECONCILE_ROWS_MAX", "1").env("OCTO_POSTBACKS__IMPORT_LINES_MAX", "3")
    })
    .await;
    let network = network(&tracker, "net").await;
    let query = format!("network={}&{}", network.id, range());
    let refused = async |query: &str, report: &str| {
        let (status, problem) = ask(&tracker, &tracker.token, query, report).await;
        let error = &problem["errors"][0];
        format!("{} {} {}", status.as_u16(), error["pointer"], error["code"]).replace('"', "")
    };
    assert_eq!(
        refused("network=99&from=2026-11-01&to=2026-12-01", "click_id\nx\n").await,
        "422 ?network not_found"
    );
    assert_eq!(refused("from=2026-11-01&to=2026-12-01", "click_id\nx\n").await, "422 ?network required");
    assert_eq!(refused(&query, "").await, "422  file");
    assert_eq!(refused(&query, "click_id\na\nb\nc\nd\n").await, "422  file");
    for _ in 0..2 {
        let id = click(&tracker, "net").await;
        post(&tracker, &network, &format!("subid={id}&payout=1")).await;
    }
    eventually(SOON, async || {
        let found = refused(&query, "click_id\nx\n").await;
        anyhow::ensure!(found == "422 ?from range", "{found}");
        Ok(())
    })
    .await;
    let json = tracker.api(Method::POST, &format!("/reconciliations?{query}")).json(&json!({}));
    assert_eq!(answer(json).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let ingest = tracker.octo.token("ingest").await;
    assert_eq!(ask(&tracker, &ingest, &query, "click_id\nx\n").await.0, StatusCode::FORBIDDEN);
}

/// 50,000 clicks with a conversion each; about every sixteenth has none but a postback that was ignored.
const FILL: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid, '00000000-0000-7000-8000-00000000aaaa', true, false, at, at
FROM generate_series(1, 50000) AS i
CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', now() - i * interval '1 second') AS at) t;
INSERT INTO postbacks (id, key_network_id, channel, click_id, params, outcome, reason, network_id, created_at)
SELECT id, $1, 'http', id, 'txid=' || right(id::text, 12), 'ignored', 'ignored_status', $1, created_at
FROM clicks;
INSERT INTO conversions (
    id, campaign_id, click_id, network_id, goal, txid, nth, kind, status, payout, currency, flags, is_click_valid,
    converted_at, first_at, last_at, created_at
)
SELECT gen_random_uuid(), campaign_id, id, $1, '', right(id::text, 12), 0, 'conversion', 'approved', 1.5, 'USD', '{}', true,
    created_at, created_at, created_at, created_at
FROM clicks
WHERE right(id::text, 1) <> '0';
ANALYZE clicks, postbacks, conversions";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_lines_are_compared_by_few_statements() {
    let tracker = Tracker::start("reconciliation_many").await;
    let network = network(&tracker, "net").await;
    let fill = FILL.replace("$1", &network.id.to_string());
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&tracker.pool).await.unwrap();
    let ids: Vec<Uuid> = sqlx::query("SELECT id FROM clicks ORDER BY created_at")
        .fetch_all(&tracker.pool)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut report = "click_id,txid,payout,currency,status\n".to_owned();
    for id in &ids {
        let text = id.to_string();
        writeln!(report, "{id},{},1.50,USD,1", &text[24..]).unwrap();
    }
    let missing = ids.iter().filter(|id| id.to_string().ends_with('0')).count();
    let query = format!("network={}&{}", network.id, range());
    let started = std::time::Instant::now();
    let (status, found) = ask(&tracker, &tracker.token, &query, &report).await;
    println!("{} lines in {:?}", ids.len(), started.elapsed());
    assert_eq!(status, StatusCode::OK);
    let wanted = [(0, ids.len() - missing), (1, missing), (2, 0)];
    for (i, count) in wanted {
        assert_eq!(found["totals"][i]["count"], count, "{}", found["totals"]);
    }
    assert!(in_words(&found).iter().all(|entry| entry.contains("missing_here  ignored ignored_status")));
    let queries = tracker.show("/system/queries").await;
    let asked: BTreeMap<&str, u64> = queries["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["query"].as_str().unwrap().starts_with("reconciliation."))
        .map(|it| (it["query"].as_str().unwrap(), it["count"].as_u64().unwrap()))
        .collect();
    println!("{asked:?}");
    let all: u64 = asked.values().sum();
    assert!((50..150).contains(&all), "{asked:?}");
}
