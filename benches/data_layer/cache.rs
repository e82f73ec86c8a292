//! Where a campaign is looked up, and how often each layer has it.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use octo::{
    campaigns::{CampaignV1, Campaigns, Layer, Lookup},
    db,
    model::id::CampaignKey,
    redis::Redis,
    routing::Routes,
};
use serde::Deserialize;

use crate::{
    CAMPAIGNS, Node, ROUNDS, Servers, ask, ask_for, print, print_gain, print_head, print_medians, zipf::Zipf,
};

const CALLERS: usize = 64;
/// Of names in Redis; a node that has loaded nothing does not know the database's.
const KEY_PREFIX: &str = "bench:";
const DRAWN: usize = 1 << 17;
const SEED: u64 = 4;
const COLD: Duration = Duration::from_secs(3);
/// Look-ups of memory between two looks at the clock.
const AT_ONCE: usize = 1000;
const SIDES: [&str; 4] = [
    "a replica",
    "Redis, through octo's cache",
    "Redis, one connection for all callers",
    "memory (times are of 1,000)",
];

pub(crate) async fn compare(servers: &Servers) -> anyhow::Result<()> {
    let keys: &'static [CampaignKey] = drawn_keys()?.leak(); // as long as the process
    let node = Node::start(servers, 1).await?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let memory = campaigns(servers, &node, &directory.path().join("memory"), true)?;
    memory.refresh().await;
    anyhow::ensure!(memory.state().0 >= CAMPAIGNS, "{} campaigns in memory", memory.state().0);
    let shared = campaigns(servers, &node, &directory.path().join("redis"), false)?;
    for key in 0..CAMPAIGNS {
        found(shared.get(&campaign_key(key)?).await)?; // so that Redis has them all
    }

    print_head(&format!("cache: {CALLERS} callers look up {CAMPAIGNS} campaigns by Zipf's law (s = 1)"));
    let mut rounds = [const { Vec::new() }; 4];
    let mut asked = [0; 3];
    for round in 1..=ROUNDS {
        let in_replica = from_replica(servers, &node, keys).await?;
        let before = Counts::of(&memory).await;
        let in_redis = from_redis(servers, &shared, keys).await?;
        asked = Counts::of(&memory).await.since(&before).requests();
        let pipelined = from_redis_pipelined(servers, keys).await?;
        let in_memory = from_memory(servers, &memory, keys).await?;
        for (side, figures) in [in_replica, in_redis, pipelined, in_memory].into_iter().enumerate() {
            print(&round.to_string(), SIDES[side], &figures);
            rounds[side].push(figures);
        }
    }
    let [in_replica, in_redis, pipelined, in_memory] = print_medians(SIDES, &rounds);
    let [all, redis, database] = asked.map(|requests| requests as f64);
    println!(
        "\"Redis\" is octo's own look-up of a node that has nothing in memory: GET, JSON, templates compiled (deadlines of 2 s instead of 50 ms); in the last \
         round {:.1} % asked Redis, {:.1} % waited for another caller's answer, {:.2} % went on to PostgreSQL",
        100.0 * redis / all,
        100.0 * (1.0 - redis / all),
        100.0 * database / all
    );
    print_gain("cache, Redis against a replica", 3.0, in_redis.per_second / in_replica.per_second);
    print_gain(
        "cache, Redis by one connection against a replica",
        3.0,
        pipelined.per_second / in_replica.per_second,
    );
    print_gain("cache, memory against a replica", 3.0, in_memory.per_second / in_replica.per_second);
    ratios(servers, &node, directory.path(), &memory, keys).await
}

/// Which layer answers the same load: nothing known yet, Redis known, everything known.
async fn ratios(
    servers: &Servers,
    node: &Node,
    directory: &Path,
    memory: &Arc<Campaigns>,
    keys: &'static [CampaignKey],
) -> anyhow::Result<()> {
    let mut redis = servers.redis.connection().await;
    redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
    let first = campaigns(servers, node, &directory.join("first"), true)?;
    let second = campaigns(servers, node, &directory.join("second"), true)?;
    println!("\nhit ratio of each layer under that load ({} s each)", COLD.as_secs());
    println!(
        "{:<44} {:>9} {:>8} {:>8} {:>8} {:>13}",
        "", "look-ups", "memory", "Redis", "replica", "Redis errors"
    );
    for (case, campaigns) in [
        ("a first node, nothing loaded, Redis empty", &first),
        ("a second node, nothing loaded", &second),
        ("a node as it runs: all loaded", memory),
    ] {
        let before = Counts::of(campaigns).await;
        let asked = campaigns.clone();
        let question = move |number: usize| {
            let campaigns = asked.clone();
            async move {
                tokio::task::yield_now().await; // look-ups of memory alone would not let the others ask
                found(campaigns.get(&keys[number % keys.len()]).await)
            }
        };
        ask_for(COLD, CALLERS, &[], question).await?;
        let counts = Counts::of(campaigns).await.since(&before);
        let ratio = counts.ratios().map(|r| r.map_or("-".to_owned(), |r| format!("{:.2} %", 100.0 * r)));
        let [memory, redis, replica] = ratio;
        let [look_ups, _, _] = counts.requests();
        let errors = counts.redis_errors;
        println!("{case:<44} {look_ups:>9} {memory:>8} {redis:>8} {replica:>8} {errors:>13}");
    }
    Ok(())
}

async fn from_replica(
    servers: &Servers,
    node: &Node,
    keys: &'static [CampaignKey],
) -> anyhow::Result<crate::Figures> {
    let db = node.db.clone();
    let question = move |number: usize| {
        let db = db.clone();
        async move {
            let campaign = db::store::campaigns::by_key(&db, keys[number % keys.len()].as_str()).await?;
            anyhow::ensure!(campaign.is_some(), "no campaign");
            Ok(1)
        }
    };
    ask(CALLERS, &servers.pids(), question).await
}

async fn from_redis(
    servers: &Servers,
    shared: &Arc<Campaigns>,
    keys: &'static [CampaignKey],
) -> anyhow::Result<crate::Figures> {
    let campaigns = shared.clone();
    let question = move |number: usize| {
        let campaigns = campaigns.clone();
        async move { found(campaigns.get(&keys[number % keys.len()]).await) }
    };
    ask(CALLERS, &servers.pids(), question).await
}

/// The same GET, JSON and templates by the redis crate alone, without single-flight, deadline and breaker: what Redis
/// itself could give.
async fn from_redis_pipelined(
    servers: &Servers,
    keys: &'static [CampaignKey],
) -> anyhow::Result<crate::Figures> {
    let connection = servers.redis.connection().await;
    let question = move |number: usize| {
        let mut connection = connection.clone();
        async move {
            let key = format!("{KEY_PREFIX}campaign_v1:{}", keys[number % keys.len()]);
            let value: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut connection).await?;
            let Kept { campaign } = serde_json::from_slice(&value)?;
            let routes = Routes::new(campaign.into()).map_err(anyhow::Error::from)?;
            black_box(routes);
            Ok(1)
        }
    };
    ask(CALLERS, &servers.pids(), question).await
}

/// What octo keeps in Redis.
#[derive(Deserialize)]
struct Kept {
    campaign: CampaignV1,
}

async fn from_memory(
    servers: &Servers,
    memory: &Arc<Campaigns>,
    keys: &'static [CampaignKey],
) -> anyhow::Result<crate::Figures> {
    let campaigns = memory.clone();
    let question = move |number: usize| {
        let campaigns = campaigns.clone();
        async move {
            for key in keys.iter().cycle().skip(number % keys.len()).take(AT_ONCE) {
                found(campaigns.get(key).await)?;
            }
            tokio::task::yield_now().await;
            Ok(AT_ONCE)
        }
    };
    ask(CALLERS, &servers.pids(), question).await
}

/// The cache of a node that has loaded nothing yet. Without `remembers` it forgets at once what it looked up, so that
/// each look-up goes to Redis.
fn campaigns(
    servers: &Servers,
    node: &Node,
    data_dir: &Path,
    remembers: bool,
) -> anyhow::Result<Arc<Campaigns>> {
    std::fs::create_dir_all(data_dir)?;
    let mut config = servers.config(1)?;
    data_dir.clone_into(&mut config.server.data_dir);
    KEY_PREFIX.clone_into(&mut config.redis.key_prefix);
    // it is look-ups that are measured, more than strangers may cause
    (config.cache.look_ups_per_second_max, config.cache.look_ups_in_flight_max) = (1_000_000, 100_000);
    if !remembers {
        config.cache.negative_ttl = Duration::ZERO;
        // on a busy machine it would be the breaker that is measured; the hit ratios below are with what is configured
        config.redis.command_timeout = Duration::from_secs(2);
        config.cache.miss_timeout = Duration::from_secs(5);
    }
    let redis = Redis::open(&config.redis)?;
    Ok(Arc::new(Campaigns::new(node.db.clone(), redis, &config)))
}

fn drawn_keys() -> anyhow::Result<Vec<CampaignKey>> {
    let zipf = Zipf::new(CAMPAIGNS);
    let mut random = fastrand::Rng::with_seed(SEED);
    (0..DRAWN).map(|_| campaign_key(zipf.draw(&mut random))).collect()
}

fn campaign_key(rank: usize) -> anyhow::Result<CampaignKey> {
    format!("demo-{rank}").parse().map_err(anyhow::Error::msg)
}

fn found(lookup: Lookup) -> anyhow::Result<usize> {
    match lookup {
        Lookup::Found(_) => Ok(1),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Of the layers of this process (memory, Redis, PostgreSQL), answers and requests.
struct Counts {
    layers: [(u64, u64); 3],
    /// A deadline missed, or the breaker open.
    redis_errors: u64,
}

impl Counts {
    async fn of(campaigns: &Campaigns) -> Self {
        let all = campaigns.report().await.layers;
        let of = |name: &str| all.iter().find(|layer| layer.layer == name);
        let layers = ["process", "redis", "database"].map(|name| {
            of(name).map_or((0, 0), |&Layer { hits, misses, stale, negative, errors, .. }| {
                let answers = hits + stale + negative;
                (answers, answers + misses + errors)
            })
        });
        Self { layers, redis_errors: of("redis").map_or(0, |layer| layer.errors) }
    }

    fn since(&self, before: &Self) -> Self {
        let mut layers = self.layers;
        for (layer, before) in layers.iter_mut().zip(before.layers) {
            *layer = (layer.0 - before.0, layer.1 - before.1);
        }
        Self { layers, redis_errors: self.redis_errors - before.redis_errors }
    }

    fn requests(&self) -> [u64; 3] {
        self.layers.map(|(_, requests)| requests)
    }

    fn ratios(&self) -> [Option<f64>; 3] {
        self.layers.map(|(answers, requests)| (requests > 0).then(|| answers as f64 / requests as f64))
    }
}
