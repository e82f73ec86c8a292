//! What replicas take off the primary, and what is read after a write while one of them stands still.

use std::time::Duration;

use octo::{
    db::{self, Db, position, replicas::health::State},
    model::campaign::Terms,
};
use sqlx::PgConnection;

use crate::{
    CAMPAIGNS, Node, ROUNDS, Servers, ask,
    it::harness::eventually,
    print, print_gain, print_head, print_medians,
    support::{cpu_of_tree, median},
};

const CALLERS: usize = 64;
const WRITES: usize = 200;
const SIDES: [&str; 3] = ["the primary alone", "one replica", "two replicas"];

/// Of all that one side did, what the primary did.
#[derive(Debug, Clone, Copy)]
struct Share {
    reads: f64,
    cpu: f64,
}

pub(crate) async fn compare(servers: &Servers) -> anyhow::Result<()> {
    let nodes =
        [Node::start(servers, 0).await?, Node::start(servers, 1).await?, Node::start(servers, 2).await?];
    print_head(&format!("replicas: {CALLERS} callers of campaign.by_key through Db::read"));
    let mut rounds = [const { Vec::new() }; 3];
    let mut shares = [const { Vec::new() }; 3];
    for round in 1..=ROUNDS {
        for (side, node) in nodes.iter().enumerate() {
            let before = Work::of(servers, &node.db);
            let db = node.db.clone();
            let question = move |number: usize| {
                let db = db.clone();
                async move {
                    let key = format!("demo-{}", number % CAMPAIGNS);
                    anyhow::ensure!(db::store::campaigns::by_key(&db, &key).await?.is_some(), "no campaign");
                    Ok(1)
                }
            };
            let figures = ask(CALLERS, &servers.postmasters(), question).await?;
            print(&round.to_string(), SIDES[side], &figures);
            rounds[side].push(figures);
            shares[side].push(before.primary_share(&Work::of(servers, &node.db)));
        }
    }
    let [alone, _, two] = print_medians(SIDES, &rounds);
    for (side, shares) in SIDES.iter().zip(&shares) {
        let of = |share: fn(&Share) -> f64| 100.0 * median(shares.iter().map(share).collect());
        println!(
            "{side}: the primary did {:.1} % of the reads and spent {:.1} % of the servers' CPU",
            of(|s| s.reads),
            of(|s| s.cpu)
        );
    }
    print_gain("replicas, two against the primary alone", 2.0, two.per_second / alone.per_second);
    println!(
        "      all servers and the callers share the cores of this machine, so no reads/s can be gained here: what \
         counts is the primary's share, which is free for writes"
    );
    own_writes(servers, &nodes[2].db).await
}

/// One replica does not replay. Everybody reads what they wrote all the same.
async fn own_writes(servers: &Servers, db: &Db) -> anyhow::Result<()> {
    let mut paused = servers.replicas[0].admin().await;
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut paused).await?;
    let written = write_and_read(servers, db, &mut paused).await;
    sqlx::query("SELECT pg_wal_replay_resume()").execute(&mut paused).await?; // before an error ends this
    written
}

async fn write_and_read(servers: &Servers, db: &Db, paused: &mut PgConnection) -> anyhow::Result<()> {
    let other = Node::start(servers, 2).await?; // has written nothing, so it is bound to nothing
    let reads = |db: &Db| db.replicas().reports().iter().map(|r| r.reads).collect::<Vec<u64>>();
    eventually(Duration::from_secs(10), async || {
        let reports = other.db.replicas().reports();
        anyhow::ensure!(reports.iter().all(|r| r.state == State::Healthy), "{reports:?}");
        Ok(())
    })
    .await; // on a busy machine a first probe may fail, and then one replica answers all
    let (mut late, mut own, mut with_position, mut without) = (0, 0, 0, 0);
    let before = reads(db);
    for write in 0..WRITES {
        let key = format!("own-{write}");
        db::store::campaigns::insert(db, key.parse().ok(), Terms::demo("https://offer.example/")).await?;
        own += usize::from(db::store::campaigns::by_key(db, &key).await?.is_some());
        let reading = db::store::campaigns::by_key(&other.db, &key);
        with_position += usize::from(position::at_least(db.written(), reading).await?.is_some());
        for _ in &servers.replicas {
            without += usize::from(db::store::campaigns::by_key(&other.db, &key).await?.is_some());
        }
        let there = "SELECT EXISTS (SELECT FROM campaigns WHERE key = $1)";
        let there: bool = sqlx::query_scalar(there).bind(&key).fetch_one(&mut *paused).await?;
        late += usize::from(!there);
    }
    let by_replicas: u64 = reads(db).iter().zip(&before).map(|(after, before)| after - before).sum();
    println!("lag: replay paused on one of two replicas, {WRITES} rounds of a write and reads of it at once");
    println!("      missing on the paused replica {late} of {WRITES}");
    println!(
        "      the writer read its own write {own} of {WRITES} (replicas answered {by_replicas} of these)"
    );
    println!("      another node with the writer's position read it {with_position} of {WRITES}");
    println!(
        "      another node without the position read it {without} of {}: what the position is for",
        WRITES * servers.replicas.len()
    );
    eventually(Duration::from_secs(10), async || {
        let reports = db.replicas().reports();
        let replayed = position::from_text(&reports[1].replayed).unwrap_or_default();
        anyhow::ensure!(replayed >= db.written(), "{reports:?}");
        Ok(())
    })
    .await;
    let before = reads(db);
    for _ in 0..WRITES {
        let last = db::store::campaigns::by_key(db, &format!("own-{}", WRITES - 1)).await?;
        anyhow::ensure!(last.is_some(), "the last write was not read");
    }
    let after = reads(db);
    println!(
        "      {WRITES} reads after the other replica caught up: paused {}, other {}, primary {}",
        after[0] - before[0],
        after[1] - before[1],
        WRITES as u64 + before[0] + before[1] - after[0] - after[1]
    );
    anyhow::ensure!((late, own, with_position) == (WRITES, WRITES, WRITES), "somebody missed a write");
    Ok(())
}

/// Reads and CPU of each server so far.
struct Work {
    reads: Vec<u64>,
    cpu: [Duration; 3],
}

impl Work {
    fn of(servers: &Servers, db: &Db) -> Self {
        Self {
            reads: db.pools().map(|pool| pool.state().returned).collect(),
            cpu: servers.postmasters().map(cpu_of_tree),
        }
    }

    fn primary_share(&self, after: &Self) -> Share {
        let reads: Vec<u64> =
            after.reads.iter().zip(&self.reads).map(|(after, before)| after - before).collect();
        let mut cpu =
            after.cpu.iter().zip(self.cpu).map(|(after, before)| after.saturating_sub(before).as_secs_f64());
        let primary = cpu.next().unwrap_or_default();
        Share {
            reads: reads[0] as f64 / reads.iter().sum::<u64>() as f64,
            cpu: primary / (primary + cpu.sum::<f64>()),
        }
    }
}
