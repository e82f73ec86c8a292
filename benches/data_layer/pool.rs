//! Where the connection of a query comes from.

use octo::{
    config,
    db::{Error, pool::Pool},
};
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::{
    CAMPAIGNS, Figures, ROUNDS, Servers, ask, medians, print, print_gain, print_head, print_medians,
    statement,
};

const CALLERS: usize = 200;
const QUERY: &str = "campaign.by_key";
const SIDES: [&str; 3] =
    ["a connection for each query", "sqlx's pool, 1 to 100, its defaults", "octo's pool, 5 to 32"];

pub(crate) async fn compare(servers: &Servers) -> anyhow::Result<()> {
    let config = servers.config(0)?.database;
    print_head(&format!("pool: {CALLERS} callers of {QUERY} among {CAMPAIGNS} campaigns"));
    let mut rounds = [const { Vec::new() }; 3];
    for round in 1..=ROUNDS {
        let all = [naive(servers).await?, unlimited(servers).await?, tuned(servers, &config).await?];
        for (side, figures) in all.into_iter().enumerate() {
            print(&round.to_string(), SIDES[side], &figures);
            rounds[side].push(figures);
        }
    }
    let [naive, unlimited, tuned] = print_medians(SIDES, &rounds);
    for (side, other) in [("a connection for each query", naive), ("sqlx's pool of 100", unlimited)] {
        print_gain(&format!("pool, against {side}"), 0.25, tuned.per_second / other.per_second);
        println!(
            "      p99 {:.2} of it, the servers' CPU {:.2} of it",
            tuned.p99 / other.p99,
            tuned.server_cpu / other.server_cpu
        );
    }
    Ok(())
}

/// octo's pool with other sizes: is 32 a good one?
pub(crate) async fn sizes(servers: &Servers) -> anyhow::Result<()> {
    const SIZES: [u32; 6] = [2, 4, 8, 16, 32, 100];
    print_head(&format!("sizes of octo's pool: {CALLERS} callers of {QUERY}"));
    let mut rounds = SIZES.map(|_| Vec::new());
    for round in 1..=ROUNDS {
        for (size, rounds) in SIZES.iter().zip(&mut rounds) {
            let config = servers.config(0)?.database;
            let config = config::Database {
                min_connections: config.min_connections.min(*size),
                max_connections: *size,
                ..config
            };
            let figures = tuned(servers, &config).await?;
            print(&round.to_string(), &size.to_string(), &figures);
            rounds.push(figures);
        }
    }
    for (size, rounds) in SIZES.iter().zip(&rounds) {
        print("med.", &size.to_string(), &medians(rounds));
    }
    Ok(())
}

async fn naive(servers: &Servers) -> anyhow::Result<Figures> {
    let url = servers.primary.url();
    let question = move |number| {
        let url = url.clone();
        async move {
            let mut connection = PgConnection::connect(&url).await?;
            let found = by_key(&mut connection, number).await?;
            connection.close().await?;
            Ok(found)
        }
    };
    ask(CALLERS, &[servers.primary.pid()], question).await
}

async fn unlimited(servers: &Servers) -> anyhow::Result<Figures> {
    let pool: PgPool =
        PgPoolOptions::new().min_connections(1).max_connections(100).connect(&servers.primary.url()).await?;
    let connections = pool.clone();
    let question = move |number| {
        let connections = connections.clone();
        async move { Ok(by_key(&mut *connections.acquire().await?, number).await?) }
    };
    let figures = ask(CALLERS, &[servers.primary.pid()], question).await;
    pool.close().await; // the next side needs the server's connections
    figures
}

async fn tuned(servers: &Servers, config: &config::Database) -> anyhow::Result<Figures> {
    let pool = Pool::new("primary", &servers.primary.url().into(), config)?;
    let connections = pool.clone();
    let question = move |number| {
        let connections = connections.clone();
        async move {
            let found: Result<usize, Error> =
                connections.run(statement(QUERY), move |c| Box::pin(by_key(&mut *c, number))).await;
            Ok(found?)
        }
    };
    let figures = ask(CALLERS, &[servers.primary.pid()], question).await;
    pool.close();
    figures
}

/// The same for all: bind, fetch, and look at what came, but do not decode it.
async fn by_key(c: &mut PgConnection, number: usize) -> sqlx::Result<usize> {
    let key = format!("demo-{}", number % CAMPAIGNS);
    sqlx::query(statement(QUERY).sql()).bind(key).fetch_one(c).await.map(|_| 1)
}
