//! What preparing a statement once a connection saves.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use octo::db::{Statement, pool::Pool};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::{
    CAMPAIGNS, Figures, ROUNDS, RUN, Servers, ask_for, print, print_gain, print_head, print_medians,
    statement,
};

const CALLERS: usize = 32;
const WARM_UP: Duration = Duration::from_millis(1500);
const PAGE: i64 = 50;
const SIDES: [&str; 3] = [
    "simple protocol, values in the text",
    "unnamed statement, parsed each time",
    "prepared once a connection",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Simple,
    Unnamed,
    Prepared,
}

const WAYS: [Way; 3] = [Way::Simple, Way::Unnamed, Way::Prepared];

#[derive(Debug, Clone, Copy)]
enum Question {
    /// A row by a unique index, with two sub-queries.
    Campaign,
    /// A row of one of 31 partitions, by its primary key.
    Click,
    /// The newest page of clicks from all partitions.
    Clicks,
}

pub(crate) async fn compare(servers: &Servers) -> anyhow::Result<()> {
    let clicks: Vec<(DateTime<Utc>, Uuid)> =
        sqlx::query_as("SELECT created_at, id FROM clicks TABLESAMPLE SYSTEM (20) LIMIT 10000")
            .fetch_all(&mut servers.primary.admin().await)
            .await?;
    let clicks: &'static [(DateTime<Utc>, Uuid)] = clicks.leak(); // as long as the process
    for question in [Question::Campaign, Question::Click, Question::Clicks] {
        print_head(&format!("prepared: {CALLERS} callers of {}, on octo's pool", question.name()));
        let pools = [pool(servers)?, pool(servers)?, pool(servers)?];
        let mut rounds = [const { Vec::new() }; 3];
        for round in 0..=ROUNDS {
            for (side, way) in WAYS.into_iter().enumerate() {
                // 0 is to warm up: of a prepared statement PostgreSQL plans the first five runs of each connection anew
                let time = if round == 0 { WARM_UP } else { RUN };
                let figures = run(time, servers, &pools[side], question, way, clicks).await?;
                if round == 0 {
                    continue;
                }
                print(&round.to_string(), SIDES[side], &figures);
                rounds[side].push(figures);
            }
        }
        let (_, reused, planned) = plans(&pools[2], question.name()).await?;
        pools.iter().for_each(Pool::close);
        let [simple, unnamed, prepared] = print_medians(SIDES, &rounds);
        for (side, other) in [("simple protocol", simple), ("unnamed", unnamed)] {
            let line = format!("prepared, {} against {side}", question.name());
            print_gain(&line, 0.20, prepared.per_second / other.per_second);
            println!("      the server's CPU {:.2} of it", prepared.server_cpu / other.server_cpu);
        }
        println!(
            "      prepared, of one connection's runs {reused} used a kept plan, {planned} were planned anew"
        );
    }
    println!(
        "unnamed statements are planned for any value too (octo's connections say so): dear over partitions"
    );
    Ok(())
}

/// Each way has a pool of its own: sqlx uses a statement that a connection has prepared, whoever asks.
fn pool(servers: &Servers) -> anyhow::Result<Pool> {
    Ok(Pool::new("primary", &servers.primary.url().into(), &servers.config(0)?.database)?)
}

async fn run(
    time: Duration,
    servers: &Servers,
    pool: &Pool,
    question: Question,
    way: Way,
    clicks: &'static [(DateTime<Utc>, Uuid)],
) -> anyhow::Result<Figures> {
    let connections = pool.clone();
    let work = move |number: usize| {
        let connections = connections.clone();
        let click = clicks[number % clicks.len()];
        async move {
            let rows = connections
                .run(statement(question.name()), move |c| match way {
                    Way::Simple => question.ask_simply(c, number, click),
                    _ => question.ask(c, number, click, way != Way::Unnamed),
                })
                .await?;
            anyhow::ensure!(rows > 0, "no rows");
            Ok(1)
        }
    };
    let figures = ask_for(time, CALLERS, &[servers.primary.pid()], work).await?;
    let (kept, _, _) = plans(pool, question.name()).await?;
    let is_prepared = way == Way::Prepared;
    anyhow::ensure!((kept == 1) == is_prepared, "{way:?}: {kept} prepared");
    Ok(figures)
}

/// What one connection has prepared, and how often it ran with the plan that was kept and with a new one.
async fn plans(pool: &Pool, name: &'static str) -> anyhow::Result<(i64, i64, i64)> {
    const PLANS: Statement = Statement::new(
        "bench.plans",
        "
        SELECT count(*), coalesce(sum(generic_plans), 0)::bigint, coalesce(sum(custom_plans), 0)::bigint
        FROM pg_prepared_statements
        WHERE statement = $1",
    );

    let asked = pool.run(PLANS, move |c| {
        Box::pin(
            sqlx::query_as(PLANS.sql()).persistent(false).bind(statement(name).sql()).fetch_one(&mut **c),
        )
    });
    Ok(asked.await?)
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Campaign => "campaign.by_key",
            Self::Click => "click.get",
            Self::Clicks => "click.list",
        }
    }

    fn ask(
        self,
        c: &mut PgConnection,
        number: usize,
        (created_at, id): (DateTime<Utc>, Uuid),
        is_prepared: bool,
    ) -> BoxFuture<'_, sqlx::Result<usize>> {
        let query = sqlx::query(statement(self.name()).sql()).persistent(is_prepared);
        let query = match self {
            Self::Campaign => query.bind(key(number)),
            Self::Click => query.bind(created_at).bind(id),
            Self::Clicks => query
                .bind(DateTime::UNIX_EPOCH)
                .bind(far_future())
                .bind(far_future())
                .bind(Uuid::max())
                .bind(PAGE)
                .bind(None::<bool>),
        };
        Box::pin(async move { Ok(query.fetch_all(c).await?.len()) })
    }

    /// The same text with the values written into it; they are the benchmark's own.
    fn ask_simply(
        self,
        c: &mut PgConnection,
        number: usize,
        (created_at, id): (DateTime<Utc>, Uuid),
    ) -> BoxFuture<'_, sqlx::Result<usize>> {
        let time = |at: DateTime<Utc>| format!("'{}'::timestamptz", at.to_rfc3339());
        let values = match self {
            Self::Campaign => vec![format!("'{}'", key(number))],
            Self::Click => vec![time(created_at), format!("'{id}'::uuid")],
            Self::Clicks => vec![
                time(DateTime::UNIX_EPOCH),
                time(far_future()),
                time(far_future()),
                format!("'{}'::uuid", Uuid::max()),
                PAGE.to_string(),
                "NULL".to_owned(),
            ],
        };
        let mut text = statement(self.name()).sql().to_owned();
        for (place, value) in values.iter().enumerate() {
            text = text.replace(&format!("${}", place + 1), value);
        }
        Box::pin(async move { Ok(sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(c).await?.len()) })
    }
}

fn key(number: usize) -> String {
    format!("demo-{}", number % CAMPAIGNS)
}

/// As octo's own list without an end.
fn far_future() -> DateTime<Utc> {
    DateTime::from_timestamp(253_402_300_799, 0).expect("a time chrono can hold")
}
