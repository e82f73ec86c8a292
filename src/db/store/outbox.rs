//! The outbox as its workers see it: deliveries are leased, sent, and noted. Times are the database's, so that the clocks
//! of nodes do not matter. A lease that ends is another node's to take.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Db, Error, statement::statements};

statements! {
    // For each target as many as there are places for it. One is not taken before what is earlier of its conversion is
    // done; whoever has just been given it counts as earlier too, by its state.
    CLAIM = "outbox.claim": "
    WITH due AS (
        SELECT d.id, d.campaign_id
        FROM unnest($1::int8[], $2::int8[]) AS place (target_id, count)
        CROSS JOIN LATERAL (
            SELECT o.id, o.campaign_id
            FROM deliveries o
            WHERE o.target_id = place.target_id
              AND o.state IN ('pending', 'leased')
              AND o.next_at <= now()
              AND NOT EXISTS (
                  SELECT
                  FROM deliveries earlier
                  WHERE earlier.conversion_id = o.conversion_id
                    AND earlier.target_id = o.target_id
                    AND earlier.seq < o.seq
                    AND earlier.state IN ('pending', 'leased')
              )
            ORDER BY o.next_at
            LIMIT place.count
            FOR UPDATE SKIP LOCKED
        ) AS d
    ), leased AS (
        UPDATE deliveries d
        SET state = 'leased',
            attempts = d.attempts + 1,
            next_at = now() + $3::integer * interval '1 millisecond'
        FROM due
        WHERE d.id = due.id
          AND d.campaign_id = due.campaign_id
        RETURNING d.*
    )
    SELECT
        l.id,
        l.target_id,
        l.campaign_id,
        l.conversion_id,
        l.click_id,
        l.change,
        l.goal,
        l.kind,
        l.payout,
        l.currency,
        l.changed_at,
        l.created_at,
        l.attempts,
        l.attempts - l.attempts_before AS tries,
        coalesce(l.expires_at <= now(), false) AS is_expired,
        coalesce(v.txid, '') AS txid,
        k.id IS NOT NULL AS has_click,
        k.click_id_param,
        k.sub1,
        k.sub2,
        k.sub3,
        k.sub4,
        k.sub5,
        k.keyword,
        k.creative,
        k.placement,
        k.country,
        k.device,
        k.os,
        k.browser,
        host(k.ip_address) AS ip_address,
        k.user_agent,
        k.referrer
    FROM leased l
    LEFT JOIN clicks k ON k.created_at = l.created_at AND k.id = l.click_id
    LEFT JOIN conversions v ON v.id = l.conversion_id AND v.campaign_id = l.campaign_id";

    // Whoever lost its lease may still say that it was delivered, and nothing else.
    FINISH = "outbox.finish": "
    WITH result AS (
        SELECT *
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::bool[], $8::timestamptz[], $9::text[],
            $10::text[], $11::int4[], $12::text[], $13::int4[], $14::text[], $15::timestamptz[]
        ) AS r (
            id, campaign_id, n, state, reason, wait_ms, begins_anew, at, method, url, status, answer, ms, error, created_at
        )
    ), noted AS (
        INSERT INTO delivery_attempts (
            delivery_id, campaign_id, n, at, method, url, status, answer, ms, error, created_at
        )
        SELECT id, campaign_id, n, at, method, url, status, answer, ms, error, created_at
        FROM result
        WHERE method IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    UPDATE deliveries d
    SET state = r.state,
        reason = r.reason,
        next_at = clock_timestamp() + r.wait_ms * interval '1 millisecond',
        attempts_before = CASE WHEN r.begins_anew THEN d.attempts ELSE d.attempts_before END,
        finished_at = CASE WHEN r.state <> 'pending' THEN clock_timestamp() END
    FROM result r
    WHERE d.id = r.id
      AND d.campaign_id = r.campaign_id
      AND d.state = 'leased'
      AND (d.attempts = r.n OR r.state = 'delivered')";

    // In the order of ids: two nodes may note the same ones. Those for whom nothing changes are not touched.
    NOTE_TARGETS = "outbox.note_targets": "
    WITH told AS (
        SELECT *
        FROM unnest($1::int8[], $2::bool[], $3::int4[], $4::int8[], $5::bool[]) AS t (
            id, has_success, failures, hold_ms, is_gone
        )
    ), locked AS (
        SELECT t.id
        FROM postback_targets t
        JOIN told ON told.id = t.id
        WHERE told.failures > 0
           OR told.hold_ms IS NOT NULL
           OR told.is_gone
           OR t.failures_in_a_row > 0
        ORDER BY t.id
        FOR UPDATE OF t
    ), counted AS (
        SELECT
            told.*,
            CASE WHEN told.has_success THEN told.failures ELSE t.failures_in_a_row + told.failures END AS in_a_row
        FROM told
        JOIN locked ON locked.id = told.id
        JOIN postback_targets t ON t.id = told.id
    )
    UPDATE postback_targets t
    SET failures_in_a_row = c.in_a_row,
        held_until = greatest(t.held_until, clock_timestamp() + c.hold_ms * interval '1 millisecond'),
        paused_at = CASE WHEN c.is_gone OR c.in_a_row >= $6 THEN coalesce(t.paused_at, now()) ELSE t.paused_at END,
        pause_reason = CASE
            WHEN t.paused_at IS NOT NULL THEN t.pause_reason
            WHEN c.is_gone THEN 'gone'
            WHEN c.in_a_row >= $6 THEN 'failures'
        END
    FROM counted c
    WHERE t.id = c.id
    RETURNING t.id, t.name, t.failures_in_a_row, t.pause_reason";

    // What waits for a target that is paused waits for a person, and is not late.
    STATS = "outbox.stats": "
    SELECT
        (SELECT count(*) FROM postback_targets WHERE is_active AND paused_at IS NOT NULL) AS paused,
        (SELECT count(*) FROM postback_targets WHERE is_active AND failures_in_a_row >= $1) AS failing,
        count(*) AS pending,
        min(d.queued_at) FILTER (WHERE t.is_active AND t.paused_at IS NULL) AS oldest
    FROM deliveries d
    JOIN postback_targets t ON t.id = d.target_id
    WHERE d.state IN ('pending', 'leased')";
}

/// A delivery that this node is to make.
#[derive(Debug, Clone, FromRow)]
pub struct Claimed {
    /// The delivery.
    pub id: Uuid,
    /// Whom it is for.
    pub target_id: i64,
    /// The conversion's campaign.
    pub campaign_id: Uuid,
    /// The conversion.
    pub conversion_id: Uuid,
    /// Its click.
    pub click_id: Uuid,
    /// The status it has now.
    pub change: String,
    /// The goal.
    pub goal: String,
    /// What the conversion is.
    pub kind: String,
    /// As the target is told it.
    pub payout: Option<Decimal>,
    /// The currency of that.
    pub currency: String,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// When the click was made.
    pub created_at: DateTime<Utc>,
    /// The number of this attempt.
    pub attempts: i32,
    /// The same, since it was last put back by hand.
    pub tries: i32,
    /// Whether it is not worth telling any more.
    pub is_expired: bool,
    /// The network's transaction id.
    pub txid: String,
    /// Whether the click is still stored.
    pub has_click: bool,
    /// What the click says.
    #[sqlx(flatten)]
    pub click: Click,
}

/// What a click says.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Click {
    /// The source's own id.
    pub click_id_param: Option<String>,
    /// From the link.
    pub sub1: Option<String>,
    /// From the link.
    pub sub2: Option<String>,
    /// From the link.
    pub sub3: Option<String>,
    /// From the link.
    pub sub4: Option<String>,
    /// From the link.
    pub sub5: Option<String>,
    /// From the link.
    pub keyword: Option<String>,
    /// From the link.
    pub creative: Option<String>,
    /// From the link.
    pub placement: Option<String>,
    /// Of the visitor.
    pub country: Option<String>,
    /// Of the visitor.
    pub device: Option<String>,
    /// Of the visitor.
    pub os: Option<String>,
    /// Of the visitor.
    pub browser: Option<String>,
    /// Of the visitor, as far as it is kept: nothing of one who asked for privacy.
    pub ip_address: Option<String>,
    /// Of the visitor, as far as it is kept.
    pub user_agent: Option<String>,
    /// Of the visitor, as far as it is kept.
    pub referrer: Option<String>,
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The delivery.
    pub id: Uuid,
    /// Its campaign.
    pub campaign_id: Uuid,
    /// When its click was made.
    pub created_at: DateTime<Utc>,
    /// The number of the attempt.
    pub n: i32,
    /// `pending`, `delivered` or `dead`.
    pub state: &'static str,
    /// Why it is dead.
    pub reason: Option<&'static str>,
    /// When it is tried again.
    pub wait: Duration,
    /// Whether its schedule begins anew then.
    pub begins_anew: bool,
    /// The request; `None`: none was made.
    pub request: Option<Request>,
}

/// A request that was made.
#[derive(Debug, Clone)]
pub struct Request {
    /// When.
    pub at: DateTime<Utc>,
    /// How.
    pub method: &'static str,
    /// Where to, without what is secret in it.
    pub url: String,
    /// `None`: there was no answer.
    pub status: Option<u16>,
    /// How the answer begins.
    pub answer: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// `None`: it succeeded.
    pub error: Option<String>,
}

/// What attempts say of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether one succeeded.
    pub has_success: bool,
    /// How many failed since.
    pub failures: i32,
    /// For how long it asked for quiet.
    pub hold: Option<Duration>,
    /// Whether it answered 410.
    pub is_gone: bool,
}

/// A target of which something was noted.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Noted {
    /// Ours.
    pub id: i64,
    /// For people.
    pub name: String,
    /// Now.
    pub failures_in_a_row: i32,
    /// Why it is paused.
    pub pause_reason: Option<String>,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct Stats {
    /// Targets that are paused.
    pub paused: i64,
    /// Targets that fail.
    pub failing: i64,
    /// Deliveries that are not done.
    pub pending: i64,
    /// When the oldest of those whose target is not paused was queued.
    pub oldest: Option<DateTime<Utc>>,
}

/// Leases what is due, for each of these targets as many as there are places.
pub async fn claim(db: &Db, places: Vec<(i64, usize)>, lease: Duration) -> Result<Vec<Claimed>, Error> {
    let (targets, counts): (Vec<i64>, Vec<i64>) =
        places.into_iter().map(|(id, count)| (id, i64::try_from(count).unwrap_or(i64::MAX))).unzip();
    let lease = i32::try_from(lease.as_millis()).unwrap_or(i32::MAX);
    let claim = db
        .primary()
        .run(CLAIM, move |c| Box::pin(CLAIM.query_as().bind(targets).bind(counts).bind(lease).fetch_all(c)));
    claim.await
}

/// Notes what became of attempts.
pub async fn finish(db: &Db, results: Vec<Finished>) -> Result<(), Error> {
    db.primary()
        .run(FINISH, move |c| {
            Box::pin(async move {
                let request = |get: fn(&Request) -> Option<String>| -> Vec<Option<String>> {
                    results.iter().map(|r| r.request.as_ref().and_then(get)).collect()
                };
                let (urls, answers, errors) = (
                    request(|r| Some(r.url.clone())),
                    request(|r| r.answer.clone()),
                    request(|r| r.error.clone()),
                );
                let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                FINISH
                    .query()
                    .bind(column(&results, |r| r.id))
                    .bind(column(&results, |r| r.campaign_id))
                    .bind(column(&results, |r| r.n))
                    .bind(column(&results, |r| r.state))
                    .bind(column(&results, |r| r.reason))
                    .bind(column(&results, |r| ms(r.wait)))
                    .bind(column(&results, |r| r.begins_anew))
                    .bind(column(&results, |r| r.request.as_ref().map(|request| request.at)))
                    .bind(column(&results, |r| r.request.as_ref().map(|request| request.method)))
                    .bind(urls)
                    .bind(column(&results, |r| r.request.as_ref().and_then(|r| r.status).map(i32::from)))
                    .bind(answers)
                    .bind(column(&results, |r| {
                        r.request.as_ref().map(|r| i32::try_from(r.took.as_millis()).unwrap_or(i32::MAX))
                    }))
                    .bind(errors)
                    .bind(column(&results, |r| r.created_at))
                    .execute(c)
                    .await
                    .map(drop)
            })
        })
        .await
}

/// Notes what attempts say of targets; pauses those with `failures_max` in a row. Returns those of which something
/// changed.
pub async fn note_targets(db: &Db, told: Vec<(i64, Told)>, failures_max: i32) -> Result<Vec<Noted>, Error> {
    db.primary()
        .run(NOTE_TARGETS, move |c| {
            let hold =
                |told: &Told| told.hold.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            let query = NOTE_TARGETS
                .query_as()
                .bind(column(&told, |(id, _)| *id))
                .bind(column(&told, |(_, told)| told.has_success))
                .bind(column(&told, |(_, told)| told.failures))
                .bind(column(&told, |(_, told)| hold(told)))
                .bind(column(&told, |(_, told)| told.is_gone))
                .bind(failures_max);
            Box::pin(query.fetch_all(c))
        })
        .await
}

/// What waits, and how many targets have `failures` in a row.
pub async fn stats(db: &Db, failures: i32) -> Result<Stats, Error> {
    db.read_primary(STATS, move |c| Box::pin(STATS.query_as().bind(failures).fetch_one(c))).await
}

/// One column of a batch.
fn column<'a, R, V>(rows: &'a [R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}
