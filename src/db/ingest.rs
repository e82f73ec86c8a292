//! The drain's end in Postgres: one transaction moves the watermark, stores the rows, adds to the roll-ups.
//!
//! The watermark is moved first and must be where the batch begins: so a batch is stored once, whatever
//! happened to the answer of an earlier COMMIT, and two drains of one stream cannot both succeed.

pub mod rows;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{
        Error, Statement,
        ingest::rows::CopyData,
        monitor,
        pool::Pool,
        session::{Session, Transaction},
        statement::statements,
        store::erasures,
    },
    facts::{click::Click, event::Event, record::Record},
    model::{click::Adjusted, erasure::Erasures, money::Currency},
};

/// What the drain knows of a click, in the order of `copy_click` and of the arrays of `insert_clicks`.
macro_rules! click_columns {
    () => {
        "
    id, campaign_id, ip_address, user_agent, referrer, is_valid, invalid_reason, is_bot,
    country, device, os, browser,
    sub1, sub2, sub3, sub4, sub5,
    affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4, affiliate_sub5,
    click_id_param, landing_page_id, campaign_offer_id, traffic_source_id, cost, currency, created_at, updated_at
"
    };
}

// COPY is no statement that can be prepared; parsing it takes less than storing one row.
const COPY_CLICKS: Statement = Statement::new(
    "clicks.copy_batch",
    concat!("COPY clicks (", click_columns!(), ", adjusted) FROM STDIN (FORMAT binary)"),
);
const CLICK_COLUMNS: i16 = 31;

/// sqlx runs it by itself, as it does BEGIN and ROLLBACK.
const COMMIT: Statement = Statement::new("ingest.commit", "COMMIT");

/// From this many rows on, clicks are copied. COPY takes half the CPU of an INSERT of arrays, but over TCP its
/// end waits up to 40 ms for a delayed acknowledgement (sqlx leaves Nagle's algorithm on, its issue 4335):
/// little for many rows, and most of the time of a few.
const COPY_ROWS_MIN: usize = 1_000;

/// Bytes in one message of a COPY.
const COPY_PIECE_BYTES: usize = 64 * 1024;

statements! {
    SET_SESSION = "ingest.connect":
        "SELECT set_config('statement_timeout', $1, false), set_config('synchronous_commit', 'on', false)";

    SET_LOCAL = "ingest.begin":
        "SELECT set_config('statement_timeout', $1, true), set_config('synchronous_commit', 'on', true)";

    CHECK_CONSTRAINTS = "dead_letter.check": "SET CONSTRAINTS ALL IMMEDIATE";

    LIST_WATERMARKS = "watermark.list": "SELECT stream, seq FROM ingest_watermark WHERE stream = ANY($1)";

    BEGIN_WATERMARKS = "watermark.begin": "
INSERT INTO ingest_watermark (stream, seq)
SELECT * FROM unnest($1::uuid[], $2::int8[])
ON CONFLICT (stream) DO NOTHING";

    // Row by row by the primary key: LIMIT keeps the planner from reading whole tables instead.
    FIND_STORED = "ingest.find_stored": "
SELECT t.id
FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, created_at)
CROSS JOIN LATERAL (
    SELECT 1 FROM clicks c WHERE c.created_at = t.created_at AND c.id = t.id LIMIT 1
) found
UNION ALL
SELECT t.id
FROM unnest($3::uuid[], $4::timestamptz[]) AS t (id, created_at)
CROSS JOIN LATERAL (
    SELECT 1 FROM events e WHERE e.created_at = t.created_at AND e.id = t.id LIMIT 1
) found";

    // Whoever erases holds a lock on the table of watermarks (`octo_lock_for_erasure`), and a statement has its table
    // locks before its snapshot: so it sees an erasure that it waited for, and one that comes later waits for this
    // transaction. One round trip for both, because a batch with refused rows is stored in hundreds of pieces.
    ADVANCE_WATERMARK = "watermark.advance": "
WITH moved AS (
    UPDATE ingest_watermark SET seq = $3, updated_at = now() WHERE stream = $1 AND seq = $2 RETURNING seq
)
SELECT (SELECT count(*) FROM moved), coalesce((SELECT max(id) FROM erasures), 0)";

    // `adjusted` comes as a list in a text: of an array of arrays, unnest() would make one long array.
    INSERT_CLICKS = "clicks.insert_batch": concat!(
    "INSERT INTO clicks (",
    click_columns!(),
    ", adjusted)
SELECT ",
    click_columns!(),
    ", string_to_array(adjusted, ',')
FROM unnest(
    $1::uuid[], $2::uuid[], $3::text[]::inet[], $4::text[], $5::text[], $6::bool[], $7::text[], $8::bool[],
    $9::text[], $10::text[], $11::text[], $12::text[],
    $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
    $18::text[], $19::text[], $20::text[], $21::text[], $22::text[],
    $23::text[], $24::int8[], $25::int8[], $26::text[], $27::numeric[], $28::text[],
    $29::timestamptz[], $29::timestamptz[], $30::text[]
) AS t (",
    click_columns!(),
    ", adjusted)"
);

    // An event belongs to the campaign it named, else to its click's, else to the one whose key it named. Keys are locked in
    // their order: strangers may send the same ids to two nodes the other way round, and no drain is to wait for a drain
    // that waits for it.
    INSERT_EVENTS = "events.insert_batch": "
WITH incoming AS (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::timestamptz[], $6::uuid[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
        $15::text[], $16::text[], $17::timestamptz[]
    ) AS t (
        id, key, created_at, click_id, click_time, campaign_id, cid,
        event_type, event_name, url, referrer, session_id, user_id, event_data,
        source, external_id, occurred_at
    )
), fresh AS (
    INSERT INTO event_keys (id, created_at)
    SELECT key, created_at FROM incoming WHERE key IS NOT NULL ORDER BY key
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
INSERT INTO events (
    id, click_id, campaign_id, event_type, event_name, event_data, url, referrer, session_id, user_id,
    source, external_id, occurred_at, created_at
)
SELECT
    i.id, i.click_id, coalesce(i.campaign_id, c.campaign_id, k.id), i.event_type, i.event_name,
    i.event_data::jsonb, i.url, i.referrer, i.session_id, i.user_id,
    i.source, i.external_id, i.occurred_at, i.created_at
FROM incoming i
LEFT JOIN LATERAL (
    SELECT campaign_id FROM clicks WHERE created_at = i.click_time AND id = i.click_id LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT id FROM campaigns WHERE key = i.cid AND deleted_at IS NULL
) k ON true
WHERE i.key IS NULL OR i.key IN (SELECT id FROM fresh)
RETURNING campaign_id, created_at";

    UPSERT_STATS = "stats.upsert_batch": "
INSERT INTO campaign_stats_hourly AS s (campaign_id, hour, clicks, valid_clicks, bot_clicks, events)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
ON CONFLICT (campaign_id, hour) DO UPDATE SET
    clicks = s.clicks + excluded.clicks,
    valid_clicks = s.valid_clicks + excluded.valid_clicks,
    bot_clicks = s.bot_clicks + excluded.bot_clicks,
    events = s.events + excluded.events";

    // A letter may be there already: where the watermark was set back by hand, records are sent again.
    INSERT_DEAD_LETTERS = "dead_letters.insert_batch": "
INSERT INTO dead_letters (stream, seq, record, sqlstate, message)
SELECT $1, * FROM unnest($2::int8[], $3::bytea[], $4::text[], $5::text[])
ON CONFLICT (stream, seq) DO UPDATE SET
    record = excluded.record,
    sqlstate = excluded.sqlstate,
    message = excluded.message";
}

/// How the constraints begin that keep a day out of a DEFAULT partition until it has its own (`octo_exclude_day`).
const EXCLUSION: &str = "octo_day_";

/// In place of a SQLSTATE: the bytes are no record.
pub const MALFORMED: &str = "malformed";

/// The SQLSTATE of a row whose key is there already.
pub const UNIQUE_VIOLATION: &str = "23505";

/// Consecutive records of a stream, ready to be stored.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    /// Clicks in order.
    pub clicks: Vec<&'a Click<'a>>,
    /// Events in order.
    pub events: Vec<&'a Event<'a>>,
    /// Records that cannot be stored as rows.
    pub dead_letters: Vec<DeadLetter<'a>>,
    /// How many of them [`Ingest::store`] left out because they are erased.
    pub erased: u64,
}

impl Rows<'_> {
    /// Leaves out what is erased; gives the clicks that only now are known to be.
    fn leave_out(&mut self, erasures: &mut Erasures) -> Vec<Uuid> {
        let count = |rows: &Self| rows.clicks.len() + rows.events.len() + rows.dead_letters.len();
        let before = count(self);
        let decoded: Vec<_> = self.dead_letters.iter().map(|letter| Record::decode(letter.record)).collect();
        let letters = decoded.iter().filter_map(|record| match record {
            Ok(Record::Click(click)) => Some(&**click),
            _ => None,
        });
        let learnt = self.clicks.iter().copied().chain(letters).filter(|click| erasures.learn(click));
        let learnt: Vec<Uuid> = learnt.map(|click| click.id.uuid()).collect();
        self.clicks.retain(|click| !erasures.has_click(click));
        self.events.retain(|event| !erasures.has_event(event));
        let mut decoded = decoded.iter();
        self.dead_letters.retain(|_| {
            !decoded.next().is_some_and(|record| record.as_ref().is_ok_and(|record| erasures.has(record)))
        });
        self.erased = (before - count(self)) as u64;
        learnt
    }
}

/// A record as it is in the journal, and why it is no row.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// Its sequence.
    pub seq: u64,
    /// Its bytes.
    pub record: &'a [u8],
    /// SQLSTATE, or `malformed`.
    pub sqlstate: String,
    /// What was said.
    pub message: String,
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The watermark is elsewhere: an earlier commit had succeeded, or Postgres went back in time.
    #[error("the watermark is not where the batch begins")]
    Moved,
    /// Postgres refuses a row for what it holds.
    #[error("a row was refused (SQLSTATE {sqlstate})")] // the message may hold what was refused
    Refused {
        /// Five characters.
        sqlstate: String,
        /// What Postgres said.
        message: String,
    },
    /// Try again, on a new connection.
    #[error(transparent)]
    Unavailable(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        refusal(&error).unwrap_or(Self::Unavailable(error))
    }
}

/// The drain's own connection.
pub struct Ingest {
    session: Session<'static>,
    /// Those seen so far; a transaction reads what is new before it stores anything.
    erasures: Erasures,
    /// Behind PgBouncer: what each transaction sets for itself, because no session is ours.
    local_timeout: Option<String>,
}

impl Ingest {
    /// Connects to the primary; `statement_timeout` bounds each statement.
    pub async fn connect(pool: &Pool, statement_timeout: Duration) -> Result<Self, Error> {
        let mut session = pool.connect().await?;
        session.limit(statement_timeout + Duration::from_secs(1));
        let milliseconds = i64::try_from(statement_timeout.as_millis()).unwrap_or(i64::MAX).to_string();
        let erasures = Erasures::default();
        if !pool.is_session() {
            return Ok(Self { session, erasures, local_timeout: Some(milliseconds) });
        }
        let set = SET_SESSION.query().bind(milliseconds).execute(&mut session).await;
        set.map_err(|e| monitor::classify(SET_SESSION.name(), e))?;
        Ok(Self { session, erasures, local_timeout: None })
    }

    /// Where each stream is in this database; a new stream begins at the sequence beside its id.
    pub async fn watermarks(&mut self, streams: &[(Uuid, u64)]) -> Result<HashMap<Uuid, u64>, StoreError> {
        if self.local_timeout.is_none() {
            return watermarks(&mut self.session, streams).await;
        }
        let mut transaction = self.begin().await?;
        let watermarks = watermarks(&mut transaction, streams).await?;
        transaction.commit().await?;
        Ok(watermarks)
    }

    /// The ids of those rows that are stored already.
    pub async fn find_stored(&mut self, rows: &Rows<'_>) -> Result<HashSet<Uuid>, StoreError> {
        let (clicks, events) = (rows.clicks.as_slice(), rows.events.as_slice());
        let mut transaction = self.begin().await?;
        let found: Vec<Uuid> = FIND_STORED
            .query_scalar()
            .bind(column(clicks, |c| c.id.uuid()))
            .bind(column(clicks, |c| c.id.created_at()))
            .bind(column(events, |e| e.id))
            .bind(column(events, |e| e.created_at))
            .fetch_all(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(found.into_iter().collect())
    }

    /// Stores the rows of `lo..hi` and moves the watermark to `hi`, all or nothing. What is erased is taken out of
    /// `rows` before.
    ///
    /// After any error but [`StoreError::Refused`] the connection must not be used again.
    pub async fn store(
        &mut self,
        stream: Uuid,
        lo: u64,
        hi: u64,
        rows: &mut Rows<'_>,
    ) -> Result<(), StoreError> {
        let mut erasures = std::mem::take(&mut self.erasures);
        let stored = self.store_but(&mut erasures, stream, (lo, hi), rows).await;
        self.erasures = erasures;
        stored
    }

    /// [`Ingest::store`] of `lo..hi` but for what is erased.
    async fn store_but(
        &mut self,
        erasures: &mut Erasures,
        stream: Uuid,
        (lo, hi): (u64, u64),
        rows: &mut Rows<'_>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        match store_in(&mut transaction, stream, (lo, hi), rows, erasures).await {
            Ok(()) => Ok(transaction.commit_as(COMMIT).await?),
            Err(refused @ StoreError::Refused { .. }) => {
                transaction.rollback().await?;
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        let mut transaction = self.session.begin().await?;
        if let Some(milliseconds) = &self.local_timeout {
            SET_LOCAL.query().bind(milliseconds).execute(&mut transaction).await?;
        }
        Ok(transaction)
    }
}

async fn watermarks(c: &mut Session<'_>, streams: &[(Uuid, u64)]) -> Result<HashMap<Uuid, u64>, StoreError> {
    let ids: Vec<Uuid> = streams.iter().map(|(id, _)| *id).collect();
    let firsts: Vec<i64> = streams.iter().map(|(_, first)| bigint(*first)).collect();
    BEGIN_WATERMARKS.query().bind(&ids).bind(firsts).execute(c).await?;
    let rows: Vec<(Uuid, i64)> = LIST_WATERMARKS.query_as().bind(ids).fetch_all(c).await?;
    Ok(rows.into_iter().map(|(stream, seq)| (stream, u64::try_from(seq).unwrap_or(0))).collect())
}

async fn store_in(
    transaction: &mut Session<'_>,
    stream: Uuid,
    (lo, hi): (u64, u64),
    rows: &mut Rows<'_>,
    erasures: &mut Erasures,
) -> Result<(), StoreError> {
    let (moved, last_erasure) = advance(transaction, stream, lo, hi).await?;
    if moved != 1 {
        return Err(StoreError::Moved);
    }
    if last_erasure > erasures.last_id() {
        erasures.extend(erasures::since_on(transaction, erasures.last_id()).await?);
    }
    if !erasures.is_empty() {
        let clicks = rows.leave_out(erasures);
        if !clicks.is_empty() {
            // their events may have come here before them, by another node
            erasures::delete_events_on(transaction, &clicks).await?;
        }
    }
    if !rows.dead_letters.is_empty() {
        insert_dead_letters(transaction, stream, &rows.dead_letters).await?;
    }
    insert(transaction, &rows.clicks, &rows.events).await
}

/// Inserts clicks and events and adds them to the roll-ups, within the caller's transaction.
async fn insert(c: &mut Session<'_>, clicks: &[&Click<'_>], events: &[&Event<'_>]) -> Result<(), StoreError> {
    let mut stats = Stats::default();
    if clicks.len() >= COPY_ROWS_MIN {
        c.run(COPY_CLICKS, async |c| copy_clicks(c, clicks).await).await?;
    } else if !clicks.is_empty() {
        insert_clicks(c, clicks).await?;
    }
    for click in clicks {
        stats.add_click(click);
    }
    if !events.is_empty() {
        insert_events(c, events, &mut stats).await?;
    }
    let hours = stats.into_hours();
    if !hours.is_empty() {
        upsert_stats(c, &hours).await?;
    }
    Ok(())
}

/// [`insert`], with what constraints would say at the transaction's commit.
pub(super) async fn insert_checked(
    c: &mut Session<'_>,
    clicks: &[&Click<'_>],
    events: &[&Event<'_>],
) -> Result<(), StoreError> {
    insert(c, clicks, events).await?;
    CHECK_CONSTRAINTS.query().execute(c).await?;
    Ok(())
}

/// How many watermarks moved, 1 unless it is elsewhere, and the last erasure.
async fn advance(c: &mut Session<'_>, stream: Uuid, lo: u64, hi: u64) -> sqlx::Result<(i64, i64)> {
    let query = ADVANCE_WATERMARK.query_as().bind(stream).bind(bigint(lo)).bind(bigint(hi));
    query.fetch_one(c).await
}

async fn insert_clicks(c: &mut Session<'_>, clicks: &[&Click<'_>]) -> sqlx::Result<()> {
    let mut query = INSERT_CLICKS
        .query()
        .bind(column(clicks, |c| c.id.uuid()))
        .bind(column(clicks, |c| c.campaign_id))
        .bind(column(clicks, |c| c.ip.map(|ip| ip.to_string())))
        .bind(column(clicks, |c| c.user_agent.as_deref()))
        .bind(column(clicks, |c| c.referrer.as_deref()))
        .bind(column(clicks, |c| c.is_valid()))
        .bind(column(clicks, |c| c.invalid_reason.map(<&str>::from)))
        .bind(column(clicks, |c| c.is_bot))
        .bind(column(clicks, |c| c.country.as_deref()))
        .bind(column(clicks, |c| c.device.as_deref()))
        .bind(column(clicks, |c| c.os.as_deref()))
        .bind(column(clicks, |c| c.browser.as_deref()));
    for i in 0..5 {
        query = query.bind(column(clicks, |c| c.subs[i].as_deref()));
    }
    for i in 0..5 {
        query = query.bind(column(clicks, |c| c.aff_subs[i].as_deref()));
    }
    query
        .bind(column(clicks, |c| c.click_id_param.as_deref()))
        .bind(column(clicks, |c| c.landing_page_id))
        .bind(column(clicks, |c| c.campaign_offer_id))
        .bind(column(clicks, |c| c.traffic_source_id.as_deref()))
        .bind(column::<_, Option<Decimal>>(clicks, |c| c.cost))
        .bind(column(clicks, |c| c.currency.map(|currency| currency.to_string())))
        .bind(column(clicks, |c| c.id.created_at()))
        .bind(column(clicks, |c| list(c.adjusted)))
        .execute(c)
        .await?;
    Ok(())
}

async fn copy_clicks(c: &mut PgConnection, clicks: &[&Click<'_>]) -> sqlx::Result<()> {
    let mut data = CopyData::new(CLICK_COLUMNS);
    let mut copy = c.copy_in_raw(COPY_CLICKS.sql()).await?;
    for click in clicks {
        copy_click(&mut data, click);
        // piece by piece: Postgres stores one while the next is encoded
        if data.bytes().len() >= COPY_PIECE_BYTES {
            copy.send(data.bytes()).await?;
            data.clear();
        }
    }
    data.end();
    copy.send(data.bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// In the order of [`COPY_CLICKS`].
fn copy_click(data: &mut CopyData, click: &Click<'_>) {
    let created_at = click.id.created_at();
    data.row();
    data.uuid(click.id.uuid());
    data.uuid(click.campaign_id);
    data.inet(click.ip);
    data.text(click.user_agent.as_deref());
    data.text(click.referrer.as_deref());
    data.bool(click.is_valid());
    data.text(click.invalid_reason.map(Into::into));
    data.bool(click.is_bot);
    data.text(click.country.as_deref());
    data.text(click.device.as_deref());
    data.text(click.os.as_deref());
    data.text(click.browser.as_deref());
    for text in click.subs.iter().chain(&click.aff_subs) {
        data.text(text.as_deref());
    }
    data.text(click.click_id_param.as_deref());
    data.bigint(click.landing_page_id);
    data.bigint(click.campaign_offer_id);
    data.text(click.traffic_source_id.as_deref());
    data.numeric(click.cost);
    data.text(click.currency.as_ref().map(Currency::as_str));
    data.timestamptz(created_at);
    data.timestamptz(created_at);
    let adjusted: Vec<&str> = click.adjusted.iter().map(Into::into).collect();
    data.text_array((!adjusted.is_empty()).then_some(adjusted.as_slice()));
}

/// The names, separated by commas; `None`: there is none.
fn list(adjusted: Adjusted) -> Option<String> {
    (!adjusted.is_empty()).then(|| adjusted.iter().map(Into::into).collect::<Vec<&str>>().join(","))
}

async fn insert_events(c: &mut Session<'_>, events: &[&Event<'_>], stats: &mut Stats) -> sqlx::Result<()> {
    let mut seen = HashSet::new();
    let events: Vec<&Event<'_>> =
        events.iter().copied().filter(|e| e.key().is_none_or(|key| seen.insert(key))).collect();
    let stored: Vec<(Option<Uuid>, DateTime<Utc>)> = INSERT_EVENTS
        .query_as()
        .bind(column(&events, |e| e.id))
        .bind(column(&events, |e| e.key()))
        .bind(column(&events, |e| e.created_at))
        .bind(column(&events, |e| e.click_id.map(crate::model::id::ClickId::uuid)))
        .bind(column(&events, |e| e.click_id.map(crate::model::id::ClickId::created_at)))
        .bind(column(&events, |e| e.campaign_id))
        .bind(column(&events, |e| e.cid.as_deref()))
        .bind(column(&events, |e| e.event_type.as_ref()))
        .bind(column(&events, |e| e.event_name.as_deref()))
        .bind(column(&events, |e| e.url.as_deref()))
        .bind(column(&events, |e| e.referrer.as_deref()))
        .bind(column(&events, |e| e.session_id.as_deref()))
        .bind(column(&events, |e| e.user_id.as_deref()))
        .bind(column(&events, |e| e.properties.as_deref()))
        .bind(column(&events, |e| e.source.to_string()))
        .bind(column(&events, |e| e.external_id.as_deref()))
        .bind(column(&events, |e| e.occurred_at))
        .fetch_all(c)
        .await?;
    for (campaign_id, created_at) in stored {
        if let Some(campaign_id) = campaign_id {
            stats.add_event(campaign_id, created_at);
        }
    }
    Ok(())
}

async fn insert_dead_letters(
    c: &mut Session<'_>,
    stream: Uuid,
    letters: &[DeadLetter<'_>],
) -> sqlx::Result<()> {
    INSERT_DEAD_LETTERS
        .query()
        .bind(stream)
        .bind(column(letters, |l| bigint(l.seq)))
        .bind(column(letters, |l| l.record))
        .bind(column(letters, |l| l.sqlstate.as_str()))
        .bind(column(letters, |l| l.message.as_str()))
        .execute(c)
        .await?;
    Ok(())
}

/// What a batch adds to the roll-ups.
#[derive(Debug, Default)]
struct Stats(Vec<Hour>);

/// An hour of a campaign.
#[derive(Debug, Clone, Copy)]
struct Hour {
    campaign_id: Uuid,
    begin: DateTime<Utc>,
    clicks: i64,
    valid_clicks: i64,
    bot_clicks: i64,
    events: i64,
}

impl Stats {
    fn add_click(&mut self, click: &Click<'_>) {
        self.0.push(Hour {
            clicks: 1,
            valid_clicks: click.is_valid().into(),
            bot_clicks: click.is_bot.into(),
            ..Hour::new(click.campaign_id, click.id.created_at())
        });
    }

    fn add_event(&mut self, campaign_id: Uuid, created_at: DateTime<Utc>) {
        self.0.push(Hour { events: 1, ..Hour::new(campaign_id, created_at) });
    }

    /// Each hour once, in the order of the key: two drains lock rows in the same order.
    fn into_hours(self) -> Vec<Hour> {
        let mut hours = self.0;
        hours.sort_unstable_by_key(Hour::key);
        hours.dedup_by(|later, first| {
            let is_same = later.key() == first.key();
            if is_same {
                first.add(later);
            }
            is_same
        });
        hours
    }
}

impl Hour {
    fn new(campaign_id: Uuid, at: DateTime<Utc>) -> Self {
        Self { campaign_id, begin: hour_of(at), clicks: 0, valid_clicks: 0, bot_clicks: 0, events: 0 }
    }

    fn key(&self) -> (Uuid, DateTime<Utc>) {
        (self.campaign_id, self.begin)
    }

    fn add(&mut self, other: &Self) {
        self.clicks += other.clicks;
        self.valid_clicks += other.valid_clicks;
        self.bot_clicks += other.bot_clicks;
        self.events += other.events;
    }
}

/// The hour a time is in, for every time: chrono's own way ends in the year 2262.
fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = at.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(3600), 0).unwrap_or(at)
}

async fn upsert_stats(c: &mut Session<'_>, hours: &[Hour]) -> sqlx::Result<()> {
    UPSERT_STATS
        .query()
        .bind(column(hours, |h| h.campaign_id))
        .bind(column(hours, |h| h.begin))
        .bind(column(hours, |h| h.clicks))
        .bind(column(hours, |h| h.valid_clicks))
        .bind(column(hours, |h| h.bot_clicks))
        .bind(column(hours, |h| h.events))
        .execute(c)
        .await?;
    Ok(())
}

/// One column of a batch.
fn column<'a, R, V>(rows: &'a [R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

fn bigint(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The refusal of a row for what it holds: SQLSTATE classes 21, 22, 23, 54, and 42 where it is about a value.
///
/// A missing table, column or right (the other codes of class 42) is the same for every row: storing them
/// all as dead letters would empty the journal into the wrong place, so that is retried and shouted about.
fn refusal(error: &sqlx::Error) -> Option<StoreError> {
    let error = error.as_database_error()?;
    if error.constraint().is_some_and(|name| name.starts_with(EXCLUSION)) {
        return None; // its partition is about to be made
    }
    let sqlstate = error.code()?.into_owned();
    let class = sqlstate.get(..2)?;
    let is_about_the_row = matches!(class, "21" | "22" | "23" | "54")
        || (class == "42" && matches!(sqlstate.as_str(), "42804" | "42846" | "42P22"));
    is_about_the_row.then(|| StoreError::Refused { sqlstate, message: error.message().to_owned() })
}
