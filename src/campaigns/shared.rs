//! The shared layer. Every command has a deadline and passes the breaker; whatever goes wrong is a miss and
//! counted, never an error of a click.
//!
//! | key | holds |
//! |---|---|
//! | `campaign:{key}` | `{"schema", "key", "campaign"}`; `campaign` is null: it is deleted |
//! | `campaign:{key}:filler` | who looks the campaign up in Postgres just now, or `none`: there is no such campaign |
//! | `click_stats:{key}` | a hash: question -> figures; see [`crate::campaigns::report_cache`] |
//!
//! Each name, and that of each channel, begins with `redis.key_prefix` or with `octo:{id}:`, where the id is made from
//! the database: two installations on one Redis never see what the other has. Until the database (or what an earlier
//! start saved) has said which it is, nothing is asked of Redis.
//!
//! A campaign that a node saw change is written whatever is there. What a look-up brings, perhaps from a replica
//! that lags, is written only where nothing is: it never takes the place of something newer.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use deadpool_redis::PoolError;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, aio::PubSub, cmd};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant as Deadline, sleep, timeout_at};

use crate::{
    config::{self, millis},
    metrics::{
        self,
        CacheLayer::Redis as Layer,
        CacheOutcome::{Error, Hit, Miss, Negative},
    },
    model::{campaign::Campaign, id::CampaignKey},
    redis::{
        breaker::{Breaker, Permit},
        servers::{Connection, Servers},
    },
};

const SCHEMA: u32 = 2;

/// In place of a filler: it looked, and there is no such campaign.
const NONE: &str = "none";

/// Between two looks at what another node's look-up brought.
const FILLER_POLL: Duration = Duration::from_millis(10);

/// Keys of one UNLINK.
const KEYS_OF_A_COMMAND: usize = 200;

pub(crate) struct Redis {
    servers: Servers,
    breaker: Mutex<Breaker>,
    timeout: Duration,
    campaign_ttl_s: u64,
    filler_ttl: Duration,
    filler_wait: Duration,
    negative_ttl: Duration,
    /// This process, as other nodes see it.
    node: String,
    /// What is configured; empty: made from the database.
    key_prefix: Arc<str>,
    installation: RwLock<Option<Arc<str>>>,
}

/// What names in Redis begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names(Arc<str>);

impl Names {
    pub(crate) fn prefix(&self) -> &str {
        &self.0
    }

    fn campaign(&self, key: &CampaignKey) -> String {
        format!("{}campaign:{key}", self.0)
    }

    fn filler(&self, key: &CampaignKey) -> String {
        format!("{}campaign:{key}:filler", self.0)
    }

    pub(crate) fn stats(&self, key: &CampaignKey) -> String {
        format!("{}click_stats:{key}", self.0)
    }
}

/// What the shared layer knows of a key.
pub(crate) enum Found {
    Campaign(Box<Campaign>),
    /// It was deleted a while ago.
    Deleted,
    Nothing,
    /// What is there is no campaign of ours.
    Garbage,
    /// Redis did not answer.
    Failed,
}

/// Who asks Postgres for a campaign.
pub(crate) enum Filler {
    /// This node; so does one whose Redis fails, or who waited in vain for another.
    Us,
    /// Another node did, and this came of it.
    Other(Option<Box<Campaign>>),
}

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The breaker is open.
    Open,
    /// It is not known what names begin with.
    Nameless,
    Timeout,
    /// Redis is well and says no: a key of another type, no memory left.
    Refused(RedisError),
    Broken(PoolError),
}

/// What is sent.
pub(crate) enum Ask {
    One(Cmd),
    /// All or nothing; the keys are of one slot.
    Together(Pipeline),
}

#[derive(Serialize)]
struct Out<'a> {
    schema: u32,
    key: &'a CampaignKey,
    campaign: Option<&'a Campaign>,
}

#[derive(Deserialize)]
struct In {
    schema: u32,
    key: CampaignKey,
    #[serde(deserialize_with = "Option::deserialize")] // null, not absent
    campaign: Option<Box<Campaign>>,
}

impl Redis {
    /// `None` when no Redis is configured. Connects when it is first used.
    pub(crate) fn new(config: &config::Config, node: String) -> anyhow::Result<Option<Self>> {
        let Some(servers) = Servers::new(&config.redis)? else { return Ok(None) };
        metrics::redis_breaker(false);
        let wait = millis(config.redis.breaker_wait_ms);
        Ok(Some(Self {
            servers,
            breaker: Mutex::new(Breaker::new(config.redis.breaker_failures, wait)),
            timeout: millis(config.redis.command_timeout_ms),
            campaign_ttl_s: config.redis.campaign_ttl_s,
            filler_ttl: millis(config.cache.miss_timeout_ms),
            filler_wait: millis(config.cache.filler_wait_ms),
            negative_ttl: millis(config.cache.negative_ttl_ms),
            node,
            key_prefix: config.redis.key_prefix.as_str().into(),
            installation: RwLock::default(),
        }))
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// `closed`, `open` or `half_open`.
    pub(crate) fn breaker(&self) -> &'static str {
        self.lock().name()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Whether names are made from the database's identity.
    pub(crate) fn is_named_by_database(&self) -> bool {
        self.key_prefix.is_empty()
    }

    /// The installation that names are made of, if that is known.
    pub(crate) fn installation(&self) -> Option<Arc<str>> {
        self.installation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes names of an installation that is known from before.
    pub(crate) fn name(&self, installation: Arc<str>) {
        *self.installation.write().unwrap_or_else(PoisonError::into_inner) = Some(installation);
    }

    /// Makes names of what the database says it is; whether they are others now.
    pub(crate) fn name_after(&self, identity: &str) -> bool {
        let digest = Sha256::digest(identity);
        let id = digest.iter().take(8).fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}"); // writing to a String does not fail
            id
        });
        let is_other = self.installation().as_deref() != Some(id.as_str());
        if is_other {
            self.name(id.into());
        }
        is_other
    }

    /// What names begin with; an error while that is not known.
    pub(crate) fn names(&self) -> Result<Names, Failure> {
        if !self.key_prefix.is_empty() {
            return Ok(Names(self.key_prefix.clone()));
        }
        let id = self.installation().ok_or(Failure::Nameless)?;
        Ok(Names(format!("octo:{id}:").into()))
    }

    /// The name of a channel. Channels are not divided by database, so it carries that.
    pub(crate) fn channel(&self, of: &str) -> Option<String> {
        let names = self.names().ok()?;
        Some(format!("{}{of}:{}", names.prefix(), self.servers.database()))
    }

    pub(crate) async fn get(&self, key: &CampaignKey) -> Found {
        let found = self.read(key).await;
        metrics::cache_request(
            Layer,
            match found {
                Found::Campaign(_) => Hit,
                Found::Deleted => Negative,
                Found::Nothing => Miss,
                Found::Garbage | Found::Failed => Error,
            },
        );
        found
    }

    async fn read(&self, key: &CampaignKey) -> Found {
        let Ok(names) = self.names() else { return Found::Failed };
        let answer: Result<Option<Vec<u8>>, Failure> =
            self.command(cmd("GET").arg(names.campaign(key)).take()).await;
        let bytes = match answer {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Found::Nothing,
            Err(failure) if failure.is_wrong_type() => return Found::Garbage,
            Err(_) => return Found::Failed,
        };
        match serde_json::from_slice::<In>(&bytes) {
            Ok(In { schema: SCHEMA, key: of, campaign: None }) if of == *key => Found::Deleted,
            Ok(In { schema: SCHEMA, campaign: Some(campaign), .. }) if campaign.key == *key => {
                Found::Campaign(campaign)
            }
            _ => Found::Garbage,
        }
    }

    /// Lets one node ask Postgres for a campaign. The others wait shortly for what comes of it.
    pub(crate) async fn claim(&self, key: &CampaignKey) -> Filler {
        let Ok(names) = self.names() else { return Filler::Us };
        let mut claim = cmd("SET");
        claim.arg(names.filler(key)).arg(&self.node).arg("NX").arg("PX").arg(ms(self.filler_ttl));
        match self.command::<Option<String>>(claim).await {
            Ok(None) => self.wait_for_other(key, &names).await,
            Ok(Some(_)) | Err(_) => Filler::Us,
        }
    }

    async fn wait_for_other(&self, key: &CampaignKey, names: &Names) -> Filler {
        let deadline = Deadline::now() + self.filler_wait;
        loop {
            match self.read(key).await {
                Found::Campaign(campaign) => return Filler::Other(Some(campaign)),
                Found::Deleted => return Filler::Other(None),
                Found::Failed => return Filler::Us,
                Found::Nothing | Found::Garbage => {}
            }
            let filler: Result<Option<String>, _> =
                self.command(cmd("GET").arg(names.filler(key)).take()).await;
            match filler.ok().flatten().as_deref() {
                Some(NONE) => return Filler::Other(None),
                Some(_) if Deadline::now() < deadline => sleep(FILLER_POLL).await,
                _ => return Filler::Us,
            }
        }
    }

    /// Leaves what a look-up brought for the others, unless something is there; in place of garbage, whatever
    /// it is.
    pub(crate) async fn fill(&self, key: &CampaignKey, campaign: Option<&Campaign>, was_garbage: bool) {
        let Ok(names) = self.names() else { return };
        if was_garbage && campaign.is_none() {
            self.ignore(cmd("DEL").arg(names.campaign(key)).take()).await;
        }
        let mut set = cmd("SET");
        if campaign.is_some() {
            set = self.set_command(&names, key, campaign);
            set.arg((!was_garbage).then_some("NX"));
        } else {
            set.arg(names.filler(key)).arg(NONE).arg("PX").arg(ms(self.negative_ttl));
        }
        self.ignore(set).await;
    }

    /// Writes a campaign as it is now, or that it is deleted. Where Redis takes no more (`maxmemory`), what it has
    /// goes at least. `false`: it may still have something else.
    pub(crate) async fn put(&self, key: &CampaignKey, campaign: Option<&Campaign>) -> bool {
        let Ok(names) = self.names() else { return false };
        match self.command::<()>(self.set_command(&names, key, campaign)).await {
            Ok(()) => true,
            Err(Failure::Refused(_)) => {
                self.command::<u64>(cmd("UNLINK").arg(names.campaign(key)).take()).await.is_ok()
            }
            Err(_) => false,
        }
    }

    fn set_command(&self, names: &Names, key: &CampaignKey, campaign: Option<&Campaign>) -> Cmd {
        let value = serde_json::to_vec(&Out { schema: SCHEMA, key, campaign });
        // +-10 %, so that campaigns written together do not expire together
        let ttl = (self.campaign_ttl_s * fastrand::u64(90..=110) / 100).max(1);
        let mut set = cmd("SET");
        set.arg(names.campaign(key)).arg(value.unwrap_or_default()).arg("EX").arg(ttl);
        set
    }

    /// Deletes everything of these campaigns, by name: never by KEYS or SCAN. Says how many keys there were;
    /// `None`: Redis does not answer.
    pub(crate) async fn forget(&self, keys: &[CampaignKey]) -> Option<u64> {
        let names = self.names().ok()?;
        let of_key = |key| [names.campaign(key), names.filler(key), names.stats(key)];
        let names: Vec<String> = keys.iter().flat_map(of_key).collect();
        let mut deleted = 0;
        for names in names.chunks(KEYS_OF_A_COMMAND) {
            // in a Cluster, redis-rs divides it by slot
            deleted += self.command::<u64>(cmd("UNLINK").arg(names).take()).await.ok()?;
        }
        Some(deleted)
    }

    /// Says something to the other nodes of the installation; whether Redis took it.
    pub(crate) async fn publish(&self, of: &str, text: &str) -> bool {
        let Some(channel) = self.channel(of) else { return false };
        self.command::<u64>(cmd("PUBLISH").arg(channel).arg(text).take()).await.is_ok()
    }

    pub(crate) async fn subscribe(&self, channel: &str) -> redis::RedisResult<PubSub> {
        self.servers.subscribe(channel).await
    }

    pub(crate) async fn ping(&self) -> bool {
        self.command::<redis::Value>(cmd("PING")).await.is_ok()
    }

    /// Sends a command whose failure changes nothing.
    async fn ignore(&self, command: Cmd) {
        if let Err(failure) = self.command::<()>(command).await {
            tracing::debug!(?failure, "a Redis command failed");
        }
    }

    async fn command<T: FromRedisValue>(&self, command: Cmd) -> Result<T, Failure> {
        self.ask(&Ask::One(command)).await
    }

    /// Sends one command (or some together) within the deadline, connection included.
    pub(crate) async fn ask<T: FromRedisValue>(&self, ask: &Ask) -> Result<T, Failure> {
        let Some(permit) = self.lock().admit(Instant::now()) else {
            metrics::redis_refused();
            return Err(Failure::Open);
        };
        let start = Instant::now();
        let answer = self.send(ask, Deadline::now() + self.timeout).await;
        metrics::redis_command(answer.as_ref().map_or_else(Failure::outcome, |_| "ok"), start.elapsed());
        let is_well = matches!(answer, Ok(_) | Err(Failure::Refused(_)));
        self.record(permit, is_well);
        answer
    }

    async fn send<T: FromRedisValue>(&self, ask: &Ask, deadline: Deadline) -> Result<T, Failure> {
        let connection = timeout_at(deadline, self.servers.connection()).await;
        let mut connection = connection.map_err(|_| Failure::Timeout)?.map_err(Failure::Broken)?;
        let answer = timeout_at(deadline, ask.send(&mut connection)).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if is_answer(&error) => return Err(Failure::Refused(error)),
            Ok(Err(error)) => Failure::Broken(PoolError::Backend(error)),
            Err(_) => Failure::Timeout,
        };
        self.servers.discard(&connection);
        Err(failure)
    }

    fn record(&self, permit: Permit, is_well: bool) {
        let mut breaker = self.lock();
        let was = breaker.name();
        breaker.record(permit, is_well, Instant::now());
        let (is, is_closed) = (breaker.name(), breaker.is_closed());
        drop(breaker);
        if was == is {
            return;
        }
        metrics::redis_breaker(!is_closed);
        match (was, is) {
            ("closed", _) => tracing::warn!("Redis does not answer; it is not used until it does"),
            (_, "closed") => tracing::info!("Redis answers again"),
            _ => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask {
    async fn send<T: FromRedisValue>(&self, connection: &mut Connection) -> redis::RedisResult<T> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::Together(pipeline) => pipeline.query_async(connection).await,
        }
    }
}

impl Failure {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Timeout | Self::Broken(PoolError::Timeout(_)) => "timeout",
            Self::Nameless | Self::Refused(_) | Self::Broken(_) => "error",
        }
    }

    /// The key holds a value of another type.
    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("WRONGTYPE"))
    }
}

/// Whether an error is the answer of a server that is well. One that loads its data, lost its master or became a
/// replica also says something, but is of no use.
fn is_answer(error: &RedisError) -> bool {
    use ServerErrorKind::{CrossSlot, ExecAbort, NoPerm, ResponseError};
    matches!(
        error.kind(),
        ErrorKind::Server(ResponseError | NoPerm | CrossSlot | ExecAbort)
            | ErrorKind::Extension
            | ErrorKind::UnexpectedReturnType
    )
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
