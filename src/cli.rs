//! The command line: serve, migrate, token, sign-in-link, config, database, journal, explain, cost, privacy, conversions, fx,
//! relabel, reports, demo, healthcheck.

mod conversions;
mod cost;
mod database;
mod dead_letters;
mod demo;
mod dump;
mod explain;
mod file;
mod fx;
mod journal;
mod privacy;
mod progress;
mod relabel;
mod reports;
mod sign_in_link;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::{TimeDelta, Utc};
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use crate::{
    config::{self, Config, Flags, Loaded, LogFormat},
    db::{self, Db, migrations, store::tokens},
    embedded::Embedded,
    model::token::Scope,
    server, telemetry,
};

/// octo: a click tracker that never loses a click.
///
/// Without a command it serves. Without a configured database it starts a private PostgreSQL in its data
/// directory, makes a demo campaign, and prints the link.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Global {
    /// A TOML file over the defaults (see `octo config print` for every key)
    #[arg(long, global = true, value_name = "FILE", env = "OCTO_CONFIG")]
    config: Option<PathBuf>,
    /// Where the journal, saved campaigns and the private PostgreSQL live
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the public listener, such as 0.0.0.0:8080
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Format of log lines
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the tracker (the default)
    Serve,
    /// Bring the database's schema up to date, or show what is pending
    Migrate {
        #[command(subcommand)]
        action: Option<Migrate>,
    },
    /// Create, list and revoke API tokens
    Token {
        #[command(subcommand)]
        action: Token,
    },
    /// Print a link that signs in to the dashboard; it is good once, and soon no more
    SignInLink,
    /// Show or check the effective configuration
    Config {
        #[command(subcommand)]
        action: Show,
    },
    /// Dump and restore the database, or move from the private PostgreSQL to one of your own
    Database {
        #[command(subcommand)]
        action: database::Command,
    },
    /// Inspect the journal and the records that PostgreSQL refused; works while octo runs
    Journal {
        #[command(subcommand)]
        action: journal::Command,
    },
    /// Show where a made-up visitor would go, and why; nothing is stored
    Explain(explain::Visitor),
    /// Say what clicks cost, list it, take it back, or import a file of it; works while octo runs
    Cost {
        #[command(subcommand)]
        action: cost::Command,
    },
    /// Export or erase everything about one click, or about all clicks with a value; works while octo runs
    Privacy {
        #[command(subcommand)]
        action: privacy::Command,
    },
    /// Take conversions from a file of a network or of another tracker
    Conversions {
        #[command(subcommand)]
        action: conversions::Command,
    },
    /// Import and show what currencies are worth; works while octo runs
    Fx {
        #[command(subcommand)]
        action: fx::Command,
    },
    /// Judge bots and data centres of stored clicks by the lists of today; works while octo runs
    Relabel(relabel::Relabel),
    /// Count the figures of reports anew, or compare them with clicks and conversions; works while octo runs
    Reports {
        #[command(subcommand)]
        action: reports::Command,
    },
    /// Fill octo with sample campaigns and traffic to look around in, or delete them; works while octo runs
    Demo {
        #[command(subcommand)]
        action: demo::Command,
    },
    /// Ask a running octo whether it is ready (exit code 0); for containers
    Healthcheck,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Migrate {
    /// Run what is pending (the default)
    Up,
    /// List the migrations; exit code 1 when something is pending
    Status,
    /// Print the SQL that is pending
    Plan,
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Create a token; it is shown only once and stored as a hash
    Create {
        /// admin: everything; read: everything, but no changes; ingest: send events; metrics: /metrics and /health
        #[arg(long)]
        scope: Scope,
        /// A name to recognise it by
        #[arg(long, default_value = "made on the command line")]
        name: String,
        /// When it expires, such as 12h, 90d or 52w; without it, never
        #[arg(long, value_parser = parse_age)]
        expires: Option<TimeDelta>,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token at once
    Revoke {
        /// Its id, as in `octo token list`
        id: Uuid,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Show {
    /// Print every effective value and where it came from; secrets as ***
    Print,
    /// Exit code 0 when the configuration is valid
    Check,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let flags = Flags {
            data_dir: self.global.data_dir,
            listen: self.global.listen,
            log_format: self.global.log_format,
        };
        // `vars_os`, because `vars` panics where anybody's variable is not UTF-8
        let loaded = config::environment(std::env::vars_os())
            .and_then(|environment| Loaded::load(self.global.config.as_deref(), environment, &flags));
        let loaded = loaded.map_err(|e| server::CannotStart(e.to_string()))?;
        let config = loaded.config.clone();
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(config),
            Command::Migrate { action } => with_db(&config, migrate(action.unwrap_or(Migrate::Up))),
            Command::Token { action } => with_db(&config, token(action)),
            Command::SignInLink => sign_in_link::run(&config),
            Command::Config { action: Show::Print } => print(&loaded.to_string()),
            Command::Config { action: Show::Check } => print("the configuration is valid\n"),
            Command::Database { action } => database::run(action, &config),
            Command::Journal { action } => journal::run(action, &config),
            Command::Explain(visitor) => explain::run(visitor, &config),
            Command::Cost { action } => cost::run(action, &config),
            Command::Privacy { action } => privacy::run(action, &config),
            Command::Conversions { action } => conversions::run(action, &config),
            Command::Fx { action } => fx::run(action, &config),
            Command::Relabel(asked) => relabel::run(&asked, &config),
            Command::Reports { action } => reports::run(action, &config),
            Command::Demo { action } => demo::run(action, &config),
            Command::Healthcheck => healthcheck(&config),
        }
    }
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let inherited = server::Inherited::take()?;
    telemetry::init_logs(&config.log)?;
    // the user of the private PostgreSQL passes through; nobody else writes, whatever the umask
    let make = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&config.server.data_dir);
    make.map_err(|error| {
        let dir = config.server.data_dir.display();
        server::CannotStart(format!(
            "the data directory {dir} cannot be created ({error}); choose another with --data-dir"
        ))
    })?;
    server::block_on(server::run(config, inherited))?;
    Ok(ExitCode::SUCCESS)
}

/// A command on the database; the embedded one is attached to, or started for as long as the command runs.
fn with_db(
    config: &Config,
    run: impl AsyncFnOnce(Db) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let embedded = match config.database.url {
            Some(_) => None,
            None => Some(Embedded::attach_or_start(&config.server.data_dir).await?),
        };
        let url = server::database_url(config, embedded.as_ref())?;
        let result = run(Db::new(&url, &config.database)?).await;
        if let Some(embedded) = embedded {
            embedded.stop().await?;
        }
        result
    })
}

fn migrate(action: Migrate) -> impl AsyncFnOnce(Db) -> anyhow::Result<ExitCode> {
    async move |db: Db| {
        let steps = migrations::status(db.direct()).await?;
        let pending: Vec<_> = steps.iter().filter(|s| !s.is_applied).collect();
        match action {
            Migrate::Up => {
                let count = migrations::up(db.direct()).await?;
                let encoding = migrations::encoding(db.direct()).await?;
                if encoding != migrations::UTF8 {
                    eprintln!("warning: {}", db::Error::Encoding(encoding)); // it has our tables already
                }
                eprintln!(
                    "ran {count} migrations; the schema is at {}",
                    steps.last().map_or(0, |s| s.version)
                );
            }
            Migrate::Status => {
                let line = |s: &migrations::Step| {
                    let state = if s.is_applied { "applied" } else { "pending" };
                    format!("{:04}  {state}  {}\n", s.version, s.description)
                };
                print(&steps.iter().map(line).collect::<String>())?;
                return Ok(ExitCode::from(u8::from(!pending.is_empty())));
            }
            Migrate::Plan => {
                let sql =
                    |s: &&migrations::Step| format!("-- {:04} {}\n{}\n", s.version, s.description, s.sql);
                print(&pending.iter().map(sql).collect::<String>())?;
            }
        }
        db.close();
        Ok(ExitCode::SUCCESS)
    }
}

fn token(action: Token) -> impl AsyncFnOnce(Db) -> anyhow::Result<ExitCode> {
    async move |db: Db| {
        match action {
            Token::Create { scope, name, expires } => {
                let (token, secret) =
                    tokens::create(&db, scope, &name, expires.map(|age| Utc::now() + age)).await?;
                eprintln!("token {} ({scope}); it is not shown again:", token.id);
                print(&format!("{secret}\n"))?;
            }
            Token::List => {
                let line = |t: &tokens::Token| {
                    format!("{}  {:<7}  {:<8}  {}\n", t.id, t.scope, t.state(Utc::now()), t.name)
                };
                print(&tokens::list_all(&db).await?.iter().map(line).collect::<String>())?;
            }
            Token::Revoke { id } => {
                if !tokens::revoke(&db, id).await? {
                    bail!("there is no token {id}; see `octo token list`");
                }
                eprintln!("revoked {id}");
            }
        }
        db.close();
        Ok(ExitCode::SUCCESS)
    }
}

/// stdout is data; a closed pipe is the reader's choice, not our failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn healthcheck(config: &Config) -> anyhow::Result<ExitCode> {
    let mut address: SocketAddr = config.server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let limit = Duration::from_secs(3);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let own = stream.local_addr()?.ip().to_canonical();
        if config.server.proxy_protocol && config.server.is_trusted_proxy(own) {
            stream.write_all(b"PROXY UNKNOWN\r\n")?; // nobody's connection but our own
        }
        // a container that redirects is not to be restarted for a full disk
        stream.write_all(b"GET /readyz/redirect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().with_context(|| format!("octo does not answer on {address}"))?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("octo on {address} is not ready: {}", answer.lines().last().unwrap_or_default())
}

/// `90d`, `12h`, `30m`, `52w`
fn parse_age(text: &str) -> Result<TimeDelta, String> {
    const WANTED: &str = "must be a number and one of m, h, d, w, such as 90d";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(WANTED)?;
    let number: i64 = number.parse().map_err(|_| WANTED)?;
    let age = match unit {
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        "w" => TimeDelta::try_weeks(number),
        _ => None,
    };
    age.filter(|age| *age > TimeDelta::zero() && *age < TimeDelta::days(36_500))
        .ok_or_else(|| WANTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn ages_are_numbers_with_a_unit() {
        assert_eq!(parse_age("90d"), Ok(TimeDelta::days(90)));
        for bad in ["", "d", "90", "-1d", "0h", "9999999w", "1\u{e9}"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }
}
