//! `octo privacy export|erase`: everything of one click, of all clicks whose link said something, or all events of a
//! user or session. It covers PostgreSQL (clicks, events, out-clicks, dead letters) and the journal of this node; a running octo blanks its own journal.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{print, with_db};
use crate::{
    config::Config,
    db::{
        Db,
        store::{clicks, conversions, dead_letters, erasures, events, out_clicks, postbacks},
    },
    facts::{
        erasure::{Erasure, Erasures, Sub, Subject, What},
        record::Record,
    },
    http::api::views::{
        click::Click, conversion::Conversion, dead_letter::Content, event::Event, out_click::OutClick,
        postback::Postback,
    },
    journal::{self, Lock, disk::RealDisk},
    model::id::ClickId,
};

/// Dead letters read at once.
const LETTERS_PAGE: i64 = 500;

/// Between two looks at a journal that a running octo blanks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What no command of octo can reach.
const NOT_REACHED: [&str; 5] = [
    "journals of other nodes: each blanks its own within privacy.erasure_interval_s, once it runs and sees PostgreSQL",
    "PostgreSQL's log (WAL), dead rows until the next VACUUM, standbys that lag, and backups",
    "copies of a journal (backups, snapshots), and bytes a file system has not overwritten yet",
    "what was sent on: destinations, and whoever read the API",
    "files of exports that were made before: deleted after reports.export_keep_s, or with DELETE /api/v1/exports/{id}",
];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print everything of a subject as one JSON document
    Export(Whom),
    /// Delete everything of a subject and say what was deleted; exit code 1 when something is left
    Erase {
        #[command(flatten)]
        whom: Whom,
        /// Seconds to wait for a running octo to blank its journal
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        wait: u64,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// One click: the id of X-Click-Id
    #[arg(long, value_name = "ID", value_parser = parse_click_id)]
    click_id: Option<ClickId>,
    /// All clicks whose link said this: sub1 to sub5, aff_sub, aff_sub2 to aff_sub5 or click_id, such as sub1=alice
    #[arg(long, value_name = "NAME=VALUE")]
    sub: Option<Sub>,
    /// All events with this user_id, of a click or not; clicks are found by --click-id and --sub
    #[arg(long, value_name = "ID", value_parser = parse_user_id)]
    user_id: Option<Sub>,
    /// All events with this session_id, of a click or not
    #[arg(long, value_name = "ID", value_parser = parse_session_id)]
    session_id: Option<Sub>,
}

/// What is in a place, in the order of reading.
#[derive(Debug, Serialize)]
struct Found {
    stream: Uuid,
    seq: u64,
    record: Content,
}

/// Counts by place.
#[derive(Debug, Default, Serialize)]
struct Counts {
    clicks: u64,
    events: u64,
    out_clicks: u64,
    postbacks: u64,
    dead_letters: u64,
    journal_records: u64,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let root = config.journal_dir();
    match command {
        Command::Export(whom) => {
            with_db(config, async move |db: Db| export(&db, &root, whom.subject()).await)
        }
        Command::Erase { whom, wait } => {
            let wait = Duration::from_secs(wait);
            with_db(config, async move |db: Db| erase(&db, &root, whom.subject(), wait).await)
        }
    }
}

impl Whom {
    fn subject(self) -> Subject {
        let click = self.click_id.map(Subject::Click);
        let person = self.user_id.or(self.session_id).map(Subject::Person);
        click.or(self.sub.map(Subject::Sub)).or(person).expect("clap asks for one of them")
    }
}

async fn export(db: &Db, root: &Path, subject: Subject) -> anyhow::Result<ExitCode> {
    let before = DateTime::<Utc>::MAX_UTC;
    let mut erasures = note(&subject, before);
    let ids = find(db, root, &subject, &mut erasures, before).await?;
    let clicks = clicks::list_of_ids(db, ids.clone()).await?;
    let clicks: Vec<Click> = clicks.into_iter().map(Click::from).collect();
    let events = match &subject {
        Subject::Person(person) => events::list_of_person(db, person.clone()).await?,
        Subject::Click(_) | Subject::Sub(_) => events::list_of_clicks(db, ids.clone()).await?,
    };
    let events: Vec<Event> = events.into_iter().map(Event::from).collect();
    let out_clicks = out_clicks::list_of_clicks(db, ids.clone()).await?;
    let out_clicks: Vec<OutClick> = out_clicks.into_iter().map(OutClick::from).collect();
    let postbacks = postbacks::list_of_clicks(db, ids.clone()).await?;
    let postbacks: Vec<Postback> = postbacks.into_iter().map(Postback::from).collect();
    let conversions = conversions::list_of_clicks(db, ids).await?;
    let conversions: Vec<Conversion> = conversions.into_iter().map(Conversion::from).collect();
    let mut letters = Vec::new();
    for letter in letters_of(db, &erasures).await? {
        letters.push(serde_json::to_value(Content::from(dead_letters::content(&letter.record)))?);
    }
    let mut journal = Vec::new();
    visit(root, &mut |stream, seq, payload| {
        if Record::decode(payload).is_ok_and(|record| erasures.has(&record)) {
            journal.push(Found { stream, seq, record: dead_letters::content(payload).into() });
        }
    })?;
    let document = json!({
        "subject": name(&subject),
        "exported_at": Utc::now(),
        "clicks": clicks,
        "events": events,
        "out_clicks": out_clicks,
        "postbacks": postbacks,
        "conversions": conversions,
        "dead_letters": letters,
        "journal": journal,
        "not_reached": NOT_REACHED,
    });
    eprintln!(
        "{} clicks, {} events, {} out-clicks, {} postbacks, {} dead letters; {} records in the journal {}, stored ones \
         among them",
        clicks.len(),
        events.len(),
        out_clicks.len(),
        postbacks.len(),
        letters.len(),
        journal.len(),
        root.display()
    );
    print(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}

/// First it is noted, so that nothing more comes; then what is stored goes; then the journal.
async fn erase(db: &Db, root: &Path, subject: Subject, wait: Duration) -> anyhow::Result<ExitCode> {
    let before = erasures::insert(db, vec![what(&subject)], None).await?;
    let mut erasures = note(&subject, before);
    let ids = find(db, root, &subject, &mut erasures, before).await?;
    if matches!(subject, Subject::Sub(_)) {
        // the events of a click name only its id
        erasures::insert(db, ids.iter().copied().map(What::Click).collect(), Some(before)).await?;
    }
    let letters = letters_of(db, &erasures).await?.into_iter().map(|letter| letter.id).collect();
    let journal_records = count(root, &erasures)?;
    let events = match &subject {
        Subject::Person(person) => erasures::delete_events_of_person(db, person.clone(), before).await?,
        Subject::Click(_) | Subject::Sub(_) => erasures::delete_events(db, ids.clone(), before).await?,
    };
    let mut counts = Counts {
        events,
        out_clicks: erasures::delete_out_clicks(db, ids.clone(), before).await?,
        postbacks: erasures::delete_postbacks(db, ids.clone(), before).await?,
        clicks: erasures::delete_clicks(db, ids).await?,
        dead_letters: erasures::delete_letters(db, letters).await?,
        journal_records: 0,
    };
    let (left, who) = blank(root, &erasures, wait).await?;
    counts.journal_records = journal_records.saturating_sub(left);
    let report = json!({
        "subject": name(&subject),
        "erased_before": before,
        "erased": counts,
        "journal": { "dir": root, "by": who, "records_left": left },
        "kept": ["figures (roll-ups), which count and name nobody", "ids of events that were used (event_keys)",
            "the note of this erasure, with the hash of the value, for privacy.erasure_keep_days"],
        "not_reached": NOT_REACHED,
    });
    print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    let Counts { clicks, events, out_clicks, postbacks, dead_letters, journal_records } = counts;
    eprintln!(
        "erased {clicks} clicks, {events} events, {out_clicks} out-clicks, {postbacks} postbacks with \
         their conversions, {dead_letters} dead letters and {journal_records} records of the journal"
    );
    if left > 0 {
        eprintln!(
            "{left} records are still in the journal of a running octo, which blanks them; look again later"
        );
    }
    Ok(ExitCode::from(u8::from(left > 0)))
}

fn note(subject: &Subject, before: DateTime<Utc>) -> Erasures {
    let mut erasures = Erasures::default();
    erasures.add(Erasure { id: 0, what: what(subject), before });
    erasures
}

fn what(subject: &Subject) -> What {
    match subject {
        Subject::Click(id) => What::Click(id.uuid()),
        Subject::Sub(sub) | Subject::Person(sub) => What::Sub(sub.hash()),
    }
}

/// Which clicks it is about, wherever they are.
async fn find(
    db: &Db,
    root: &Path,
    subject: &Subject,
    erasures: &mut Erasures,
    before: DateTime<Utc>,
) -> anyhow::Result<Vec<Uuid>> {
    if let Subject::Sub(sub) = subject {
        let stored = erasures::find_clicks(db, sub.clone(), before.min(crate::db::FAR_FUTURE)).await?;
        for id in stored {
            erasures.add(Erasure { id: 0, what: What::Click(id), before });
        }
        let mut after = 0;
        loop {
            let letters = erasures::letters(db, after, LETTERS_PAGE).await?;
            let Some(last) = letters.last() else { break };
            after = last.id;
            for letter in &letters {
                erasures.learn_record(&letter.record);
            }
        }
        visit(root, &mut |_, _, payload| erasures.learn_record(payload))?;
    }
    Ok(erasures.click_ids().collect())
}

/// The dead letters it is about.
async fn letters_of(db: &Db, erasures: &Erasures) -> anyhow::Result<Vec<erasures::Letter>> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let letters = erasures::letters(db, after, LETTERS_PAGE).await?;
        let Some(last) = letters.last() else { return Ok(found) };
        after = last.id;
        let is_meant = |letter: &erasures::Letter| {
            Record::decode(&letter.record).is_ok_and(|record| erasures.has(&record))
        };
        found.extend(letters.into_iter().filter(is_meant));
    }
}

/// Every record of the journal of this node. A segment that a running octo deletes meanwhile is passed over.
fn visit(root: &Path, see: &mut dyn FnMut(Uuid, u64, &[u8])) -> anyhow::Result<()> {
    for stream in journal::streams(&RealDisk, root)? {
        for segment in journal::segments(&RealDisk, root, stream)? {
            let seen = journal::visit(&RealDisk, root, stream, segment.first_seq, &mut |seq, payload| {
                see(stream, seq, payload);
            });
            match seen {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

fn count(root: &Path, erasures: &Erasures) -> anyhow::Result<u64> {
    let mut records = 0;
    visit(root, &mut |_, _, payload| {
        records += u64::from(Record::decode(payload).is_ok_and(|record| erasures.has(&record)));
    })?;
    Ok(records)
}

/// Blanks the journal if no octo runs, else waits until that has; says how many records are left, and who did it.
async fn blank(root: &Path, erasures: &Erasures, wait: Duration) -> anyhow::Result<(u64, &'static str)> {
    if !root.is_dir() {
        return Ok((0, "nobody: there is no journal here"));
    }
    if let Some(_lock) = Lock::acquire(root)? {
        for stream in journal::streams(&RealDisk, root)? {
            for segment in journal::segments(&RealDisk, root, stream)? {
                let is_erased =
                    |payload: &[u8]| Record::decode(payload).is_ok_and(|record| erasures.has(&record));
                journal::erase(&RealDisk, root, stream, segment.first_seq, &is_erased, false)?;
            }
        }
        return Ok((count(root, erasures)?, "this command"));
    }
    let deadline = Instant::now() + wait;
    loop {
        let left = count(root, erasures)?;
        if left == 0 || Instant::now() >= deadline {
            return Ok((left, "the running octo"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn name(subject: &Subject) -> Value {
    match subject {
        Subject::Click(id) => json!({ "click_id": id.uuid() }),
        Subject::Sub(sub) | Subject::Person(sub) => json!({ sub.name: sub.value }),
    }
}

fn parse_click_id(text: &str) -> Result<ClickId, &'static str> {
    text.parse().map_err(|()| "must be the id of a click, as in X-Click-Id")
}

fn parse_user_id(text: &str) -> Result<Sub, &'static str> {
    Sub::of_event("user_id", text).ok_or("must not be blank")
}

fn parse_session_id(text: &str) -> Result<Sub, &'static str> {
    Sub::of_event("session_id", text).ok_or("must not be blank")
}
