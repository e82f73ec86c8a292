//! What strangers send, and what comes of it: tables of cases, byte for byte over a socket, because an HTTP client
//! would mend half of them.
//!
//! After each case a good click and a good event are sent. At the end of a table the process still runs and has logged no
//! error, every good click and event is stored, whatever else was accepted is stored as its case says, nothing else is, and
//! nothing became a dead letter.

mod case;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::ErrorKind,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;
use uuid::Uuid;

use self::case::{Case, Table as Cases};
use crate::{
    harness::{Octo, eventually},
    tracker::{OFFER, SOON, Table, Tracker},
};

/// The server ends a connection at once; the wait is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nothing_in_a_query_keeps_a_visitor_from_the_destination_or_changes_it() {
    try_all("bad_queries", include_str!("bad_inputs/queries.toml")).await;
}

#[tokio::test]
async fn a_path_has_one_spelling() {
    try_all("bad_paths", include_str!("bad_inputs/paths.toml")).await;
}

#[tokio::test]
async fn only_plain_web_addresses_are_stored_and_in_one_form() {
    try_all("bad_destinations", include_str!("bad_inputs/destinations.toml")).await;
}

#[tokio::test]
async fn a_body_is_json_in_bounds_or_is_refused_with_a_reason() {
    try_all("bad_bodies", include_str!("bad_inputs/bodies.toml")).await;
}

#[tokio::test]
async fn a_head_that_two_servers_could_read_differently_is_refused_and_counted() {
    try_all("bad_heads", include_str!("bad_inputs/heads.toml")).await;
}

#[tokio::test]
async fn heads_that_never_end_are_counted() {
    let tracker = Tracker::start_with("bad_ends", |b| b.env("OCTO_SERVER__HEADER_TIMEOUT_MS", "300")).await;
    let mut late = TcpStream::connect(tracker.octo.addr()).await.unwrap();
    late.write_all(b"GET /click?cid=b").await.unwrap();
    wait_refused(&tracker.octo, &[("timeout", 1)]).await;
    let mut cut = TcpStream::connect(tracker.octo.addr()).await.unwrap();
    cut.write_all(b"POST /event HTTP/1.1\r\nHost: t\r\nConte").await.unwrap();
    drop(cut);
    eventually(SOON, async || {
        let refused = refused(&tracker.octo).await?;
        anyhow::ensure!(refused.contains_key("incomplete"), "{refused:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_link_into_an_app_needs_its_scheme_in_the_configuration() {
    let tracker = Tracker::start_with("bad_schemes", |b| {
        b.env("OCTO_TRACKING__APP_SCHEMES", "MyApp,com.example.x,mailto,tel")
    })
    .await;
    let offer = |url: &str| json!({ "key": "app", "name": "app", "offers": [{ "name": "o", "url": url }] });
    for bad in [
        "myapp://{sub1}/",
        "myapp://a:{sub1}/",
        "myapp://u@a/",
        "myapp:{sub1}",
        "mailto:{sub1}@a.example",
        "tel:+49{sub1}",
        "other://a/",
        "javascript://a/",
    ] {
        let response =
            tracker.api(reqwest::Method::POST, "/campaigns").json(&offer(bad)).send().await.unwrap();
        assert_eq!(response.status(), 422, "{bad}");
    }
    let campaign = tracker.campaign(offer("MYAPP://open/item?c={click_id}&s={sub1}")).await;
    assert_eq!(campaign["offers"][0]["url"], "myapp://open/item?c={click_id}&s={sub1}");
    let (response, id) = tracker.click("/click?cid=app&sub1=a%26b%23%0d%0a").await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("myapp://open/item?c={id}&s=a%26b%23"));
    for (key, stored, sent) in [
        ("mail", "mailto:a@b.example?subject={sub1}", "mailto:a@b.example?subject=a%26b%20c"),
        ("phone", "tel:+4930123?c={sub1}", "tel:+4930123?c=a%26b%20c"),
        ("plain", "myapp:open?s={sub1}", "myapp:open?s=a%26b%20c"),
    ] {
        let offer = json!({ "key": key, "name": key, "offers": [{ "name": "o", "url": stored }] });
        assert_eq!(tracker.campaign(offer).await["offers"][0]["url"], stored);
        let (response, _) = tracker.click(&format!("/c/{key}?sub1=a%26b+c")).await;
        assert_eq!(response.headers()["location"], sent);
    }
    for never in ["javascript", "DATA", "http", "my app", "a:b"] {
        let output = Octo::builder().env("OCTO_TRACKING__APP_SCHEMES", never).run(&["config", "check"]).await;
        assert!(!output.status.success(), "{never} can be listed");
    }
}

/// What must be in the database at the end.
#[derive(Default)]
struct Wanted {
    clicks: BTreeMap<Uuid, BTreeMap<String, String>>,
    events: BTreeMap<Uuid, BTreeMap<String, String>>,
    refused: BTreeMap<String, u64>,
}

async fn try_all(name: &str, table: &str) {
    let cases = toml::from_str::<Cases>(table).unwrap().case;
    assert!(!cases.is_empty());
    let tracker = Tracker::start(name).await;
    tracker.simple_campaign("bad").await;
    let pass = json!({ "key": "pass", "name": "p", "pass_through": true, "offers": [{ "name": "o", "url": OFFER }] });
    tracker.campaign(pass).await;
    let client = tracker.octo.client();
    let mut wanted = Wanted::default();
    let mut faults = String::new();
    send_good(&tracker, &client, &mut wanted).await;
    for case in &cases {
        if let Err(error) = try_one(&tracker, case, &mut wanted).await {
            writeln!(faults, "{}: {error:#}", case.name).unwrap();
        }
        send_good(&tracker, &client, &mut wanted).await;
    }
    assert!(faults.is_empty(), "{} of {} cases:\n{faults}", faults.lines().count(), cases.len());
    wait_refused(&tracker.octo, &wanted.refused.iter().map(|(r, n)| (r.as_str(), *n)).collect::<Vec<_>>())
        .await;
    assert_stored(&tracker, Table::Clicks, &wanted.clicks).await;
    assert_stored(&tracker, Table::Events, &wanted.events).await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    let log = tracker.octo.stderr();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "the log has an error");
    assert_eq!(tracker.octo.get("/readyz").await.status(), 200);
    for list in ["/clicks?limit=500", "/events?limit=500"] {
        let response = tracker.api(reqwest::Method::GET, list).send().await.unwrap();
        assert_eq!(response.status(), 200, "{list}: what was stored can be read again");
    }
}

/// A good click and a good event, which must be accepted.
async fn send_good(tracker: &Tracker, client: &reqwest::Client, wanted: &mut Wanted) {
    let response = client.get(tracker.octo.url("/click?cid=bad&sub1=good")).send().await.expect("an answer");
    let id = response.headers()["x-click-id"].to_str().unwrap().parse().unwrap();
    wanted.clicks.insert(id, [("sub1".to_owned(), "good".to_owned())].into());
    let body = json!({ "cid": "bad", "event_type": "good" });
    let response = client.post(tracker.octo.url("/event")).json(&body).send().await.expect("an answer");
    assert_eq!(response.status(), 202);
    let answer: Value = response.json().await.unwrap();
    let id = answer["event_id"].as_str().unwrap().parse().unwrap();
    wanted.events.insert(id, [("event_type".to_owned(), "good".to_owned())].into());
}

async fn try_one(tracker: &Tracker, case: &Case, wanted: &mut Wanted) -> anyhow::Result<()> {
    let answer = exchange(&tracker.octo, case, &case.request(&tracker.token)).await?;
    if let Some(reason) = &case.refused {
        *wanted.refused.entry(reason.clone()).or_default() += 1;
    }
    let status = answer.status;
    let is_expected = match case.status() {
        Some(class) if class < 10 => status / 100 == class,
        Some(expected) => status == expected,
        None => true,
    };
    anyhow::ensure!(is_expected, "expected {:?}, got {status}: {}", case.status(), answer.shown());
    anyhow::ensure!(status < 500 || status == 503, "answered {status}");
    anyhow::ensure!(status < 400 || answer.body.len() <= 4096, "an error of {} bytes", answer.body.len());
    let lower = answer.text.to_lowercase();
    let is_absent = case.absent.as_deref().is_none_or(|absent| !lower.contains(&absent.to_lowercase()));
    anyhow::ensure!(is_absent, "{:?} is in the answer: {}", case.absent, answer.shown());
    for injected in ["set-cookie", "x-injected"] {
        anyhow::ensure!(answer.header_values(injected).next().is_none(), "{}", answer.shown());
    }
    if let Some((name, value)) = case.header.as_deref().and_then(|h| h.split_once(": ")) {
        let values: Vec<&str> = answer.header_values(name).collect();
        anyhow::ensure!(values.iter().any(|v| v.eq_ignore_ascii_case(value)), "{name} is {values:?}");
    }
    check_problem(case, &answer)?;
    if let Some(stored) = &case.stored {
        let campaign: Value = serde_json::from_str(&answer.body)?;
        anyhow::ensure!(
            campaign["offers"][0]["url"] == *Case::expected(stored),
            "stored as {}",
            campaign["offers"][0]["url"]
        );
        show_again(tracker, &campaign).await?;
    }
    let row: BTreeMap<String, String> =
        case.row.iter().map(|(c, v)| (c.clone(), Case::expected(v))).collect();
    if matches!(status, 302 | 303) {
        check_location(case, &answer)?;
        if !answer.text.is_empty() && !case.raw.as_deref().is_some_and(|r| r.starts_with("HEAD")) {
            let id = answer.header_values("x-click-id").next().unwrap_or_default().parse()?;
            let sub1 = case
                .s
                .as_deref()
                .map(|s| ("sub1".to_owned(), Case::expected(s)))
                .filter(|(_, s)| !s.is_empty());
            wanted.clicks.insert(id, row.into_iter().chain(sub1).collect());
        }
    } else if status == 202 && answer.body.contains("event_id") {
        let body: Value = serde_json::from_str(&answer.body)?;
        wanted.events.insert(body["event_id"].as_str().unwrap_or_default().parse()?, row);
    }
    Ok(())
}

/// The problem names what the case says, and nothing else.
fn check_problem(case: &Case, answer: &Answer) -> anyhow::Result<()> {
    if case.code.is_none() && case.error.is_none() {
        return Ok(());
    }
    let problem: Value = serde_json::from_str(&answer.body)?;
    anyhow::ensure!(
        answer.header_values("content-type").eq(["application/problem+json"]),
        "{}",
        answer.shown()
    );
    if let Some(code) = &case.code {
        anyhow::ensure!(problem["code"] == **code, "the code is {}", problem["code"]);
    }
    if let Some(expected) = &case.error {
        let named = |e: &Value| {
            format!("{} {}", e["pointer"].as_str().unwrap_or("-"), e["code"].as_str().unwrap_or("-"))
        };
        let named: BTreeSet<String> = problem["errors"].as_array().into_iter().flatten().map(named).collect();
        let expected: BTreeSet<String> = expected.split(", ").map(str::to_owned).collect();
        anyhow::ensure!(named == expected, "{named:?} are named");
    }
    Ok(())
}

/// The destination is the stored one, its two parameters are ours, and their values decode to what was sent.
fn check_location(case: &Case, answer: &Answer) -> anyhow::Result<()> {
    let locations: Vec<&str> = answer.header_values("location").collect();
    let [location] = locations[..] else { anyhow::bail!("{} Locations", locations.len()) };
    anyhow::ensure!(location.bytes().all(|b| (0x21..0x7f).contains(&b)), "{location:?}");
    let url = Url::parse(location)?;
    anyhow::ensure!(url.origin().ascii_serialization() == "https://offer.example", "{location}");
    anyhow::ensure!((url.path(), url.fragment()) == ("/lp", Some("top")), "{location}");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let id = answer.header_values("x-click-id").next().unwrap_or_default();
    anyhow::ensure!(pairs.len() >= 2 && pairs[0] == ("cid".to_owned(), id.to_owned()), "{location}");
    anyhow::ensure!(case.tail.is_some() || pairs.len() == 2, "{location}");
    if let Some(s) = &case.s {
        anyhow::ensure!(pairs[1] == ("s".to_owned(), Case::expected(s)), "s is {:?}", pairs[1].1);
    }
    if let Some(tail) = &case.tail {
        let tail = format!("{}#top", Case::expected(tail));
        anyhow::ensure!(location.ends_with(&tail), "the destination is {location}");
    }
    Ok(())
}

/// What was answered to the one who stored it is what is shown to others.
async fn show_again(tracker: &Tracker, campaign: &Value) -> anyhow::Result<()> {
    let id = campaign["id"].as_str().unwrap_or_default();
    let shown: Value =
        tracker.api(reqwest::Method::GET, &format!("/campaigns/{id}")).send().await?.json().await?;
    anyhow::ensure!(
        shown["offers"][0]["url"] == campaign["offers"][0]["url"],
        "shown as {}",
        shown["offers"][0]["url"]
    );
    Ok(())
}

/// Exactly these rows, with these columns.
async fn assert_stored(tracker: &Tracker, table: Table, wanted: &BTreeMap<Uuid, BTreeMap<String, String>>) {
    tracker.wait_rows(table, i64::try_from(wanted.len()).unwrap()).await;
    let sql = match table {
        Table::Events => "SELECT id, key, value FROM events e, jsonb_each_text(to_jsonb(e))",
        _ => "SELECT id, key, value FROM clicks c, jsonb_each_text(to_jsonb(c))",
    };
    let cells: Vec<(Uuid, String, Option<String>)> =
        sqlx::query_as(sql).fetch_all(&tracker.pool).await.unwrap();
    let mut rows: BTreeMap<Uuid, BTreeMap<String, String>> = BTreeMap::new();
    for (id, column, value) in cells {
        rows.entry(id).or_default().insert(column, value.unwrap_or_else(|| "null".to_owned()));
    }
    assert!(rows.keys().eq(wanted.keys()), "{table:?} has other rows than those that were answered");
    for (id, columns) in wanted {
        for (column, value) in columns {
            assert_eq!(rows[id].get(column), Some(value), "{column} of {:?}", rows[id]);
        }
    }
}

#[derive(Debug)]
struct Answer {
    text: String,
    status: u16,
    body: String,
}

impl Answer {
    fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn shown(&self) -> String {
        format!("{:?}", self.text.chars().take(700).collect::<String>())
    }
}

/// Sends the bytes and reads until the server ends the connection, or until one whole answer is there if the case does not
/// ask for an end.
async fn exchange(octo: &Octo, case: &Case, request: &[u8]) -> anyhow::Result<Answer> {
    let (mut reader, mut writer) = TcpStream::connect(octo.addr()).await?.into_split();
    // a server that refuses need not read all of it
    let sending = async { writer.write_all(request).await.map_err(|e| e.kind()) };
    let mut got = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 65_536];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(length) => got.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if !case.closes && case.answers.is_none() && is_whole(&got) {
                return Ok(());
            }
        }
    };
    let (_, read) = timeout(PATIENCE, async { tokio::join!(sending, reading) })
        .await
        .map_err(|_| anyhow::anyhow!("the connection is still open"))?;
    read?;
    drop(writer);
    let text = String::from_utf8_lossy(&got).into_owned();
    let answers = text.match_indices("HTTP/1.").filter(|(i, _)| text[i + 8..].starts_with(' ')).count();
    if let Some(expected) = case.answers {
        anyhow::ensure!(
            answers == expected,
            "{answers} answers: {}",
            text.chars().take(900).collect::<String>()
        );
    }
    let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned());
    Ok(Answer { text, status, body })
}

/// Whether the answer so far has all of its body.
fn is_whole(got: &[u8]) -> bool {
    let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| got.len() >= end + 4 + length)
}

/// What `octo_http_refused_total` counts, without what it has not counted yet.
async fn refused(octo: &Octo) -> anyhow::Result<BTreeMap<String, u64>> {
    let metrics = octo.metrics().await;
    let series = metrics.lines().filter_map(|line| line.strip_prefix("octo_http_refused_total{reason=\""));
    let counts =
        series.filter_map(|line| line.split_once("\"} ")).map(|(reason, n)| (reason.to_owned(), n.parse()));
    Ok(counts.filter_map(|(reason, n)| Some((reason, n.ok()?))).filter(|(_, n)| *n > 0).collect())
}

/// Waits until exactly these refusals are counted.
async fn wait_refused(octo: &Octo, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
    eventually(SOON, async || {
        let counted = refused(octo).await?;
        anyhow::ensure!(counted == expected, "counted are {counted:?}, not {expected:?}");
        Ok(())
    })
    .await;
}
