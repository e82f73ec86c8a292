//! Proof for strangers: the real binary under load, while what it stands on is killed, frozen, filled up or taken away.
//!
//! In every run visitors click at a fixed rate and keep a trail of what they were told (`visitors`); afterwards every
//! row of PostgreSQL is compared with that trail (`verify`). Each run prints one line: what a visitor saw, and what
//! was lost. `OCTO_PROOF=long` makes the runs ten times as long; see docs/proof.md.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use deadpool_redis::redis;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{interval, sleep},
};

use crate::{
    harness::{
        Octo, OctoBuilder, PrivatePostgres, PrivateRedis, Scratch, eventually, free_address, is_long,
        metrics::value_of, migrate,
    },
    tracker::{SOON, Table},
    verify::{Verdict, verify},
    visitors::{Click, Seen, Trail, Visitors, connect, create_campaigns},
    wire::Proxy,
};

/// A server is to answer everybody else within this time while one thing fails; generous, for a busy machine.
const P99_MAX: Duration = Duration::from_secs(1);
/// What a tmpfs of the run with a full disk holds.
const DISK_BYTES: u64 = 32 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octo_killed_again_and_again_loses_no_answered_click() {
    let mut run = Run::start(|b| b).await;
    let random_seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(random_seed);
    let visitors = run.visitors();
    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < at_length(8) {
        sleep(Duration::from_millis(random.u64(200..2000))).await;
        run.octo.kill9().await;
        kills += 1;
        run.octo.start_again().await;
    }
    sleep(Duration::from_millis(500)).await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report(&format!("octo killed {kills} times (seed {random_seed})"), &seen, &verdict);
    assert!(kills >= 3, "{kills} kills");
    assert_only_broken_connections(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_costs_no_visitor_anything() {
    let mut run = Run::start(|b| b).await;
    let visitors = run.visitors();
    for _ in 0..rounds(2) {
        sleep(Duration::from_secs(1)).await;
        run.postgres.kill9().await;
        sleep(Duration::from_millis(500)).await;
        run.postgres.start_again().await;
    }
    sleep(Duration::from_secs(1)).await;
    let seen = visitors.finish().await;
    report("kill -9 of the postmaster", &seen, &run.verify().await);
    assert_nobody_noticed(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_restart_of_postgres_costs_no_visitor_anything() {
    let mut run = Run::start(|b| b).await;
    let visitors = run.visitors();
    for _ in 0..rounds(3) {
        sleep(Duration::from_secs(1)).await;
        run.postgres.restart_immediate().await;
    }
    sleep(Duration::from_secs(1)).await;
    let seen = visitors.finish().await;
    report("pg_ctl restart -m immediate", &seen, &run.verify().await);
    assert_nobody_noticed(&seen);
}

/// The drain gives up long before Postgres thaws: what its old connection had asked for is done behind its back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_costs_no_visitor_anything_and_stores_nothing_twice() {
    let impatient = |b: OctoBuilder| {
        b.env("OCTO_DRAIN__STATEMENT_TIMEOUT_MS", "500").env("OCTO_DATABASE__CONNECT_TIMEOUT_MS", "500")
    };
    let run = Run::start(impatient).await;
    let visitors = run.visitors();
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        run.postgres.sigstop();
        sleep(at_length(3) / 3).await;
        run.postgres.sigcont();
    }
    sleep(Duration::from_secs(1)).await;
    let seen = visitors.finish().await;
    report("PostgreSQL frozen three times", &seen, &run.verify().await);
    assert_nobody_noticed(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_lagging_replica_loses_no_answered_click() {
    let (mut run, proxy) = Run::start_behind_proxy().await;
    let replica = run.postgres.replica(Some(1000)).await;
    let visitors = run.visitors();
    sleep(at_length(2)).await;
    replica.cut_off().await;
    let held_back = run.stored().await;
    eventually(at_length(10), async || {
        let stored = run.stored().await;
        ensure!(stored > held_back + 500, "the primary stored {stored}, not 500 more than {held_back}");
        Ok(())
    })
    .await;
    let before = run.stored().await;
    run.postgres.kill9().await;
    replica.promote().await;
    run.pool = replica.pool().await;
    let after = run.stored().await;
    proxy.point_at(&replica.url());
    sleep(at_length(2)).await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report(&format!("failover to a replica {} clicks behind", before - after), &seen, &verdict);
    assert!(after < before, "the database went back in time: {before} stored, then {after}");
    assert_nobody_noticed(&seen);
}

/// As after a restored snapshot of a virtual machine: two journals hold the same streams, and both are drained at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_octos_on_copies_of_one_journal_store_each_click_once() {
    let in_small_steps = |b: OctoBuilder| {
        b.env("OCTO_DRAIN__BATCH_ROWS", "10")
            .env("OCTO_DRAIN__RETRY_MIN_MS", "10")
            .env("OCTO_DRAIN__RETRY_MAX_MS", "20")
    };
    let mut run = Run::start(in_small_steps).await;
    run.postgres.stop_fast().await;
    let visitors = run.visitors();
    sleep(at_length(3)).await;
    let seen = visitors.finish().await;
    run.octo.kill9().await;
    let scratch = Scratch::create();
    let copied =
        Command::new("cp").arg("-a").args([run.octo.data_dir(), scratch.dir().join("data")]).status();
    assert!(copied.unwrap().success());
    run.octo.start_again().await;
    let twin = in_small_steps(Octo::builder().database_url(run.postgres.url()))
        .data_dir(scratch.dir().join("data"))
        .start()
        .await;
    run.postgres.start_again().await;
    let verdict = run.verify().await;
    verify(&twin, &run.pool, &run.trail).await;
    let mut moved = 0;
    for octo in [&run.octo, &twin] {
        moved += octo.metric("octo_drain_errors_total{class=\"moved\"}").await;
    }
    report(&format!("two octos on copies of one journal ({moved} batches refused)"), &seen, &verdict);
    assert_nobody_noticed(&seen);
    assert!(moved > 0, "both drained at the same time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_visitors_are_redirected_and_no_answered_click_is_lost() {
    let mut run = Run::start(on_a_small_disk).await;
    let disk = run.octo.path_as_it_sees(&run.octo.data_dir().join("journal"));
    let visitors = run.visitors();
    sleep(Duration::from_secs(1)).await;
    run.postgres.stop_fast().await;
    for _ in 0..rounds(1) {
        let filler = fill(&disk);
        wait_readiness(&run.octo, 503).await;
        sleep(Duration::from_secs(1)).await;
        fs::remove_file(filler).unwrap();
        wait_readiness(&run.octo, 200).await;
    }
    sleep(Duration::from_secs(1)).await;
    run.postgres.start_again().await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report("the journal's disk full, Postgres stopped", &seen, &verdict);
    assert_nobody_noticed(&seen);
    assert!(seen.unrecorded > 0, "the disk was full");
    run.assert_counted(&seen, &verdict).await;
}

/// A disk of the journal's own that is smaller than `journal.max_bytes`, so that the kernel says no and not octo.
fn on_a_small_disk(builder: OctoBuilder) -> OctoBuilder {
    let script = format!(
        "mkdir -p \"$1\" && mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$1\" && shift && exec \"$@\""
    );
    builder.with_mounts(&script)
}

/// Fills a disk up to its last 64 KiB, which is left to the clicks.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("filler");
    let mut filler = File::create_new(&path).unwrap();
    let block = vec![0; 64 << 10];
    let mut written = 0;
    let error = loop {
        match filler.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => break error,
        }
        assert!(written <= DISK_BYTES, "the disk is not a small one");
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    filler.set_len(written - block.len() as u64).unwrap();
    path
}

async fn wait_readiness(octo: &Octo, status: u16) {
    eventually(SOON, async || {
        let answer = octo.get("/readyz").await.status();
        ensure!(answer == status, "/readyz answers {answer}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_fdatasync_fails_now_and_then_no_answered_click_is_lost() {
    let run = Run::start(|b| injecting(b, "fdatasync:error=EIO:when=20..2000+20")).await;
    let visitors = run.visitors();
    sleep(at_length(5)).await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report("every twentieth fdatasync fails", &seen, &verdict);
    assert_nobody_noticed(&seen);
    assert_eq!(seen.unrecorded, 0, "a batch whose file failed goes to a new file");
    assert!(run.metric("octo_journal_errors_total").await >= 10, "fdatasync failed");
    run.assert_counted(&seen, &verdict).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_every_fdatasync_fails_visitors_are_redirected_and_no_answered_click_is_lost() {
    let run = Run::start(|b| injecting(b, "fdatasync:error=EIO:when=100..400")).await;
    let visitors = run.visitors();
    eventually(at_length(10), async || {
        ensure!(run.metric("octo_clicks_unrecorded_total").await > 0, "no fdatasync failed yet");
        Ok(())
    })
    .await;
    wait_readiness(&run.octo, 200).await;
    sleep(at_length(1)).await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report("300 fdatasyncs in a row fail", &seen, &verdict);
    assert_nobody_noticed(&seen);
    assert!(seen.unrecorded > 0, "fdatasync failed");
    run.assert_counted(&seen, &verdict).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_visitors_wait_for_it_and_loses_nothing() {
    let run = Run::start(|b| injecting(b, "fdatasync:delay_enter=200000")).await;
    let visitors = run.visitors();
    sleep(at_length(5)).await;
    let seen = visitors.finish().await;
    let verdict = run.verify().await;
    report("every fdatasync takes 200 ms", &seen, &verdict);
    assert_nobody_noticed(&seen);
    assert!(seen.p50 >= Duration::from_millis(200), "an answer before the sync: {seen}");
    assert_eq!(seen.unrecorded, 0);
    run.assert_counted(&seen, &verdict).await;
}

/// Under strace(1), which tampers with a system call of octo; `-D` leaves octo our child.
fn injecting(builder: OctoBuilder, fault: &str) -> OctoBuilder {
    let allowed = Command::new("strace").args(["-D", "-f", "-o", "/dev/null", "true"]).output();
    assert!(
        allowed.as_ref().is_ok_and(|output| output.status.success()),
        "this run lets fdatasync fail by strace(1); that needs strace and the right to trace one's own children \
         (ptrace): {allowed:?}"
    );
    let inject = format!("inject={fault}");
    builder.through(&[
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-e",
        "trace=fdatasync",
        "-e",
        &inject,
        "-o",
        "/dev/null",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_stop_freeze_and_forget_and_no_visitor_notices() {
    let mut redis = PrivateRedis::start().await;
    let url = redis.url();
    let run = Run::start(|b| b.redis_url(url.clone())).await;
    let visitors = run.visitors();
    for _ in 0..rounds(1) {
        sleep(Duration::from_secs(1)).await;
        redis.sigstop();
        sleep(Duration::from_secs(2)).await;
        redis.sigcont();
        let mut connection =
            redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        redis.kill9().await;
        sleep(Duration::from_secs(2)).await;
        redis.start_again().await;
    }
    sleep(Duration::from_secs(1)).await;
    let seen = visitors.finish().await;
    report("Redis frozen, flushed, killed", &seen, &run.verify().await);
    assert_nobody_noticed(&seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_hang_up_cost_the_others_nothing() {
    const CLIENTS: u32 = 10_000;
    let run = Run::start(|b| b).await;
    let sockets_before = run.sockets();
    let visitors = run.visitors();
    for round in 0..rounds(1) {
        hang_up_all(&run, 1_000_000 * (round + 1), CLIENTS).await;
    }
    let seen = visitors.finish().await;
    eventually(SOON, async || {
        let open = run.metric("octo_http_connections").await;
        ensure!(open <= 1, "{open} connections are open, one of them is this one");
        let sockets = run.sockets();
        ensure!(sockets <= sockets_before + 20, "{sockets} sockets are open, {sockets_before} were");
        Ok(())
    })
    .await;
    report("10,000 clients hang up", &seen, &run.verify().await);
    assert_nobody_noticed(&seen);
    assert_eq!(run.octo.get("/livez").await.status(), 200);
}

/// Lets clients come, two every millisecond, and leave at different points.
async fn hang_up_all(run: &Run, first: u32, clients: u32) {
    let mut leaving = JoinSet::new();
    let mut pace = interval(Duration::from_micros(500));
    for number in first..first + clients {
        pace.tick().await;
        let (address, trail) = (run.address, run.trail.clone());
        leaving.spawn(async move { hang_up(address, &trail, Click(number)).await });
        while leaving.try_join_next().is_some() {}
    }
    while leaving.join_next().await.is_some() {}
}

/// Connects; sends half a head; sends a head; reads one byte of the answer: and is gone, half of them by a reset.
async fn hang_up(address: SocketAddr, trail: &Trail, click: Click) {
    let Ok(mut stream) = connect(address).await else { return };
    let request = click.request();
    let point = fastrand::u8(..4);
    // what fails here has hung up earlier than it was to
    if point == 1 {
        let _ = stream.write_all(&request.as_bytes()[..fastrand::usize(1..request.len() - 1)]).await;
    }
    if point >= 2 {
        trail.note_sent(click);
        let _ = stream.write_all(request.as_bytes()).await;
    }
    if point == 3 {
        let _ = stream.read(&mut [0]).await;
    }
    if fastrand::bool() {
        let _ = stream.set_zero_linger();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_in_time_past_a_hundred_half_sent_heads() {
    const DEADLINE: Duration = Duration::from_secs(10); // server.shutdown_timeout_ms
    let mut run = Run::start(|b| b).await;
    let visitors = run.visitors();
    sleep(at_length(2)).await;
    let mut half_sent = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(run.address).await.unwrap();
        stream.write_all(b"GET /click?cid=alpha&sub1=half-sent HTTP/1.1\r\nHo").await.unwrap();
        half_sent.push(stream);
    }
    eventually(SOON, async || {
        let open = run.metric("octo_http_connections").await;
        ensure!(open > half_sent.len(), "{open} connections are open");
        Ok(())
    })
    .await;
    let stopping = Instant::now();
    run.octo.sigterm();
    let status = run.octo.wait_exit(DEADLINE * 2).await;
    let took = stopping.elapsed();
    let seen = visitors.finish().await;
    run.octo.start_again().await;
    let verdict = run.verify().await;
    report(
        &format!("SIGTERM past 100 half-sent heads, exit after {:.1} s", took.as_secs_f64()),
        &seen,
        &verdict,
    );
    assert!(status.success(), "{status}: {}", run.octo.stderr());
    assert!(took < DEADLINE / 2, "it took {took:?}: the heads had the time of the journal and the drain");
    assert_only_broken_connections(&seen);
}

/// A running octo with the visitors' campaigns, on a Postgres of its own, at an address that stays the same.
struct Run {
    octo: Octo,
    address: SocketAddr,
    pool: PgPool,
    trail: Arc<Trail>,
    // dropped last: octo holds connections to it
    postgres: PrivatePostgres,
}

impl Run {
    async fn start(set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Self {
        let postgres = PrivatePostgres::start().await;
        let url = postgres.url();
        Self::start_on(postgres, set(Octo::builder().database_url(url))).await
    }

    /// The address that octo knows can be switched to another Postgres.
    async fn start_behind_proxy() -> (Self, Proxy) {
        let postgres = PrivatePostgres::start().await;
        let proxy = Proxy::start(&postgres.url()).await;
        let builder = Octo::builder().database_url(proxy.url(&postgres.url()));
        (Self::start_on(postgres, builder).await, proxy)
    }

    async fn start_on(postgres: PrivatePostgres, builder: OctoBuilder) -> Self {
        migrate(&postgres.url()).await;
        let address = free_address();
        let octo = builder.env("OCTO_SERVER__LISTEN", address.to_string()).start().await;
        create_campaigns(&octo).await;
        let pool = postgres.pool().await;
        Self { octo, address, pool, trail: Arc::new(Trail::create()), postgres }
    }

    fn visitors(&self) -> Visitors {
        Visitors::start(self.address, self.trail.clone())
    }

    async fn verify(&self) -> Verdict {
        verify(&self.octo, &self.pool, &self.trail).await
    }

    async fn stored(&self) -> i64 {
        Table::Clicks.count(&self.pool).await.unwrap()
    }

    async fn metric(&self, name: &str) -> usize {
        let metrics = self.octo.metrics().await;
        let value = value_of(&metrics, name).unwrap_or_else(|| panic!("no {name} in /metrics"));
        value.parse().expect("a whole number")
    }

    /// Open sockets of octo, to visitors and to its stores.
    fn sockets(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.octo.pid())).unwrap().flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// Where everybody was answered, octo's own count of unrecorded clicks is exact: each click is stored or counted.
    async fn assert_counted(&self, seen: &Seen, verdict: &Verdict) {
        let counted = self.metric("octo_clicks_unrecorded_total").await;
        assert_eq!((verdict.stored + counted, verdict.unrecorded), (seen.sent, counted), "{verdict:?}");
    }
}

/// A number of seconds in the short form, ten times as long in the long one.
fn at_length(seconds: u64) -> Duration {
    Duration::from_secs(seconds * u64::from(rounds(1)))
}

/// How often to do something that is done `short` times in the short form.
fn rounds(short: u32) -> u32 {
    if is_long() { short * 10 } else { short }
}

/// One line for docs/proof.md.
fn report(what: &str, seen: &Seen, verdict: &Verdict) {
    println!("PROOF {what}: {seen}; {verdict}");
}

/// Everybody was redirected, and none waited long.
fn assert_nobody_noticed(seen: &Seen) {
    assert_eq!(seen.error_count(), 0, "{seen}");
    assert_eq!(seen.answered, seen.sent);
    assert!(seen.p99 < P99_MAX, "{seen}");
}

/// While octo is down, connections are refused and broken; but nobody waits in vain or is told something else.
fn assert_only_broken_connections(seen: &Seen) {
    let other = seen.errors.keys().find(|kind| !matches!(**kind, "refused" | "reset"));
    assert_eq!(other, None, "{seen}");
    assert!(seen.answered > 0);
}
