//! `octo database dump|restore|move`: everything in the database as SQL, by PostgreSQL's own `pg_dump` and `psql`.
//! The other part of a backup is the journal: see docs/backup-and-restore.md.

use std::{
    fs::File,
    io::IsTerminal,
    os::fd::AsFd,
    path::Path,
    process::{ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command as Program},
};

use super::{dump, print};
use crate::{
    config::Config,
    db::{
        pool::Pool,
        transfer::{self, Facts},
    },
    embedded::{self, Clients, Embedded},
    journal::Lock,
    server,
};

/// Bytes of a dump read at once.
const READ_BYTES: usize = 1 << 16;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write everything in the database to standard output, as SQL; works while octo runs
    Dump,
    /// Load a dump from standard input into the database, which must be empty; all of it or nothing
    Restore,
    /// Copy everything in the private PostgreSQL into an empty database of your own; all of it or nothing
    Move {
        /// The database, such as postgres://app_user:secret@db/octo; without it that of database.url
        #[arg(long, value_name = "URL")]
        to: Option<SecretUrl>,
        /// Copy while octo runs: clicks and events go on, changes made through the API before its restart are not copied
        #[arg(long)]
        while_running: bool,
    },
}

/// A URL that is not shown by accident.
#[derive(Debug, Clone)]
pub(super) struct SecretUrl(SecretString);

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url.into())
    }
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Dump => with_own(config, async |own| write_dump(config, own).await).await,
            Command::Restore => with_own(config, async |own| read_dump(config, own).await).await,
            Command::Move { to, while_running } => move_out(config, to, while_running).await,
        }
    });
    // whoever feeds standard input may be slow to notice that nobody reads on
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// The database that octo is configured with.
struct Own<'a> {
    url: SecretString,
    embedded: Option<&'a Embedded>,
}

/// With the configured database, or with the private one, attached to or started for as long as the command runs.
async fn with_own(
    config: &Config,
    run: impl AsyncFnOnce(Own<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let embedded = match config.database.url {
        Some(_) => None,
        None => Some(Embedded::attach_or_start(&config.server.data_dir).await?),
    };
    let result = async {
        let url = own_url(config, embedded.as_ref())?;
        run(Own { url, embedded: embedded.as_ref() }).await
    };
    let result = result.await;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    result
}

/// Past PgBouncer: a dump sets what a session of a pool would go on with.
fn own_url(config: &Config, embedded: Option<&Embedded>) -> anyhow::Result<SecretString> {
    match &config.database.direct_url {
        Some(url) if config.database.url.is_some() => Ok(url.clone()),
        _ => server::database_url(config, embedded),
    }
}

async fn write_dump(config: &Config, own: Own<'_>) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        bail!("a dump is long: send it to a file, as in `octo database dump > octo.sql`");
    }
    let started = Instant::now();
    let source = Place::look(config, own.url, "source").await?;
    let clients = embedded::clients(own.embedded, source.major()?).await?;
    let mut pg_dump = source.dump(&clients)?;
    let text = reader(pg_dump.stdout.take().context("pg_dump has no output")?);
    let passed = dump::pass(text, standard(std::io::stdout())?).await;
    let dump = passed.context("the dump cannot be written")?;
    let status = pg_dump.wait().await?;
    ensure!(status.success() && dump.is_whole, "pg_dump, {status}: the dump is incomplete; do not keep it");
    eprintln!("dumped {dump}; {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

async fn read_dump(config: &Config, own: Own<'_>) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        bail!("send a dump to standard input, as in `octo database restore < octo.sql`");
    }
    let started = Instant::now();
    let target = Place::look(config, own.url, "target").await?;
    target.takes_a_dump(own.embedded)?;
    let clients = embedded::clients(own.embedded, target.major()?).await?;
    let psql = target.load(&clients)?;
    let dump = dump::load(reader(standard(std::io::stdin())?), psql, async { Ok(()) }).await?;
    eprintln!("restored {dump}; {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

async fn move_out(config: &Config, to: Option<SecretUrl>, while_running: bool) -> anyhow::Result<()> {
    let data_dir = &config.server.data_dir;
    let place = data_dir.display();
    if !data_dir.is_dir() || !Embedded::exists(data_dir).await? {
        bail!("there is no private PostgreSQL in {place}; name the data directory of octo with --data-dir");
    }
    let is_named = to.is_some();
    let url = match to {
        Some(SecretUrl(url)) => url,
        None if config.database.url.is_some() => own_url(config, None)?,
        None => {
            bail!("name the target with --to postgres://USER:PASSWORD@HOST/DATABASE, or set database.url")
        }
    };
    let _stopped = if while_running { None } else { Some(lock(&config.journal_dir())?) };
    let target = Place::look(config, url, "target").await?;
    target.takes_a_dump(None)?;
    let embedded = Embedded::attach_or_start(data_dir).await?;
    let copied = copy(config, &embedded, &target).await;
    let cluster = embedded.data_path().to_owned();
    embedded.stop().await?;
    copied?;
    say_what_comes_next(config, &target, is_named, while_running, &cluster)
}

/// So that octo does not run, nor starts meanwhile.
fn lock(journal: &Path) -> anyhow::Result<Option<Lock>> {
    if !journal.is_dir() {
        return Ok(None); // one that never ran
    }
    match Lock::acquire(journal)? {
        Some(lock) => Ok(Some(lock)),
        None => bail!(
            "octo is running on this data directory: stop it first, or copy with --while-running: no click and no event is lost, but changes made through the API before octo is started with the new database are not copied"
        ),
    }
}

async fn copy(config: &Config, embedded: &Embedded, target: &Place) -> anyhow::Result<()> {
    let started = Instant::now();
    let source = Place::look(config, embedded.url().into(), "source").await?;
    let clients = embedded::clients(Some(embedded), source.major()?).await?;
    ensure!(
        clients.major() <= target.major()?,
        "{} is PostgreSQL {}, and a dump of version {} cannot be loaded there; use {} or newer",
        target.server,
        target.facts.major,
        clients.major(),
        clients.major()
    );
    let mut pg_dump = source.dump(&clients)?;
    let text = reader(pg_dump.stdout.take().context("pg_dump has no output")?);
    let ended = async {
        let status = pg_dump.wait().await?;
        ensure!(status.success(), "pg_dump, {status}: nothing was moved");
        Ok(())
    };
    let dump = dump::load(text, target.load(&clients)?, ended).await?;
    let (server, name) = (&target.server, &target.facts.name);
    eprintln!("copied {dump} to {name} on {server}; {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The line to set is data: it goes to standard output.
fn say_what_comes_next(
    config: &Config,
    target: &Place,
    is_named: bool,
    while_running: bool,
    cluster: &Path,
) -> anyhow::Result<()> {
    if is_named {
        eprintln!("set this where octo gets its environment (or database.url in its configuration file):");
        print(&format!("DATABASE_URL={}\n", target.url.expose_secret()))?;
    } else {
        eprintln!("database.url is set already.");
    }
    let hours = config.journal.keep_drained.as_secs() / 3600;
    if while_running {
        eprintln!(
            "Then restart octo within {hours} h (journal.keep_drained_s): it sends what came after the copy from its journal."
        );
    } else {
        eprintln!(
            "Then start octo, with the same data directory: what waits in its journal goes to the new database."
        );
    }
    eprintln!("{} is unchanged; remove it once you have checked your reports.", cluster.display());
    Ok(())
}

/// A database, and what it said of itself.
struct Place {
    url: SecretString,
    server: String,
    facts: Facts,
}

impl Place {
    async fn look(config: &Config, url: SecretString, name: &str) -> anyhow::Result<Self> {
        let pool = Pool::new(name, &url, &config.database).context("the URL of the database")?;
        let facts = transfer::inspect(&pool).await;
        let facts = facts.with_context(|| format!("the database on {} cannot be used", pool.server()))?;
        Ok(Self { url, server: pool.server(), facts })
    }

    fn major(&self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.facts.major)?)
    }

    /// One sentence why not, with the remedy.
    fn takes_a_dump(&self, private: Option<&Embedded>) -> anyhow::Result<()> {
        let Facts { name, role, encoding, relations, .. } = &self.facts;
        let server = &self.server;
        if self.facts.is_read_only {
            bail!("{name} on {server} takes no writes: name the primary");
        }
        if encoding != "UTF8" {
            bail!(
                "{name} on {server} has the encoding {encoding}, which cannot hold every name and value; make one with `createdb --encoding=UTF8 --template=template0 --owner={role} NAME`"
            );
        }
        if *relations > 0 {
            match private {
                Some(private) => bail!(
                    "the private PostgreSQL holds {relations} tables and sequences already; choose a --data-dir where octo has not run yet, or move {} away",
                    private.data_path().display()
                ),
                None => bail!(
                    "{name} on {server} holds {relations} tables and sequences already; make an empty one with `createdb --encoding=UTF8 --template=template0 --owner={role} NAME`"
                ),
            }
        }
        if !self.facts.may_create {
            bail!(
                "{role} may not make tables in the schema public of {name} on {server}; let it with `ALTER DATABASE {name} OWNER TO {role}`"
            );
        }
        Ok(())
    }

    /// In one snapshot: rows and the watermarks of the journal fit each other.
    fn dump(&self, clients: &Clients) -> anyhow::Result<Child> {
        let mut pg_dump = clients.command("pg_dump");
        pg_dump.args(["--no-owner", "--no-privileges", "--encoding=UTF8", "--dbname"]);
        self.connect(&mut pg_dump);
        pg_dump.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("pg_dump cannot be started")
    }

    fn load(&self, clients: &Clients) -> anyhow::Result<Child> {
        let mut psql = clients.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]);
        // of several hosts the one that takes writes, as octo does it
        psql.args(["--output=/dev/null", "--file=-", "--dbname"]).env("PGTARGETSESSIONATTRS", "read-write");
        self.connect(&mut psql);
        psql.stdin(Stdio::piped()).spawn().context("psql cannot be started")
    }

    /// The last argument of a program, without the password: everybody sees arguments.
    fn connect(&self, program: &mut Program) {
        let (url, password) = without_password(self.url.expose_secret());
        program.arg(url).kill_on_drop(true);
        if let Some(password) = password {
            program.env("PGPASSWORD", password);
        }
    }
}

/// A URL of one host or of several, and the password that was in it.
fn without_password(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((login, hosts)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let Some((user, password)) = login.split_once(':') else { return (url.to_owned(), None) };
    let password = percent_decode_str(password).decode_utf8_lossy().into_owned();
    (format!("{scheme}://{user}@{hosts}{tail}"), Some(password))
}

/// Standard input or output as the file or pipe that it is, without the buffer of std that ends at every line.
fn standard(stream: impl AsFd) -> anyhow::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(stream.as_fd().try_clone_to_owned()?)))
}

fn reader(source: impl AsyncRead + Unpin) -> impl AsyncBufReadExt + Unpin {
    BufReader::with_capacity(READ_BYTES, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_taken_out() {
        let split = |url: &str| {
            let (url, password) = without_password(url);
            (url, password.unwrap_or_default())
        };
        let with = |url: &str, password: &str| (url.to_owned(), password.to_owned());
        assert_eq!(split("postgres://u:p%40%2Fs@h/d"), with("postgres://u@h/d", "p@/s"));
        assert_eq!(
            split("postgres://u:a:b@h1:1,h2:2/d?sslmode=require"),
            with("postgres://u@h1:1,h2:2/d?sslmode=require", "a:b")
        );
        for url in ["postgres://u@h/d", "postgres://h/d?x=a:b@c", "postgres:///d", "host=h"] {
            assert_eq!(split(url), with(url, ""));
        }
    }
}
