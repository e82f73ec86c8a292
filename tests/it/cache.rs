//! Campaigns in memory, in Redis and in Postgres: what a look-up finds, what is not believed, what is forgotten.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    harness::{Database, PrivatePostgres, PrivateRedis, eventually, migrate},
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
    let value: String = ask(&mut redis, &["GET", "campaign:one"]).await;
    let ttl: i64 = ask(&mut redis, &["TTL", "campaign:one"]).await;
    assert!((3200..=3960).contains(&ttl), "{ttl}");
    let renamed = value.replace("\"key\":\"one\"", "\"key\":\"ghost\"");
    let _: () = ask(&mut redis, &["SET", "campaign:ghost", &renamed]).await;
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
    let good: String = ask(&mut redis, &["GET", "campaign:good"]).await;
    let other_schema = good.replace("\"schema\":2", "\"schema\":99").replace("good", "schema");
    let old_schema = good.replace("\"schema\":2", "\"schema\":1").replace("good", "elder");
    let no_campaign = "{\"schema\":2,\"key\":\"absent\"}";
    let others_deletion = "{\"schema\":2,\"key\":\"good\",\"campaign\":null}";
    let bad: [(&str, &[&str]); 12] = [
        ("empty", &["SET", "campaign:empty", ""]),
        ("brace", &["SET", "campaign:brace", "{"]),
        ("array", &["SET", "campaign:array", "[]"]),
        ("truncated", &["SET", "campaign:truncated", &good[..good.len() / 2]]),
        ("schema", &["SET", "campaign:schema", &other_schema]),
        ("elder", &["SET", "campaign:elder", &old_schema]),
        ("another", &["SET", "campaign:another", &good]),
        ("absent", &["SET", "campaign:absent", no_campaign]),
        ("deletion", &["SET", "campaign:deletion", others_deletion]),
        ("list", &["LPUSH", "campaign:list", "x"]),
        ("hash", &["HSET", "campaign:hash", "x", "y"]),
        ("binary", &["SETRANGE", "campaign:binary", "9", "\u{ff}"]),
    ];
    for (n, (key, words)) in bad.into_iter().enumerate() {
        let errors = n as u64;
        author.create(key).await;
        let _: redis::Value = ask(&mut redis, words).await;
        assert_eq!(node.click(key).await, 302, "{key}");
        assert_eq!(node.layer("redis", "errors").await, errors + 1, "{key} is counted");
        let mended: String = ask(&mut redis, &["GET", &format!("campaign:{key}")]).await;
        assert!(mended.contains("\"schema\":2") && mended.contains(key), "{mended}");
    }
    let _: redis::Value = ask(&mut redis, &["LPUSH", "campaign:unheard-of", "x"]).await;
    assert_eq!(node.click("unheard-of").await, 404);
    let left: u32 = ask(&mut redis, &["EXISTS", "campaign:unheard-of"]).await;
    assert_eq!(left, 0, "what nobody can use is gone");
    assert_eq!(node.metric("octo_redis_breaker_open").await, 0, "Redis is well");
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
        let before = one.metric(BY_KEY).await + two.metric(BY_KEY).await;
        let clicks = (0..30).flat_map(|_| [one.click(key), two.click(key)]);
        let answers = join_all(clicks).await;
        assert!(answers.iter().all(|s| *s == status), "{key}: {answers:?}");
        let asked = one.metric(BY_KEY).await + two.metric(BY_KEY).await - before;
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
    let before = node.metric(BY_KEY).await;
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
    assert!(node.metric(BY_KEY).await - before == 1, "one look-up for both");
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
    assert!(node.metric(&process("stale")).await == 0);
    node.proxy.point_at("postgres://127.0.0.1:1/");
    eventually(SOON, async || {
        assert_eq!(node.click("demo").await, 302);
        anyhow::ensure!(node.metric(&process("stale")).await > 0);
        Ok(())
    })
    .await;
    let health = node.octo.get("/health").await.text().await.unwrap();
    assert!(health.contains("not confirmed by Postgres lately"), "{health}");
    node.proxy.point_at(&database.url());
    eventually(SOON, async || {
        let hits = node.metric(&process("hit")).await;
        assert_eq!(node.click("demo").await, 302);
        anyhow::ensure!(node.metric(&process("hit")).await > hits);
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
    assert!(node.metric(stale).await > 0);
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
    let ttl: i64 = ask(&mut redis, &["PTTL", "click_stats:demo"]).await;
    assert!((1..=60_000).contains(&ttl), "{ttl}");
    node.turn("demo", "pause").await;
    assert_eq!(clicks("").await, (2, false), "a change of the campaign forgets them");
    for day in 1..=20 {
        assert_eq!(clicks(&format!("?from=2026-01-{day:02}T00:00:00Z")).await, (2, false));
        let fields: usize = ask(&mut redis, &["HLEN", "click_stats:demo"]).await;
        assert!(fields <= 8, "{fields}");
    }
    let _: redis::Value = ask(&mut redis, &["SET", "click_stats:demo", "a key of another type"]).await;
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
    let path = one.octo.url("/api/v1/system/cache/flush");
    let refused = one.octo.client().post(&path).bearer_auth(&reader).send().await.unwrap();
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
    let shown = one.octo.client().get(one.octo.url("/api/v1/system/cache")).bearer_auth(&reader);
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
