//! Restarts without a dropped request: a successor on the inherited socket, two nodes behind haproxy, and what the
//! service manager is told. `OCTO_PROOF=long` makes 20 rounds of the hand-over.

use std::{
    net::TcpListener,
    os::{linux::net::SocketAddrExt, unix::net::UnixDatagram},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{
    harness::{
        Database, HaProxy, Octo, OctoBuilder, Scratch, Signal, eventually, free_address, is_long, signal,
    },
    tracker::{SOON, Tracker},
    verify::verify,
    visitors::{CAMPAIGNS, Trail, Visitors, create_campaigns},
};

/// A stop takes this long at most on a busy machine.
const STOP: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_on_the_inherited_socket_costs_no_visitor_anything() {
    let database = Database::create("restarts_socket").await;
    let (scratch, socket) = (Scratch::create(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = socket.local_addr().unwrap();
    let builder = || {
        let data = scratch.dir().join("data");
        Octo::builder().database_url(database.url()).data_dir(data).socket(&socket, "")
    };
    let mut octo = builder().start().await;
    assert_eq!(octo.addr(), address);
    create_campaigns(&octo).await;
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start_half_new(address, trail.clone());
    let rounds = if is_long() { 20 } else { 5 };
    for round in 0..rounds {
        sleep(Duration::from_millis(400)).await;
        // as systemd does it, one after the other; and with the next one already waiting
        octo = if round % 2 == 0 { replace(octo, builder()).await } else { overlap(octo, builder()).await };
    }
    sleep(Duration::from_millis(400)).await;
    let seen = visitors.finish().await;
    let verdict = verify(&octo, &database.pool().await, &trail).await;
    println!("{rounds} successors on one socket: {seen}; {verdict}");
    assert_eq!((seen.error_count(), seen.answered, seen.unrecorded), (0, seen.sent, 0), "{seen}");
    assert_eq!((verdict.acked, verdict.stored), (seen.sent, seen.sent), "each click stored once");
}

async fn replace(mut octo: Octo, next: OctoBuilder) -> Octo {
    octo.sigterm();
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
    next.start().await
}

async fn overlap(mut octo: Octo, next: OctoBuilder) -> Octo {
    let log = next.log();
    let starting = tokio::spawn(next.start());
    eventually(SOON, async || {
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains("waiting for another octo"), "{said}");
        Ok(())
    })
    .await;
    octo.sigterm();
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
    starting.await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_behind_haproxy_restarted_in_turn_cost_no_visitor_anything() {
    let database = Database::create("restarts_haproxy").await;
    let addresses = [free_address(), free_address()];
    let mut nodes = Vec::new();
    for address in addresses {
        let builder = Octo::builder().database_url(database.url()).env("OCTO_SERVER__DRAIN_DELAY_MS", "1500");
        let builder = builder.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.1");
        nodes.push(builder.env("OCTO_SERVER__LISTEN", address.to_string()).start().await);
    }
    create_campaigns(&nodes[0]).await;
    let haproxy = HaProxy::start([addresses[0], addresses[1]], |text| text).await;
    for node in &nodes {
        knows_campaigns(node).await;
    }
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start_half_new(haproxy.addr(), trail.clone());
    let turns = if is_long() { 10 } else { 2 };
    for turn in 0..turns {
        sleep(Duration::from_secs(1)).await;
        let node = &mut nodes[turn % 2];
        node.sigterm();
        assert!(node.wait_exit(STOP).await.success(), "{}", node.stderr());
        node.start_again().await;
        knows_campaigns(node).await;
        sleep(Duration::from_secs(1)).await; // two checks of haproxy, and a bit
    }
    let seen = visitors.finish().await;
    let pool = database.pool().await;
    eventually(SOON, async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&pool).await?;
        ensure!(usize::try_from(stored)? == seen.sent, "{stored} of {} stored", seen.sent);
        Ok(())
    })
    .await;
    let ids: Vec<uuid::Uuid> = trail.acked().into_values().collect();
    let known: i64 = sqlx::query_scalar("SELECT count(DISTINCT id) FROM clicks WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_one(&pool)
        .await
        .unwrap();
    println!("{turns} restarts behind haproxy: {seen}; stored {known} of {} told", ids.len());
    assert_eq!((seen.error_count(), seen.answered, seen.unrecorded), (0, seen.sent, 0), "{seen}");
    assert_eq!(usize::try_from(known).unwrap(), seen.sent, "each click that was answered, by its id");
}

#[tokio::test]
async fn a_stop_answers_the_next_request_of_each_connection_and_closes_the_idle_ones_gently() {
    // time enough for all of this on a busy machine
    let patient = |octo: OctoBuilder| octo.env("OCTO_SERVER__KEEP_ALIVE_DRAIN_MS", "5000");
    let tracker = Tracker::start_with("restarts_keep_alive", patient).await;
    tracker.simple_campaign("k").await;
    let mut octo = tracker.octo;
    let mut busy = TcpStream::connect(octo.addr()).await.unwrap();
    let mut idle = TcpStream::connect(octo.addr()).await.unwrap();
    assert!(!ask(&mut busy).await.contains("connection: close"));
    assert!(!ask(&mut idle).await.contains("connection: close"));
    octo.sigterm();
    eventually(SOON, async || {
        let mut late = TcpStream::connect(octo.addr()).await?;
        late.write_all(b"GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n").await?;
        let mut head = Vec::new();
        while !head.ends_with(b"stopping\n") && !head.ends_with(b"ready\n") {
            ensure!(late.read_buf(&mut head).await? > 0, "no answer");
        }
        let text = String::from_utf8(head)?;
        ensure!(text.starts_with("HTTP/1.1 503") && text.contains("connection: close"), "{text}");
        Ok(())
    })
    .await;
    let answer = ask(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("connection: close"), "{answer}");
    assert_eq!(busy.read(&mut [0; 9]).await.unwrap(), 0, "an end and no reset");
    assert_eq!(idle.read(&mut [0; 9]).await.unwrap(), 0, "an end and no reset");
    assert!(octo.wait_exit(STOP).await.success());
}

#[tokio::test]
async fn an_inherited_socket_called_admin_splits_the_listeners() {
    let database = Database::create("restarts_admin").await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let octo = Octo::builder().database_url(database.url()).socket(&socket, "admin").start().await;
    assert_ne!(octo.addr(), socket.local_addr().unwrap(), "the public listener is its own");
    assert_eq!(octo.get("/metrics").await.status(), 404);
    let metrics = format!("http://{}/metrics", socket.local_addr().unwrap());
    assert_eq!(octo.client().get(metrics).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn sockets_for_somebody_else_are_left_alone_and_what_is_no_socket_is_one_plain_sentence() {
    let database = Database::create("restarts_strange").await;
    let strange = |script: &str| {
        let script = format!("{script}; exec \"$@\"");
        Octo::builder().database_url(database.url()).through(&["sh", "-c", &script, "sh"])
    };
    let octo = strange("exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=1").start().await;
    assert_eq!(octo.get("/readyz").await.status(), 200);
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let bin = env!("CARGO_BIN_EXE_octo");
    let output = tokio::process::Command::new("sh").args(["-c", script, "sh", bin]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("is not a listening TCP socket") && said.contains("ListenStream="), "{said}");
}

#[tokio::test]
async fn the_service_manager_hears_that_octo_is_ready_that_it_lives_and_that_it_stops() {
    let database = Database::create("restarts_notify").await;
    let scratch = Scratch::create();
    let path = scratch.dir().join("notify");
    let name = format!("octo-it-{}", fastrand::u64(..));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, name) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}")),
    ] {
        manager.set_nonblocking(true).unwrap();
        let builder = Octo::builder().database_url(database.url()).env("NOTIFY_SOCKET", name);
        let mut octo = builder.env("WATCHDOG_USEC", "400000").start().await;
        heard(&manager, "READY=1\nSTATUS=").await;
        heard(&manager, "WATCHDOG=1").await;
        heard(&manager, "WATCHDOG=1").await;
        signal(Signal::Stop, &[octo.pid()]);
        sleep(Duration::from_millis(100)).await;
        while manager.recv(&mut [0; 1024]).is_ok() {}
        sleep(Duration::from_secs(1)).await;
        assert!(manager.recv(&mut [0; 1024]).is_err(), "a process that stands still says nothing");
        signal(Signal::Cont, &[octo.pid()]);
        heard(&manager, "WATCHDOG=1").await;
        octo.sigterm();
        heard(&manager, "STOPPING=1\nSTATUS=").await;
        assert!(octo.wait_exit(STOP).await.success());
    }
}

#[tokio::test]
async fn a_hang_up_stops_octo_in_order_and_many_do_not_force_it() {
    let mut octo = Octo::builder().start().await; // with a private PostgreSQL, which must not stay behind
    let answer = octo.get("/click?cid=demo").await;
    assert_eq!(answer.status(), 302);
    let recorded = std::fs::read_to_string(octo.data_dir().join("postgres/postmaster.pid")).unwrap();
    let postmaster: u32 = recorded.lines().next().unwrap().parse().unwrap();
    // a terminal that closes: the shell tells its jobs, the kernel the process group
    for _ in 0..5 {
        signal(Signal::Hup, &[octo.pid()]);
    }
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
    let said = octo.stderr();
    assert!(said.contains("stopping") && said.contains("stopped") && !said.contains("forced"), "{said}");
    assert!(!std::path::Path::new(&format!("/proc/{postmaster}")).exists(), "PostgreSQL is stopped too");
    let journal = octo.run(&["journal", "inspect", "--json"]).await;
    assert!(journal.status.success());
}

#[tokio::test]
async fn a_hang_up_that_nohup_has_ignored_stays_ignored() {
    let database = Database::create("restarts_nohup").await;
    let builder = Octo::builder().database_url(database.url());
    let mut octo = builder.through(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]).start().await;
    signal(Signal::Hup, &[octo.pid()]);
    sleep(Duration::from_millis(300)).await;
    assert!(octo.is_running() && octo.get("/readyz").await.status() == 200, "{}", octo.stderr());
    octo.sigterm();
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
    assert_eq!(
        octo.stderr().matches("stopping; a second signal ends octo at once").count(),
        1,
        "{}",
        octo.stderr()
    );
}

#[tokio::test]
async fn a_standard_error_that_is_gone_does_not_end_octo() {
    let database = Database::create("restarts_stderr").await;
    // the announcement is read; from then on nobody reads the pipe
    let script = "exec 3>&2; { \"$@\" 2>&1 >&- & echo $! >pid; wait; } | sed -u '/is ready after/q' >&3";
    let address = free_address();
    let builder =
        Octo::builder().database_url(database.url()).env("OCTO_SERVER__LISTEN", address.to_string());
    let mut shell = builder.env("RUST_LOG", "debug").through(&["sh", "-c", script, "sh"]).start().await;
    let pid: u32 = std::fs::read_to_string(shell.dir().join("pid")).unwrap().trim().parse().unwrap();
    eventually(SOON, async || {
        let said = shell.stderr();
        ensure!(said.contains("is ready after"), "{said}");
        Ok(())
    })
    .await;
    for _ in 0..50 {
        assert_eq!(shell.get("/readyz").await.status(), 200);
        assert_eq!(shell.get("/api/v1/campaigns").await.status(), 401);
    }
    signal(Signal::Hup, &[pid]);
    assert!(shell.wait_exit(STOP).await.code().is_some());
    assert!(TcpStream::connect(address).await.is_err(), "it has ended");
    let journal = shell.run(&["journal", "inspect"]).await;
    assert!(journal.status.success());
}

/// Waits for a message that begins so; others are passed over.
async fn heard(manager: &UnixDatagram, beginning: &str) {
    eventually(SOON, async || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message)?;
        let message = String::from_utf8_lossy(&message[..length]);
        ensure!(message.starts_with(beginning), "{message}");
        Ok(())
    })
    .await;
}

/// One click on a connection that stays open; its answer has no body.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /c/k HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0, "an answer");
    }
    String::from_utf8(head).unwrap()
}

async fn knows_campaigns(octo: &Octo) {
    eventually(SOON, async || {
        for key in CAMPAIGNS {
            // HEAD: no click
            let answer = octo.client().head(octo.url(&format!("/c/{key}"))).send().await?;
            ensure!(answer.status() == 302, "{key}: {}", answer.status());
        }
        Ok(())
    })
    .await;
}
