//! Commands, each within its deadline and past the breaker.

use std::time::{Duration, Instant};

use deadpool_redis::PoolError;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, cmd};
use tokio::time::{Instant as Deadline, timeout_at};

use super::{Redis, breaker::Permit, servers::Connection};
use crate::metrics;

/// Keys of one UNLINK.
const KEYS_OF_A_COMMAND: usize = 200;

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The breaker is open.
    Open,
    /// It is not known what names begin with.
    Nameless,
    /// No answer before the deadline.
    Timeout,
    /// Redis is well and says no: a key of another type, no memory left.
    Refused(RedisError),
    /// The connection, or the server.
    Broken(PoolError),
}

/// What is sent.
pub(crate) enum Ask {
    One(Cmd),
    /// All or nothing; the keys are of one slot.
    Together(Pipeline),
}

impl Redis {
    /// The value of a key.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.command(cmd("GET").arg(name).take()).await
    }

    /// The values of some keys, in their order; what is no text is none.
    pub(crate) async fn get_all(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        // in a Cluster, redis-rs divides it by slot
        self.command(cmd("MGET").arg(names).take()).await
    }

    /// Puts a value in the place of whatever is there.
    pub(crate) async fn set(&self, name: &str, value: &[u8], ttl: Duration) -> Result<(), Failure> {
        self.command(cmd("SET").arg(name).arg(value).arg("PX").arg(ms(ttl)).take()).await
    }

    /// Puts a value where nothing is; whether it did. With a value of one's own it is a lock.
    pub(crate) async fn set_if_absent(
        &self,
        name: &str,
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, Failure> {
        let set = cmd("SET").arg(name).arg(value).arg("NX").arg("PX").arg(ms(ttl)).take();
        Ok(self.command::<Option<String>>(set).await?.is_some())
    }

    /// Deletes keys by name, never by KEYS or SCAN; how many there were.
    pub(crate) async fn unlink(&self, names: &[String]) -> Result<u64, Failure> {
        let mut deleted = 0;
        for names in names.chunks(KEYS_OF_A_COMMAND) {
            // in a Cluster, redis-rs divides it by slot
            deleted += self.command::<u64>(cmd("UNLINK").arg(names).take()).await?;
        }
        Ok(deleted)
    }

    /// Whether it answers.
    pub(crate) async fn ping(&self) -> bool {
        self.command::<redis::Value>(cmd("PING")).await.is_ok()
    }

    pub(super) async fn command<T: FromRedisValue>(&self, command: Cmd) -> Result<T, Failure> {
        self.ask(&Ask::One(command)).await
    }

    /// Sends one command (or some together) within the deadline, connection included.
    pub(crate) async fn ask<T: FromRedisValue>(&self, ask: &Ask) -> Result<T, Failure> {
        let Some(permit) = self.breaker().admit(Instant::now()) else {
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
        let mut breaker = self.breaker();
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
