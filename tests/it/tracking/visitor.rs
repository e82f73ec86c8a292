//! Who came: what browsers and the operator's files say of a visitor decides and is kept, less of who objects.

use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Octo, OctoBuilder, Scratch, eventually, mmdb},
    tracker::{SOON, Tracker, header},
};

const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
const BRANDS: &str = r#""Brave";v="131", "Chromium";v="131", "Not_A Brand";v="24""#;

/// What Brave on Windows 11 sends to a site that asked for it.
const HINTED: [(&str, &str); 8] = [
    ("user-agent", WINDOWS),
    ("accept-language", "fr;q=0.8, pt-BR, en;q=0.5"),
    ("sec-ch-ua", BRANDS),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Windows\""),
    ("sec-ch-ua-platform-version", "\"15.0.0\""),
    (
        "sec-ch-ua-full-version-list",
        r#""Brave";v="131.1.73.91", "Chromium";v="131.0.6778.86", "Not_A Brand";v="24.0.0.0""#,
    ),
    ("sec-ch-ua-model", "\"\""),
];

/// The address that the files know.
const KNOWN: &str = "81.2.69.142";
const UNKNOWN: &str = "81.2.70.1";

/// Files as MaxMind makes them.
struct Files {
    city: PathBuf,
    isp: PathBuf,
    connection: PathBuf,
}

fn write_files(dir: &Path) -> Files {
    let file = |kind: &str, record: Value| {
        let path = dir.join(format!("{kind}.mmdb"));
        mmdb::write(&path, kind, &[("81.2.69.0/24", record)]);
        path
    };
    let city = json!({
        "city": { "names": { "de": "M\u{fc}nchen", "en": "Munich" } },
        "country": { "iso_code": "DE" },
        "subdivisions": [{ "iso_code": "BY", "names": { "en": "Bavaria" } }],
    });
    Files {
        city: file("GeoLite2-City", city),
        isp: file("GeoIP2-ISP", json!({ "isp": "Example Net", "organization": "Example" })),
        connection: file("GeoIP2-Connection-Type", json!({ "connection_type": "Cable/DSL" })),
    }
}

/// With a campaign whose rule takes Brave on Windows 11 in Bavaria, and one without rules.
async fn start(name: &str, files: &Files) -> Tracker {
    let tracker = Tracker::start_with(name, |b: OctoBuilder| {
        b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
            .env("OCTO_TRACKING__CITY_FILE", &files.city)
            .env("OCTO_TRACKING__ISP_FILE", &files.isp)
            .env("OCTO_TRACKING__CONNECTION_FILE", &files.connection)
    })
    .await;
    let offer = |name: &str| json!([{ "name": name, "url": format!("https://{name}.example/") }]);
    let when = json!([
        { "dimension": "country", "is": ["DE"] },
        { "dimension": "region", "is": ["BY"] },
        { "dimension": "city", "is": ["Munich"] },
        { "dimension": "isp", "is": ["Example Net"] },
        { "dimension": "connection", "is": ["cable/dsl"] },
        { "dimension": "language", "is": ["pt"] },
        { "dimension": "os", "is": ["Windows 11"] },
        { "dimension": "browser", "is": ["Brave >=131.1"] },
    ]);
    let rule =
        json!({ "name": "wanted", "when": when, "paths": [{ "name": "p", "offers": offer("wanted") }] });
    tracker.campaign(json!({ "key": "ruled", "name": "r", "offers": offer("other"), "rules": [rule] })).await;
    tracker.simple_campaign("plain").await;
    tracker
}

/// Clicks, and gives the host it is sent to, what it is asked for, and the click as it is stored.
async fn click(tracker: &Tracker, key: &str, ip: &str, headers: &[(&str, &str)]) -> (String, String, Value) {
    let mut request = tracker.octo.client().get(tracker.octo.url(&format!("/c/{key}")));
    for (name, value) in headers.iter().chain(&[("x-forwarded-for", ip)]) {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FOUND);
    let location = header(&answer, "location");
    let host = location.split('/').nth(2).unwrap_or_default().to_owned();
    assert_eq!(header(&answer, "critical-ch"), "", "a browser would click twice");
    let path = format!("/clicks/{}", header(&answer, "x-click-id"));
    let stored = eventually(SOON, async || {
        let response = tracker.api(reqwest::Method::GET, &path).send().await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "{}", response.status());
        Ok(response.json().await?)
    });
    (host, header(&answer, "accept-ch"), stored.await)
}

/// Some fields of a click.
fn fields<'a>(click: &'a Value, names: &[&str]) -> Vec<Option<&'a str>> {
    names.iter().map(|name| click[*name].as_str()).collect()
}

const OF_VISITOR: [&str; 11] = [
    "country",
    "region",
    "city",
    "isp",
    "connection",
    "language",
    "device",
    "os",
    "os_version",
    "browser",
    "browser_version",
];

#[tokio::test]
async fn hints_and_the_operators_files_decide_and_are_kept_with_the_click() {
    let scratch = Scratch::create();
    let tracker = start("visitor_kept", &write_files(scratch.dir())).await;
    let (host, asked, stored) = click(&tracker, "ruled", KNOWN, &HINTED).await;
    assert_eq!((host.as_str(), stored["rule_id"].as_i64() > Some(0)), ("wanted.example", true), "{stored}");
    assert!(asked.contains("Sec-CH-UA-Platform-Version"), "{asked}");
    let all = [
        "DE",
        "BY",
        "Munich",
        "Example Net",
        "cable/dsl",
        "pt",
        "desktop",
        "Windows",
        "11.0",
        "Brave",
        "131.1",
    ];
    assert_eq!(fields(&stored, &OF_VISITOR), all.map(Some), "{stored}");
    let columns: (String, String) =
        sqlx::query_as("SELECT city, os_version FROM clicks").fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(columns, ("Munich".to_owned(), "11.0".to_owned()));

    // the first visit, before the browser was asked, and from elsewhere: what is not known is in no rule
    let (host, asked, stored) = click(&tracker, "ruled", UNKNOWN, &[("user-agent", WINDOWS)]).await;
    assert_eq!((host.as_str(), stored["rule_id"].as_i64()), ("other.example", Some(0)));
    assert!(asked.contains("Sec-CH-UA-Full-Version-List"), "{asked}");
    let names = ["country", "region", "city", "isp", "connection", "language", "os_version", "browser"];
    let built_in = [Some("GB"), None, None, None, None, None, Some("10.0"), Some("Chrome")];
    assert_eq!(fields(&stored, &names), built_in, "{stored}");

    let (_, asked, _) = click(&tracker, "plain", KNOWN, &HINTED).await;
    assert_eq!(asked, "", "a campaign that needs no hints asks for none");
}

#[tokio::test]
async fn who_asks_for_privacy_gets_the_same_destination_and_leaves_no_place_and_no_versions() {
    let scratch = Scratch::create();
    let tracker = start("visitor_private", &write_files(scratch.dir())).await;
    let headers: Vec<_> = HINTED.into_iter().chain([("sec-gpc", "1")]).collect();
    let (host, asked, stored) = click(&tracker, "ruled", KNOWN, &headers).await;
    assert_eq!((host.as_str(), asked.as_str()), ("wanted.example", ""));
    let kept = OF_VISITOR.map(|name| {
        let value = stored[name].as_str();
        (name, value)
    });
    let kept: Vec<_> = kept.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let wanted = [("country", "DE"), ("device", "desktop"), ("os", "Windows"), ("browser", "Brave")];
    assert_eq!(kept, wanted, "{stored}");
}

#[tokio::test]
async fn a_file_of_another_kind_stops_the_start_with_one_sentence_that_names_its_key() {
    let scratch = Scratch::create();
    let files = write_files(scratch.dir());
    let missing = scratch.dir().join("missing.mmdb");
    for (variable, file, said) in [
        ("CITY_FILE", &files.isp, "tracking.city_file: "),
        ("ISP_FILE", &files.connection, "tracking.isp_file: "),
        ("CONNECTION_FILE", &files.city, "tracking.connection_file: "),
        ("COUNTRY_FILE", &files.isp, "tracking.country_file: "),
        ("CITY_FILE", &missing, "tracking.city_file: cannot read "),
    ] {
        let output = Octo::builder().env(&format!("OCTO_TRACKING__{variable}"), file).run(&["serve"]).await;
        assert_eq!(output.status.code(), Some(3), "{variable}");
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.contains(said)).unwrap_or_default();
        assert!(line.contains(&file.display().to_string()) && line.contains(said), "{text}");
    }
}
