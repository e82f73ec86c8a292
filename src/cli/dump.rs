//! A dump of `pg_dump` on its way: passed on line by line, counted, and known to be whole or not. What it is for is
//! decided in `database`.

use std::{collections::BTreeMap, io::ErrorKind};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufWriter},
    process::Child,
};

use super::progress::Progress;
use crate::facts::Kind;

/// What a dump has brought so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    /// Rows of each table; those of a day's partition are its table's.
    rows: BTreeMap<String, u64>,
    bytes: u64,
    /// The table whose rows are coming.
    open: Option<String>,
    /// Whether its last line was there: one that is cut off has none.
    pub(super) is_whole: bool,
}

impl Dump {
    /// How far it is.
    fn line(&self, seconds: u64) -> String {
        let (rows, mib) = (self.all_rows(), self.bytes >> 20);
        let table = self.open.as_deref().unwrap_or("tables and indexes");
        format!("{rows} rows, {mib} MiB, {seconds} s: {table}")
    }

    fn see(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64;
        if let Some(table) = &self.open {
            if line == b"\\.\n" {
                self.open = None;
            } else if let Some(rows) = self.rows.get_mut(table) {
                *rows += 1;
            }
        } else if let Some(table) = copied_table(line) {
            self.rows.entry(table.clone()).or_default();
            self.open = Some(table);
        } else if line == b"-- PostgreSQL database dump complete\n" {
            self.is_whole = true;
        }
    }

    fn all_rows(&self) -> u64 {
        self.rows.values().sum()
    }
}

/// What an owner knows by name first, the rest as one number.
impl std::fmt::Display for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = [("campaigns", "campaigns"), ("clicks", "clicks"), ("events", "events")];
        let known = known.into_iter().chain([("out_clicks", "out-clicks"), ("api_tokens", "tokens")]);
        let known = known.chain([("dead_letters", "dead letters")]);
        let mut others = self.all_rows();
        for (table, name) in known {
            let rows = self.rows.get(table).copied().unwrap_or(0);
            others -= rows;
            write!(f, "{rows} {name}, ")?;
        }
        write!(f, "{others} other rows")
    }
}

/// `clicks` of `COPY public.clicks_20261129 (id, ..) FROM stdin;`.
fn copied_table(line: &[u8]) -> Option<String> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("COPY ")?;
    let (table, _) = rest.strip_suffix(" FROM stdin;\n")?.split_once(" (")?;
    let table = table.strip_prefix("public.").unwrap_or(table);
    let of_a_part = Kind::PARTITIONED.map(Kind::table).into_iter().find(|parent| {
        let part = table.strip_prefix(*parent).and_then(|rest| rest.strip_prefix('_'));
        part.is_some_and(|part| part == "default" || part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Some(of_a_part.unwrap_or(table).to_owned())
}

/// Passes a dump on to its end and gives what it held.
pub(super) async fn pass(
    mut source: impl AsyncBufRead + Unpin,
    sink: impl AsyncWrite + Unpin,
) -> std::io::Result<Dump> {
    let (mut dump, mut progress, mut line) = (Dump::default(), Progress::start(), Vec::new());
    let mut sink = BufWriter::with_capacity(1 << 16, sink);
    let passed = async {
        while source.read_until(b'\n', &mut line).await? > 0 {
            dump.see(&line);
            sink.write_all(&line).await?;
            line.clear();
            progress.show(|seconds| dump.line(seconds));
        }
        sink.flush().await
    };
    let passed = passed.await;
    progress.end();
    passed.map(|()| dump)
}

/// Feeds a dump to a `psql` that runs it as one transaction, which it commits at the end of its input: so the input
/// ends only when the dump is whole and `source_ended` is content; otherwise psql is killed, and nothing has happened.
/// psql has said on standard error what it did not like.
pub(super) async fn load(
    source: impl AsyncBufRead + Unpin,
    mut psql: Child,
    source_ended: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Dump> {
    let mut input = psql.stdin.take().context("psql has no input")?;
    let passed = pass(source, &mut input).await;
    let is_refused = passed.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
    let whole = match passed {
        Err(_) if is_refused => bail!("psql, {}: nothing was restored", psql.wait().await?),
        Err(error) => Err(error.into()),
        Ok(dump) => source_ended.await.and_then(|()| {
            ensure!(dump.is_whole, "the dump is cut off, its last lines are missing: nothing was restored");
            Ok(dump)
        }),
    };
    if whole.is_err() {
        psql.kill().await?;
    }
    drop(input);
    let status = psql.wait().await?;
    ensure!(whole.is_err() || status.success(), "psql, {status}: nothing was restored");
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE public.clicks (\n);\n\
        COPY public.campaigns (id, key) FROM stdin;\n1\ta\n2\tCOPY public.x (a) FROM stdin;\n\\.\n\n\
        COPY public.clicks_20261129 (id) FROM stdin;\n1\n2\n-- PostgreSQL database dump complete\n\\.\n\n\
        COPY public.clicks_default (id) FROM stdin;\n3\n\\.\n\
        COPY public.clicks_of_mine (id) FROM stdin;\n3\n4\n\\.\n\
        COPY public.offers (id) FROM stdin;\n\\.\n\n\
        --\n-- PostgreSQL database dump complete\n--\n\n";

    async fn read(text: &str) -> (Dump, Vec<u8>) {
        let mut out = Vec::new();
        let dump = pass(text.as_bytes(), &mut out).await.unwrap();
        (dump, out)
    }

    #[tokio::test]
    async fn rows_are_counted_by_table_and_every_byte_is_passed_on() {
        let (dump, out) = read(DUMP).await;
        assert_eq!(out, DUMP.as_bytes());
        let rows: Vec<_> = dump.rows.iter().map(|(table, rows)| (table.as_str(), *rows)).collect();
        assert_eq!(rows, [("campaigns", 2), ("clicks", 4), ("clicks_of_mine", 2), ("offers", 0)]);
        assert_eq!(dump.bytes, DUMP.len() as u64);
        assert!(dump.is_whole);
        assert_eq!(
            dump.to_string(),
            "2 campaigns, 4 clicks, 0 events, 0 out-clicks, 0 tokens, 0 dead letters, 2 other rows"
        );
    }

    #[tokio::test]
    async fn one_that_is_cut_off_anywhere_is_not_whole() {
        let end = DUMP.rfind("-- PostgreSQL database dump complete\n").unwrap();
        for cut in 0..end {
            assert!(!read(&DUMP[..cut]).await.0.is_whole, "{cut}");
        }
    }
}
