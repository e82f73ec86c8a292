//! What is kept of a visitor: addresses by `privacy.ip_mode`, less for who asks for it, nothing for longer than told.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use aho_corasick::AhoCorasick;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Octo, PrivatePostgres, PrivateRedis, eventually},
    tracker::{SOON, Tracker, header},
};

/// The addresses of visitors in one mode: three of IPv4 and one of IPv6, all Russian for the country data.
fn addresses(turn: u8) -> [IpAddr; 4] {
    let v4 = |last: u8| IpAddr::from([83, 149, 9, last + turn]);
    let v6 = Ipv6Addr::from_bits(0x2a02_06b8_7e57_9b3d_c1f4_a85e_63d2_4700 + u128::from(turn));
    [v4(0xd1), v4(0xb3), v4(0x97), v6.into()]
}

/// What is looked for: text forms of addresses, and their 4 or 16 bytes in either order.
struct Wanted {
    texts: Vec<String>,
    text: AhoCorasick,
    binary: AhoCorasick,
}

impl Wanted {
    fn new(addresses: &[IpAddr]) -> Self {
        let mut texts = Vec::new();
        for ip in addresses {
            texts.extend([ip.to_string(), hex(&octets(*ip))]);
            if let IpAddr::V6(v6) = ip {
                // a network is a part of the whole: what is behind it is what must not be there
                let words = v6.segments().map(|w| format!("{w:04x}"));
                texts.extend([words.join(":"), words[3..].join(":")]);
            }
        }
        let text = AhoCorasick::builder().ascii_case_insensitive(true).build(&texts).unwrap();
        let bytes = addresses.iter().map(|ip| octets(*ip));
        let both = bytes.flat_map(|forward| [forward.clone(), forward.into_iter().rev().collect()]);
        Self { texts, text, binary: AhoCorasick::new(both).unwrap() }
    }

    /// Text forms that are in these bytes.
    fn texts_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.text.find_iter(bytes).map(|found| self.texts[found.pattern()].as_str()).collect()
    }

    /// Positions of the addresses whose bytes are in these.
    fn binaries_in(&self, bytes: &[u8]) -> BTreeSet<usize> {
        self.binary.find_iter(bytes).map(|found| found.pattern().as_usize() / 2).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Every file below a directory, with its path; one that vanishes meanwhile holds nothing.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default()));
        }
    }
    found
}

const REFUSE: &str = "
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW WHEN (NEW.sub1 = 'bad') EXECUTE FUNCTION refuse();";

/// Everything a visitor can send, from each address; gives the destinations of its clicks.
async fn visit(octo: &Octo, addresses: &[IpAddr]) -> Vec<String> {
    let mut destinations = Vec::new();
    for ip in addresses {
        let from = |method: Method, path: &str| {
            let request = octo.client().request(method, octo.url(path));
            request.header("x-forwarded-for", ip.to_string())
        };
        let answer = async |request: RequestBuilder| request.send().await.expect("an answer");
        for sub in ["good", "bad", "good"] {
            let click = answer(from(Method::GET, &format!("/click?cid=demo&sub1={sub}"))).await;
            assert_eq!(click.status(), 302);
            destinations.push(header(&click, "location"));
            let event = json!({ "event_type": "view", "click_id": header(&click, "x-click-id") });
            assert_eq!(answer(from(Method::POST, "/event").json(&event)).await.status(), 202);
        }
        let refused = answer(from(Method::POST, "/event").json(&json!({ "event_type": "V" }))).await;
        assert_eq!(refused.status(), 422);
        assert_eq!(answer(from(Method::POST, "/event").body("{")).await.status().as_u16() / 100, 4);
        for path in
            ["/event.gif?event_type=view&cid=demo", "/event.gif?event_type=V", "/c/nobody", "/nothing"]
        {
            answer(from(Method::GET, path)).await;
        }
        answer(from(Method::HEAD, "/c/demo")).await;
        let guessed = from(Method::GET, "/api/v1/campaigns").bearer_auth("guessed");
        assert_eq!(answer(guessed).await.status(), 401);
    }
    destinations
}

/// A run of octo in one mode, to its end; what is kept of the addresses.
async fn run(mode: &str, turn: u8, postgres: &PrivatePostgres, redis: &PrivateRedis) -> Octo {
    let mut octo = Octo::builder()
        .database_url(postgres.url())
        .redis_url(redis.url())
        .env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
        .env("OCTO_TRACKING__DUPLICATE_WINDOW_S", "3600")
        .env("OCTO_PRIVACY__IP_MODE", mode)
        .env("OCTO_LOG__LEVEL", "debug")
        .start()
        .await;
    if turn == 0 {
        octo.create_campaign("demo", "https://o.example/?ip={ip}").await;
        sqlx::raw_sql(REFUSE).execute(&postgres.pool().await).await.unwrap();
    }
    let started = chrono::Utc::now();
    let destinations = visit(&octo, &addresses(turn)).await;
    octo.sigterm();
    assert!(octo.wait_exit(Duration::from_mins(1)).await.success());
    let pool = postgres.pool().await;
    let sql = "SELECT host(ip_address), country, invalid_reason FROM clicks WHERE created_at >= date_trunc('milliseconds', $1) ORDER BY created_at, id";
    let kept: Vec<(Option<String>, Option<String>, Option<String>)> =
        sqlx::query_as(sql).bind(started).fetch_all(&pool).await.unwrap();
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE created_at > $1")
        .bind(started)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!((kept.len(), dead), (8, 4), "{mode}: two good clicks and a bad one of each address");
    for (i, (ip, country, reason)) in kept.iter().enumerate() {
        let whole = addresses(turn)[i / 2];
        let wanted = match (mode, whole) {
            ("full", _) => Some(whole.to_string()),
            ("truncate", IpAddr::V4(_)) => Some("83.149.9.0".to_owned()),
            ("truncate", IpAddr::V6(_)) => Some("2a02:6b8:7e57::".to_owned()),
            ("none", _) => None,
            _ => {
                assert!(ip.as_deref().is_some_and(|ip| ip.starts_with("fd")), "{ip:?}");
                assert_eq!(ip, &kept[i / 2 * 2].0, "the same visitor has the same hash");
                ip.clone()
            }
        };
        assert_eq!(
            (ip, country.as_deref()),
            (&wanted, Some("RU")),
            "{mode}: the country is of the whole address"
        );
        let sent = destinations[i / 2 * 3 + i % 2 * 2].replace("%3A", ":");
        assert_eq!(sent, format!("https://o.example/?ip={}", wanted.unwrap_or_default()), "{mode}");
        assert_eq!(reason.is_some(), i % 2 == 1, "{mode}: duplicates are told all the same");
    }
    let hashes: BTreeSet<_> = kept.iter().map(|(ip, ..)| ip).collect();
    let distinct = match mode {
        "none" => 1,
        "truncate" => 2,
        _ => 4,
    };
    assert_eq!(hashes.len(), distinct, "{mode}");
    octo
}

#[tokio::test]
async fn an_address_is_found_nowhere_on_disk_in_any_mode_but_full() {
    let postgres = PrivatePostgres::start().await;
    let redis = PrivateRedis::start().await;
    let mut octos = Vec::new();
    for (turn, mode) in (0..).zip(["full", "truncate", "hash", "none"]) {
        octos.push((mode, addresses(turn), run(mode, turn, &postgres, &redis).await));
    }
    sqlx::raw_sql("CHECKPOINT").execute(&mut postgres.admin().await).await.unwrap();
    let mut connection = redis.connection().await;
    let () = ::redis::cmd("SAVE").query_async(&mut connection).await.unwrap();
    let dump = postgres.dump().await;
    let mut places = files(postgres.dir());
    places.extend(files(redis.dir()));
    assert!(places.iter().any(|(path, _)| path.contains("/pg_wal/")), "the log of PostgreSQL is looked at");
    assert!(places.iter().any(|(path, _)| path.contains(".rdb")), "Redis saved what it has");
    places.push(("pg_dump".to_owned(), dump.into_bytes()));
    for (mode, addresses, octo) in &octos {
        let own = files(octo.dir());
        assert!(
            own.iter().any(|(path, bytes)| path.contains("/journal/") && bytes.len() > 1000),
            "the journal"
        );
        assert!(own.iter().any(|(path, bytes)| path.contains("stderr") && bytes.len() > 1000), "the log");
        let wanted = Wanted::new(addresses);
        let places = || places.iter().chain(&own);
        let texts: Vec<_> = places()
            .map(|(path, bytes)| (path, wanted.texts_in(bytes)))
            .filter(|(_, found)| !found.is_empty())
            .collect();
        let binaries: BTreeSet<usize> = places().flat_map(|(_, bytes)| wanted.binaries_in(bytes)).collect();
        if *mode == "full" {
            assert!(texts.iter().any(|(path, _)| *path == "pg_dump"), "who looks finds something: {texts:?}");
            assert_eq!(binaries.len(), 4, "{binaries:?}");
        } else {
            assert!(texts.is_empty(), "{mode}: {texts:?}");
            // four bytes may be somewhere by chance, one time in a hundred; those of two addresses are not
            assert!(binaries.len() < 2 && !binaries.contains(&3), "{mode}: {binaries:?}");
        }
    }
}

/// The one click of a tracker, as the API shows it.
async fn shown(tracker: &Tracker, id: Uuid) -> Value {
    let click = eventually(SOON, async || {
        let response = tracker.api(Method::GET, &format!("/clicks/{id}")).send().await?;
        anyhow::ensure!(response.status() == 200, "not stored");
        Ok(response.json::<Value>().await?)
    });
    click.await
}

#[tokio::test]
async fn who_asks_for_privacy_is_counted_and_redirected_and_not_described() {
    let tracker = Tracker::start_with("privacy_asked", |b| b.env("OCTO_PRIVACY__RESPECT_DNT", "true")).await;
    tracker
        .campaign(json!({ "key": "demo", "name": "demo", "pass_through": true,
            "offers": [{ "name": "o", "url": "https://o.example/?ip={ip}&ua={user_agent}&r={referrer}&d={device}&s={sub1}" }] }))
        .await;
    let click = async |name: &'static str, value: &'static str| {
        let url = tracker.octo.url("/click?cid=demo&sub1=s&click_id=src&utm=x");
        let request = tracker.octo.client().get(url).header(name, value);
        let answer = request.header("referer", "https://ads.example/page?user=alice").send().await.unwrap();
        assert_eq!(answer.status(), 302);
        let id = header(&answer, "x-click-id").parse().unwrap();
        (header(&answer, "location"), shown(&tracker, id).await)
    };
    for (name, value) in [("sec-gpc", "1"), ("dnt", "1")] {
        let (location, kept) = click(name, value).await;
        assert_eq!(location, "https://o.example/?ip=&ua=&r=https%3A%2F%2Fads.example&d=desktop&s=s&utm=x");
        for gone in ["ip_address", "user_agent"] {
            assert_eq!(kept[gone], Value::Null, "{name}: {gone}");
        }
        assert_eq!((&kept["referrer"], &kept["is_valid"]), (&json!("https://ads.example"), &json!(true)));
        assert_eq!(
            (&kept["sub1"], &kept["click_id_param"], &kept["device"]),
            (&json!("s"), &json!("src"), &json!("desktop"))
        );
    }
    for (name, value) in [("sec-gpc", "0"), ("dnt", "0"), ("sec-gpc", "true"), ("accept", "*/*")] {
        let (location, kept) = click(name, value).await;
        assert!(location.starts_with("https://o.example/?ip=127.0.0.1&ua=Mozilla"), "{name}: {location}");
        assert_eq!(kept["ip_address"], "127.0.0.1");
        assert_eq!(kept["referrer"], "https://ads.example/page?user=alice");
    }
    let ignoring =
        Tracker::start_with("privacy_ignored", |b| b.env("OCTO_PRIVACY__RESPECT_GPC", "false")).await;
    ignoring.simple_campaign("demo").await;
    for name in ["sec-gpc", "dnt"] {
        let request = ignoring.octo.client().get(ignoring.octo.url("/c/demo")).header(name, "1");
        let id = header(&request.send().await.unwrap(), "x-click-id").parse().unwrap();
        assert_eq!(shown(&ignoring, id).await["ip_address"], "127.0.0.1", "{name}");
    }
}

#[tokio::test]
async fn retention_drops_days_and_old_dead_letters_and_keeps_the_figures() {
    let database = crate::harness::Database::create("privacy_retention").await;
    let pool = database.pool().await;
    // forty days of each table, some rows in the DEFAULT partitions, a letter, a key and a figure of each day
    sqlx::raw_sql(
        "DO $$
         DECLARE day date; parent text;
         BEGIN
             FOR day IN SELECT generate_series((now() AT TIME ZONE 'UTC')::date - 40, (now() AT TIME ZONE 'UTC')::date, '1 day')::date LOOP
                 FOREACH parent IN ARRAY ARRAY['clicks', 'events'] LOOP
                     CONTINUE WHEN to_regclass(parent || to_char(day, '_YYYYMMDD')) IS NOT NULL OR extract(day FROM day) = 3;
                     EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', parent || to_char(day, '_YYYYMMDD'), parent,
                         day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                 END LOOP;
             END LOOP;
         END $$;
         CREATE TABLE days AS SELECT (date_trunc('day', now(), 'UTC') - n * interval '1 day' + interval '1 hour') AS at FROM generate_series(0, 40) n;
         INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at) SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', true, false, at, at FROM days;
         INSERT INTO events (id, event_type, created_at) SELECT gen_random_uuid(), 'view', at FROM days;
         INSERT INTO event_keys (id, created_at) SELECT gen_random_uuid(), at FROM days;
         INSERT INTO dead_letters (stream, seq, record, sqlstate, message, created_at) SELECT gen_random_uuid(), 1, 'x', '22003', '', at FROM days;
         INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks) SELECT '00000000-0000-0000-0000-000000000001', at, 1 FROM days;",
    )
    .execute(&pool)
    .await
    .unwrap();
    let _octo =
        Octo::builder().database_url(database.url()).env("OCTO_PRIVACY__RETENTION_DAYS", "30").start().await;
    let left = "SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent IN ('clicks'::regclass, 'events'::regclass)
                    AND inhrelid::regclass::text < 'clicks_' || to_char(now() AT TIME ZONE 'UTC' - interval '30 days', 'YYYYMMDD')
                    AND inhrelid::regclass::text ~ '^clicks_2'),
                (SELECT count(*) FROM clicks_default WHERE created_at < now() - interval '30 days'),
                ARRAY[(SELECT count(*) FROM clicks), (SELECT count(*) FROM events), (SELECT count(*) FROM event_keys),
                      (SELECT count(*) FROM dead_letters), (SELECT count(*) FROM campaign_stats_hourly)]";
    // a day goes as a whole, once its last hour is old enough: so rows may be up to a day older than asked for
    eventually(SOON, async || {
        let (partitions, default_rows, rest): (i64, i64, Vec<i64>) =
            sqlx::query_as(left).fetch_one(&pool).await?;
        let is_done = rest[..4].iter().all(|rows| (30..=31).contains(rows));
        anyhow::ensure!(
            (partitions, default_rows) == (0, 0) && is_done,
            "{partitions} {default_rows} {rest:?}"
        );
        anyhow::ensure!(rest[4] == 41, "figures hold nothing of a person and stay");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_key_of_a_day_is_shared_by_nodes_and_gone_when_the_day_is_over() {
    let tracker = Tracker::start_with("privacy_keys", |b| b.env("OCTO_PRIVACY__IP_MODE", "hash")).await;
    tracker.simple_campaign("demo").await;
    let old = "INSERT INTO visitor_keys (day, key) VALUES ((now() AT TIME ZONE 'UTC')::date - 1, '0123456789abcdef')";
    sqlx::raw_sql(old).execute(&tracker.pool).await.unwrap();
    let mut other = Octo::builder()
        .database_url(tracker.database.url())
        .env("OCTO_PRIVACY__IP_MODE", "hash")
        .start()
        .await;
    tracker.click("/c/demo").await;
    other.get("/c/demo").await;
    other.sigterm();
    other.wait_exit(Duration::from_mins(1)).await;
    other.start_again().await;
    // with campaigns of its own it redirects at once, and under a key of its own until it has the shared one
    eventually(SOON, async || {
        let health: Value = other.get("/health").await.json().await?;
        let components = health["components"].as_array().cloned().unwrap_or_default();
        let primary = components.iter().find(|component| component["name"] == "postgres primary");
        let detail = primary.and_then(|primary| primary["detail"].as_str()).unwrap_or_default();
        anyhow::ensure!(detail.ends_with("UTF8"), "{health}");
        Ok(())
    })
    .await;
    other.get("/c/demo").await;
    tracker.wait_rows(crate::tracker::Table::Clicks, 3).await;
    let counts = "SELECT (SELECT count(DISTINCT ip_address) FROM clicks),
                (SELECT count(*) FROM visitor_keys WHERE day < (now() AT TIME ZONE 'UTC')::date),
                (SELECT count(*) FROM visitor_keys)";
    eventually(SOON, async || {
        let counts: (i64, i64, i64) = sqlx::query_as(counts).fetch_one(&tracker.pool).await?;
        anyhow::ensure!(counts == (1, 0, 2), "one visitor at two nodes and after a restart: {counts:?}");
        Ok(())
    })
    .await;
}
