//! Replicas that are stopped, late, promoted or gone, and a primary that fails over: what a client of the API and
//! a visitor see of it.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use octo::db::position::from_text;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Octo, OctoBuilder, PrivatePostgres, api::campaign, eventually, migrate},
    load::{Answer, percentile, send_all},
    tracker::{OFFER, SOON, Table, header},
};

/// How long the servers may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with an admin token.
struct Node {
    octo: Octo,
    token: String,
    /// What the API answered, by status.
    statuses: Mutex<BTreeMap<u16, u32>>,
    /// What visitors got.
    clicks: Mutex<Vec<Answer>>,
}

impl Node {
    async fn start(primary: &str, replicas: &[String], set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Self {
        let builder = Octo::builder()
            .database_url(primary)
            .env("OCTO_DATABASE__REPLICA_URLS", replicas.join(","))
            .env("OCTO_DATABASE__PROBE_INTERVAL_MS", "100")
            .env("OCTO_DATABASE__STATEMENT_TIMEOUT_MS", "1000")
            .env("OCTO_DATABASE__REPLICA_EJECT_MAX_MS", "1000");
        let octo = set(builder).start().await;
        let token = octo.admin_token().await;
        Self { octo, token, statuses: Mutex::default(), clicks: Mutex::default() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        position: Option<&str>,
        body: Option<Value>,
    ) -> (u16, String, Value) {
        let mut request = self.octo.api(&self.token).request(method, path);
        if let Some(position) = position {
            request = request.header("X-Octo-Position", position);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let (status, position) = (response.status().as_u16(), header(&response, "x-octo-position"));
        *self.statuses.lock().unwrap().entry(status).or_default() += 1;
        (status, position, response.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask(Method::GET, path, None, None).await;
        (status, body)
    }

    /// Makes a campaign; returns its position.
    async fn make(&self, key: &str) -> (u16, String) {
        let body = campaign(key, OFFER);
        let (status, position, _) = self.ask(Method::POST, "/campaigns", None, Some(body)).await;
        (status, position)
    }

    /// The keys of the list, newest first.
    async fn keys(&self, position: Option<&str>) -> Vec<String> {
        let (status, _, body) = self.ask(Method::GET, "/campaigns?limit=100", position, None).await;
        assert_eq!(status, 200, "{body}");
        body["data"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap().to_owned()).collect()
    }

    async fn replica(&self, place: usize) -> Value {
        self.get("/system/pools").await.1["replicas"][place].clone()
    }

    async fn wait_state(&self, place: usize, wanted: &str) {
        eventually(PATIENCE, async || {
            let replica = self.replica(place).await;
            anyhow::ensure!(replica["state"] == wanted, "{replica}");
            Ok(())
        })
        .await;
    }

    async fn reads(&self, place: usize) -> u64 {
        self.replica(place).await["reads"].as_u64().unwrap()
    }

    /// Clicks a link as often, and every answer is a redirect.
    async fn redirects(&self, key: &str, count: usize) {
        let request = format!("GET /click?cid={key} HTTP/1.1\r\nHost: t\r\n\r\n");
        let answers = send_all(self.octo.addr(), vec![request.into_bytes(); count], 4).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 302).count(), count);
        self.clicks.lock().unwrap().extend(answers);
    }

    fn tell(&self, case: &str) {
        let clicks = self.clicks.lock().unwrap();
        let (count, p99) = (clicks.len(), percentile(&clicks, 0.99));
        println!(
            "{case}: API {:?}; {count} of {count} clicks redirected, p99 {p99:?}",
            self.statuses.lock().unwrap()
        );
    }
}

struct Set {
    primary: PrivatePostgres,
    replicas: [PrivatePostgres; 2],
}

impl Set {
    async fn start() -> Self {
        let primary = PrivatePostgres::start().await;
        migrate(&primary.url()).await;
        let (one, two) = (primary.replica(None).await, primary.replica(None).await);
        Self { primary, replicas: [one, two] }
    }

    fn urls(&self) -> Vec<String> {
        self.replicas.iter().map(PrivatePostgres::url).collect()
    }

    async fn node(&self) -> Node {
        let node = Node::start(&self.primary.url(), &self.urls(), |b| b).await;
        node.wait_state(0, "healthy").await;
        node.wait_state(1, "healthy").await;
        node
    }
}

/// Clicks go on while API calls are made: neither waits for the other.
async fn list_often(node: &Node, times: usize) {
    for _ in 0..times {
        let (status, body) = node.get("/campaigns").await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_round_the_replicas_and_a_stopped_one_is_left_out_until_it_is_back() {
    let mut set = Set::start().await;
    let node = set.node().await;
    let (_, position) = node.make("demo").await;
    assert!(node.keys(Some(&position)).await.contains(&"demo".to_owned()));
    // until a probe has seen that they have it, the primary reads what was just written
    eventually(SOON, async || {
        for place in [0, 1] {
            let replica = node.replica(place).await;
            let replayed = from_text(replica["replayed"].as_str().unwrap());
            anyhow::ensure!(replayed >= from_text(&position), "{replica} has not reached {position}");
        }
        Ok(())
    })
    .await;
    let before = [node.reads(0).await, node.reads(1).await];
    list_often(&node, 40).await;
    let after = [node.reads(0).await, node.reads(1).await];
    let share = [after[0] - before[0], after[1] - before[1]];
    assert!(share.iter().all(|reads| (15..=25).contains(reads)), "40 reads: {share:?}");

    set.replicas[0].kill9().await;
    list_often(&node, 40).await; // some of them meet the dead one and are answered by the other
    node.redirects("demo", 50).await;
    node.wait_state(0, "ejected").await;
    assert!(node.octo.gauge("octo_db_replica_up{replica=\"0\"}").await < 0.5);
    let (status, health) = (node.octo.get("/health").await.status(), node.octo.get("/health").await);
    let health: Value = health.json().await.unwrap();
    assert_eq!((status.as_u16(), &health["status"]), (200, &json!("degraded")));
    let before = node.reads(0).await;
    list_often(&node, 20).await;
    assert_eq!(node.reads(0).await, before, "an ejected replica is asked nothing");

    set.replicas[0].start_again().await;
    node.wait_state(0, "healthy").await;
    list_often(&node, 20).await;
    assert!(node.reads(0).await > before);
    node.tell("a replica killed and started again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_is_left_out_and_nobody_waits_for_it_twice() {
    let set = Set::start().await;
    let node = set.node().await;
    node.make("demo").await;
    set.replicas[1].sigstop();
    list_often(&node, 10).await;
    node.redirects("demo", 50).await;
    node.wait_state(1, "ejected").await;
    let start = std::time::Instant::now();
    list_often(&node, 20).await;
    let took = start.elapsed();
    set.replicas[1].sigcont();
    assert!(took < PATIENCE, "20 reads beside a frozen replica took {took:?}");
    node.wait_state(1, "healthy").await;
    node.tell("a replica frozen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_five_seconds_late_is_left_out_and_everybody_reads_what_they_wrote() {
    let primary = PrivatePostgres::start().await;
    migrate(&primary.url()).await;
    let late = primary.replica(Some(5000)).await;
    let good = primary.replica(None).await;
    let node = Node::start(&primary.url(), &[late.url(), good.url()], |b| {
        b.env("OCTO_DATABASE__REPLICA_LAG_MAX_MS", "1000")
    })
    .await;
    for round in 0..20 {
        let key = format!("own-{round}");
        assert_eq!(node.make(&key).await.0, 201);
        assert!(node.keys(None).await.contains(&key), "{key} was written here and is not read here");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.wait_state(0, "ejected").await;
    let replica = node.replica(0).await;
    let lag = replica["lag_s"].as_f64().unwrap();
    assert!(lag > 1.0 && lag < 20.0 && replica["lag_bytes"].as_u64().unwrap() > 0, "{replica}");
    node.redirects("own-0", 50).await;
    // an idle primary is no lag: it comes back by itself
    node.wait_state(0, "healthy").await;
    assert_eq!(node.replica(0).await["lag_bytes"], 0);
    node.tell("a replica 5 s late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_all_late_go_on_answering_but_not_with_what_was_just_written() {
    let primary = PrivatePostgres::start().await;
    migrate(&primary.url()).await;
    let late = primary.replica(Some(600_000)).await;
    let node =
        Node::start(&primary.url(), &[late.url()], |b| b.env("OCTO_DATABASE__REPLICA_LAG_MAX_MS", "500"))
            .await;
    let other = Node::start(&primary.url(), &[late.url()], |b| b).await;
    let (_, position) = node.make("fresh").await;
    node.wait_state(0, "ejected").await;
    assert!(node.keys(None).await.contains(&"fresh".to_owned()), "who wrote it reads it");
    // another node, which has written its token only, knows of it by the position
    let (status, _, body) = other.ask(Method::GET, "/campaigns", Some(&position), None).await;
    assert_eq!((status, &body["data"][0]["key"]), (200, &json!("fresh")), "{body}");
    let (status, _, body) = other.ask(Method::GET, "/campaigns", Some("no position"), None).await;
    assert_eq!((status, &body["code"]), (400, &json!("position")), "{body}");
    assert!(node.octo.metric("octo_db_primary_reads_total{reason=\"position\"}").await >= 1);
    node.tell("all replicas late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_answers_no_reads() {
    let set = Set::start().await;
    let node = set.node().await;
    node.make("demo").await;
    set.replicas[0].promote().await;
    let pool = set.replicas[0].pool().await;
    sqlx::query("UPDATE campaigns SET name = 'of another history'").execute(&pool).await.unwrap();
    node.wait_state(0, "ejected").await;
    for _ in 0..40 {
        let (_, body) = node.get("/campaigns").await;
        assert_eq!(body["data"][0]["name"], "demo");
    }
    node.redirects("demo", 50).await;
    node.tell("a replica promoted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_replica_the_primary_reads() {
    let mut set = Set::start().await;
    let node = set.node().await;
    node.make("demo").await;
    // one that is not told by its probes, but by the reads themselves
    let unwarned =
        Node::start(&set.primary.url(), &set.urls(), |b| b.env("OCTO_DATABASE__PROBE_INTERVAL_MS", "600000"))
            .await;
    for replica in &mut set.replicas {
        replica.kill9().await;
    }
    list_often(&unwarned, 10).await;
    list_often(&node, 40).await;
    node.wait_state(0, "ejected").await;
    node.wait_state(1, "ejected").await;
    list_often(&node, 40).await;
    assert!(node.octo.metric("octo_db_primary_reads_total{reason=\"no_replica\"}").await >= 40);
    node.redirects("demo", 50).await;
    node.tell("all replicas gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_clicks_go_on_replicas_read_and_writes_are_told_to_try_again() {
    let mut set = Set::start().await;
    let node = set.node().await;
    node.make("demo").await;
    node.redirects("demo", 50).await;
    let pool = set.primary.pool().await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&pool).await? == 50);
        Ok(())
    })
    .await;
    set.primary.kill9().await;
    list_often(&node, 20).await;
    let (status, _) = node.make("later").await;
    assert_eq!(status, 503);
    node.redirects("demo", 200).await;
    assert_eq!(node.octo.get("/readyz").await.status(), 200);
    set.primary.start_again().await;
    eventually(PATIENCE, async || {
        let (status, _) = node.make("later").await;
        anyhow::ensure!(status == 201 || status == 409, "{status}");
        Ok(())
    })
    .await;
    let pool = set.primary.pool().await;
    eventually(PATIENCE, async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(stored == 250, "{stored} of 250");
        Ok(())
    })
    .await;
    node.tell("the primary down for a while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_the_primary_is_survived_without_a_restart() {
    let mut set = Set::start().await;
    // postgres://user:password@primary,replica/database
    let (head, tail) = set.primary.url().split_once('@').map(|(h, t)| (h.to_owned(), t.to_owned())).unwrap();
    let host = |url: String| url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let second = host(set.replicas[0].url());
    // the standby first: it is passed over
    let both = format!("{head}@{second},{}/{}", host(set.primary.url()), tail.split_once('/').unwrap().1);
    let node = Node::start(&both, &set.urls(), |b| b).await;
    node.make("demo").await;
    node.redirects("demo", 100).await;
    let replica = set.replicas[0].pool().await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&replica).await? == 100);
        Ok(())
    })
    .await;
    set.primary.kill9().await;
    node.redirects("demo", 100).await;
    set.replicas[0].promote().await;
    let start = std::time::Instant::now();
    let mut refused = 0;
    eventually(PATIENCE, async || {
        let (status, _) = node.make("after").await;
        refused += u32::from(status == 503);
        anyhow::ensure!(status == 201, "{status}");
        Ok(())
    })
    .await;
    println!(
        "writes go on {} ms after the promotion, {refused} were told to try again",
        start.elapsed().as_millis()
    );
    eventually(PATIENCE, async || {
        let stored = Table::Clicks.count(&replica).await?;
        anyhow::ensure!(stored == 200, "{stored} of 200");
        Ok(())
    })
    .await;
    assert!(node.keys(None).await.contains(&"after".to_owned()));
    let (_, pools) = node.get("/system/pools").await;
    assert_eq!(pools["data"][0]["server"], second, "{pools}");
    node.wait_state(0, "ejected").await; // it is the primary now
    node.tell("the primary failed over");
}

/// Transactions of another history, until its ids are past those of the server that was lost.
const BURN_IDS: &str = "DO $$ BEGIN
    FOR i IN 1..2000 LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_with_a_primary_is_forgotten_and_what_the_next_one_says_is_done() {
    let mut old = PrivatePostgres::start().await;
    migrate(&old.url()).await;
    let new = old.replica(None).await;
    let (head, tail) = old.url().split_once('@').map(|(h, t)| (h.to_owned(), t.to_owned())).unwrap();
    let host = |url: String| url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let database = tail.split_once('/').unwrap().1;
    let both = format!("{head}@{},{}/{database}", host(old.url()), host(new.url()));
    let node = Node::start(&both, &[], |b| {
        b.env("OCTO_CACHE__POLL_INTERVAL_S", "1").env("OCTO_PRIVACY__ERASURE_INTERVAL_S", "1")
    })
    .await;
    node.make("demo").await;
    node.make("other").await;
    let pool = new.pool().await;
    let version = "SELECT count(*) FROM campaigns";
    eventually(PATIENCE, async || {
        let count: i64 = sqlx::query_scalar(version).fetch_one(&pool).await?;
        anyhow::ensure!(count == 2, "{count}");
        Ok(())
    })
    .await;
    new.cut_off().await;
    // lost: a new version of a campaign, and erasures
    let rename = json!({ "name": "lost" });
    let (status, _, lost) = node.ask(Method::PATCH, "/campaigns/demo", None, Some(rename)).await;
    assert_eq!(status, 200, "{lost}");
    for who in ["a", "b", "c"] {
        // with a record of each, which the node itself blanks: so it has seen the erasure when the command ends
        assert_eq!(node.octo.get(&format!("/click?cid=other&sub1=person-{who}")).await.status(), 302);
        let what = format!("sub1=person-{who}");
        let erased = node.octo.run(&["privacy", "erase", "--sub", &what, "--wait", "30"]).await;
        assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stdout));
        let report: Value = serde_json::from_slice(&erased.stdout).unwrap();
        assert_eq!(report["erased"]["journal_records"], 1, "{report}");
    }
    new.promote().await;
    let mut admin = new.admin().await;
    sqlx::raw_sql(BURN_IDS).execute(&mut admin).await.unwrap();
    old.kill9().await;
    node.redirects("demo", 1).await;
    eventually(PATIENCE, async || {
        let (status, _) = node.make("after").await;
        anyhow::ensure!(status == 201, "{status}");
        Ok(())
    })
    .await;
    // the same version once more, of the new history: this one is to be seen
    sqlx::raw_sql("UPDATE campaigns SET status = 'paused' WHERE key = 'demo'")
        .execute(&mut admin)
        .await
        .unwrap();
    let paused: i64 = sqlx::query_scalar("SELECT version FROM campaigns WHERE key = 'demo'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(json!(paused), lost["version"], "the version that was lost");
    eventually(PATIENCE, async || {
        let status = node.octo.get("/c/demo").await.status();
        anyhow::ensure!(status == 404, "{status}: the pause is not seen");
        Ok(())
    })
    .await;
    // and an erasure whose number the lost ones had is done in the journal too
    let (answer, marked) = (node.octo.get("/click?cid=other&sub1=marked-person").await, "marked-person");
    assert_eq!(answer.status(), 302);
    eventually(PATIENCE, async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE sub1 = 'marked-person'")
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(stored == 1, "not stored yet");
        Ok(())
    })
    .await;
    let erased =
        node.octo.run(&["privacy", "erase", "--sub", &format!("sub1={marked}"), "--wait", "30"]).await;
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stdout));
    let report: Value = serde_json::from_slice(&erased.stdout).unwrap();
    assert_eq!(
        (&report["erased"]["clicks"], &report["erased"]["journal_records"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
    let numbers: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM erasures ORDER BY id").fetch_all(&mut admin).await.unwrap();
    assert_eq!(numbers, [1, 2], "the value and its click: numbers of erasures that were lost");
}
