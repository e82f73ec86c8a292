//! One database a test, on the shared servers, with the crate's migrations applied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::machine::{command, hash, postgres_program};
use super::postgres::APP_USER;
use super::servers::{PausedReplay, Servers};
use super::{must, redis};

/// A day partition of clicks and of events for each of the last 31 days, today and the next 7, where there is none.
pub(crate) const DAY_PARTITIONS: &str = "
DO $$
DECLARE
    today  date := (now() AT TIME ZONE 'UTC')::date;
    parent text;
    day    date;
BEGIN
    FOREACH parent IN ARRAY ARRAY['clicks', 'events'] LOOP
        FOR day IN SELECT generate_series(today - 31, today + 7, '1 day')::date LOOP
            CONTINUE WHEN to_regclass(format('%s_%s', parent, to_char(day, 'YYYYMMDD'))) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                format('%s_%s', parent, to_char(day, 'YYYYMMDD')), parent,
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END LOOP;
    END LOOP;
END $$";

/// A database of one's own. Dropped, with everybody still connected to it, when this value is.
pub(crate) struct Database {
    name: String,
    servers: &'static Servers,
    redis_number: u32,
}

impl Database {
    /// A fresh, migrated, empty database, and an empty Redis database beside it. `name` is for people who read logs.
    pub(crate) async fn create(name: &str) -> Self {
        let servers = Servers::shared().await;
        let readable: String = name.chars().filter(char::is_ascii_alphanumeric).take(30).collect();
        let name = format!("it_{}_{:016x}", readable.to_lowercase(), fastrand::u64(..));
        must(create(servers, &name).await.with_context(|| format!("could not create the database {name}")));
        let redis_number = must(free_redis_database(servers).await.context("could not get a Redis database"));
        Self { name, servers, redis_number }
    }

    /// Its name on the servers.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The URL on the primary.
    pub(crate) fn url(&self) -> String {
        self.servers.primary_url(&self.name)
    }

    /// The URL on replica 0 or 1.
    pub(crate) fn replica_url(&self, replica: u8) -> String {
        self.servers.replica_url(replica, &self.name)
    }

    /// A Redis database nobody else uses: empty. Channels of publish/subscribe are shared with the other tests.
    pub(crate) fn redis_url(&self) -> String {
        self.servers.redis_url(self.redis_number)
    }

    /// A small pool on the primary.
    pub(crate) async fn pool(&self) -> PgPool {
        must(pool(&self.url()).await)
    }

    /// A small pool on replica 0 or 1.
    pub(crate) async fn replica_pool(&self, replica: u8) -> PgPool {
        must(pool(&self.replica_url(replica)).await)
    }

    /// Waits until both replicas show everything that was committed before this call.
    pub(crate) async fn wait_replicas(&self) {
        self.servers.wait_replicas().await;
    }

    /// Stops replay on a shared replica until the guard is dropped; seconds, not minutes: others wait.
    pub(crate) async fn pause_replay(&self, replica: u8) -> PausedReplay {
        self.servers.pause_replay(replica).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = drop_database(self.servers, &self.name) {
            eprintln!("{} stays until the servers end: {error:#}", self.name);
        }
    }
}

/// Applies the crate's migrations to the database at `url`.
pub(crate) async fn migrate(url: &str) {
    must(migrations_to(url).await.context("could not apply the migrations"));
}

pub(super) async fn pool(url: &str) -> Result<PgPool> {
    let options = PgPoolOptions::new().max_connections(5).acquire_timeout(Duration::from_secs(10));
    options.connect(url).await.with_context(|| format!("no pool for {url}"))
}

async fn create(servers: &Servers, name: &str) -> Result<()> {
    let mut admin = servers.admin().await;
    let template = migrated_template(servers, &mut admin).await?;
    // 50-110 ms; the default strategy goes through the log and took seconds beside replicas
    let strategy = if has_strategies(&mut admin).await? { "STRATEGY FILE_COPY" } else { "" };
    let statement = format!("CREATE DATABASE {name} OWNER {APP_USER} TEMPLATE {template} {strategy}");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await?;
    Ok(())
}

async fn has_strategies(admin: &mut PgConnection) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT current_setting('server_version_num')::int >= 150000");
    Ok(query.fetch_one(admin).await?)
}

/// The database to copy, made by the first who asks; named by the migrations, so that an edit makes another one.
async fn migrated_template(servers: &Servers, admin: &mut PgConnection) -> Result<String> {
    let name = format!("octo_template_{:016x}", hash(&migration_files()?));
    if !exists(admin, &name).await? {
        sqlx::query("SELECT pg_advisory_lock(1868788847)").execute(&mut *admin).await?;
        if !exists(admin, &name).await? {
            make_template(servers, admin, &name).await?;
        }
        sqlx::query("SELECT pg_advisory_unlock(1868788847)").execute(&mut *admin).await?;
    }
    Ok(name)
}

/// Under another name until it is whole; closed to connections after, because a connection would stop the copying.
async fn make_template(servers: &Servers, admin: &mut PgConnection, name: &str) -> Result<()> {
    for statement in [
        "DROP DATABASE IF EXISTS octo_unfinished WITH (FORCE)".to_owned(),
        format!("CREATE DATABASE octo_unfinished OWNER {APP_USER}"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *admin).await?;
    }
    migrations_to(&servers.primary_url("octo_unfinished")).await?;
    for statement in [
        "ALTER DATABASE octo_unfinished ALLOW_CONNECTIONS false".to_owned(),
        format!("ALTER DATABASE octo_unfinished RENAME TO {name}"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *admin).await?;
    }
    Ok(())
}

async fn exists(admin: &mut PgConnection, name: &str) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)");
    Ok(query.bind(name).fetch_one(admin).await?)
}

async fn migrations_to(url: &str) -> Result<()> {
    let dir = migrations_dir();
    if !dir.is_dir() {
        return Ok(()); // git keeps no empty directory
    }
    let mut connection = PgConnection::connect(url).await?;
    Migrator::new(dir).await?.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

fn migrations_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

/// Every migration, by name and text.
fn migration_files() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(migrations_dir()).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push((path.clone(), fs::read(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

/// By the program `dropdb`, because a destructor cannot wait for a future.
fn drop_database(servers: &Servers, name: &str) -> Result<()> {
    let (address, password) = servers.admin_login();
    let mut dropdb = command(postgres_program("dropdb")?, Path::new("/"))?;
    dropdb.args(["--force", "--if-exists", "-U", "postgres", "-h", &address.ip().to_string()]);
    dropdb.args(["-p", &address.port().to_string(), name]).env("PGPASSWORD", password).stdout(Stdio::null());
    let status = dropdb.status().context("could not start dropdb")?;
    anyhow::ensure!(status.success(), "dropdb: {status}");
    Ok(())
}

/// The next number, emptied; 0 holds the count.
async fn free_redis_database(servers: &Servers) -> Result<u32> {
    let mut connection = redis_connection(&servers.redis_url(0)).await?;
    let count: u32 = ::redis::cmd("INCR").arg("octo-it:databases").query_async(&mut connection).await?;
    let number = 1 + (count - 1) % (redis::DATABASES - 1);
    ::redis::cmd("SELECT").arg(number).exec_async(&mut connection).await?;
    ::redis::cmd("FLUSHDB").exec_async(&mut connection).await?;
    Ok(number)
}

async fn redis_connection(url: &str) -> Result<::redis::aio::MultiplexedConnection> {
    Ok(::redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}
