//! The start without configuration, and starts that must fail.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{Octo, OctoBuilder, PrivatePostgres, eventually, free_address, migrate},
    tracker::{OFFER, SOON, Table, header},
};

/// From exec to the first redirect, whatever the stores do; a debug build on a busy machine is given more.
const FIRST_REDIRECT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 1000 });

/// A value of the lines that end this start: an earlier one listened elsewhere.
fn printed(octo: &Octo, name: &str) -> String {
    let stderr = octo.stderr_of_this_start();
    let line = stderr.lines().find_map(|l| l.trim_start().strip_prefix(name)).unwrap_or_default();
    line.trim().split(' ').next().unwrap_or_default().to_owned()
}

async fn ready(octo: &Octo) {
    eventually(SOON, async || {
        anyhow::ensure!(!printed(octo, "admin token").is_empty(), "not announced yet");
        Ok(())
    })
    .await;
}

/// The token of the first start, which is the one that shows it.
fn token(octo: &Octo) -> String {
    let shown: Vec<_> = octo.stderr().matches("octo_").map(str::to_owned).collect();
    assert_eq!(shown.len(), 1, "a token is shown once:\n{}", octo.stderr());
    let stderr = octo.stderr();
    let line = stderr.lines().find_map(|l| l.trim_start().strip_prefix("admin token")).unwrap_or_default();
    line.trim().split(' ').next().unwrap_or_default().to_owned()
}

async fn stored_click(octo: &Octo, id: &str) -> Value {
    let token = token(octo);
    eventually(SOON, async || {
        let response = octo.api(&token).get(&format!("/clicks/{id}")).send().await?;
        anyhow::ensure!(response.status() == 200, "{}", response.status());
        Ok(response.json().await?)
    })
    .await
}

#[tokio::test]
async fn without_configuration_octo_brings_its_own_postgres_and_finds_its_data_again() {
    let start = Instant::now();
    let mut octo = Octo::builder().start().await;
    ready(&octo).await;
    println!("ready after {:?}", start.elapsed());
    let link = printed(&octo, "click link");
    let response = octo.client().get(&link).send().await.unwrap();
    assert_eq!(response.status(), 302);
    let id = header(&response, "x-click-id");
    assert!(header(&response, "location").contains(&id));
    assert_eq!(stored_click(&octo, &id).await["id"], id);

    octo.kill9().await;
    octo.start_again().await;
    ready(&octo).await;
    assert_eq!(stored_click(&octo, &id).await["id"], id, "found after kill -9");
    let second = octo.client().get(printed(&octo, "click link")).send().await.unwrap();
    assert_eq!(stored_click(&octo, &header(&second, "x-click-id")).await["campaign_key"], "demo");

    octo.sigterm();
    assert!(octo.wait_exit(Duration::from_secs(20)).await.success(), "{}", octo.stderr());
    octo.start_again().await;
    ready(&octo).await;
    assert_eq!(stored_click(&octo, &id).await["id"], id, "found after a stop");
    octo.sigterm();
    octo.wait_exit(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_taken_port_is_one_plain_sentence_and_exit_code_3() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Octo::builder().env("OCTO_SERVER__LISTEN", &address).run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("octo: {address} is in use")) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn a_data_directory_serves_one_octo_at_a_time() {
    let octo = Octo::builder().start().await;
    let other = Octo::builder().data_dir(octo.data_dir()).run(&["serve"]).await;
    assert_eq!(other.status.code(), Some(3));
    let text = String::from_utf8_lossy(&other.stderr);
    assert!(text.contains("in use by another octo"), "{text}");
    octo.sigterm();
    let mut octo = octo;
    octo.wait_exit(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_listener_on_every_address_is_announced_by_one_that_can_be_opened() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let start = async |listen: &str, public_url: &str| {
        let builder = Octo::builder().database_url(postgres.url()).env("OCTO_SERVER__LISTEN", listen);
        let octo = builder.env("OCTO_SERVER__PUBLIC_URL", public_url).start().await;
        ready(&octo).await;
        octo
    };
    for listen in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "127.0.0.1:0", "[::1]:0"] {
        let octo = start(listen, "").await;
        let url = printed(&octo, "public URL");
        assert!(!url.contains("0.0.0.0") && !url.contains("[::]"), "{listen}: {url}");
        let answer = octo.client().get(format!("{url}/readyz")).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{listen}: {url}");
        let token = octo.admin_token().await;
        let body = json!({ "name": listen, "offers": [{ "name": "o", "url": "https://o.example/" }] });
        // as seen by the machine itself, so that the link is the same for everybody who asks
        let request = octo.client().post(format!("{url}/api/v1/campaigns")).bearer_auth(token).json(&body);
        let made: Value = request.send().await.unwrap().json().await.unwrap();
        let link = made["click_url"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        assert!(link.starts_with(&url), "{listen}: {link}");
        assert_eq!(octo.client().get(&link).send().await.unwrap().status(), 302, "{link}");
    }
    let octo = start("0.0.0.0:0", "https://go.example.com/").await;
    assert_eq!(printed(&octo, "public URL"), "https://go.example.com");
}

/// A database that cannot hold every language.
async fn latin1(postgres: &PrivatePostgres) -> String {
    let statement = "
        CREATE DATABASE latin OWNER app_user ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    sqlx::query(statement).execute(&mut postgres.admin().await).await.unwrap();
    let (server, _) = postgres.url().rsplit_once('/').map(|(s, d)| (s.to_owned(), d.to_owned())).unwrap();
    format!("{server}/latin")
}

#[tokio::test]
async fn a_database_that_is_not_utf_8_is_refused_before_it_holds_anything() {
    let postgres = PrivatePostgres::start().await;
    let url = latin1(&postgres).await;
    let octo = Octo::builder().database_url(&url);
    for (args, code) in [(&["serve"][..], 3), (&["migrate"], 1), (&["migrate", "up"], 1)] {
        let output = octo.run(args).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        let plain = "the encoding of the database is LATIN1 and must be UTF8";
        assert!(
            said.contains(plain) && said.contains("ENCODING 'UTF8' TEMPLATE template0"),
            "{args:?}: {said}"
        );
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn a_node_with_campaigns_redirects_on_a_database_that_is_not_utf_8_and_says_so_loudly() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let foreign = latin1(&postgres).await;
    let data = crate::harness::Scratch::create();
    let builder = |url: &str| Octo::builder().data_dir(data.dir().join("data")).database_url(url);
    with_campaign(builder(&postgres.url())).await;

    // nothing of ours in it: it is not begun, and clicks wait
    let mut octo = builder(&foreign).start().await;
    assert_eq!(octo.get("/click?cid=demo&sub1=ascii").await.status(), 302);
    health_says(&octo, "the encoding of the database is LATIN1 and must be UTF8").await;
    assert!(octo.stderr().contains("the encoding of the database is LATIN1 and must be UTF8"));
    octo.sigterm();
    octo.wait_exit(SOON).await;

    // our tables are in it already: what can be stored is stored
    migrate(&foreign).await;
    let octo = builder(&foreign).start().await;
    octo.create_campaign("demo", OFFER).await;
    assert_eq!(octo.get("/click?cid=demo&sub1=%E6%97%A5%E6%9C%AC").await.status(), 302);
    health_says(&octo, "its encoding is LATIN1 and not UTF8").await;
    let mut connection = PgConnection::connect(&foreign).await.unwrap();
    eventually(SOON, async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE sub1 = 'ascii'")
            .fetch_one(&mut connection)
            .await?;
        let letters: i64 =
            sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&mut connection).await?;
        ensure!((stored, letters) == (1, 1), "{stored} stored, {letters} dead letters");
        Ok(())
    })
    .await;
    assert!(octo.stderr().contains("become dead letters; `octo journal retry`"), "{}", octo.stderr());
}

async fn health_says(octo: &Octo, words: &str) {
    eventually(SOON, async || {
        let health = octo.get("/health").await.text().await?;
        ensure!(health.contains(words) && health.contains("degraded"), "{health}");
        Ok(())
    })
    .await;
}

/// A start that makes the campaign `demo` and leaves it in the data directory.
async fn with_campaign(builder: OctoBuilder) -> Octo {
    let mut octo = builder.start().await;
    octo.create_campaign("demo", OFFER).await;
    eventually(SOON, async || {
        let saved = fs::read_to_string(octo.data_dir().join("campaigns.json"))?;
        ensure!(saved.contains("\"demo\""), "not saved yet");
        Ok(())
    })
    .await;
    octo.sigterm();
    assert!(octo.wait_exit(Duration::from_secs(30)).await.success(), "{}", octo.stderr());
    octo
}

/// Starts octo again on an address that is known before, and gives the time until a click was redirected there.
async fn first_redirect(octo: &mut Octo, address: SocketAddr) -> Duration {
    let started = Instant::now();
    let redirect = async {
        loop {
            if redirects(address).await.unwrap_or(false) {
                return started.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (took, ()) = tokio::join!(redirect, octo.start_again());
    took
}

async fn redirects(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /c/demo HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 302"))
}

/// What stands in the way of a start, and what must end before it is out of the way.
struct Obstacle {
    name: &'static str,
    octo: Octo,
    address: SocketAddr,
    held: Vec<Box<dyn std::any::Any + Send>>,
}

fn on_known_address(builder: OctoBuilder) -> (OctoBuilder, SocketAddr) {
    let address = free_address();
    (builder.env("OCTO_SERVER__LISTEN", address.to_string()), address)
}

async fn nothing_special() -> Obstacle {
    let postgres = PrivatePostgres::start().await;
    let (builder, address) = on_known_address(Octo::builder().database_url(postgres.url()));
    let octo = with_campaign(builder).await;
    Obstacle { name: "nothing special", octo, address, held: vec![Box::new(postgres)] }
}

async fn private_postgres() -> Obstacle {
    let (builder, address) = on_known_address(Octo::builder());
    let octo = with_campaign_of_the_start(builder).await;
    Obstacle { name: "nothing special, private PostgreSQL", octo, address, held: Vec::new() }
}

async fn postgres_refuses() -> Obstacle {
    let mut postgres = PrivatePostgres::start().await;
    let (builder, address) = on_known_address(Octo::builder().database_url(postgres.url()));
    let octo = with_campaign(builder).await;
    postgres.stop_fast().await;
    Obstacle { name: "PostgreSQL refuses connections", octo, address, held: vec![Box::new(postgres)] }
}

async fn postgres_is_silent() -> Obstacle {
    let mut postgres = PrivatePostgres::start().await;
    let (builder, address) = on_known_address(Octo::builder().database_url(postgres.url()));
    let octo = with_campaign(builder).await;
    let place = url::Url::parse(&postgres.url()).unwrap();
    postgres.stop_fast().await;
    // accepts and never answers
    let place = (place.host_str().unwrap().to_owned(), place.port().unwrap());
    let listener = TcpListener::bind(place).await.unwrap();
    let silence = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    Obstacle {
        name: "PostgreSQL is silent",
        octo,
        address,
        held: vec![Box::new(postgres), Box::new(silence)],
    }
}

/// As `pg_dump` does for as long as it runs, over a midnight after which a partition is to be made.
async fn a_lock_is_held() -> Obstacle {
    let postgres = PrivatePostgres::start().await;
    let (builder, address) = on_known_address(Octo::builder().database_url(postgres.url()));
    let octo = with_campaign(builder).await;
    let mut dump = postgres.admin().await;
    let due = "
        DO $$ BEGIN
            EXECUTE format('DROP TABLE clicks_%s', to_char((now() AT TIME ZONE 'UTC')::date + 7, 'YYYYMMDD'));
        END $$";
    sqlx::raw_sql(due).execute(&mut dump).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE clicks_default IN ACCESS SHARE MODE").execute(&mut dump).await.unwrap();
    Obstacle {
        name: "a lock is held, a partition is due",
        octo,
        address,
        held: vec![Box::new(dump), Box::new(postgres)],
    }
}

async fn the_private_cluster_is_broken() -> Obstacle {
    let (builder, address) = on_known_address(Octo::builder());
    let octo = with_campaign_of_the_start(builder).await;
    fs::write(octo.data_dir().join("postgres/PG_VERSION"), "9\n").unwrap();
    Obstacle { name: "private cluster of another version", octo, address, held: Vec::new() }
}

/// Puts a disk of 1 MiB without a free byte over the journal, with what was in it, once `journal.full` is there.
const ON_A_FULL_DISK_IF_ASKED: &str = r#"
    if [ -e "$1.full" ]; then
        cp -a "$1" "$1.before" && mount -t tmpfs -o size=1m tmpfs "$1" && cp -a "$1.before/." "$1" || exit 1
        cat /dev/zero > "$1/filler" 2>/dev/null
    fi
    shift && exec "$@""#;

async fn the_journals_disk_is_full() -> Obstacle {
    let postgres = PrivatePostgres::start().await;
    let (builder, address) = on_known_address(Octo::builder().database_url(postgres.url()));
    let octo = with_campaign(builder.with_mounts(ON_A_FULL_DISK_IF_ASKED)).await;
    fs::write(octo.data_dir().join("journal.full"), "").unwrap();
    Obstacle { name: "the journal's disk is full", octo, address, held: vec![Box::new(postgres)] }
}

/// As [`with_campaign`], with the campaign that a start without configuration makes.
async fn with_campaign_of_the_start(builder: OctoBuilder) -> Octo {
    let mut octo = builder.start().await;
    ready(&octo).await;
    octo.sigterm();
    assert!(octo.wait_exit(Duration::from_mins(1)).await.success(), "{}", octo.stderr());
    octo
}

/// `cargo nextest run -E 'test(whatever_the_stores_do)' --no-capture` prints the table; with `--release` it is the one
/// of a release build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_stores_do_the_first_redirect_comes_within_a_second_or_so() {
    let mut table = Vec::new();
    let mut late = Vec::new();
    for mut obstacle in [
        nothing_special().await,
        private_postgres().await,
        postgres_refuses().await,
        postgres_is_silent().await,
        a_lock_is_held().await,
        the_private_cluster_is_broken().await,
        the_journals_disk_is_full().await,
    ] {
        let took = first_redirect(&mut obstacle.octo, obstacle.address).await;
        table.push(format!("  {:<40} {took:.0?}", obstacle.name));
        if took > FIRST_REDIRECT {
            late.push(obstacle.name);
        }
        obstacle.octo.sigterm();
        let ended = obstacle.octo.wait_exit(Duration::from_mins(1)).await;
        assert!(ended.success(), "{}: {}", obstacle.name, obstacle.octo.stderr());
    }
    let table = table.join("\n");
    println!("from exec to the first redirect, with saved campaigns:\n{table}");
    assert!(late.is_empty(), "later than {FIRST_REDIRECT:?}: {late:?}\n{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_held_lock_clicks_are_redirected_and_none_is_missing_when_it_ends() {
    let mut obstacle = a_lock_is_held().await;
    let pool = {
        let postgres = obstacle.held[1].downcast_ref::<PrivatePostgres>().unwrap();
        postgres.pool().await
    };
    first_redirect(&mut obstacle.octo, obstacle.address).await;
    for _ in 0..50 {
        let answer = obstacle.octo.get("/click?cid=demo").await;
        assert_eq!((answer.status().as_u16(), header(&answer, "x-octo-recorded")), (302, String::new()));
    }
    drop(obstacle.held.remove(0)); // the dump has ended
    eventually(Duration::from_mins(2), async || {
        let stored = Table::Clicks.count(&pool).await?;
        ensure!(stored >= 51, "{stored} stored");
        Ok(())
    })
    .await;
}
