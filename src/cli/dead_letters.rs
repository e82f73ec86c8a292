//! `octo journal dead-letters|retry`: records that PostgreSQL refused. These need the database.

use std::process::ExitCode;

use anyhow::bail;
use uuid::Uuid;

use super::print;
use crate::{
    db::{
        Db,
        store::dead_letters::{self, Content, DeadLetter, Retried},
    },
    http::api::views::dead_letter::DeadLetter as Shown,
};

/// Letters read at once.
const PAGE: i64 = 100;

/// Which letters are to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    One { stream: Uuid, seq: i64 },
    All { sqlstate: Option<String> },
}

/// Prints every letter, newest first, a line each.
pub(super) async fn list(db: &Db, json: bool) -> anyhow::Result<ExitCode> {
    let mut after = None;
    loop {
        let page = dead_letters::list(db, None, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(ExitCode::SUCCESS) };
        after = Some(last.id);
        for letter in page {
            let line = if json { serde_json::to_string(&Shown::from(letter))? } else { text(&letter) };
            print(&format!("{line}\n"))?;
        }
    }
}

/// Tries letters again; exit code 1 when one is refused.
pub(super) async fn retry(db: &Db, which: Which) -> anyhow::Result<ExitCode> {
    let (stored, refused) = match which {
        Which::One { stream, seq } => match retry_one(db, stream, seq).await? {
            None => bail!("there is no dead letter {stream} {seq}; see `octo journal dead-letters`"),
            Some(is_stored) => (u64::from(is_stored), u64::from(!is_stored)),
        },
        Which::All { sqlstate } => retry_all(db, sqlstate).await?,
    };
    eprintln!("{stored} are stored, {refused} are refused again");
    Ok(ExitCode::from(u8::from(refused > 0)))
}

/// Every letter that is there now, oldest first; those that are refused again are passed.
async fn retry_all(db: &Db, sqlstate: Option<String>) -> anyhow::Result<(u64, u64)> {
    let (mut stored, mut refused, mut after) = (0, 0, None);
    loop {
        let keys = dead_letters::list_keys(db, sqlstate.clone(), after, PAGE).await?;
        let Some(last) = keys.last() else { return Ok((stored, refused)) };
        after = Some(last.id);
        for key in &keys {
            match retry_one(db, key.stream, key.seq).await? {
                Some(true) => stored += 1,
                Some(false) => refused += 1,
                None => {} // somebody else was faster
            }
        }
    }
}

/// Whether it is stored now; `None`: there is no such letter.
async fn retry_one(db: &Db, stream: Uuid, seq: i64) -> anyhow::Result<Option<bool>> {
    let outcome = match dead_letters::retry(db, stream, seq).await? {
        None => return Ok(None),
        Some(Retried::Stored) => "stored".to_owned(),
        Some(Retried::AlreadyStored) => "was stored before".to_owned(),
        Some(Retried::Refused { sqlstate, message }) => {
            print(&format!("{stream} {seq}  refused again, {sqlstate}: {message}\n"))?;
            return Ok(Some(false));
        }
    };
    print(&format!("{stream} {seq}  {outcome}\n"))?;
    Ok(Some(true))
}

fn text(letter: &DeadLetter) -> String {
    let what = match &letter.record {
        Content::Click(click) => format!("click {}", click.id),
        Content::Event(event) => format!("event {}", event.id),
        Content::OutClick(out) => format!("out-click {}", out.id),
        Content::Postback(postback) => format!("postback {}", postback.id),
        Content::Hex(_) => "unreadable".to_owned(),
        Content::Omitted => "long".to_owned(),
    };
    let DeadLetter { stream, seq, sqlstate, message, created_at, bytes, .. } = letter;
    // one line a letter, whatever a trigger of the owner says
    let message = message.replace(char::is_control, " ");
    format!("{stream} {seq}  {sqlstate}  {:.19}  {what} ({bytes} bytes)  {message}", created_at.to_rfc3339())
}
