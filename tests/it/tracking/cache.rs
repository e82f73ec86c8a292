//! Campaigns in memory, in Redis and in Postgres: what a look-up finds, what is not believed, what is forgotten.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    harness::{Database, PrivatePostgres, PrivateRedis, api::campaign, eventually, migrate},
    nodes::{BY_KEY, Node},
    tracker::{SOON, Tracker, header},
};

async fn redis_of(database: &Database) -> redis::aio::MultiplexedConnection {
    redis::Client::open(database.redis_url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn ask<T: redis::FromRedisValue>(redis: &mut redis::aio::MultiplexedConnection, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(redis).await.unwrap()
}

#[tokio::test]
async fn a_change_made_by_hand_is_seen_and_a_deletion_too() {
    let tracker = Tracker::start("cache_by_hand").await;
    tracker.simple_campaign("demo").await;
    sqlx::raw_sql("UPDATE offers SET url = 'https://changed.example/'").execute(&tracker.pool).await.unwrap();
    eventually(SOON, async || {
        let location = header(&tracker.octo.get("/click?cid=demo").await, "location");
        anyhow::ensure!(location == "https://changed.example/", "{location}");
        Ok(())
    })
    .await;
    sqlx::raw_sql("DELETE FROM campaigns").execute(&tracker.pool).await.unwrap();
    eventually(SOON, async || {
        anyhow::ensure!(tracker.octo.get("/click?cid=demo").await.status() == 404);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_key_that_only_redis_knows_is_redirected_and_values_expire_at_different_times() {
    let database = Database::create("cache_redis").await;
    let node = Node::start(&database.url(), |b| b.redis_url(database.redis_url())).await;
    node.create("one").await;
    let mut redis = redis_of(&database).await;
    let value: String = ask(&mut redis, &["GET", "t:campaign_v1:one"]).await;
    let ttl: i64 = ask(&mut redis, &["TTL", "t:campaign_v1:one"]).await;
    assert!((3200..=3960).contains(&ttl), "{ttl}");
    let renamed = value.replace("\"key\":\"one\"", "\"key\":\"ghost\"");
    let _: () = ask(&mut redis, &["SET", "t:campaign_v1:ghost", &renamed]).await;
    assert_eq!(node.click("ghost").await, 302);
    assert_eq!(node.layer("redis", "hits").await, 1);
}

#[tokio::test]
async fn what_is_no_campaign_in_redis_is_a_miss_counted_as_an_error_and_the_click_is_redirected() {
    let database = Database::create("cache_garbage").await;
    let author = Node::start(&database.url(), |b| b).await;
    let node = Node::start_deaf(&database.url(), |b| b.redis_url(database.redis_url())).await;
    let mut redis = redis_of(&database).await;
    author.create("good").await;
    assert_eq!(node.click("good").await, 302);
    let good: String = ask(&mut redis, &["GET", "t:campaign_v1:good"]).await;
    let other_schema = good.replacen('{', "{\"schema\":99,", 1).replace("good", "schema");
    let old_schema = good.replacen('{', "{\"schema\":2,", 1).replace("good", "elder");
    let no_campaign = "{\"key\":\"absent\"}";
    let others_deletion = "{\"key\":\"good\",\"campaign\":null}";
    let bad: [(&str, &[&str]); 12] = [
        ("empty", &["SET", "t:campaign_v1:empty", ""]),
        ("brace", &["SET", "t:campaign_v1:brace", "{"]),
        ("array", &["SET", "t:campaign_v1:array", "[]"]),
        ("truncated", &["SET", "t:campaign_v1:truncated", &good[..good.len() / 2]]),
        ("schema", &["SET", "t:campaign_v1:schema", &other_schema]),
        ("elder", &["SET", "t:campaign_v1:elder", &old_schema]),
        ("another", &["SET", "t:campaign_v1:another", &good]),
        ("absent", &["SET", "t:campaign_v1:absent", no_campaign]),
        ("deletion", &["SET", "t:campaign_v1:deletion", others_deletion]),
        ("list", &["LPUSH", "t:campaign_v1:list", "x"]),
        ("hash", &["HSET", "t:campaign_v1:hash", "x", "y"]),
        ("binary", &["SETRANGE", "t:campaign_v1:binary", "9", "\u{ff}"]),
    ];
    for (n, (key, words)) in bad.into_iter().enumerate() {
        let errors = n as u64;
        author.create(key).await;
        let _: redis::Value = ask(&mut redis, words).await;
        assert_eq!(node.click(key).await, 302, "{key}");
        assert_eq!(node.layer("redis", "errors").await, errors + 1, "{key} is counted");
        let mended: String = ask(&mut redis, &["GET", &format!("t:campaign_v1:{key}")]).await;
        assert!(!mended.contains("schema\":") && mended.contains(&format!("\"key\":\"{key}\"")), "{mended}");
    }
    let _: redis::Value = ask(&mut redis, &["LPUSH", "t:campaign_v1:unheard-of", "x"]).await;
    assert_eq!(node.click("unheard-of").await, 404);
    let left: u32 = ask(&mut redis, &["EXISTS", "t:campaign_v1:unheard-of"]).await;
    assert_eq!(left, 0, "what nobody can use is gone");
    assert_eq!(node.octo.metric("octo_redis_breaker_open").await, 0, "Redis is well");
}

#[tokio::test]
async fn one_node_looks_a_key_up_and_the_others_wait_for_what_it_finds() {
    let database = Database::create("cache_filler").await;
    let author = Node::start(&database.url(), |b| b).await;
    let set = |b: crate::harness::OctoBuilder| {
        let b = b.redis_url(database.redis_url()).env("OCTO_CACHE__FILLER_WAIT_MS", "5000");
        b.env("OCTO_CACHE__MISS_TIMEOUT_MS", "10000").env("OCTO_REDIS__COMMAND_TIMEOUT_MS", "5000")
    };
    let (one, two) =
        (Node::start_deaf(&database.url(), set).await, Node::start_deaf(&database.url(), set).await);
    author.create("wanted").await;
    for (key, status) in [("wanted", 302), ("unwanted", 404)] {
        let before = one.octo.metric(BY_KEY).await + two.octo.metric(BY_KEY).await;
        let clicks = (0..30).flat_map(|_| [one.click(key), two.click(key)]);
        let answers = join_all(clicks).await;
        assert!(answers.iter().all(|s| *s == status), "{key}: {answers:?}");
        let asked = one.octo.metric(BY_KEY).await + two.octo.metric(BY_KEY).await - before;
        assert!(asked == 1, "60 clicks on two nodes asked Postgres {asked} times for {key}");
    }
}

#[tokio::test]
async fn a_first_caller_who_hangs_up_takes_nothing_from_the_others() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let author = Node::start(&postgres.url(), |b| b).await;
    let patient = |b: crate::harness::OctoBuilder| b.env("OCTO_CACHE__MISS_TIMEOUT_MS", "5000");
    let node = Node::start_deaf(&postgres.url(), patient).await;
    author.create("wanted").await;
    let before = node.octo.metric(BY_KEY).await;
    postgres.sigstop();
    let mut first = tokio::net::TcpStream::connect(node.octo.addr()).await.unwrap();
    first.write_all(b"GET /click?cid=wanted HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
    let second = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.click("wanted").await
    };
    let events = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        drop(first);
        tokio::time::sleep(Duration::from_millis(400)).await;
        postgres.sigcont();
    };
    let (status, ()) = tokio::join!(second, events);
    assert_eq!(status, 302);
    assert!(node.octo.metric(BY_KEY).await - before == 1, "one look-up for both");
}

#[tokio::test]
async fn a_deleted_campaign_stays_deleted_though_a_replica_lags_and_a_hint_is_not_lost_on_it() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let replica = postgres.replica(None).await;
    let redis = PrivateRedis::start().await;
    let set = |b: crate::harness::OctoBuilder| {
        b.redis_url(redis.url()).env("OCTO_DATABASE__REPLICA_URLS", replica.url())
    };
    let author = Node::start(&postgres.url(), set).await;
    for key in ["paused", "deleted", "renamed"] {
        author.create(key).await;
    }
    let mut connection = replica.admin().await;
    eventually(SOON, async || {
        let campaigns: i64 =
            sqlx::query_scalar("SELECT count(*) FROM campaigns").fetch_one(&mut connection).await?;
        anyhow::ensure!(campaigns == 3, "{campaigns}");
        Ok(())
    })
    .await;
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut connection).await.unwrap();
    let other = Node::start_deaf(&postgres.url(), set).await;
    assert_eq!(other.click("paused").await, 302);
    author.turn("paused", "pause").await;
    other.wait_click("paused", 404).await;
    assert_eq!(author.api(Method::DELETE, "/campaigns/deleted", None).await.status(), 204);
    let new_key = Some(json!({ "key": "renamed-to" }));
    assert_eq!(author.api(Method::PATCH, "/campaigns/renamed", new_key).await.status(), 200);
    other.wait_click("deleted", 404).await;
    other.wait_click("renamed-to", 302).await;
    // longer than a node remembers that there is no such campaign: it asks again
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        for key in ["paused", "deleted", "renamed"] {
            assert_eq!((author.click(key).await, other.click(key).await), (404, 404), "{key}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_set_that_no_poll_confirms_is_served_as_stale_until_one_does() {
    let database = Database::create("cache_stale").await;
    let often = |b: crate::harness::OctoBuilder| {
        let b = b.env("OCTO_CACHE__POLL_INTERVAL_S", "1").env("OCTO_CACHE__STALE_AFTER_POLLS", "2");
        b.env("OCTO_CACHE__NEGATIVE_TTL_MS", "100")
    };
    let node = Node::start(&database.url(), often).await;
    node.create("demo").await;
    let process =
        |outcome| format!("octo_campaign_cache_requests_total{{layer=\"process\",outcome=\"{outcome}\"}}");
    assert_eq!(node.click("demo").await, 302);
    assert!(node.octo.metric(&process("stale")).await == 0);
    node.proxy.point_at("postgres://127.0.0.1:1/");
    eventually(SOON, async || {
        assert_eq!(node.click("demo").await, 302);
        anyhow::ensure!(node.octo.metric(&process("stale")).await > 0);
        Ok(())
    })
    .await;
    let health = node.octo.get("/health").await.text().await.unwrap();
    assert!(health.contains("not confirmed by Postgres lately"), "{health}");
    node.proxy.point_at(&database.url());
    eventually(SOON, async || {
        let hits = node.octo.metric(&process("hit")).await;
        assert_eq!(node.click("demo").await, 302);
        anyhow::ensure!(node.octo.metric(&process("hit")).await > hits);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_campaign_that_was_looked_up_is_served_while_both_stores_are_down() {
    let database = Database::create("cache_both_down").await;
    let mut redis = PrivateRedis::start().await;
    let author = Node::start(&database.url(), |b| b).await;
    let node = Node::start_deaf(&database.url(), |b| {
        b.redis_url(redis.url()).env("OCTO_CACHE__NEGATIVE_TTL_MS", "100")
    })
    .await;
    author.create("looked-up").await;
    assert_eq!(node.click("looked-up").await, 302);
    node.proxy.point_at("postgres://127.0.0.1:1/");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.click("looked-up").await, 302, "Redis has it");
    redis.kill9().await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(node.click("looked-up").await, 302);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stale = "octo_campaign_cache_requests_total{layer=\"process\",outcome=\"stale\"}";
    assert!(node.octo.metric(stale).await > 0);
}

#[tokio::test]
async fn figures_are_kept_for_a_moment_and_forgotten_with_the_campaign() {
    let database = Database::create("cache_figures").await;
    let node = Node::start(&database.url(), |b| {
        let b = b.redis_url(database.redis_url()).env("OCTO_CACHE__STATS_TTL_S", "60");
        b.env("OCTO_CACHE__STATS_QUESTIONS_MAX", "8")
    })
    .await;
    node.create("demo").await;
    let pool = database.pool().await;
    let count = "INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks)
                 SELECT id, date_trunc('hour', now() - interval '2 hours', 'UTC'), 1 FROM campaigns
                 ON CONFLICT (campaign_id, hour) DO UPDATE SET clicks = campaign_stats_hourly.clicks + 1";
    let clicks = async |query: &str| {
        let answer = node.api(Method::GET, &format!("/campaigns/demo/stats{query}"), None).await;
        assert_eq!(answer.status(), 200);
        let is_kept = answer.headers().contains_key("age");
        let body: Value = answer.json().await.unwrap();
        (body["totals"]["clicks"].as_i64().unwrap(), is_kept)
    };
    sqlx::query(count).execute(&pool).await.unwrap();
    assert_eq!(clicks("").await, (1, false));
    sqlx::query(count).execute(&pool).await.unwrap();
    assert_eq!(clicks("").await, (1, true), "the same question, also a moment later");
    assert_eq!(clicks("?group_by=hour").await, (2, false), "another question");
    let mut redis = redis_of(&database).await;
    let ttl: i64 = ask(&mut redis, &["PTTL", "t:click_stats:demo"]).await;
    assert!((1..=60_000).contains(&ttl), "{ttl}");
    node.turn("demo", "pause").await;
    assert_eq!(clicks("").await, (2, false), "a change of the campaign forgets them");
    for day in 1..=20 {
        assert_eq!(clicks(&format!("?from=2026-01-{day:02}T00:00:00Z")).await, (2, false));
        let fields: usize = ask(&mut redis, &["HLEN", "t:click_stats:demo"]).await;
        assert!(fields <= 8, "{fields}");
    }
    let _: redis::Value = ask(&mut redis, &["SET", "t:click_stats:demo", "a key of another type"]).await;
    let answers = [clicks("").await, clicks("").await, clicks("").await];
    assert_eq!(answers, [(2, false), (2, false), (2, true)], "it is mended");
}

#[tokio::test]
async fn a_flush_reads_everything_again_on_every_node_and_needs_an_admin() {
    let database = Database::create("cache_flush").await;
    let set = |b: crate::harness::OctoBuilder| b.redis_url(database.redis_url());
    let one = Node::start(&database.url(), set).await;
    one.create("a").await;
    one.create("b").await;
    let two = Node::start_deaf(&database.url(), set).await; // has both in memory
    // a change that tells nobody, and that no poll sees
    let unseen = "ALTER TABLE offers DISABLE TRIGGER USER;
                  UPDATE offers SET url = 'https://changed.example/';
                  ALTER TABLE offers ENABLE TRIGGER USER";
    sqlx::raw_sql(unseen).execute(&database.pool().await).await.unwrap();
    let location = async |node: &Node| header(&node.octo.get("/click?cid=a").await, "location");
    assert_ne!(location(&two).await, "https://changed.example/");
    let _ = one.click("unknown").await;
    let reader = one.octo.token("read").await;
    let refused = one.octo.api(&reader).post("/system/cache/flush").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let answer = one.api(Method::POST, "/system/cache/flush", None).await;
    assert_eq!(answer.status(), 200);
    let done: Value = answer.json().await.unwrap();
    assert_eq!(done["campaigns_loaded"], 2);
    assert_eq!(done["looked_up_forgotten"], 1);
    assert_eq!(done["redis_keys_deleted"], 2, "the two campaigns");
    assert_eq!(done["others_told"], true);
    assert_eq!(location(&one).await, "https://changed.example/");
    eventually(SOON, async || {
        let location = location(&two).await;
        anyhow::ensure!(location == "https://changed.example/", "{location}");
        Ok(())
    })
    .await;
    let shown = one.octo.api(&reader).get("/system/cache");
    assert_eq!(shown.send().await.unwrap().status(), 200, "reading needs no more than to read");
}

#[tokio::test]
async fn the_state_of_the_cache_is_shown_also_while_redis_is_frozen() {
    let database = Database::create("cache_state").await;
    let mut redis = PrivateRedis::start().await;
    let node = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    node.create("demo").await;
    for key in ["demo", "demo", "demo", "unknown", "unknown"] {
        node.click(key).await;
    }
    let report = node.show("/system/cache").await;
    println!("{report:#}");
    assert_eq!((&report["campaigns"], &report["source"]), (&json!(1), &json!("database")));
    assert_eq!(report["looked_up_keys"], 1);
    let process = &report["layers"][0];
    let counts =
        ["hits", "misses", "negative", "stale", "errors"].map(|name| process[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 1, 0, 0]);
    assert_eq!(process["hit_ratio"], 0.8);
    assert_eq!((&report["redis"]["mode"], &report["redis"]["breaker"]), (&json!("single"), &json!("closed")));
    let server = &report["redis"]["server"];
    for figure in ["used_memory_bytes", "connected_clients", "connections_received", "keyspace_misses"] {
        assert!(server[figure].as_u64().unwrap() > 0, "{figure}: {server}");
    }
    assert!(report["redis"]["pool_size"].as_u64().unwrap() > 0);
    redis.sigstop();
    for _ in 0..8 {
        let report = node.show("/system/cache").await;
        assert!(report["redis"]["server"].is_null(), "{report}");
    }
    assert_eq!(node.show("/system/cache").await["redis"]["breaker"], "open");
    redis.sigcont();
    eventually(SOON, async || {
        let report = node.show("/system/cache").await;
        anyhow::ensure!(report["redis"]["breaker"] == "closed" && report["redis"]["server"].is_object());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_database_from_the_dump_of_another_server_heals_and_is_not_read_again_and_again() {
    let tracker = Tracker::start_with("cache_restored", |b| b.env("OCTO_CACHE__POLL_INTERVAL_S", "1")).await;
    for i in 0..20 {
        tracker.simple_campaign(&format!("c{i}")).await;
    }
    // as a dump of a server that was further brings them: ids that this one will give out in years
    let raise = "
        ALTER TABLE campaigns DISABLE TRIGGER campaign_changes;
        UPDATE campaigns SET changed_xid = (pg_current_xact_id()::text::bigint + 1000000000)::text::xid8;
        ALTER TABLE campaigns ENABLE TRIGGER campaign_changes";
    let states = "SELECT array_agg((id, version, updated_at)::text ORDER BY id) FROM campaigns";
    let states =
        async || -> Vec<String> { sqlx::query_scalar(states).fetch_one(&tracker.pool).await.unwrap() };
    let before = states().await;
    sqlx::raw_sql(raise).execute(&tracker.pool).await.unwrap();
    let foreign =
        "SELECT count(*) FROM campaigns WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())";
    eventually(SOON, async || {
        let count: i64 = sqlx::query_scalar(foreign).fetch_one(&tracker.pool).await?;
        anyhow::ensure!(count == 0, "{count} ids of another server");
        Ok(())
    })
    .await;
    assert_eq!(states().await, before, "no campaign is in a new version");
    eventually(SOON, async || {
        anyhow::ensure!(tracker.octo.stderr().contains("came from another server"));
        Ok(())
    })
    .await;
    // an idle node's polls read no campaign: each would look for its offers
    let reads = "SELECT coalesce(sum(idx_scan + seq_scan), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'offers'";
    let reads = async || -> i64 { sqlx::query_scalar(reads).fetch_one(&tracker.pool).await.unwrap() };
    let mut last = reads().await;
    eventually(Duration::from_mins(1), async || {
        tokio::time::sleep(Duration::from_secs(4)).await; // some polls
        let now = reads().await;
        let read = now - std::mem::replace(&mut last, now);
        anyhow::ensure!(read == 0, "{read} look-ups of offers by an idle node");
        Ok(())
    })
    .await;
    // and a change is seen
    let (response, _) = tracker.click("/c/c7").await;
    drop(response);
    sqlx::raw_sql("UPDATE offers SET url = 'https://changed.example/'").execute(&tracker.pool).await.unwrap();
    eventually(SOON, async || {
        let location = header(&tracker.octo.get("/c/c7").await, "location");
        anyhow::ensure!(location == "https://changed.example/", "{location}");
        Ok(())
    })
    .await;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT min(version) FROM campaigns")
            .fetch_one(&tracker.pool)
            .await
            .unwrap(),
        before[0].split(',').nth(1).unwrap().parse::<i64>().unwrap() + 1,
        "a change is a new version"
    );
}

/// Clicks on so many keys that nobody knows.
fn clicks_on_unknown_keys(count: usize) -> Vec<Vec<u8>> {
    let paths = ["/click?cid=", "/c/", "/event.gif?event_type=view&cid="];
    let click = |n: usize| {
        format!("GET {}no-{:016x} HTTP/1.1\r\nHost: t\r\n\r\n", paths[n % paths.len()], fastrand::u64(..))
            .into_bytes()
    };
    (0..count).map(click).collect()
}

const REFUSED: &str = "octo_campaign_look_ups_refused_total";

#[tokio::test]
async fn a_batch_of_unknown_keys_looks_eight_of_them_up_and_each_once() {
    let database = Database::create("cache_batch").await;
    let node = Node::start(&database.url(), |b| b.redis_url(database.redis_url())).await;
    node.create("demo").await;
    let event = |cid: &str| json!({ "event_type": "view", "cid": cid });
    let send = async |events: Vec<Value>| -> Vec<Value> {
        let request = node.octo.client().post(node.octo.url("/events")).json(&events);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["results"].as_array().unwrap().clone()
    };
    let rejected =
        |results: &[Value]| results.iter().filter(|r| r["errors"][0]["code"] == "unknown_campaign").count();
    let commands = "octo_redis_commands_total{outcome=\"ok\"}";
    let (looked_up, asked) = (node.octo.metric(BY_KEY).await, node.octo.metric(commands).await);
    let mut events: Vec<Value> = (0..499).map(|n| event(&format!("unknown-{n}"))).collect();
    events.push(event("demo"));
    let results = send(events).await;
    assert_eq!((rejected(&results), &results[499]["status"]), (499, &json!("accepted")));
    let looked_up = node.octo.metric(BY_KEY).await - looked_up;
    let asked = node.octo.metric(commands).await - asked;
    println!("499 unknown keys in one batch: {looked_up} look-ups in PostgreSQL, {asked} commands of Redis");
    assert!(looked_up <= 8 && asked <= 8 * 4, "{looked_up} look-ups, {asked} commands");
    assert_eq!(node.octo.metric(REFUSED).await, 491);
    let before = node.octo.metric(BY_KEY).await;
    let results = send((0..500).map(|_| event("always-the-same")).collect()).await;
    assert_eq!(rejected(&results), 500);
    assert!(node.octo.metric(BY_KEY).await <= before + 1, "each key once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_keys_leaves_postgres_to_the_api_and_a_new_campaign_is_found_in_it() {
    let database = Database::create("cache_flood").await;
    let set = |b: crate::harness::OctoBuilder| b.redis_url(database.redis_url());
    let (one, other) = (Node::start(&database.url(), set).await, Node::start(&database.url(), set).await);
    one.create("demo").await;
    other.wait_click("demo", 302).await;
    let commands = "octo_redis_commands_total{outcome=\"ok\"}";
    let (looked_up, asked, started) =
        (other.octo.metric(BY_KEY).await, other.octo.metric(commands).await, Instant::now());
    let flood = async {
        let answers = crate::load::send_all(other.octo.addr(), clicks_on_unknown_keys(6000), 32).await;
        (answers, started.elapsed())
    };
    let api = async {
        let mut longest = Duration::ZERO;
        for n in 0..10 {
            let start = Instant::now();
            assert_eq!(other.api(Method::GET, "/campaigns/demo", None).await.status(), 200);
            longest = longest.max(start.elapsed());
            one.create(&format!("new-{n}")).await;
            let made = Instant::now();
            other.wait_click(&format!("new-{n}"), 302).await;
            assert!(made.elapsed() < Duration::from_secs(1), "told of after {:?}", made.elapsed());
        }
        longest
    };
    let ((answers, took), longest) = tokio::join!(flood, api);
    let of = |status| answers.iter().filter(|a| a.status == status).count();
    assert_eq!((of(404), of(200)), (4000, 2000), "and the pixel is one, whatever happens");
    let (looked_up, asked) =
        (other.octo.metric(BY_KEY).await - looked_up, other.octo.metric(commands).await - asked);
    println!(
        "6000 unknown keys in {took:?}: {looked_up} look-ups in PostgreSQL, {asked} commands of Redis; API answers within {longest:?}"
    );
    let seconds = started.elapsed().as_secs() + 1;
    assert!(looked_up <= 100 + 100 * seconds, "{looked_up} look-ups in {seconds} s");
    assert!(asked <= 3 * (100 + 100 * seconds) + 200, "{asked} commands in {seconds} s");
    assert!(other.octo.metric(REFUSED).await > 1000);
}

#[tokio::test]
async fn what_cannot_be_confirmed_is_not_called_unknown_for_want_of_a_look_up() {
    let database = Database::create("cache_unconfirmed").await;
    let node = Node::start(&database.url(), |b| {
        let b = b.env("OCTO_CACHE__POLL_INTERVAL_S", "1").env("OCTO_CACHE__STALE_AFTER_POLLS", "1");
        b.env("OCTO_CACHE__LOOK_UPS_PER_SECOND_MAX", "1")
    })
    .await;
    node.create("demo").await;
    node.proxy.point_at("postgres://127.0.0.1:1/");
    let unavailable = "octo_clicks_total{outcome=\"unavailable\"}";
    eventually(SOON, async || {
        let before = (node.octo.metric(REFUSED).await, node.octo.metric(unavailable).await);
        for n in 0..3 {
            assert_eq!(node.click(&format!("new-{n}-{}", fastrand::u32(..))).await, 404);
        }
        let after = (node.octo.metric(REFUSED).await, node.octo.metric(unavailable).await);
        anyhow::ensure!(after.0 > before.0 && after.1 == before.1 + 3, "{before:?} {after:?}");
        Ok(())
    })
    .await;
    // its senders keep what they said: the campaign may be one that was made a moment ago
    let event = json!({ "event_type": "view", "cid": "made-a-moment-ago" });
    let answer = node.octo.client().post(node.octo.url("/event")).json(&event).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

/// Names of keys and channels made from the database, as without a configured prefix.
fn named_by_database(b: crate::harness::OctoBuilder) -> crate::harness::OctoBuilder {
    b.env("OCTO_REDIS__KEY_PREFIX", "")
}

async fn create_to(node: &Node, key: &str, url: &str) {
    node.octo.api(&node.token).create(&campaign(key, url)).await;
}

#[tokio::test]
async fn two_installations_on_one_redis_do_not_see_each_other() {
    let (production, staging) =
        (Database::create("cache_prod").await, Database::create("cache_staging").await);
    let redis = PrivateRedis::start().await;
    let set = |b: crate::harness::OctoBuilder| named_by_database(b.redis_url(redis.url()));
    let (one, two) = (Node::start(&production.url(), set).await, Node::start(&staging.url(), set).await);
    let location =
        async |node: &Node, key: &str| header(&node.octo.get(&format!("/c/{key}")).await, "location");
    create_to(&two, "sale", "https://staging.example/").await;
    create_to(&two, "only-staging", "https://staging.example/").await;
    assert_eq!(one.click("sale").await, 404, "staging's campaign is none of production's");
    assert_eq!(one.click("only-staging").await, 404);
    create_to(&one, "sale", "https://production.example/").await;
    // each from Redis: with nothing in memory, and deaf
    let deaf = |b: crate::harness::OctoBuilder| set(b).env("OCTO_CACHE__NEGATIVE_TTL_MS", "1");
    let other = Node::start_deaf(&production.url(), deaf).await;
    assert_eq!(location(&other, "sale").await, "https://production.example/");
    assert_eq!(location(&two, "sale").await, "https://staging.example/");
    let prefix = async |node: &Node| {
        node.show("/system/cache").await["redis"]["key_prefix"].as_str().unwrap().to_owned()
    };
    let (of_one, of_two) = (prefix(&one).await, prefix(&two).await);
    assert!(
        of_one != of_two && of_one.starts_with("octo:") && prefix(&other).await == of_one,
        "{of_one} {of_two}"
    );
    let mut connection = redis.connection().await;
    let keys: Vec<String> = ask(&mut connection, &["KEYS", "*"]).await;
    assert!(keys.iter().all(|key| key.starts_with(&of_one) || key.starts_with(&of_two)), "{keys:?}");
    eventually(SOON, async || {
        let mut connection = redis.connection().await;
        let channels: Vec<String> = ask(&mut connection, &["PUBSUB", "CHANNELS"]).await;
        // each its own for campaigns and for visitors
        let of = |prefix: &str| channels.iter().filter(|channel| channel.starts_with(prefix)).count();
        anyhow::ensure!((of(&of_one), of(&of_two), channels.len()) == (2, 2, 4), "{channels:?}");
        Ok(())
    })
    .await;
    // a hint is still heard, and a flush deletes what is its own only
    one.turn("sale", "pause").await;
    other.wait_click("sale", 404).await;
    assert_eq!(two.click("sale").await, 302);
    let flushed: Value = one.api(Method::POST, "/system/cache/flush", None).await.json().await.unwrap();
    assert_eq!(flushed["redis_keys_deleted"], 1, "{flushed}");
    let left: u32 = ask(&mut connection, &["EXISTS", &format!("{of_two}campaign_v1:sale")]).await;
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_start_from_saved_campaigns_knows_its_names_in_redis_before_postgres_answers() {
    let database = Database::create("cache_named").await;
    let redis = PrivateRedis::start().await;
    let set = |b: crate::harness::OctoBuilder| named_by_database(b.redis_url(redis.url()));
    let author = Node::start(&database.url(), set).await;
    let mut node = Node::start(&database.url(), set).await;
    author.create("early").await;
    let file = node.octo.data_dir().join("campaigns.json");
    eventually(SOON, async || {
        anyhow::ensure!(std::fs::read_to_string(&file)?.contains("early"));
        Ok(())
    })
    .await;
    node.octo.kill9().await;
    author.create("late").await;
    node.proxy.point_at("postgres://127.0.0.1:1/");
    node.octo.start_again().await;
    assert_eq!(node.click("early").await, 302, "saved");
    assert_eq!(node.click("late").await, 302, "Redis has it");
    // what the release before saved has no installation: then Redis waits for PostgreSQL
    node.octo.kill9().await;
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(saved.as_object_mut().unwrap().remove("installation").is_some(), "{saved}");
    std::fs::write(&file, saved.to_string()).unwrap();
    node.octo.start_again().await;
    assert_eq!((node.click("early").await, node.click("late").await), (302, 404));
    node.proxy.point_at(&database.url());
    node.wait_click("late", 302).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_changes_of_five_thousand_campaigns_are_saved_a_few_times_and_at_the_end() {
    let database = Database::create("cache_saved").await;
    let pool = database.pool().await;
    let many = "INSERT INTO campaigns (id, key, name, status, cost_model)
                SELECT gen_random_uuid(), 'c' || n, 'campaign number ' || n, 'active', 'cpc' FROM generate_series(1, 5000) n";
    sqlx::raw_sql(many).execute(&pool).await.unwrap();
    let mut node = Node::start(&database.url(), |b| b).await;
    let (times, bytes) = ("octo_campaigns_saved_total", "octo_campaigns_saved_bytes_total");
    let file = node.octo.data_dir().join("campaigns.json");
    let size = eventually(SOON, async || {
        anyhow::ensure!(node.octo.metric(times).await == 1);
        Ok(std::fs::metadata(&file)?.len())
    })
    .await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let started = Instant::now();
    for n in 1..=10 {
        node.turn(&format!("c{n}"), "pause").await;
    }
    let paused = async || {
        let content: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let campaigns = content["campaigns"].as_array().unwrap();
        anyhow::Ok((campaigns.len(), campaigns.iter().filter(|c| c["status"] == "paused").count()))
    };
    eventually(SOON, async || {
        let found = paused().await?;
        anyhow::ensure!(found == (5000, 10), "{found:?}");
        Ok(())
    })
    .await;
    let (times, bytes) = (node.octo.metric(times).await - 1, node.octo.metric(bytes).await - size);
    println!(
        "ten pauses of {size} bytes of campaigns within {:?}: {times} saves, {bytes} bytes",
        started.elapsed()
    );
    assert!(
        times <= 2 + started.elapsed().as_secs() / 3 && bytes <= times * (size + 1000),
        "{times} saves, {bytes} bytes"
    );

    // what changed just before the stop is saved by it, and nothing when nothing changed
    node.turn("c11", "pause").await;
    node.turn("c12", "pause").await;
    node.octo.sigterm();
    assert!(node.octo.wait_exit(Duration::from_secs(30)).await.success());
    assert_eq!(paused().await.unwrap(), (5000, 12));
    node.octo.start_again().await;
    assert_eq!(node.octo.metric("octo_campaigns_saved_total").await, 0, "the file has what PostgreSQL has");
}
