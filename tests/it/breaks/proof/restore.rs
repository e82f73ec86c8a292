//! Back up, restore, go back, move: the commands of `docs/backup-and-restore.md` and PostgreSQL's own tools, against real
//! servers, while visitors click. Whatever was answered is stored once in the end.

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    breaks::proof::exactly_once::{self, Load, PATIENCE},
    harness::{
        Database, Octo, OctoBuilder, PrivatePostgres, Scratch, api::answer, eventually, free_address, migrate,
    },
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree, header},
    verify::verify,
    visitors::{Seen, Trail, Visitors, create_campaigns},
    wire::Proxy,
};

const PAGE: &str = include_str!("../../../../docs/backup-and-restore.md");

/// A stop takes this long at most on a busy machine.
const STOP: Duration = Duration::from_secs(30);

/// A data directory and a socket: where one octo follows another, with another database.
struct Site {
    scratch: Scratch,
    socket: TcpListener,
    address: SocketAddr,
}

impl Site {
    fn create() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        Self { scratch: Scratch::create(), socket, address }
    }

    fn data(&self) -> PathBuf {
        self.scratch.dir().join("data")
    }

    fn octo(&self) -> OctoBuilder {
        Octo::builder().data_dir(self.data()).socket(&self.socket, "")
    }

    /// A command beside the server, without a database of one's own.
    async fn run(&self, args: &[&str]) -> Output {
        Octo::builder().data_dir(self.data()).run(args).await
    }

    /// The private PostgreSQL, while it runs.
    async fn private(&self) -> PgPool {
        let directory = self.data().join("postgres").display().to_string();
        let host = percent_encoding::utf8_percent_encode(&directory, percent_encoding::NON_ALPHANUMERIC);
        let url = format!("postgres://app_user@localhost/supreme_octosuccotash_db?host={host}");
        PgPool::connect(&url).await.unwrap()
    }

    /// Runs commands of the page here, as its reader would.
    async fn shell(&self, backup: &Path, commands: &str) {
        let octo = Path::new(env!("CARGO_BIN_EXE_octo")).parent().unwrap().display();
        let path = format!("{octo}:{}", std::env::var("PATH").unwrap_or_default());
        let mut sh = tokio::process::Command::new("sh");
        sh.args(["-euc", commands]).env_clear().env("PATH", path).env("BACKUP", backup);
        sh.env("OCTO_SERVER__DATA_DIR", self.data()).current_dir(self.scratch.dir());
        let output = sh.output().await.unwrap();
        assert!(output.status.success(), "{commands}\n{}", said(&output));
    }
}

/// What a command wrote to standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The blocks of commands under a heading of the page.
fn commands(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

async fn stop(mut octo: Octo) {
    octo.sigterm();
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
}

/// Waits until a database holds so many clicks.
async fn wait_stored(pool: &PgPool, clicks: i64) {
    eventually(PATIENCE, async || {
        let stored = Table::Clicks.count(pool).await?;
        ensure!(stored >= clicks, "{stored} clicks are stored, not {clicks}");
        Ok(())
    })
    .await;
}

fn assert_nobody_noticed(seen: &Seen) {
    assert_eq!((seen.error_count(), seen.answered, seen.unrecorded), (0, seen.sent, 0), "{seen}");
}

async fn ask(octo: &Octo, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
    let (status, body) = answer(octo.api(token).request(method, path).json(&body)).await;
    (status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_elsewhere_under_load_has_every_answered_click_once_after_the_switch() {
    let (old, new) = tokio::join!(PrivatePostgres::start(), PrivatePostgres::start());
    migrate(&old.url()).await;
    let site = Site::create();
    let octo = site.octo().database_url(old.url()).start().await;
    create_campaigns(&octo).await;
    let token = octo.admin_token().await;
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start_half_new(site.address, trail.clone());
    let (old_pool, new_pool) = (old.pool().await, new.pool().await);
    wait_stored(&old_pool, 500).await;

    let file = old.dir().join("octo.dump").display().to_string();
    let as_they_are = ["--no-owner", "--no-privileges", "--dbname"];
    let url = old.url();
    old.program("pg_dump", &[&as_they_are[..], &[&url, "--format=custom", "--file", &file]].concat()).await;
    let url = new.url();
    let whole = ["--single-transaction", "--exit-on-error", &file];
    new.program("pg_restore", &[&as_they_are[..], &[&url], &whole].concat()).await;
    let dumped = Table::Clicks.count(&new_pool).await.unwrap();
    wait_stored(&old_pool, dumped + 500).await;

    stop(octo).await;
    let behind = Table::Clicks.count(&old_pool).await.unwrap() - dumped;
    let octo = site.octo().database_url(new.url()).start().await;
    wait_stored(&new_pool, dumped + behind + 500).await;
    let seen = visitors.finish().await;
    let verdict = verify(&octo, &new_pool, &trail).await;
    println!("switched to a dump that was {behind} clicks behind: {seen}; {verdict}");
    assert_nobody_noticed(&seen);
    assert!(behind >= 500, "the dump was {behind} clicks behind");

    // tokens and campaigns came along, and a change of one is obeyed
    let (status, _) = ask(&octo, Method::POST, "/campaigns/alpha/pause", &token, Value::Null).await;
    assert_eq!(status, 200);
    eventually(SOON, async || {
        let answer = octo.get("/c/alpha").await.status();
        ensure!(answer == 404, "a paused campaign without a fallback is still {answer}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_went_back_to_a_moment_gets_everything_again_that_it_had_not() {
    let mut postgres = PrivatePostgres::start_archiving().await;
    migrate(&postgres.url()).await;
    let proxy = Proxy::start(&postgres.url()).await;
    let octo = exactly_once::octo(proxy.url(&postgres.url()), |b| b).await;
    let load = Load::start(&octo);
    load.go_on(5).await;
    postgres.base_backup().await;
    load.go_on(5).await;
    postgres.name_moment("before_the_mistake").await;
    let seq = async |pool: &PgPool| -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM ingest_watermark").fetch_one(pool).await?)
    };
    let pool = postgres.pool().await;
    let named = seq(&pool).await.unwrap();
    eventually(PATIENCE, async || {
        let ahead = seq(&pool).await?;
        ensure!(ahead > named + 200, "record {ahead} is stored, {named} was at the moment");
        Ok(())
    })
    .await;
    let ahead = seq(&pool).await.unwrap();
    postgres.stop_fast().await;

    let restored = postgres.as_it_was("before_the_mistake").await;
    let restored_pool = restored.pool().await;
    let behind = seq(&restored_pool).await.unwrap();
    proxy.point_at(&restored.url());
    load.go_on(10).await;
    let confirmed = load.stop().await;
    exactly_once::assert_exactly_once(&octo, &restored_pool, &confirmed).await;
    println!("went back from record {ahead} to {behind}, {} in the end", confirmed.records);
    assert!(behind > 0 && ahead > behind + 100, "from {ahead} back to {behind}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_backs_up_under_load_holds_every_click_answered_before_the_copy_of_the_journal() {
    let (here, there, backup) = (Site::create(), Site::create(), Scratch::create());
    let backup = backup.dir().join("today");
    let octo = here.octo().start().await;
    create_campaigns(&octo).await;
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start_half_new(here.address, trail.clone());
    let pool = here.private().await;
    wait_stored(&pool, 500).await;

    let [_, block] = commands("Back up")[..] else { panic!("the page exports variables, and backs up") };
    let (dump, copy) = block.split_once("cp -a").expect("the database first, the journal after it");
    here.shell(&backup, dump).await;
    // stored after the dump: only segments that are stored already have these
    let dumped = Table::Clicks.count(&pool).await.unwrap();
    wait_stored(&pool, dumped + 500).await;
    let answered = trail.acked();
    here.shell(&backup, &format!("cp -a{copy}")).await;
    let seen = visitors.finish().await;
    assert_nobody_noticed(&seen);
    let token = std::fs::read_to_string(here.data().join("admin-token")).unwrap();
    pool.close().await;
    drop((octo, here)); // the machine is lost

    let blocks = commands("Restore");
    assert_eq!(blocks.len(), 2, "the database, and the journal");
    for block in blocks {
        there.shell(&backup, block).await;
    }
    let octo = there.octo().start().await;
    assert_eq!(octo.get("/c/alpha").await.status(), 302);
    let (status, campaigns) = ask(&octo, Method::GET, "/campaigns", token.trim(), Value::Null).await;
    assert_eq!((status, campaigns["data"].as_array().map(Vec::len)), (200, Some(4)), "and the demo");
    let pool = there.private().await;
    let stored = wait_drained(&octo, &pool).await;
    let lost = answered.iter().filter(|(tag, id)| stored.get(*tag) != Some(*id)).count();
    println!(
        "restored {} clicks; {} were answered before the copy, {} in all: {seen}",
        stored.len(),
        answered.len(),
        seen.answered
    );
    assert_eq!(lost, 0, "of {} clicks answered before the copy", answered.len());
    let sent = trail.sent();
    assert!(stored.keys().all(|tag| sent.contains(tag)), "nothing is invented");
    assert_roll_ups_agree(&pool).await;
}

/// Waits until nothing waits in the journal, and gives the visitors' clicks: tag and id, each stored once.
async fn wait_drained(octo: &Octo, pool: &PgPool) -> HashMap<String, Uuid> {
    eventually(PATIENCE, async || {
        let streams: i64 =
            sqlx::query_scalar("SELECT count(*) FROM ingest_watermark").fetch_one(pool).await?;
        ensure!(streams >= 2, "the drain has not begun with the stream of this start");
        Ok(())
    })
    .await;
    octo.wait_drained(PATIENCE).await;
    let rows: Vec<(Option<String>, Uuid)> =
        sqlx::query_as("SELECT sub1, id FROM clicks").fetch_all(pool).await.unwrap();
    let ids: HashSet<Uuid> = rows.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), rows.len(), "ids stored once, and rows");
    let tagged = rows.into_iter().filter_map(|(tag, id)| Some((tag?, id)));
    let mut by_tag = HashMap::new();
    for (tag, id) in tagged {
        assert!(by_tag.insert(tag, id).is_none(), "a tag is stored once");
    }
    by_tag
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_postgres_moves_to_ones_own_and_tokens_links_and_reports_go_on_working() {
    let site = Site::create();
    let octo = site.octo().start().await;
    let made_by_octo = std::fs::read_to_string(site.data().join("admin-token")).unwrap();
    let made_by_hand = octo.token("read").await;
    let campaign =
        json!({ "key": "mine", "name": "日本", "offers": [{ "name": "o", "url": "https://o.example/" }] });
    assert_eq!(ask(&octo, Method::POST, "/campaigns", made_by_octo.trim(), campaign).await.0, 201);
    let before = click(&octo, "/c/mine?sub1=%F0%9F%90%99").await;
    found(&octo, before, &made_by_hand).await;

    let mut new = PrivatePostgres::start().await;
    let to = ["database", "move", "--to", &new.url()];
    let refused = site.run(&to).await;
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(text.contains("octo is running on this data directory: stop it first"), "{text}");
    assert!(text.contains("--while-running"), "{text}");
    stop(octo).await;
    let moved = site.run(&to).await;
    let text = said(&moved);
    assert!(moved.status.success(), "{text}");
    assert_eq!(String::from_utf8_lossy(&moved.stdout), format!("DATABASE_URL={}\n", new.url()));
    assert!(
        text.contains("copied 2 campaigns, 1 clicks, 0 events, 0 out-clicks, 2 tokens, 0 dead letters"),
        "{text}"
    );
    assert!(text.contains("is unchanged") && !text.contains("password"), "{text}");
    println!("{text}");

    let octo = site.octo().database_url(new.url()).start().await;
    for token in [made_by_octo.trim(), &made_by_hand] {
        let there = found(&octo, before, token).await;
        assert_eq!((&there["sub1"], &there["campaign_key"]), (&json!("🐙"), &json!("mine")));
    }
    let after = click(&octo, "/c/demo").await;
    assert_eq!(found(&octo, after, &made_by_hand).await["campaign_key"], "demo");
    let (status, report) =
        ask(&octo, Method::GET, "/campaigns/mine/stats", made_by_octo.trim(), Value::Null).await;
    assert_eq!((status, &report["totals"]["clicks"]), (200, &json!(1)), "{report}");
    stop(octo).await;

    // what was saved on disk serves the new database too
    new.stop_fast().await;
    let octo = site.octo().database_url(new.url()).start().await;
    let meanwhile = click(&octo, "/c/mine").await;
    new.start_again().await;
    found(&octo, meanwhile, &made_by_hand).await;
    stop(octo).await;

    // the private one is as it was, and a second move is refused
    let tokens = site.run(&["token", "list"]).await;
    assert_eq!(String::from_utf8_lossy(&tokens.stdout).lines().count(), 2);
    let again = site.run(&to).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("tables and sequences already"), "{}", said(&again));
}

async fn click(octo: &Octo, path: &str) -> Uuid {
    let response = octo.get(path).await;
    assert_eq!(response.status(), 302, "{path}");
    header(&response, "x-click-id").parse().expect("an id")
}

/// The click, once it is stored.
async fn found(octo: &Octo, id: Uuid, token: &str) -> Value {
    eventually(PATIENCE, async || {
        let (status, click) = ask(octo, Method::GET, &format!("/clicks/{id}"), token, Value::Null).await;
        ensure!(status == 200, "{status}: {click}");
        Ok(click)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_move_while_octo_runs_loses_no_answered_click() {
    let site = Site::create();
    let octo = site.octo().start().await;
    create_campaigns(&octo).await;
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start_half_new(site.address, trail.clone());
    let old_pool = site.private().await;
    wait_stored(&old_pool, 500).await;

    let new = PrivatePostgres::start().await;
    // into the configured database: no password on the command line
    let beside = Octo::builder().data_dir(site.data()).database_url(new.url());
    let moved = beside.run(&["database", "move", "--while-running"]).await;
    let text = said(&moved);
    assert!(moved.status.success() && moved.stdout.is_empty(), "{text}");
    assert!(text.contains("restart octo within 24 h (journal.keep_drained_s)"), "{text}");
    let new_pool = new.pool().await;
    let copied = Table::Clicks.count(&new_pool).await.unwrap();
    wait_stored(&old_pool, copied + 500).await;
    old_pool.close().await;
    stop(octo).await;
    let octo = site.octo().database_url(new.url()).start().await;
    wait_stored(&new_pool, copied + 1000).await;
    let seen = visitors.finish().await;
    let verdict = verify(&octo, &new_pool, &trail).await;
    println!("moved under load, {copied} clicks copied: {seen}; {verdict}");
    assert_nobody_noticed(&seen);
}

#[tokio::test]
async fn a_dump_that_is_cut_off_or_broken_restores_nothing() {
    let tracker = Tracker::start("restore_cut").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..20 {
        tracker.click("/c/demo").await;
    }
    tracker.wait_rows(Table::Clicks, 20).await;
    let output = tracker.octo.run(&["database", "dump"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("1 campaigns, 20 clicks, 0 events, 0 out-clicks, 1 tokens"),
        "{}",
        said(&output)
    );
    let whole = output.stdout;

    let target = PrivatePostgres::start().await;
    let pool = target.pool().await;
    let octo = Octo::builder().database_url(target.url());
    let restore = async |dump: &[u8]| octo.run_with_input(&["database", "restore"], dump).await;
    let is_empty = async || {
        let relations = "SELECT count(*) = 0 FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        sqlx::query_scalar::<_, bool>(relations).fetch_one(&pool).await.unwrap()
    };
    let first_row = find(&whole, b"COPY public.clicks_") + 2000;
    for cut in [0, whole.len() / 3, first_row, find(&whole, b"-- PostgreSQL database dump complete")] {
        let output = restore(&whole[..cut]).await;
        assert_eq!(output.status.code(), Some(1), "cut at {cut}");
        assert!(said(&output).contains("the dump is cut off"), "cut at {cut}: {}", said(&output));
        assert!(is_empty().await, "cut at {cut}");
    }
    let mut broken = whole.clone();
    let at = find(&broken, b"ALTER TABLE ONLY public.offers");
    broken[at] = b'X';
    let output = restore(&broken).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("syntax error") && said(&output).contains("nothing was restored"));
    assert!(is_empty().await);

    let output = restore(&whole).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(Table::Clicks.count(&pool).await.unwrap(), 20);
    let output = restore(&whole).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("make an empty one with `createdb"), "{}", said(&output));
}

fn find(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).position(|window| window == part).expect("it is there")
}

/// A database for a dump: without what the template brought.
async fn empty(name: &str) -> Database {
    let database = Database::create(name).await;
    let pool = database.pool().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&pool).await.unwrap();
    database
}

#[tokio::test]
async fn what_neither_an_old_dump_nor_the_journal_has_is_counted() {
    let (old, new) = tokio::join!(Database::create("restore_old"), empty("restore_gap"));
    let site = Site::create();
    let small = |builder: OctoBuilder| builder.env("OCTO_JOURNAL__SEGMENT_BYTES", "4096");
    let octo = small(site.octo()).database_url(old.url()).start().await;
    create_campaigns(&octo).await;
    let dump = octo.run(&["database", "dump"]).await;
    for n in 0..100 {
        click(&octo, &format!("/c/alpha?sub1={n}&sub2={}", "x".repeat(200))).await;
    }
    wait_stored(&old.pool().await, 100).await;
    let journal = octo.inspect_journal().await;
    stop(octo).await;

    // as it is when the time of the first segment is over
    let (stream, segments) = (&journal["streams"][0]["id"], &journal["streams"][0]["segments"]);
    let missing = segments[0]["records"].as_i64().expect("a number");
    assert!(missing > 0 && segments.as_array().unwrap().len() > 2, "{journal}");
    let stream = site.data().join("journal").join(stream.as_str().unwrap());
    std::fs::remove_file(stream.join(format!("{:020}.seg", 0))).unwrap();

    let builder = small(site.octo()).database_url(new.url());
    let restored = builder.run_with_input(&["database", "restore"], &dump.stdout).await;
    assert!(restored.status.success(), "{}", said(&restored));
    let octo = builder.start().await;
    let pool = new.pool().await;
    wait_stored(&pool, 100 - missing).await;
    assert_eq!(octo.metric("octo_journal_damaged_records_total").await, u64::try_from(missing).unwrap());
    assert_eq!(Table::Clicks.count(&pool).await.unwrap(), 100 - missing);
    assert_roll_ups_agree(&pool).await;
}

#[tokio::test]
async fn a_database_that_cannot_take_a_dump_is_one_plain_sentence() {
    let shared = Database::create("restore_refused").await;
    let server = PrivatePostgres::start().await;
    let mut admin = server.admin().await;
    for statement in [
        "CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 OWNER app_user",
        "CREATE DATABASE foreign_one TEMPLATE template0",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC", // of servers before 15
    ] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let named = |name: &str| server.url().replace("supreme_octosuccotash_db", name);
    let nobody = format!("postgres://app_user@{}/x", free_address());
    for (url, sentence) in [
        (named("narrow"), "narrow on 127.78."),
        (
            named("narrow"),
            "has the encoding LATIN1, which cannot hold every name and value; make one with `createdb",
        ),
        (named("foreign_one"), "app_user may not make tables in the schema public of foreign_one"),
        (named("nowhere"), "database \"nowhere\" does not exist"),
        (shared.url(), "tables and sequences already; make an empty one with `createdb"),
        (shared.replica_url(0), "takes no writes: name the primary"),
        (nobody, "cannot be used: the database is unavailable"),
    ] {
        let octo = Octo::builder().database_url(&url);
        let output = octo.run_with_input(&["database", "restore"], b"SELECT 1;\n").await;
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        let text = said(&output);
        assert!(text.contains(sentence) && text.lines().count() == 1, "{sentence}: {text}");
        assert!(!text.contains(&url), "no password: {text}");
    }
    let output = Octo::builder().run(&["database", "move", "--to", &server.url()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no private PostgreSQL in"), "{}", said(&output));
}

#[tokio::test]
async fn every_command_of_the_page_is_one_that_octo_has() {
    let mut seen = 0;
    for line in PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).flat_map(str::lines)
    {
        let Some(at) =
            line.find("octo ").filter(|at| line[..*at].split(' ').all(|w| w.is_empty() || w.contains('=')))
        else {
            continue;
        };
        let words = line[at..].split_whitespace().skip(1);
        let args: Vec<&str> =
            words.take_while(|w| !w.starts_with(['<', '>', '|', '#'])).chain(["--help"]).collect();
        let help = Octo::builder().run(&args).await;
        assert!(help.status.success(), "{line}: {}", said(&help));
        seen += 1;
    }
    assert!(seen >= 4, "{seen} commands of octo");
}
