//! Every postback that was answered is in PostgreSQL exactly once, whether octo is killed or its database fails over, and
//! the conversions are those of the postbacks that are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::exactly_once::{PATIENCE, octo};
use crate::{
    harness::{Database, Octo, PrivatePostgres, eventually, is_long, migrate},
    load::send_all,
    tracker::{assert_book_agrees, assert_roll_ups_agree},
    wire::Proxy,
};

const SENDERS: usize = 6;

/// What a sender of postbacks knows of them, by their numbers.
#[derive(Debug, Default)]
struct Sent {
    clicks: Vec<Uuid>,
    /// Whether each was answered with 200.
    postbacks: BTreeMap<usize, bool>,
}

impl Sent {
    fn confirmed(&self) -> BTreeSet<usize> {
        self.postbacks.iter().filter(|(_, is_confirmed)| **is_confirmed).map(|(number, _)| *number).collect()
    }
}

/// Clicks, and of each a lead, a sale and the sale once more, from several senders without a pause. Who is not answered
/// does not ask again: whether such a postback is stored, nobody knows.
struct Load {
    sent: Arc<Mutex<Sent>>,
    is_over: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(octo: &Octo, sent: &Arc<Mutex<Sent>>) -> Self {
        let (sent, is_over) = (sent.clone(), Arc::new(AtomicBool::new(false)));
        let senders = (0..SENDERS).map(|_| {
            let (address, sent, is_over) = (octo.addr(), sent.clone(), is_over.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let click = b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec();
                    let answers = send_all(address, vec![click], 1).await;
                    let Some(id) = answers.first().and_then(|answer| answer.id) else { continue };
                    sent.lock().unwrap().clicks.push(id);
                    for word in ["lead", "sale", "sale"] {
                        let number = {
                            let mut sent = sent.lock().unwrap();
                            let number = sent.postbacks.len();
                            sent.postbacks.insert(number, false);
                            number
                        };
                        let path = format!("/postback?clickid={id}&status={word}&payout=1.25&n={number}");
                        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes();
                        let answers = send_all(address, vec![request], 1).await;
                        if let Some(answer) = answers.first() {
                            assert_eq!(answer.status, 200, "no postback waits");
                            sent.lock().unwrap().postbacks.insert(number, true);
                        }
                    }
                }
            })
        });
        Self { senders: senders.collect(), sent, is_over }
    }

    fn confirmed(&self) -> usize {
        self.sent.lock().unwrap().confirmed().len()
    }

    /// Waits until so many postbacks more are answered.
    async fn go_on(&self, postbacks: usize) {
        let wanted = self.confirmed() + postbacks;
        eventually(PATIENCE, async || {
            let confirmed = self.confirmed();
            anyhow::ensure!(!self.senders.iter().any(JoinHandle::is_finished), "a sender has failed");
            anyhow::ensure!(confirmed >= wanted, "{confirmed} postbacks of {wanted}");
            Ok(())
        })
        .await;
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::SeqCst);
        for sender in self.senders {
            sender.await.expect("a sender");
        }
    }
}

/// Waits until everything is drained and derived, and compares it with what was sent.
async fn assert_postbacks(octo: &Octo, pool: &PgPool, sent: &Sent) {
    eventually(PATIENCE, async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM postbacks WHERE outcome <> 'accepted'")
            .fetch_one(pool)
            .await?;
        let pending = octo.metric("octo_journal_pending_records").await;
        anyhow::ensure!((waiting, pending) == (0, 0), "{waiting} postbacks wait, {pending} records pend");
        // until the drain sees that the server went back, nothing pends
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM postbacks").fetch_one(pool).await?;
        let confirmed = sent.confirmed().len();
        anyhow::ensure!(stored >= i64::try_from(confirmed)?, "{stored} of {confirmed} postbacks are stored");
        Ok(())
    })
    .await;
    let numbers: Vec<i64> =
        sqlx::query_scalar("SELECT substring(params FROM 'n=([0-9]+)')::bigint FROM postbacks")
            .fetch_all(pool)
            .await
            .unwrap();
    let stored: BTreeSet<usize> = numbers.iter().map(|number| usize::try_from(*number).unwrap()).collect();
    let confirmed = sent.confirmed();
    let twice = numbers.len() - stored.len();
    let lost = confirmed.difference(&stored).count();
    let strange = stored.iter().filter(|number| !sent.postbacks.contains_key(number)).count();
    assert_eq!((twice, lost, strange), (0, 0, 0), "postbacks that are there twice, lost, or sent by nobody");
    let clicks: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM clicks").fetch_all(pool).await.unwrap();
    let distinct: BTreeSet<Uuid> = clicks.iter().copied().collect();
    assert!(distinct.len() == clicks.len() && sent.clicks.iter().all(|id| distinct.contains(id)));

    // of each click with postbacks one conversion: a sale where one came, else a lead
    let wrong = "
        WITH ledger AS (
            SELECT
                click_id,
                CASE WHEN bool_or(params LIKE '%status=sale%') THEN 'approved' ELSE 'pending' END AS status
            FROM postbacks
            GROUP BY click_id
        )
        SELECT count(*)
        FROM ledger l
        FULL JOIN conversions v ON v.click_id = l.click_id
        WHERE v.status IS DISTINCT FROM l.status
           OR v.payout IS DISTINCT FROM 1.25";
    let wrong: i64 = sqlx::query_scalar(wrong).fetch_one(pool).await.unwrap();
    assert_eq!(wrong, 0, "conversions that are not those of the ledger");
    let mut snapshot = pool.begin().await.unwrap();
    assert_book_agrees(&mut *snapshot).await;
    assert_roll_ups_agree(&mut *snapshot).await;
    println!("{} clicks, {} postbacks answered, {} stored", clicks.len(), confirmed.len(), stored.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postbacks_in_flight_when_octo_is_killed_are_stored_once_where_they_were_answered() {
    let database = Database::create("postbacks_killed").await;
    let mut octo = octo(database.url(), |builder| builder).await;
    let sent = Arc::new(Mutex::new(Sent::default()));
    let rounds = if is_long() { 30 } else { 4 };
    for _ in 0..rounds {
        let load = Load::start(&octo, &sent);
        load.go_on(100).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
        octo.kill9().await;
        load.stop().await;
        octo.start_again().await;
    }
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    println!("{rounds} kills, {} postbacks unanswered", sent.postbacks.len() - sent.confirmed().len());
    assert_postbacks(&octo, &database.pool().await, &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postbacks_in_flight_when_a_lagging_replica_takes_over_are_derived_again_where_it_had_not_heard_of_them()
 {
    let mut primary = PrivatePostgres::start().await;
    migrate(&primary.url()).await;
    let replica = primary.replica(None).await;
    let proxy = Proxy::start(&primary.url()).await;
    let octo = octo(proxy.url(&primary.url()), |builder| builder).await;
    let sent = Arc::new(Mutex::new(Sent::default()));
    let load = Load::start(&octo, &sent);
    let (pool, replica_pool) = (primary.pool().await, replica.pool().await);
    let stored = async |pool: &PgPool| -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM postbacks").fetch_one(pool).await?)
    };
    load.go_on(100).await;
    eventually(PATIENCE, async || {
        anyhow::ensure!(stored(&replica_pool).await? > 0, "the replica has no postback yet");
        Ok(())
    })
    .await;
    replica.cut_off().await;
    eventually(PATIENCE, async || {
        let (ahead, behind) = (stored(&pool).await?, stored(&replica_pool).await?);
        anyhow::ensure!(ahead > behind + 200, "the primary has {ahead}, the replica {behind}");
        Ok(())
    })
    .await;
    let (ahead, behind) = (stored(&pool).await.unwrap(), stored(&replica_pool).await.unwrap());
    primary.kill9().await;
    load.go_on(100).await;
    replica.promote().await;
    proxy.point_at(&replica.url());
    load.go_on(200).await;
    load.stop().await;
    println!("failover from {ahead} postbacks back to {behind}");
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert_postbacks(&octo, &replica_pool, &sent).await;
}
