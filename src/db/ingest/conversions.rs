//! Conversions, derived in the transaction that stores what they are derived from: postbacks, and the clicks that these
//! waited for.
//!
//! Who derives a click's conversions holds its row of `conversion_clicks` locked, and then reads all its postbacks: those
//! that another node stored meanwhile, too. So the conversions are those of all postbacks in the order in which they came,
//! whichever node stores which of them when; `money::conversions` is that function. What it gives is compared with what is
//! stored, and only the difference is written, each with its row in the book (`conversion_changes`).

mod read;
mod replay;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use self::{
    read::{ClickRow, LedgerRow, Sources, StoredConversion},
    write::{BookRow, ConversionRow, LedgerOutcome, Written},
};
use super::{
    column,
    deliveries::{self, Change},
};
use crate::{
    db::{Db, Error, Statement, session::Session, statement::statements},
    facts::{Fact, click::Click, out_click::OutClick, postback::Postback},
    model::{
        conversion::{Channel, Flag, Outcome, OutcomeReason, Status},
        id::{ClickId, time_of_uuid},
        network::PostbackRules,
    },
    money::{
        conversions::{Entry, Standing, book, derive, unmake},
        reading::{self, NoClick},
    },
};

pub use self::replay::{Difference, Replay, Replayed, replay};
pub(in crate::db) use self::{
    read::STATEMENTS as READ_STATEMENTS, replay::STATEMENTS as REPLAY_STATEMENTS,
    write::STATEMENTS as WRITE_STATEMENTS,
};

/// Postbacks of one click that conversions are derived from; what comes later is kept, and ignored.
pub(crate) const PER_CLICK_MAX: i64 = 1000;

/// Days that a postback waits for its click.
const WAIT_DAYS: i32 = 7;

/// Longest time in which conversions are looked at whose offer is not the one of the last out-click, in minutes; and the part
/// of the time asked for in which they are. Some never have that offer: their postback names another.
const OFFER_MINUTES_MAX: i32 = 20;
const OFFER_PART: i32 = 8;

/// Clicks looked at in one transaction at most.
const WAITING_MAX: i64 = 1000;

statements! {
    // In the order of the key, here and below: two drains may have the same clicks, and neither is to wait for the other that
    // waits for it. Rows that are new are inserted first, by all; whoever is waited for holds no lock on one that was there.
    // Most clicks are stored, and are read once the rows are there: LET_WAIT says which are not. Where the row is new there
    // may be conversions yet: what is old is deleted table by table.
    INSERT_CLICKS = "conversions.insert_clicks": "
INSERT INTO conversion_clicks AS k (click_id, created_at, first_at, state)
SELECT click_id, created_at, first_at, 'stored'
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS t (click_id, created_at, first_at)
ORDER BY click_id
ON CONFLICT (click_id) DO NOTHING
RETURNING
    click_id,
    (SELECT true FROM conversions WHERE conversions.click_id = k.click_id LIMIT 1)";

    LET_WAIT = "conversions.let_wait":
        "UPDATE conversion_clicks SET state = 'waiting' WHERE click_id = ANY ($1)";

    LOCK_CLICKS = "conversions.lock_clicks": "
SELECT
    click_id,
    first_at,
    state
FROM conversion_clicks
WHERE click_id = ANY ($1)
ORDER BY click_id
FOR UPDATE";

    // One that was given up is given up again soon, with what came now.
    REOPEN_CLICKS = "conversions.reopen_clicks": "
UPDATE conversion_clicks k
SET first_at = least(k.first_at, t.first_at),
    state = CASE k.state WHEN 'orphan' THEN 'waiting' ELSE k.state END
FROM unnest($1::uuid[], $2::timestamptz[]) AS t (click_id, first_at)
WHERE k.click_id = t.click_id";

    ARE_WAITING = "conversions.are_waiting": "
SELECT EXISTS (SELECT FROM conversion_clicks WHERE state <> 'stored')";

    // Row by row by the primary key, here and below: LIMIT keeps the planner from reading the whole table instead.
    FIND_WAITING = "conversions.find_waiting": "
SELECT k.click_id
FROM unnest($1::uuid[]) AS t (click_id)
CROSS JOIN LATERAL (
    SELECT click_id FROM conversion_clicks WHERE click_id = t.click_id AND state <> 'stored' LIMIT 1
) k";

    FIND_DERIVED = "conversions.find_derived": "
SELECT k.click_id
FROM unnest($1::uuid[]) AS t (click_id)
CROSS JOIN LATERAL (
    SELECT click_id FROM conversion_clicks WHERE click_id = t.click_id AND state = 'stored' LIMIT 1
) k";

    // A node may have stored the click while another stored the postback, and neither have seen the other's.
    LIST_ARRIVED = "conversions.list_arrived": "
SELECT k.click_id
FROM conversion_clicks k
WHERE k.state = 'waiting'
  AND k.first_at > now() - $1::integer * interval '1 minute'
  AND EXISTS (SELECT FROM clicks c WHERE c.created_at = k.created_at AND c.id = k.click_id)
ORDER BY k.first_at
LIMIT $2";

    // Likewise of a postback and the out-click that says of which offer it is.
    LIST_WITHOUT_OFFER = "conversions.list_without_offer": "
SELECT v.click_id
FROM conversions v
CROSS JOIN LATERAL (
    SELECT offer_id
    FROM out_clicks
    WHERE click_id = v.click_id
      AND created_at >= v.created_at
      AND created_at <= v.converted_at
      AND offer_id IS NOT NULL
    ORDER BY created_at DESC, id DESC
    LIMIT 1
) o
WHERE v.first_at > now() - $1::integer * interval '1 minute'
  AND v.landing_page_id IS NOT NULL
  AND v.offer_id IS DISTINCT FROM o.offer_id
ORDER BY v.first_at DESC
LIMIT $2";

    GIVE_UP = "conversions.give_up": "
WITH orphans AS (
    UPDATE conversion_clicks
    SET state = 'orphan'
    WHERE click_id = ANY (ARRAY(
        SELECT click_id
        FROM conversion_clicks
        WHERE state = 'waiting'
          AND first_at < now() - $1::integer * interval '1 day'
        ORDER BY first_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING click_id
)
UPDATE postbacks
SET outcome = 'orphan'
FROM orphans
WHERE postbacks.click_id = orphans.click_id
  AND postbacks.outcome = 'waiting'";
}

/// What of conversions changed in a transaction, to be counted once that is committed.
#[derive(Debug, Default)]
pub struct Told {
    /// Outcomes of postbacks that were new.
    pub postbacks: Vec<Outcome>,
    /// Conversions that changed, each with what it is now.
    pub changes: Vec<Change>,
}

impl Told {
    pub(super) fn extend(&mut self, other: Self) {
        self.postbacks.extend(other.postbacks);
        self.changes.extend(other.changes);
    }
}

/// A postback with what became of it.
type Judged<'a> = (&'a Postback<'a>, LedgerOutcome);

/// Stores postbacks, and derives the conversions of all clicks for which there is something new: postbacks, the click itself
/// that some waited for, or an out-click that says of which offer they are. All in one go, because that is one order in
/// which rows are locked.
pub(super) async fn store(
    c: &mut Session<'_>,
    stored: &[&Click<'_>],
    out_clicks: &[&OutClick<'_>],
    postbacks: &[&Postback<'_>],
) -> sqlx::Result<Told> {
    judge(c, stored, out_clicks, postbacks).await.map(|(_, told)| told)
}

/// [`store`], with what became of each postback.
async fn judge<'p>(
    c: &mut Session<'_>,
    stored: &[&Click<'_>],
    out_clicks: &[&OutClick<'_>],
    postbacks: &[&'p Postback<'p>],
) -> sqlx::Result<(Vec<Judged<'p>>, Told)> {
    let of_clicks: Vec<&Postback<'_>> =
        postbacks.iter().copied().filter(|p| p.click_id.is_some() && p.refusal.is_none()).collect();
    let mut clicks: Vec<ClickId> = of_clicks.iter().filter_map(|p| p.click_id).collect();
    if !stored.is_empty() && ARE_WAITING.query_scalar().fetch_one(c).await? {
        clicks.extend(find(c, FIND_WAITING, column(stored, |click| click.id.uuid())).await?);
    }
    let out_clicks: Vec<Uuid> = out_clicks.iter().filter_map(|out| out.click_id()).collect();
    if !out_clicks.is_empty() {
        clicks.extend(find(c, FIND_DERIVED, out_clicks).await?);
    }
    let (mut told, outcomes) = derive_clicks(c, clicks, &of_clicks).await?.into_parts();
    let outcome = |p: &Postback<'_>| outcomes.get(&p.id).copied().unwrap_or_else(|| without_click(p));
    let judged: Vec<Judged<'p>> = postbacks.iter().map(|p| (*p, outcome(p))).collect();
    if !judged.is_empty() {
        write::insert_postbacks(c, &judged).await?;
        told.postbacks = judged.iter().map(|(_, judged)| judged.outcome).collect();
    }
    deliveries::enqueue(c, &told.changes).await?;
    Ok((judged, told))
}

async fn find(c: &mut Session<'_>, statement: Statement, clicks: Vec<Uuid>) -> sqlx::Result<Vec<ClickId>> {
    let found: Vec<Uuid> = statement.query_scalar().bind(clicks).fetch_all(c).await?;
    Ok(found.into_iter().filter_map(ClickId::from_uuid).collect())
}

/// What became of a postback of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Its outcome.
    pub outcome: Outcome,
    /// What is particular about it.
    pub reason: Option<OutcomeReason>,
    /// The conversion that it tells of.
    pub conversion_id: Option<Uuid>,
}

/// Stores postbacks as the drain does, in one transaction; gives what became of each in their order.
pub async fn import(db: &Db, postbacks: Vec<Postback<'static>>) -> Result<(Vec<Imported>, Told), Error> {
    db.maintain(LOCK_CLICKS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let all: Vec<&Postback<'_>> = postbacks.iter().collect();
            let (judged, told) = judge(&mut transaction, &[], &[], &all).await?;
            transaction.commit().await?;
            let imported = judged.iter().map(|(_, judged)| Imported {
                outcome: judged.outcome,
                reason: judged.reason,
                conversion_id: judged.conversion_id,
            });
            Ok((imported.collect(), told))
        })
    })
    .await
}

/// Derives what waits for clicks that came by another node, of the last `minutes`, and gives up what waited too long; gives
/// what changed.
pub async fn settle_waiting(db: &Db, minutes: i32) -> Result<Told, Error> {
    db.maintain(LIST_ARRIVED, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let arrived = LIST_ARRIVED.query_scalar().bind(minutes).bind(WAITING_MAX);
            let arrived: Vec<Uuid> = arrived.fetch_all(&mut transaction).await?;
            let offer_minutes = (minutes / OFFER_PART).clamp(1, OFFER_MINUTES_MAX);
            let without = LIST_WITHOUT_OFFER.query_scalar().bind(offer_minutes).bind(WAITING_MAX);
            let without: Vec<Uuid> = without.fetch_all(&mut transaction).await?;
            let clicks = arrived.into_iter().chain(without).filter_map(ClickId::from_uuid).collect();
            let derived = derive_clicks(&mut transaction, clicks, &[]).await?;
            deliveries::enqueue(&mut transaction, &derived.told.changes).await?;
            GIVE_UP.query().bind(WAIT_DAYS).bind(WAITING_MAX).execute(&mut transaction).await?;
            transaction.commit().await?;
            Ok(derived.told)
        })
    })
    .await
}

/// What was derived.
#[derive(Debug, Default)]
struct Outcomes {
    told: Told,
    /// Of each postback that was not stored yet.
    new: HashMap<Uuid, LedgerOutcome>,
    /// How many that are stored had another outcome.
    judged_anew: usize,
    /// Rows of the book.
    book: Vec<BookRow>,
}

impl Outcomes {
    fn into_parts(self) -> (Told, HashMap<Uuid, LedgerOutcome>) {
        (self.told, self.new)
    }
}

/// Derives the conversions of clicks from their postbacks: those that are stored, and `new` ones.
async fn derive_clicks(
    c: &mut Session<'_>,
    mut clicks: Vec<ClickId>,
    new: &[&Postback<'_>],
) -> sqlx::Result<Outcomes> {
    clicks.sort_unstable_by_key(|click| click.uuid());
    clicks.dedup();
    if clicks.is_empty() {
        return Ok(Outcomes::default());
    }
    let Locked { known, fresh } = lock(c, &clicks, new).await?;
    // read behind the lock: others may have derived something of them until then
    let mut sources = Sources::of_clicks(c, &clicks).await?;
    let waiting: Vec<Uuid> = fresh.into_iter().filter(|id| sources.click(*id).is_none()).collect();
    if !waiting.is_empty() {
        LET_WAIT.query().bind(waiting).execute(c).await?;
    }
    let mut ledger = Vec::new();
    if !known.is_empty() {
        let known: Vec<ClickId> = known.iter().map(|known| known.click_id).collect();
        sources.add_stored(c, &known).await?;
        ledger = read::ledger(c, &known).await?;
    }
    for postback in new {
        ledger.push(LedgerRow::of(postback));
    }
    sources.add_others(c, &clicks, &ledger).await?;
    let mut of_click: BTreeMap<Uuid, Vec<LedgerRow>> = BTreeMap::new();
    for row in ledger {
        of_click.entry(row.click_id).or_default().push(row);
    }
    let open = known.iter().filter(|known| known.is_open).map(|known| known.click_id);
    let mut written = Written::with_open(open.collect());
    for (click_id, mut rows) in of_click {
        rows.sort_unstable_by_key(LedgerRow::order);
        match (ClickId::from_uuid(click_id), sources.click(click_id)) {
            (Some(id), Some(click)) => derive_click(id, click, &rows, &sources, &mut written),
            _ => written.wait(&rows),
        }
    }
    written.apply(c, &sources).await
}

/// Clicks whose rows are locked.
#[derive(Default)]
struct Locked {
    known: Vec<KnownClick>,
    /// Those whose row was not there.
    fresh: HashSet<Uuid>,
}

/// A click of which postbacks were stored before.
struct KnownClick {
    click_id: ClickId,
    /// Whether they wait for it, or do not any more.
    is_open: bool,
}

/// Locks the rows of the clicks, so that nobody else derives their conversions at the same time.
async fn lock(c: &mut Session<'_>, clicks: &[ClickId], new: &[&Postback<'_>]) -> sqlx::Result<Locked> {
    let mut first_at: HashMap<ClickId, DateTime<Utc>> = HashMap::new();
    for postback in new {
        let Some(click_id) = postback.click_id else { continue };
        let first = first_at.entry(click_id).or_insert(postback.at());
        *first = (*first).min(postback.at());
    }
    let first_of = |click: &ClickId| first_at.get(click).copied().unwrap_or(crate::db::FAR_FUTURE);
    let insert = INSERT_CLICKS
        .query_as()
        .bind(column(clicks, |click| click.uuid()))
        .bind(column(clicks, |click| click.created_at()))
        .bind(column(clicks, first_of));
    let fresh: Vec<(Uuid, Option<bool>)> = insert.fetch_all(c).await?;
    let mut known = Vec::new();
    for (id, _) in fresh.iter().filter(|(_, is_converted)| is_converted.is_some()) {
        known.extend(ClickId::from_uuid(*id).map(|click_id| KnownClick { click_id, is_open: false }));
    }
    let fresh: HashSet<Uuid> = fresh.into_iter().map(|(id, _)| id).collect();
    let others: Vec<Uuid> =
        clicks.iter().map(|click| click.uuid()).filter(|id| !fresh.contains(id)).collect();
    if others.is_empty() {
        return Ok(Locked { known, fresh });
    }
    let locked: Vec<(Uuid, DateTime<Utc>, String)> = LOCK_CLICKS.query_as().bind(others).fetch_all(c).await?;
    let mut reopened = Vec::new();
    for (id, first, state) in locked {
        let Some(click_id) = ClickId::from_uuid(id) else { continue };
        if first_of(&click_id) < first || state == "orphan" {
            reopened.push(click_id);
        }
        known.push(KnownClick { click_id, is_open: state != "stored" });
    }
    if !reopened.is_empty() {
        let reopen = REOPEN_CLICKS.query().bind(column(&reopened, |click| click.uuid()));
        reopen.bind(column(&reopened, first_of)).execute(c).await?;
    }
    Ok(Locked { known, fresh })
}

/// Derives the conversions of one click, and notes what is not stored so.
fn derive_click(
    click_id: ClickId,
    click: &ClickRow,
    rows: &[LedgerRow],
    sources: &Sources,
    written: &mut Written,
) {
    let limit = usize::try_from(PER_CLICK_MAX).unwrap_or(usize::MAX);
    let (rows, beyond) = rows.split_at(rows.len().min(limit));
    let entries: Vec<Entry<'_>> = rows.iter().map(|row| entry(row, click, sources)).collect();
    let derived = derive(&entries);
    let ids: Vec<Uuid> = derived.conversions.iter().map(|conversion| conversion.key.id(click_id)).collect();
    let known = rows.iter().position(LedgerRow::is_news).unwrap_or(rows.len());
    let is_in_order = rows[known..].iter().all(LedgerRow::is_news);
    let stored = sources.stored(click_id.uuid());
    let standing = |i: usize| stored.get(&ids[i]).map(StoredConversion::standing);
    let moves = book(&derived, known, is_in_order, standing);
    for (i, entry, moved) in moves {
        let conversion = &derived.conversions[i];
        let (postback_id, at) = match entry {
            Some(entry) => (Some(rows[entry].id), rows[entry].at()),
            None => (None, conversion.last_at),
        };
        written.book.push(BookRow::new(ids[i], click_id, click.campaign_id, postback_id, at, moved));
        let is_same_state = moved.from == Some(moved.to) && moved.to.has_money();
        let is_part =
            is_same_state && moved.payout < Decimal::ZERO && conversion.flags.contains(&Flag::PartlyRefunded);
        written.told.changes.push(Change {
            campaign_id: click.campaign_id,
            conversion_id: ids[i],
            click_id,
            path_id: click.path_id,
            offer_id: conversion.offer_id,
            source_id: click.source_id,
            from_status: moved.from,
            to_status: moved.to,
            goal: conversion.key.goal.clone(),
            kind: conversion.kind,
            payout: if is_part {
                -moved.payout
            } else {
                conversion.original_payout.unwrap_or(conversion.payout)
            },
            is_part,
            currency: conversion.currency.to_string(),
            changed_at: at,
            arrived_at: conversion.first_at,
            is_click_valid: click.is_valid,
        });
    }
    for ((row, entry), verdict) in rows.iter().zip(&entries).zip(&derived.verdicts) {
        let conversion_id = verdict.conversion.map(|i| ids[i]);
        let judged = LedgerOutcome::new(verdict.outcome, verdict.reason, entry.network_id);
        written.judge(row, LedgerOutcome { conversion_id, ..judged });
    }
    for row in beyond {
        let too_many = Some(OutcomeReason::TooMany);
        written.judge(row, LedgerOutcome::new(Outcome::Ignored, too_many, row.key_network_id));
    }
    for (id, conversion) in ids.iter().zip(&derived.conversions) {
        let row = ConversionRow::new(*id, click_id, click, conversion);
        match stored.get(id) {
            None => written.made.push(row),
            Some(stored) if !stored.is_as(&row) => written.changed.push(row),
            Some(_) => {}
        }
    }
    unmake_others(click_id, click, &ids, sources, written);
    if written.open.contains(&click_id) {
        written.stored.push(click_id);
    }
    written.note_click(click_id, click, &derived);
}

/// Conversions that are stored and none any more, because a word was mapped to something else.
fn unmake_others(
    click_id: ClickId,
    click: &ClickRow,
    ids: &[Uuid],
    sources: &Sources,
    written: &mut Written,
) {
    for (id, stored) in sources.stored(click_id.uuid()) {
        if ids.contains(id) || stored.standing().status == Status::Ignored {
            continue;
        }
        let last = stored.last_at;
        for moved in unmake(stored.standing()) {
            written.book.push(BookRow::new(*id, click_id, click.campaign_id, None, last, moved));
        }
        written.unmade.push((*id, click.campaign_id));
    }
}

/// A postback as the derivation takes it.
fn entry<'s>(row: &LedgerRow, click: &ClickRow, sources: &'s Sources) -> Entry<'s> {
    let offer_at =
        |at| row.leg_offer_id.or_else(|| sources.offer_before(row.click_id, at)).or(click.offer_id);
    let network_id = row.key_network_id.or_else(|| sources.network_of(offer_at(row.at())?));
    let rules = sources.rules(network_id);
    let reading = reading::read(&row.params, rules, row.at());
    let offer_id = offer_at(reading.time.unwrap_or(row.at()));
    let offer_payout = offer_id.and_then(|id| sources.payout_of(id)).or(click.payout());
    let is_known = row.key_network_id.is_some() || row.channel != <&str>::from(Channel::Http);
    Entry { at: row.at(), is_known, reading, network_id, rules, offer_id, offer_payout }
}

/// What became of a postback that tells of no click, or was not let in.
fn without_click(postback: &Postback<'_>) -> LedgerOutcome {
    if let Some(refusal) = postback.refusal {
        return LedgerOutcome::new(Outcome::Refused, Some(refusal.into()), postback.network_id);
    }
    let reading = reading::read(&postback.params, &PostbackRules::default(), time_of_uuid(postback.id));
    let reason = match reading.leg {
        Err(NoClick::Missing) => OutcomeReason::NoClickId,
        Ok(_) | Err(NoClick::Bad) => OutcomeReason::BadClickId,
    };
    LedgerOutcome::new(Outcome::Ignored, Some(reason), postback.network_id)
}

impl StoredConversion {
    fn standing(&self) -> Standing {
        Standing { status: self.status, payout: self.payout, currency: self.currency }
    }
}
