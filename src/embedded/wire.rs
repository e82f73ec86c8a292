//! The few bytes of the PostgreSQL protocol (version 3.0) that tell whether a server takes connections, and
//! make a database; `psql` is not in every server package.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::USER;

const LIMIT: Duration = Duration::from_secs(2);
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What a server under a socket directory says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Connected, and the statement, if any, is done.
    Done,
    /// Starting, recovering, stopping, or cut off halfway.
    NotYet,
    /// It runs, without the database.
    NoDatabase,
    /// It says no, with this SQLSTATE.
    Refused(String),
    /// Nobody listens.
    Nobody,
}

/// Connects to `database` and runs `statement` there; bounded by 2 s, with a statement by 30 s.
pub(super) async fn ask(socket_dir: &Path, database: &str, statement: Option<&str>) -> Answer {
    let Ok(Ok(stream)) = timeout(LIMIT, UnixStream::connect(socket_dir.join(".s.PGSQL.5432"))).await else {
        return Answer::Nobody;
    };
    let limit = if statement.is_some() { STATEMENT_LIMIT } else { LIMIT };
    match timeout(limit, converse(stream, database, statement)).await {
        Ok(Ok(None)) => Answer::Done,
        Ok(Ok(Some(code))) => judge(code),
        Ok(Err(_)) | Err(_) => Answer::NotYet,
    }
}

fn judge(code: String) -> Answer {
    match code.as_str() {
        "3D000" => Answer::NoDatabase,
        "42P04" | "53300" => Answer::Done, // exists already; every slot is taken, so it serves
        code if code.starts_with("57P") => Answer::NotYet,
        _ => Answer::Refused(code),
    }
}

/// The SQLSTATE of a refusal, if there was one.
async fn converse(mut stream: UnixStream, database: &str, sql: Option<&str>) -> io::Result<Option<String>> {
    let hello = format!("\0\x03\0\0user\0{USER}\0database\0{database}\0\0");
    stream.write_all(&framed(&hello)?).await?;
    let mut refusal = until_idle(&mut stream).await?;
    if let (None, Some(sql)) = (&refusal, sql) {
        stream.write_all(b"Q").await?;
        stream.write_all(&framed(&format!("{sql}\0"))?).await?;
        refusal = until_idle(&mut stream).await?;
    }
    let _ = stream.write_all(b"X\0\0\0\x04").await; // a polite end; after a refusal it is gone already
    Ok(refusal)
}

/// Reads until the server waits for us (`Z`) or refuses (`E`).
async fn until_idle(stream: &mut UnixStream) -> io::Result<Option<String>> {
    loop {
        let kind = stream.read_u8().await?;
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body).await?;
        match kind {
            b'Z' => return Ok(None),
            b'E' => return Ok(Some(sqlstate(&body))),
            b'R' if body != [0; 4] => return Ok(Some("28000".to_owned())), // wants a password: not our cluster
            _ => {}
        }
    }
}

fn framed(body: &str) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), body.as_bytes()].concat())
}

fn sqlstate(error: &[u8]) -> String {
    let code = error.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(b"C"));
    String::from_utf8_lossy(code.unwrap_or(b"XX000")).into_owned()
}
