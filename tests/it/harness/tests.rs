//! The harness itself: what the other tests rely on without looking.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use sqlx::{Connection, PgConnection, PgPool};

use crate::{
    harness::{
        Answer, Browser, Database, Engine, PrivatePostgres, PrivateRedis, Servers, Site, announced_address,
        eventually, in_browsers,
    },
    visitors::Click,
};

const MOMENT: Duration = Duration::from_secs(10);

async fn make_note(pool: &PgPool, text: &str) {
    sqlx::query("CREATE TABLE IF NOT EXISTS note (text text NOT NULL)").execute(pool).await.expect("a table");
    sqlx::query("INSERT INTO note VALUES ($1)").bind(text).execute(pool).await.expect("a row");
}

async fn notes(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar("SELECT text FROM note ORDER BY text").fetch_all(pool).await?)
}

async fn expect_note(pool: &PgPool, text: &str) -> anyhow::Result<()> {
    let found = notes(pool).await?;
    ensure!(found == [text], "{found:?}");
    Ok(())
}

async fn ping(url: &str) -> anyhow::Result<String> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("PING").query_async(&mut connection).await?)
}

#[tokio::test]
async fn replicas_receive_what_the_primary_got() {
    let database = Database::create("replicas").await;
    make_note(&database.pool().await, "hello").await;
    database.wait_replicas().await;
    for replica in [0, 1] {
        let pool = database.replica_pool(replica).await;
        assert_eq!(notes(&pool).await.unwrap(), ["hello"]);
        let refused = sqlx::query("INSERT INTO note VALUES ('no')").execute(&pool).await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
    }
}

#[tokio::test]
async fn a_paused_replica_lags_until_the_guard_is_dropped() {
    let database = Database::create("paused").await;
    let (primary, replica) = (database.pool().await, database.replica_pool(0));
    make_note(&primary, "before").await;
    database.wait_replicas().await;
    let replica = replica.await;
    let paused = database.pause_replay(0).await;
    make_note(&primary, "while paused").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(notes(&replica).await.unwrap(), ["before"]);
    drop(paused);
    database.wait_replicas().await;
    assert_eq!(notes(&replica).await.unwrap(), ["before", "while paused"]);
}

#[tokio::test]
async fn two_databases_are_independent() {
    let (one, other) = tokio::join!(Database::create("one"), Database::create("other"));
    make_note(&one.pool().await, "only here").await;
    let missing = notes(&other.pool().await).await.unwrap_err();
    assert!(missing.to_string().contains("does not exist"), "{missing}");
    assert_ne!(one.redis_url(), other.redis_url());
}

#[tokio::test]
async fn a_database_is_gone_after_its_test() {
    let database = Database::create("gone").await;
    let (name, pool) = (database.name().to_owned(), database.pool().await);
    let _in_use = pool.acquire().await.unwrap();
    drop(database);
    let mut admin = Servers::shared().await.admin().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn redis_answers() {
    let database = Database::create("redis").await;
    assert_eq!(ping(&database.redis_url()).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_private_postgres_keeps_its_row_through_kill_9_and_a_crash() {
    let mut postgres = PrivatePostgres::start().await;
    make_note(&postgres.pool().await, "kept").await;
    postgres.kill9().await;
    assert!(PgConnection::connect(&postgres.url()).await.is_err(), "nobody answers after kill -9");
    postgres.start_again().await;
    assert_eq!(notes(&postgres.pool().await).await.unwrap(), ["kept"]);
    postgres.restart_immediate().await;
    assert_eq!(notes(&postgres.pool().await).await.unwrap(), ["kept"]);
    postgres.stop_fast().await;
    postgres.start_again().await;
    assert_eq!(notes(&postgres.pool().await).await.unwrap(), ["kept"]);
}

#[tokio::test]
async fn a_frozen_postgres_is_silent_and_then_answers() {
    let postgres = PrivatePostgres::start().await;
    let pool = postgres.pool().await;
    postgres.sigstop();
    let answer =
        tokio::time::timeout(Duration::from_millis(300), sqlx::query("SELECT 1").execute(&pool)).await;
    assert!(answer.is_err(), "a frozen server does not answer");
    postgres.sigcont();
    let pool = postgres.pool().await;
    eventually(MOMENT, async || Ok(sqlx::query("SELECT 1").execute(&pool).await?)).await;
}

#[tokio::test]
async fn a_private_replica_takes_over() {
    let mut primary = PrivatePostgres::start().await;
    let replica = primary.replica(None).await;
    make_note(&primary.pool().await, "replicated").await;
    let pool = replica.pool().await;
    eventually(MOMENT, async || expect_note(&pool, "replicated").await).await;
    primary.kill9().await;
    replica.promote().await;
    make_note(&replica.pool().await, "written after").await;
    assert_eq!(notes(&pool).await.unwrap(), ["replicated", "written after"]);
}

#[tokio::test]
async fn a_delayed_replica_shows_a_commit_later() {
    let primary = PrivatePostgres::start().await;
    let replica = primary.replica(Some(700)).await;
    make_note(&primary.pool().await, "later").await;
    let pool = replica.pool().await;
    assert!(notes(&pool).await.is_err(), "the delay has not passed");
    eventually(MOMENT, async || expect_note(&pool, "later").await).await;
}

#[tokio::test]
async fn a_private_redis_can_be_frozen_and_killed() {
    let mut redis = PrivateRedis::start().await;
    let url = redis.url();
    assert_eq!(ping(&url).await.unwrap(), "PONG");
    redis.sigstop();
    assert!(tokio::time::timeout(Duration::from_millis(200), ping(&url)).await.is_err());
    redis.sigcont();
    assert_eq!(ping(&url).await.unwrap(), "PONG");
    redis.kill9().await;
    assert!(ping(&url).await.is_err());
    redis.start_again().await;
    assert_eq!(ping(&url).await.unwrap(), "PONG");
}

in_browsers! {
    all:
        a_browser_shows_pages_of_made_up_sites_and_tells_what_they_do
        a_browser_that_is_dropped_leaves_no_process_and_no_file;
    chromium:;
    firefox:;
}

async fn a_browser_shows_pages_of_made_up_sites_and_tells_what_they_do(engine: Engine) {
    let inner = Site::start(vec![("/frame", Answer::page("<b id=inner>inside</b>"))]).await;
    let site = Site::start(vec![
        (
            "/",
            Answer::page(
                "<title>first</title><a id=next href='http://one.example/next?a=1'>next</a>
                <iframe src='http://other.example/frame'></iframe>
                <script>addEventListener('pageshow', (e) => window.isFromCache = e.persisted)</script>",
            ),
        ),
        (
            "/next",
            Answer::page(
                "<script>console.log('hello', 7); navigator.sendBeacon('/beacon', 'posted'); throw Error('no')</script>",
            ),
        ),
    ])
    .await;
    let browser =
        Browser::start(engine, &[("one.example", site.addr()), ("other.example", inner.addr())]).await;
    let page = browser.open("http://one.example/").await;
    assert_eq!(page.eval("document.title").await, "first");
    let frame = page.frame("http://other.example/").await;
    assert_eq!(frame.wait_for("document.querySelector('#inner')?.textContent").await, "inside");

    page.click("#next").await;
    page.wait_for("location.search === '?a=1' && document.readyState === 'complete'").await;
    eventually(MOMENT, async || {
        let beacon = browser.requests("/beacon").pop();
        let beacon = beacon.filter(|it| it.status == Some(404));
        ensure!(
            beacon.as_ref().is_some_and(|it| (&*it.method, &*it.body) == ("POST", "posted")),
            "{beacon:?}"
        );
        if engine == Engine::WebKit {
            return Ok(()); // which says nothing
        }
        let said = page.console().await;
        let has = |words: &str| said.iter().any(|it| it.contains(words));
        ensure!(has("Error: no") && (engine != Engine::Chromium || has("hello")), "{said:?}");
        Ok(())
    })
    .await;
    assert!(site.asked().contains(&"/next?a=1".to_owned()), "{:?}", site.asked());

    page.back_to("http://one.example/").await;
    assert_eq!(page.eval("[document.title, isFromCache]").await, serde_json::json!(["first", true]));
    let fetch = "fetch('/blocked?').then(() => 'sent', () => 'failed')";
    browser.block(&["*/blocked*"]);
    assert_eq!(page.eval(fetch).await, "failed");
    browser.block(&[]);
    assert_eq!(page.eval(fetch).await, "sent");
    let statuses: Vec<_> = browser.requests("/blocked").iter().map(|it| it.status).collect();
    assert_eq!((statuses.first(), statuses.last()), (Some(&None), Some(&Some(404))));
}

async fn a_browser_that_is_dropped_leaves_no_process_and_no_file(engine: Engine) {
    let browser = Browser::start(engine, &[]).await;
    let dir = browser.dir().to_owned();
    drop(browser.new_page().await);
    assert!(fs::exists(&dir).unwrap());
    drop(browser);
    assert!(!fs::exists(&dir).unwrap());
    let lives_there =
        |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir));
    assert!(!fs::read_dir("/proc").unwrap().flatten().any(lives_there), "a process of it lives on");
}

/// The child of the test below: no test of its own, so it is ignored and does nothing unless it is told where to report.
#[tokio::test]
#[ignore = "started by a_killed_test_leaves_nothing_behind"]
async fn holds_a_private_postgres_until_killed() {
    let Some(report) = std::env::var_os("OCTO_IT_REPORT") else { return };
    let postgres = PrivatePostgres::start().await;
    fs::write(&report, postgres.pid().to_string()).unwrap();
    // until the pipe closes: were the test below killed itself, this one must not stay
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn a_killed_test_leaves_nothing_behind() {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "harness_test::holds_a_private_postgres_until_killed"])
        .env("OCTO_IT_REPORT", report.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let postmaster: u32 =
        eventually(Duration::from_mins(1), async || Ok(fs::read_to_string(report.path())?.parse()?)).await;
    let data = fs::read_link(format!("/proc/{postmaster}/cwd")).unwrap();
    test.kill().unwrap(); // SIGKILL: no destructor runs
    test.wait().unwrap();
    eventually(MOMENT, async || {
        ensure!(!fs::exists(format!("/proc/{postmaster}"))?, "PostgreSQL still runs");
        ensure!(!fs::exists(data.parent().unwrap())?, "{} is still there", data.display());
        Ok(())
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "the last answer: not yet, 7")]
async fn eventually_tells_the_last_answer() {
    eventually(Duration::from_millis(50), async || anyhow::bail!("not yet, {}", 7) as anyhow::Result<()>)
        .await;
}

#[test]
fn the_announced_address_is_found_in_text_and_json() {
    let expected: SocketAddr = "127.0.0.1:40123".parse().unwrap();
    for line in [
        "2026-11-23T10:00:00Z  INFO listening on http://127.0.0.1:40123\n",
        "listening on http://127.0.0.1:40123, public URL https://t.example\n",
        "{\"level\":\"INFO\",\"fields\":{\"message\":\"listening on http://127.0.0.1:40123\"}}\n",
        "starting\nlistening on http://127.0.0.1:40123/\nmore",
    ] {
        assert_eq!(announced_address(line), Some(expected), "{line}");
    }
    assert_eq!(announced_address("listening on http://[::1]:80\n"), "[::1]:80".parse().ok());
    assert_eq!(announced_address("listening on http://127.0.0.1:401"), None, "half a line is no address");
}

#[test]
fn a_tag_leads_back_to_its_click_and_a_strange_one_to_none() {
    for click in (0..100).map(Click) {
        assert_eq!(Click::of_tag(&click.tag()), Some(click));
    }
    for strange in ["", "alpha", "alpha-1", "beta-x", "half-4"] {
        assert_eq!(Click::of_tag(strange), None, "{strange}");
    }
}
