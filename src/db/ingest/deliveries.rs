//! What of the changes of conversions is to be told to whom: the outbox, filled in the transaction that stores a change.
//!
//! The id of a delivery is made of its target, its conversion and the change, so that a repeated postback, another node or
//! a replay of the ledger tells nothing twice.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::column;
use crate::{
    db::{session::Session, statement::statements},
    model::{
        conversion::{ConversionKind, Status},
        id::ClickId,
    },
};

statements! {
    // Without one, which is usual, nothing of the changes need be sent.
    ARE_TARGETS = "deliveries.are_targets": "
SELECT EXISTS (SELECT FROM postback_targets WHERE is_active)";

    // What takes something back is only for who was told of it. In mode `first` every change that is not such a one is the
    // same delivery. The order of rows is the order of their `seq`.
    INSERT = "deliveries.insert": "
WITH change AS (
    SELECT *, c.to_status IN ('rejected', 'refunded') OR c.kind = 'correction' OR c.is_part AS takes_back
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::int8[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::numeric[], $11::text[], $12::timestamptz[], $13::bool[]
    ) WITH ORDINALITY AS c (
        campaign_id, conversion_id, click_id, click_at, source_id, from_status, to_status, goal, kind, payout, currency,
        changed_at, is_part, nth
    )
)
INSERT INTO deliveries (
    id, target_id, campaign_id, conversion_id, click_id, change, goal, kind, payout, currency, changed_at, state, reason,
    finished_at, expires_at, created_at
)
SELECT
    encode(substr(sha256(convert_to(concat_ws(
        ':',
        t.id,
        c.conversion_id,
        -- parts that are taken back are told one by one: their times differ
        CASE
            WHEN c.is_part THEN 'part:' || extract(epoch FROM c.changed_at)
            WHEN t.mode = 'first' AND NOT c.takes_back THEN 'first'
            ELSE c.to_status
        END
    ), 'UTF8')), 1, 16), 'hex')::uuid,
    t.id,
    c.campaign_id,
    c.conversion_id,
    c.click_id,
    CASE WHEN c.is_part THEN 'refunded' ELSE c.to_status END,
    c.goal,
    c.kind,
    CASE t.payout_rule
        WHEN 'none' THEN NULL
        WHEN 'factor' THEN round(c.payout * t.payout_factor, 6)
        WHEN 'fixed' THEN t.payout_amount
        ELSE c.payout
    END,
    CASE WHEN t.payout_rule = 'fixed' THEN coalesce(t.payout_currency, c.currency) ELSE c.currency END,
    c.changed_at,
    CASE WHEN c.takes_back AND NOT t.takes_refunds THEN 'not_supported' ELSE 'pending' END,
    CASE WHEN c.takes_back AND NOT t.takes_refunds THEN 'takes_no_refunds' END,
    CASE WHEN c.takes_back AND NOT t.takes_refunds THEN clock_timestamp() END,
    c.changed_at + t.window_days * interval '1 day',
    c.click_at
FROM change c
JOIN postback_targets t
  ON t.is_active
 AND (t.traffic_source_id IS NULL OR t.traffic_source_id = c.source_id)
 AND (t.campaign_id IS NULL OR t.campaign_id = c.campaign_id)
 AND (cardinality(t.goals) = 0 OR c.goal = ANY (t.goals))
WHERE CASE
        WHEN c.kind = 'correction' THEN c.to_status = 'approved'
        WHEN c.takes_back THEN c.from_status = ANY (t.statuses) OR EXISTS (
            SELECT FROM deliveries d WHERE d.conversion_id = c.conversion_id AND d.target_id = t.id
        )
        ELSE c.to_status = ANY (t.statuses)
    END
  AND (NOT t.needs_click_id OR EXISTS (
        SELECT FROM clicks k WHERE k.created_at = c.click_at AND k.id = c.click_id AND k.click_id_param IS NOT NULL
    ))
ORDER BY c.nth, t.id
ON CONFLICT DO NOTHING";
}

/// A change of a conversion, as `conversion_changes` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The conversion's campaign.
    pub campaign_id: Uuid,
    /// The conversion.
    pub conversion_id: Uuid,
    /// Its click, which is stored.
    pub click_id: ClickId,
    /// The path that the click took.
    pub path_id: Option<i64>,
    /// The conversion's offer.
    pub offer_id: Option<i64>,
    /// The traffic source of the click, in the library.
    pub source_id: Option<i64>,
    /// `None`: it is new.
    pub from_status: Option<Status>,
    /// What it is now.
    pub to_status: Status,
    /// `""` where none was named.
    pub goal: String,
    /// What the conversion is.
    pub kind: ConversionKind,
    /// What it pays; of one that is rejected or refunded what it paid before; of a part that was refunded, that part.
    pub payout: Decimal,
    /// The currency of the payout.
    pub currency: String,
    /// When the postback came that caused it.
    pub changed_at: DateTime<Utc>,
    /// Whether only a part of it was refunded.
    pub is_part: bool,
    /// When the first postback of the conversion came.
    pub arrived_at: DateTime<Utc>,
    /// Whether its click counts; nobody is told of others.
    pub is_click_valid: bool,
}

impl Change {
    /// Whether anybody may be told of it.
    fn is_told(&self) -> bool {
        self.is_click_valid && !matches!(self.to_status, Status::Unmapped | Status::Ignored)
    }
}

/// Queues what is to be told of these changes, in their order; returns how many deliveries that are. To be called behind
/// whatever stores the changes and the clicks, in the same transaction.
pub async fn enqueue(c: &mut Session<'_>, changes: &[Change]) -> sqlx::Result<u64> {
    let told: Vec<&Change> = changes.iter().filter(|change| change.is_told()).collect();
    if told.is_empty() {
        return Ok(0);
    }
    let are_targets: bool = ARE_TARGETS.query_scalar().fetch_one(c).await?;
    if !are_targets {
        return Ok(0);
    }
    let insert = INSERT
        .query()
        .bind(column(&told, |change| change.campaign_id))
        .bind(column(&told, |change| change.conversion_id))
        .bind(column(&told, |change| change.click_id.uuid()))
        .bind(column(&told, |change| change.click_id.created_at()))
        .bind(column(&told, |change| change.source_id))
        .bind(column(&told, |change| change.from_status.map(<&str>::from)))
        .bind(column(&told, |change| <&str>::from(change.to_status)))
        .bind(column(&told, |change| change.goal.as_str()))
        .bind(column(&told, |change| <&str>::from(change.kind)))
        .bind(column(&told, |change| change.payout))
        .bind(column(&told, |change| change.currency.as_str()))
        .bind(column(&told, |change| change.changed_at))
        .bind(column(&told, |change| change.is_part));
    Ok(insert.execute(c).await?.rows_affected())
}
