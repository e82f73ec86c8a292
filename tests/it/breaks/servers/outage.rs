//! Parts that fail: a start without any store, a full journal, a frozen Postgres.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use crate::{
    harness::{HaProxy, Octo, OctoBuilder, PrivatePostgres, PrivateRedis, eventually, migrate},
    load::{percentile, send_all},
    tracker::{OFFER, SOON, Table, Tracker, assert_roll_ups_agree, header},
};

/// A journal of so few bytes is soon full.
fn with_a_small_journal(builder: OctoBuilder) -> OctoBuilder {
    builder.env("OCTO_JOURNAL__SEGMENT_BYTES", "8192").env("OCTO_JOURNAL__MAX_BYTES", "65536")
}

/// Clicks until one is not recorded; how many there were.
async fn click_until_full(octo: &Octo) -> i64 {
    for clicks in 1..1000 {
        let click = octo.get("/click?cid=demo").await;
        assert_eq!(click.status(), 302);
        if header(&click, "x-octo-recorded") == "0" {
            return clicks;
        }
    }
    panic!("the journal is not full");
}

/// Waits until a probe answers like this, without a click.
async fn wait_probe(octo: &Octo, path: &str, status: u16) {
    eventually(SOON, async || {
        let answer = octo.get(path).await.status();
        anyhow::ensure!(answer == status, "{path}: {answer}");
        Ok(())
    })
    .await;
}

/// How often the log says that the journal cannot be written.
fn complaints(octo: &Octo) -> usize {
    octo.stderr().matches("the journal cannot be written").count()
}

fn click_requests(count: usize) -> Vec<Vec<u8>> {
    vec![b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(); count]
}

#[tokio::test]
async fn a_start_with_every_store_down_still_redirects_and_stores_later() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut octo =
        Octo::builder().database_url(postgres.url()).redis_url("redis://127.0.0.1:1").start().await;
    octo.create_campaign("demo", OFFER).await;
    octo.kill9().await;
    postgres.stop_fast().await;
    octo.start_again().await;
    eventually(SOON, async || {
        let said = octo.stderr();
        anyhow::ensure!(said.contains("DOES NOT ANSWER"), "the start says so: {said}");
        Ok(())
    })
    .await;
    let answers = send_all(octo.addr(), click_requests(50), 4).await;
    assert_eq!(answers.iter().filter(|a| a.status == 302).count(), 50);
    let health: serde_json::Value = octo.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "degraded");
    assert_eq!(octo.get("/click?cid=unheard-of").await.status(), 404);
    postgres.start_again().await;
    let pool = postgres.pool().await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&pool).await? == 50);
        Ok(())
    })
    .await;
    assert!(octo.stderr().contains("PostgreSQL is ready; storing the records that wait in the journal"));
}

/// A landing page leads on while its click waits in the journal.
#[tokio::test]
async fn clicks_and_out_clicks_are_answered_with_every_store_away_and_stored_exactly_once() {
    const VISITORS: i64 = 40;
    let (mut postgres, mut redis) = (PrivatePostgres::start().await, PrivateRedis::start().await);
    migrate(&postgres.url()).await;
    let mut octo = Octo::builder().database_url(postgres.url()).redis_url(redis.url()).start().await;
    let token = octo.admin_token().await;
    let offer = |n: u8| json!({ "name": format!("o{n}"), "url": format!("https://o{n}.example/?c={{click_id}}&s={{sub1}}") });
    let body = json!({
        "key": "demo",
        "name": "demo",
        "landing_pages": [{ "name": "l", "url": "https://lander.example/?t={click_token}" }],
        "offers": [offer(1), offer(2)],
    });
    octo.api(&token).create(&body).await;
    eventually(SOON, async || {
        anyhow::ensure!(octo.get("/c/demo").await.status() == 302);
        Ok(())
    })
    .await;
    postgres.stop_fast().await;
    redis.kill9().await;
    let mut walked = Vec::new();
    for i in 0..VISITORS {
        if i == VISITORS / 2 {
            // and a start with every store away knows campaigns and keys
            octo.kill9().await;
            octo.start_again().await;
        }
        let click = octo.get(&format!("/c/demo?sub1=v{i}")).await;
        let lander = header(&click, "location");
        let token = lander.strip_prefix("https://lander.example/?t=").expect("the landing page").to_owned();
        walked.push((i, header(&click, "x-click-id"), token));
    }
    for (i, id, token) in &walked {
        for path in [format!("/out?k={token}"), format!("/out/2?k={token}")] {
            let out = octo.get(&path).await;
            assert_eq!((out.status().as_u16(), header(&out, "x-octo-recorded")), (302, String::new()));
            let location = header(&out, "location");
            assert!(
                location.contains(&format!("example/?c={id}.")) && location.ends_with(&format!("&s=v{i}")),
                "{location}"
            );
        }
    }
    postgres.start_again().await;
    redis.start_again().await;
    let pool = postgres.pool().await;
    eventually(Duration::from_mins(1), async || {
        let stored = (Table::Clicks.count(&pool).await?, Table::OutClicks.count(&pool).await?);
        anyhow::ensure!(stored.0 > VISITORS && stored.1 == 2 * VISITORS, "{stored:?}");
        Ok(())
    })
    .await;
    let whole: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM clicks c
         WHERE (SELECT count(*) FROM out_clicks o WHERE o.click_id = c.id AND o.carrier = 'token' AND o.problem IS NULL) = 2",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((whole, Table::DeadLetters.count(&pool).await.unwrap()), (VISITORS, 0));
    let counted: i64 = sqlx::query_scalar("SELECT sum(lander_clicks)::bigint FROM campaign_stats_hourly")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(counted, VISITORS);
    assert_roll_ups_agree(&pool).await;
}

#[tokio::test]
async fn partitions_that_cannot_be_made_keep_no_click_out_of_postgres() {
    let mut tracker = Tracker::start("outage_partitions").await;
    tracker.simple_campaign("demo").await;
    tracker.octo.sigterm();
    tracker.octo.wait_exit(Duration::from_secs(20)).await;
    let broken = "
        DO $$ BEGIN EXECUTE format('DROP TABLE clicks_%s', to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$;
        DROP FUNCTION octo_make_partition";
    sqlx::raw_sql(broken).execute(&tracker.pool).await.unwrap();
    tracker.octo.start_again().await;
    for _ in 0..5 {
        tracker.click("/click?cid=demo").await;
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let said = tracker.octo.stderr();
    assert!(said.contains("cannot set up the partitions yet") && said.contains("SQLSTATE 42883"), "{said}");
}

#[tokio::test]
async fn a_first_start_without_its_database_says_so_in_one_sentence_and_exits_with_3() {
    let output = Octo::builder().database_url("postgres://nobody@127.0.0.1:1/nothing").run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("octo: PostgreSQL cannot be used") && text.contains("database.url"), "{text}");
}

/// An INSERT that is routed to DEFAULT and waits there while the right partition is attached does not fit afterwards.
#[tokio::test]
async fn a_partition_that_is_attached_under_the_drains_hands_makes_no_dead_letter() {
    let tracker = Tracker::start("outage_attach").await;
    tracker.simple_campaign("demo").await;
    let mut owner = tracker.pool.acquire().await.unwrap();
    let attach = "
        BEGIN;
        DO $$
        DECLARE
            day  date := (now() AT TIME ZONE 'UTC')::date;
            name text := 'clicks_' || to_char(day, 'YYYYMMDD');
        BEGIN
            EXECUTE format('ALTER TABLE clicks DETACH PARTITION %I', name);
        END $$;
        COMMIT;
        BEGIN;
        DO $$
        DECLARE
            day  date := (now() AT TIME ZONE 'UTC')::date;
            name text := 'clicks_' || to_char(day, 'YYYYMMDD');
        BEGIN
            EXECUTE format('ALTER TABLE clicks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END $$;";
    sqlx::raw_sql(attach).execute(&mut *owner).await.unwrap();
    tracker.click("/click?cid=demo").await;
    eventually(SOON, async || {
        let waiting = "
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY clicks%'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&tracker.pool).await?;
        anyhow::ensure!(waiting == 1, "{waiting} wait");
        Ok(())
    })
    .await;
    sqlx::raw_sql("COMMIT").execute(&mut *owner).await.unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_is_never_seen_by_a_visitor() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    octo.create_campaign("demo", OFFER).await;
    let quiet = send_all(octo.addr(), click_requests(2000), 16).await;
    postgres.sigstop();
    let frozen = send_all(octo.addr(), click_requests(2000), 16).await;
    postgres.sigcont();
    assert!(frozen.len() == 2000 && frozen.iter().all(|a| a.status == 302));
    println!("p99 quiet {:?}, frozen {:?}", percentile(&quiet, 0.99), percentile(&frozen, 0.99));
    let pool = postgres.pool().await;
    eventually(Duration::from_mins(1), async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(stored == 4000, "{stored} of 4000");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_full_journal_still_redirects_counts_exactly_and_tells_the_balancer() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = with_a_small_journal(Octo::builder().database_url(postgres.url())).start().await;
    octo.create_campaign("demo", OFFER).await;
    postgres.stop_fast().await;
    let start = Instant::now();
    let answers = send_all(octo.addr(), click_requests(1000), 8).await;
    assert!(answers.len() == 1000 && answers.iter().all(|a| a.status == 302));
    assert_eq!(octo.get("/livez").await.status(), 200);
    // a full journal may still have room for one more
    let clicks = 1000 + click_until_full(&octo).await;
    assert_eq!(octo.get("/readyz").await.status(), 503);
    // who asks whether visitors can come at all is told yes, and what they lack
    let redirects = octo.get("/readyz/redirect").await;
    assert_eq!(redirects.status(), 200);
    assert!(redirects.text().await.unwrap().contains("not recorded"));
    assert!(octo.run(&["--listen", &octo.addr().to_string(), "healthcheck"]).await.status.success());
    let health: serde_json::Value = octo.get("/health").await.json().await.unwrap();
    assert!(health["components"][0]["detail"].as_str().unwrap().contains("journal.max_bytes"), "{health}");
    eventually(SOON, async || {
        let writable = octo.metric("octo_journal_writable").await;
        anyhow::ensure!(writable == 0, "{writable}");
        Ok(())
    })
    .await;
    let most = 2 + usize::try_from(start.elapsed().as_secs() / 5).unwrap();
    assert!((1..=most).contains(&complaints(&octo)), "{} lines, not {most}", complaints(&octo));
    // an event is smaller than a click: where no click fits, a few of them may
    let mut events = 0;
    let event = loop {
        let request = octo.client().post(octo.url("/event"));
        let event = request.body(r#"{"event_type":"view","cid":"demo"}"#).send().await.unwrap();
        if event.status() == 503 {
            break event;
        }
        assert_eq!(event.status(), 202);
        events += 1;
        assert!(events < 10, "the journal is not full");
    };
    assert!(event.headers().contains_key("retry-after"));
    let unrecorded = i64::try_from(octo.metric("octo_clicks_unrecorded_total").await).unwrap();
    assert!(unrecorded > 0);
    postgres.start_again().await;
    let pool = postgres.pool().await;
    eventually(SOON, async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(
            stored == clicks - unrecorded,
            "{stored} stored, {unrecorded} unrecorded of {clicks}"
        );
        Ok(())
    })
    .await;
    // drained segments make room again, and nobody has to click to find out
    wait_probe(&octo, "/readyz", 200).await;
    assert!(octo.stderr().contains("the journal can be written again"));
    let recorded_click = octo.get("/click?cid=demo").await;
    assert_eq!(header(&recorded_click, "x-octo-recorded"), "");
    let again = send_all(octo.addr(), click_requests(10), 1).await;
    assert!(again.iter().all(|a| a.status == 302));
    assert_eq!(octo.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_balancer_nodes_whose_journals_are_all_full_redirect_and_come_back_without_a_click() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let node = || with_a_small_journal(Octo::builder().database_url(postgres.url())).start();
    let (one, two) = (node().await, node().await);
    one.create_campaign("demo", OFFER).await;
    eventually(SOON, async || {
        let status = two.client().head(two.url("/click?cid=demo")).send().await?.status();
        anyhow::ensure!(status == 302, "{status}");
        Ok(())
    })
    .await;
    let haproxy = HaProxy::start([one.addr(), two.addr()], |text| text).await;
    let click = async || one.client().get(format!("http://{}/click?cid=demo", haproxy.addr())).send().await;
    let said = async |what: &str| {
        eventually(SOON, async || {
            let log = haproxy.log();
            for server in ["octo/a", "octo/b"] {
                anyhow::ensure!(
                    log.contains(&format!("{server} is {what}")),
                    "{server} is not {what}: {log}"
                );
            }
            Ok(())
        })
        .await;
    };
    postgres.stop_fast().await;
    for node in [&one, &two] {
        click_until_full(node).await;
    }
    said("DOWN").await;
    for _ in 0..100 {
        assert_eq!(click().await.unwrap().status(), 302, "{}", haproxy.log());
    }
    postgres.start_again().await;
    for node in [&one, &two] {
        wait_probe(node, "/readyz", 200).await;
    }
    said("UP").await;
    for _ in 0..10 {
        let recorded = click().await.unwrap();
        assert_eq!((recorded.status().as_u16(), header(&recorded, "x-octo-recorded").as_str()), (302, ""));
    }
}

/// A disk of 1 MiB with what the journal held before, and not a byte free.
const ON_A_FULL_DISK: &str = r#"
    cp -a "$1" "$1.before" && mount -t tmpfs -o size=1m tmpfs "$1" && cp -a "$1.before/." "$1" || exit 1
    cat /dev/zero > "$1/filler" 2>/dev/null
    shift && exec "$@""#;

#[tokio::test]
async fn a_start_on_a_full_disk_redirects_drains_what_was_there_and_records_as_soon_as_it_can() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut before = Octo::builder().database_url(postgres.url()).start().await;
    before.create_campaign("demo", OFFER).await;
    postgres.stop_fast().await;
    send_all(before.addr(), click_requests(20), 1).await;
    before.kill9().await;

    let builder = Octo::builder().database_url(postgres.url()).data_dir(before.data_dir());
    let octo = builder.with_mounts(ON_A_FULL_DISK).start().await;
    assert_eq!(complaints(&octo), 1, "{}", octo.stderr());
    for _ in 0..5 {
        let click = octo.get("/click?cid=demo").await;
        assert_eq!((click.status().as_u16(), header(&click, "x-octo-recorded").as_str()), (302, "0"));
    }
    assert_eq!(octo.get("/readyz").await.status(), 503);
    assert_eq!(octo.get("/readyz/redirect").await.status(), 200);
    assert_eq!(octo.metric("octo_clicks_unrecorded_total").await, 5);
    let health: serde_json::Value = octo.get("/health").await.json().await.unwrap();
    assert!(health["components"][0]["detail"].as_str().unwrap().contains("No space left"), "{health}");

    // what is drained of the journal makes room in it
    postgres.start_again().await;
    let pool = postgres.pool().await;
    let wait_stored = async |clicks: i64| {
        eventually(SOON, async || {
            let stored = Table::Clicks.count(&pool).await?;
            anyhow::ensure!(stored == clicks, "{stored} stored, not {clicks}");
            Ok(())
        })
        .await;
    };
    wait_stored(20).await;
    wait_probe(&octo, "/readyz", 200).await;
    let click = octo.get("/click?cid=demo").await;
    assert_eq!((click.status().as_u16(), header(&click, "x-octo-recorded").as_str()), (302, ""));
    wait_stored(21).await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_is_fatal_at_the_very_first_start_only() {
    let tracker = Tracker::start("outage_no_journal").await;
    tracker.simple_campaign("demo").await;
    let mut octo = tracker.octo;
    octo.kill9().await;
    let url = tracker.database.url();
    let scratch = crate::harness::Scratch::create();
    let above = scratch.dir().join("disk");
    fs::write(&above, "not mounted").unwrap();
    let builder = || Octo::builder().database_url(&url).env("OCTO_JOURNAL__DIR", above.join("journal"));
    let first = builder().run(&["serve"]).await;
    let said = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(3), "{said}");
    assert!(said.contains("octo: the journal in") && said.contains("set journal.dir"), "{said}");

    let octo = builder().data_dir(octo.data_dir()).start().await;
    let click = octo.get("/click?cid=demo").await;
    assert_eq!((click.status().as_u16(), header(&click, "x-octo-recorded").as_str()), (302, "0"));
    // nobody is redirected by it, so it may be sent again
    let visit = octo.client().post(octo.url("/visit")).body(r#"{"cid":"demo"}"#).send().await.unwrap();
    assert_eq!((visit.status().as_u16(), header(&visit, "retry-after").as_str()), (503, "1"));
    assert_eq!(octo.metric("octo_clicks_total{outcome=\"unrecorded\"}").await, 1);
    fs::remove_file(&above).unwrap();
    fs::create_dir(&above).unwrap();
    wait_probe(&octo, "/readyz", 200).await;
    let second = builder().data_dir(octo.data_dir()).run(&["serve"]).await;
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(3) && said.contains("in use by another octo"), "{said}");
    octo.get("/click?cid=demo").await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&tracker.pool).await? == 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_in_an_outage_it_is_known_how_old_the_oldest_record_is() {
    const GAUGE: &str = "octo_journal_oldest_pending_timestamp_seconds";
    let now_s = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut octo = Octo::builder().database_url(postgres.url()).start().await;
    octo.create_campaign("demo", OFFER).await;
    postgres.stop_fast().await;
    let before = now_s();
    octo.get("/click?cid=demo").await;
    let after = now_s();
    send_all(octo.addr(), click_requests(20), 1).await;
    octo.kill9().await;
    tokio::time::sleep(Duration::from_millis(1100).saturating_sub(Duration::from_secs_f64(now_s() - after)))
        .await;
    octo.start_again().await;
    octo.get("/click?cid=demo").await;
    eventually(SOON, async || {
        let time = octo.gauge(GAUGE).await;
        // an id has whole milliseconds
        anyhow::ensure!((before - 0.001..=after).contains(&time), "{time}, not {before} to {after}");
        Ok(())
    })
    .await;
    postgres.start_again().await;
    eventually(SOON, async || {
        let time = octo.gauge(GAUGE).await;
        anyhow::ensure!(time.abs() < f64::EPSILON, "{time}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_answered_click_and_ends_in_time() {
    let mut tracker = Tracker::start("outage_stop").await;
    tracker.simple_campaign("demo").await;
    let load = tokio::spawn(send_all(tracker.octo.addr(), click_requests(20_000), 32));
    tokio::time::sleep(Duration::from_millis(300)).await;
    tracker.octo.sigterm();
    let status = tracker.octo.wait_exit(Duration::from_secs(15)).await;
    assert!(status.success(), "{status}: {}", tracker.octo.stderr());
    let answered = load.await.unwrap().iter().filter(|a| a.status == 302).count();
    assert!(answered > 0);
    let stored = Table::Clicks.count(&tracker.pool).await.unwrap();
    assert!(stored >= i64::try_from(answered).unwrap(), "{stored} stored of {answered} answered");
}
