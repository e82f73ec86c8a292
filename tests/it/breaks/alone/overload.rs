//! More than octo can do: clicks go on, events are told to come back, and afterwards all is as before.
//!
//! With OCTO_PROOF=long the open loop goes on for a minute and prints its figures:
//! `OCTO_PROOF=long cargo nextest run --release --profile proof -E 'test(/^breaks::alone::overload::/)'`

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use serde_json::{Value, json};

use crate::{
    harness::{Octo, OctoBuilder, PrivatePostgres, eventually, is_long, migrate},
    load::{percentile, send_all},
    tracker::{OFFER, SOON, Table, Tracker, header},
    visitors::connect,
};

const CLICK: &[u8] = b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n";
const EVENT: &[u8] =
    b"POST /event HTTP/1.1\r\nHost: t\r\nContent-Length: 34\r\n\r\n{\"event_type\":\"view\",\"cid\":\"demo\"}";

async fn event(octo: &Octo) -> reqwest::Response {
    let body = r#"{"event_type":"view","cid":"demo"}"#;
    octo.client()
        .post(octo.url("/event"))
        .header("origin", "https://page.example")
        .body(body)
        .send()
        .await
        .unwrap()
}

const SHED: &str = "octo_events_total{outcome=\"shed\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_slow_events_are_told_to_come_back_and_clicks_are_recorded() {
    // the journal's syncs 6 to 15 take 900 ms each
    let slow = "inject=fdatasync:delay_enter=900000:when=6..15";
    let strace =
        ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync", "-e", slow, "-o", "/dev/null"];
    let set = |b: OctoBuilder| {
        let b = b.through(&strace).env("OCTO_ADMISSION__DISK_WAIT_MAX_MS", "200");
        b.env("OCTO_JOURNAL__APPEND_TIMEOUT_MS", "20000")
    };
    let tracker = Tracker::start_with("overload_disk", set).await;
    tracker.simple_campaign("demo").await;
    let octo = &tracker.octo;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut visitors = JoinSet::new();
    for _ in 0..4 {
        let (address, is_over) = (octo.addr(), is_over.clone());
        visitors.spawn(async move {
            let mut clicks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let answers = send_all(address, vec![CLICK.to_vec(); 1], 1).await;
                assert!(answers.len() == 1 && answers[0].status == 302, "{answers:?}");
                clicks += 1;
            }
            clicks
        });
    }
    let refused = eventually(Duration::from_secs(30), async || {
        let answer = event(octo).await;
        anyhow::ensure!(answer.status() == 503, "{}", answer.status());
        Ok(answer)
    })
    .await;
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(header(&refused, "access-control-allow-origin"), "https://page.example");
    assert!(refused.text().await.unwrap().contains("\"overloaded\""));
    let pixel = octo.get("/event.gif?event_type=view&cid=demo").await;
    assert_eq!((pixel.status().as_u16(), header(&pixel, "x-octo-dropped").as_str()), (200, "overloaded"));
    assert!(octo.metric(SHED).await >= 2);
    // the disk is itself again
    eventually(Duration::from_secs(40), async || {
        let answer = event(octo).await;
        anyhow::ensure!(answer.status() == 202, "{}", answer.status());
        anyhow::ensure!(octo.metric("octo_events_shedding").await == 0);
        Ok(())
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let clicks: u32 = visitors.join_all().await.iter().sum();
    assert!(clicks > 10);
    assert!(octo.metric("octo_clicks_unrecorded_total").await == 0, "clicks keep the disk");
    let said = |text: &str| octo.stderr().matches(text).count();
    assert_eq!(said("WARN overloaded"), said("INFO no longer overloaded"));
}

#[tokio::test]
async fn a_request_with_events_beyond_the_bound_is_told_to_come_back() {
    let set = |b: OctoBuilder| {
        let slow = "inject=fdatasync:delay_enter=1500000";
        let strace =
            ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync", "-e", slow, "-o", "/dev/null"];
        let b = b.through(&strace).env("OCTO_ADMISSION__DISK_WAIT_MAX_MS", "60000");
        b.env("OCTO_ADMISSION__EVENTS_IN_FLIGHT_MAX", "2").env("OCTO_JOURNAL__APPEND_TIMEOUT_MS", "20000")
    };
    let tracker = Tracker::start_with("overload_bound", set).await;
    tracker.simple_campaign("demo").await;
    let answers = send_all(tracker.octo.addr(), vec![EVENT.to_vec(); 8], 8).await;
    let of = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(of(202) + of(503), 8, "{answers:?}");
    assert!(of(202) >= 2 && of(503) >= 1, "{answers:?}");
}

/// Bytes of the files below a directory.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    };
    entries.map(bytes).sum()
}

#[tokio::test]
async fn events_are_refused_before_they_cost_clicks_their_room_in_the_journal() {
    const JOURNAL_BYTES: u64 = 131_072;

    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url());
    let octo = octo.env("OCTO_JOURNAL__MAX_BYTES", JOURNAL_BYTES.to_string());
    let octo = octo.env("OCTO_JOURNAL__SEGMENT_BYTES", "16384").start().await;
    octo.create_campaign("demo", OFFER).await;
    postgres.stop_fast().await;
    let event = json!({ "event_type": "view", "cid": "demo", "properties": { "text": "x".repeat(3000) } });
    let send = async |path: &str, body: &Value| {
        let request = octo.client().post(octo.url(path)).header("origin", "https://page.example");
        request.json(body).send().await.unwrap()
    };
    let mut accepted = 0;
    let refused = loop {
        let answer = send("/event", &event).await;
        if answer.status() != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "the journal is smaller than that");
    };
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after").as_str()), (503, "10"));
    let allowed = header(&refused, "access-control-allow-origin");
    assert_eq!(allowed, "https://page.example", "pages may read the refusal");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "no_room");
    let on_disk = || bytes_below(&octo.data_dir().join("journal"));
    let bytes = on_disk();
    println!("{accepted} events of 3 KB taken; the journal has {bytes} of {JOURNAL_BYTES} bytes");
    // at the door, too, once it was measured
    eventually(SOON, async || {
        anyhow::ensure!(octo.metric("octo_events_no_room").await > 0);
        Ok(())
    })
    .await;
    assert_eq!(send("/events", &json!([event])).await.status(), 503);
    assert_eq!(send("/visit", &json!({ "cid": "demo" })).await.status(), 503);
    assert_eq!(octo.metric("octo_clicks_total{outcome=\"no_room\"}").await, 1);
    let pixel = octo.get("/event.gif?event_type=view&cid=demo").await;
    assert_eq!((pixel.status().as_u16(), header(&pixel, "x-octo-dropped").as_str()), (200, "no_room"));
    assert!(octo.metric("octo_events_total{outcome=\"no_room\"}").await >= 3);
    let health = octo.get("/health").await.text().await.unwrap();
    assert!(health.contains("events are refused, what is left is for clicks"), "{health}");
    assert_eq!(octo.stderr().matches("WARN the journal is short of room").count(), 1, "{}", octo.stderr());

    let (mut clicks, agent) = (0, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
    loop {
        let click =
            octo.client().get(octo.url("/click?cid=demo")).header("user-agent", agent).send().await.unwrap();
        assert_eq!(click.status(), 302);
        if header(&click, "x-octo-recorded") == "0" {
            break;
        }
        clicks += 1;
    }
    let bytes = on_disk();
    println!("then {clicks} clicks were recorded, until the journal had {bytes} bytes");
    assert!(clicks > 40 && bytes * 100 > JOURNAL_BYTES * 97, "clicks alone fill what is left");
    postgres.start_again().await;
    eventually(Duration::from_mins(1), async || {
        // whatever of the journal still waits for traffic gets some
        octo.client().get(octo.url("/click?cid=demo")).send().await?;
        let answer = send("/event", &json!({ "event_type": "again", "cid": "demo" })).await;
        anyhow::ensure!(answer.status() == 202, "{}", answer.status());
        Ok(())
    })
    .await;
    let pool = postgres.pool().await;
    eventually(SOON, async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'view'")
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(stored == accepted, "{stored} of {accepted}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn events_are_refused_while_the_disk_of_the_journal_is_below_its_floor() {
    let set = |b: OctoBuilder| b.env("OCTO_ADMISSION__DISK_FREE_MIN_BYTES", i64::MAX.to_string());
    let tracker = Tracker::start_with("overload_floor", set).await;
    tracker.simple_campaign("demo").await;
    eventually(SOON, async || {
        let answer = event(&tracker.octo).await;
        anyhow::ensure!(answer.status() == 503, "{}", answer.status());
        Ok(())
    })
    .await;
    let (click, _) = tracker.click("/click?cid=demo").await;
    assert_eq!(header(&click, "x-octo-recorded"), "");
    let health = tracker.octo.get("/health").await.text().await.unwrap();
    assert!(health.contains("disk_free_min_bytes"), "{health}");
}

/// The most memory that octo had, in kB, while it was sent so many batches of a megabyte at once; and their statuses.
async fn peak_of_batches(name: &str, batches: usize, budget_bytes: usize) -> (u64, Vec<u16>) {
    let set = |b: OctoBuilder| {
        // all of them wait for the disk with what they hold
        let slow = "inject=fdatasync:delay_enter=4000000:when=4+";
        let strace =
            ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync", "-e", slow, "-o", "/dev/null"];
        let b = b.through(&strace).env("OCTO_ADMISSION__DISK_WAIT_MAX_MS", "600000");
        let b = b
            .env("OCTO_ADMISSION__LINE_WAIT_MAX_MS", "600000")
            .env("OCTO_JOURNAL__APPEND_TIMEOUT_MS", "60000");
        let b =
            b.env("OCTO_SERVER__BODY_TIMEOUT_MS", "60000").env("OCTO_ADMISSION__QUEUE_PERCENT_MAX", "100");
        b.env("OCTO_ADMISSION__BODIES_BYTES_MAX", budget_bytes.to_string())
    };
    let tracker = Tracker::start_with(name, set).await;
    tracker.simple_campaign("demo").await;
    let properties: serde_json::Map<String, Value> =
        (0..60).map(|n| (format!("p{n}"), json!([1, 2, 3, 4]))).collect();
    let events = vec![json!({ "event_type": "view", "cid": "demo", "properties": properties }); 480];
    let body = serde_json::to_vec(&events).unwrap();
    let head = format!("POST /events HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    let kilobytes = |field: &str| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", tracker.octo.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = kilobytes("VmHWM:");
    let answers = send_all(tracker.octo.addr(), vec![request; batches], batches).await;
    (kilobytes("VmHWM:") - before, answers.iter().map(|answer| answer.status).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_events_have_a_budget_of_bytes_and_what_is_over_is_told_to_come_back() {
    const BATCHES: usize = 24;

    let (without, all) = peak_of_batches("overload_bodies_all", BATCHES, 1 << 30).await;
    let (with, some) = peak_of_batches("overload_bodies", BATCHES, 2 << 20).await;
    let of = |statuses: &[u16], status: u16| statuses.iter().filter(|s| **s == status).count();
    println!(
        "{BATCHES} batches of 1 MB at once: {} MB more at the peak without a budget, {} MB with one of 2 MiB ({:.1} times \
         less); {} of them taken",
        without / 1024,
        with / 1024,
        without as f64 / with as f64,
        of(&some, 202),
    );
    assert_eq!(of(&all, 202), BATCHES, "{all:?}");
    assert!(of(&some, 202) >= 1 && of(&some, 202) + of(&some, 503) == BATCHES, "{some:?}");
    assert!(with * 3 < without, "{with} kB is not much less than {without} kB");
}

#[tokio::test]
async fn who_announces_a_body_and_does_not_send_it_keeps_nobody_out() {
    let set = |b: OctoBuilder| {
        b.env("OCTO_ADMISSION__BODIES_BYTES_MAX", "1048576").env("OCTO_ADMISSION__EVENTS_IN_FLIGHT_MAX", "4")
    };
    let tracker = Tracker::start_with("overload_announced", set).await;
    tracker.simple_campaign("demo").await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut stream = connect(tracker.octo.addr()).await.unwrap();
        stream
            .write_all(b"POST /events HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n[")
            .await
            .unwrap();
        silent.push(stream);
    }
    for _ in 0..5 {
        assert_eq!(event(&tracker.octo).await.status(), 202);
    }
}

/// What came of an open loop.
#[derive(Debug, Default)]
struct Came {
    redirected: AtomicU32,
    accepted: AtomicU32,
    shed: AtomicU32,
    /// Anything else, and connections that broke.
    wrong: AtomicU32,
    /// Arrivals for which no connection was free within their patience.
    given_up: AtomicU32,
}

/// One arrival in five is an event.
fn arrival(number: u32) -> &'static [u8] {
    if number % 5 == 4 { EVENT } else { CLICK }
}

/// Arrivals at `rate` a second whatever becomes of them, over so many connections.
async fn open_loop(address: SocketAddr, rate: u32, run: Duration, connections: u32) -> Arc<Came> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (came, next) = (Arc::new(Came::default()), Arc::new(AtomicU32::new(0)));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (came, next) = (came.clone(), next.clone());
        workers.spawn(async move {
            let mut stream = None;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = started + Duration::from_secs(1) * number / rate;
                if due >= started + run || started.elapsed() >= run {
                    return;
                }
                sleep_until(due).await;
                if due.elapsed() > PATIENCE {
                    came.given_up.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let status = ask(&mut stream, address, arrival(number)).await;
                let count = match (status.as_deref(), number % 5 == 4) {
                    (Ok("302"), false) => &came.redirected,
                    (Ok("202"), true) => &came.accepted,
                    (Ok("503"), true) => &came.shed,
                    _ => &came.wrong,
                };
                count.fetch_add(1, Ordering::Relaxed);
                if status.is_err() {
                    stream = None;
                }
            }
        });
    }
    workers.join_all().await;
    came
}

async fn ask(stream: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    let stream = match stream {
        Some(stream) => stream,
        none => none.insert(connect(address).await?),
    };
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]);
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            let length = length.and_then(|l| l.parse().ok()).unwrap_or(0);
            if answer.len() >= end + 4 + length {
                let is_told = head[9..12] != *"503" || head.contains("retry-after: ");
                return Ok(if is_told { head[9..12].to_owned() } else { "untold".to_owned() });
            }
        }
    }
}

/// Clicks a second and p99 of a closed loop.
async fn closed_loop(address: SocketAddr, clicks: usize) -> (f64, Duration) {
    let started = Instant::now();
    let answers = send_all(address, vec![CLICK.to_vec(); clicks], 64).await;
    assert!(answers.len() == clicks && answers.iter().all(|answer| answer.status == 302));
    (clicks as f64 / started.elapsed().as_secs_f64(), percentile(&answers, 0.99))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_octo_redirects_on_and_is_soon_itself_again() {
    let run = Duration::from_secs(if is_long() { 60 } else { 5 });
    // octo on a quarter of one core, the load on the others: it must be able to ask for more than octo can do
    let (core, others) = cores();
    let tracker = Tracker::start_with("overload", |b| b.through(&["taskset", "-c", &core])).await;
    if let Some(others) = others {
        let own = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-a", "-p", "-c", &others, &own]).output().unwrap();
        assert!(pinned.status.success(), "{pinned:?}");
    }
    let _hogs = [Hog::start(&core), Hog::start(&core), Hog::start(&core)];
    tracker.simple_campaign("demo").await;
    let octo = &tracker.octo;
    closed_loop(octo.addr(), 500).await;
    let (capacity, quiet) = closed_loop(octo.addr(), if is_long() { 60_000 } else { 5000 }).await;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clicks a second")]
    let rate = (3.0 * capacity) as u32;
    let came = open_loop(octo.addr(), rate, run, 3000).await;
    let ended = Instant::now();
    eventually(Duration::from_secs(20), async || {
        let answer = event(octo).await;
        anyhow::ensure!(answer.status() == 202, "{}", answer.status());
        Ok(())
    })
    .await;
    let took = ended.elapsed();
    let (after, p99) = closed_loop(octo.addr(), if is_long() { 30_000 } else { 3000 }).await;
    let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
    let redirected = f64::from(count(&came.redirected)) / run.as_secs_f64();
    // before and after: what else runs on the machine changes what octo can do
    let (before, capacity) = (capacity, f64::midpoint(capacity, after));
    println!(
        "capacity before {before:.0} clicks/s (p99 {quiet:?}), after {after:.0} (p99 {p99:?}); asked for {rate}/s, one in five an event, for {run:?}: \
         {redirected:.0} redirects/s ({:.2} of their mean), events accepted {}, shed {}; no connection free {}; wrong {}; \
         events taken again after {took:?}",
        redirected / capacity,
        count(&came.accepted),
        count(&came.shed),
        count(&came.given_up),
        count(&came.wrong),
    );
    assert_eq!(
        count(&came.wrong),
        0,
        "every answer is a redirect, an acceptance, or says when to come again"
    );
    // wide margins: other tests may run beside this one
    assert!(redirected > 0.3 * capacity && after > 0.3 * before);
    if is_long() {
        assert!(count(&came.shed) > 0);
        // refusing an event costs a build without optimisation about as much as a click
        let least = if cfg!(debug_assertions) { 0.4 } else { 0.8 };
        assert!(redirected > least * capacity && took < Duration::from_secs(5));
    }
}

/// Something else that wants the core.
struct Hog(Child);

impl Hog {
    fn start(core: &str) -> Self {
        let endless = ["-c", core, "sh", "-c", "while :; do :; done"];
        Self(Command::new("taskset").args(endless).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first core this test may use, and the others.
fn cores() -> (String, Option<String>) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let ends = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
    };
    let mut cores = allowed.trim().split(',').flat_map(ends).map(|core| core.to_string());
    let first = cores.next().unwrap();
    let others: Vec<String> = cores.collect();
    (first, (!others.is_empty()).then(|| others.join(",")))
}

fn open_files(octo: &Octo) -> usize {
    fs::read_dir(format!("/proc/{}/fd", octo.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_files_limit_bounds_connections_and_leaves_the_journal_its_files() {
    let set = |b: OctoBuilder| {
        let b = b.through(&["prlimit", "--nofile=160:160"]);
        b.env("OCTO_JOURNAL__SEGMENT_BYTES", "4096").env("OCTO_JOURNAL__MAX_BYTES", "104857600")
    };
    let tracker = Tracker::start_with("few_files", set).await;
    tracker.simple_campaign("demo").await;
    let octo = &tracker.octo;
    assert!(octo.stderr().contains("160 open files are allowed: server.max_connections is"), "it says so");
    let mut busy = connect_to(octo).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = connect_to(octo).await;
        // each begins a segment, or nearly
        let answer = timeout(Duration::from_secs(10), ask(&mut stream, octo.addr(), CLICK)).await;
        assert_eq!(answer.expect("an answer").unwrap(), "302");
        idle.push(stream);
        let answer = timeout(Duration::from_secs(10), ask(&mut busy, octo.addr(), CLICK)).await;
        assert_eq!(answer.expect("an answer").unwrap(), "302");
    }
    assert_eq!(octo.get("/livez").await.status(), 200);
    assert!(open_files(octo) < 160);
    eventually(SOON, async || {
        let segments = octo.metric("octo_journal_segments").await;
        anyhow::ensure!(segments > 5, "{segments} segments: the journal needed no descriptor");
        Ok(())
    })
    .await;
    assert_eq!(octo.metric("octo_clicks_unrecorded_total").await, 0);
    assert!(!octo.stderr().contains("cannot accept"), "{}", octo.stderr());
    tracker.wait_rows(Table::Clicks, 400).await;
}

async fn connect_to(octo: &Octo) -> Option<TcpStream> {
    Some(connect(octo.addr()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_descriptor_open_connections_are_answered_and_idle_ones_make_room() {
    let tracker = Tracker::start("no_files").await;
    tracker.simple_campaign("demo").await;
    let octo = &tracker.octo;
    let mut busy = connect_to(octo).await;
    assert_eq!(ask(&mut busy, octo.addr(), CLICK).await.unwrap(), "302");
    let limit = open_files(octo) + 40;
    let set = Command::new("prlimit")
        .args(["--pid", &octo.pid().to_string(), &format!("--nofile={limit}:{limit}")])
        .status();
    assert!(set.unwrap().success());
    let (mut idle, started) = (Vec::new(), Instant::now());
    for _ in 0..150 {
        let mut stream = connect(octo.addr()).await.unwrap();
        stream.write_all(CLICK).await.unwrap(); // who waits in the kernel's queue is answered later
        idle.push(stream);
        assert_eq!(ask(&mut busy, octo.addr(), CLICK).await.unwrap(), "302", "an open connection lives");
    }
    let answer = timeout(Duration::from_secs(20), octo.get("/livez")).await;
    assert_eq!(answer.expect("idle connections make room").status(), 200);
    let failed = "octo_http_connections_total{outcome=\"failed\"}";
    assert!(octo.metric(failed).await >= 1, "descriptors ran out");
    let said = octo.stderr().matches("cannot accept a connection").count() as u64;
    assert!((1..=2 + started.elapsed().as_secs() / 5).contains(&said), "said {said} times");
    drop(idle);
    let ended = Instant::now();
    eventually(Duration::from_secs(10), async || {
        let answer = octo.client().get(octo.url("/click?cid=demo")).send().await?;
        anyhow::ensure!(answer.status() == 302);
        Ok(())
    })
    .await;
    println!("after they closed, the next was answered within {:?}", ended.elapsed());
}
