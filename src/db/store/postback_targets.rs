//! Targets of postbacks. A trigger keeps that of a traffic source in step with its `postback_url`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::library::{Entry, select};
use crate::{
    db::{
        Db, Error,
        statement::{Query, Statement, statements},
    },
    model::{
        conversion::Status,
        money::{Currency, Money},
        postback_target::{Header, PauseReason, TargetTerms},
    },
};

/// A target as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Ours.
    pub id: i64,
    /// What its owner says of it.
    pub terms: TargetTerms,
    /// Whether its address is the `postback_url` of its traffic source.
    pub is_default: bool,
    /// What is signed with.
    pub secret: String,
    /// What is signed with too, for receivers that do not know the new one yet.
    pub previous_secret: Option<String>,
    /// When the secret was made.
    pub secret_changed_at: DateTime<Utc>,
    /// Since when what is due waits.
    pub paused_at: Option<DateTime<Utc>>,
    /// Why.
    pub pause_reason: Option<PauseReason>,
    /// Attempts that failed since the last one that succeeded.
    pub failures_in_a_row: i32,
    /// Until when it asked for quiet.
    pub held_until: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Which ones are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Part of the name, in any case.
    pub q: Option<String>,
    /// Of this traffic source.
    pub traffic_source_id: Option<i64>,
    /// Of this campaign.
    pub campaign_id: Option<Uuid>,
}

macro_rules! select_targets {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        t.id,
        t.name,
        t.template,
        t.traffic_source_id,
        t.campaign_id,
        t.is_default,
        t.kind,
        t.method,
        t.url,
        t.headers,
        t.body,
        t.statuses,
        t.goals,
        t.mode,
        t.payout_rule,
        t.payout_factor,
        t.payout_amount,
        t.payout_currency,
        t.success_status_min,
        t.success_status_max,
        t.success_pattern,
        t.failure_pattern,
        t.follow_redirects,
        t.window_days,
        t.takes_refunds,
        t.secret,
        t.previous_secret,
        t.secret_changed_at,
        t.is_active,
        t.paused_at,
        t.pause_reason,
        t.failures_in_a_row,
        t.held_until,
        t.version,
        t.created_at,
        t.updated_at
    FROM postback_targets t",
            $tail
        )
    };
}

statements! {
    GET = "postback_target.get": select_targets!("
    WHERE t.id = $1");

    LIST = "postback_target.list": select_targets!("
    WHERE t.id < $1
      AND ($2::text IS NULL OR position(lower($2) IN lower(t.name)) > 0)
      AND ($3::bigint IS NULL OR t.traffic_source_id = $3)
      AND ($4::uuid IS NULL OR t.campaign_id = $4)
    ORDER BY t.id DESC
    LIMIT $5");

    // In turn: no target waits for ever behind others of its host.
    DUE = "postback_target.due": select_targets!("
    WHERE t.is_active
      AND t.paused_at IS NULL
      AND (t.held_until IS NULL OR t.held_until <= now())
      AND EXISTS (
          SELECT
          FROM deliveries d
          WHERE d.target_id = t.id
            AND d.state IN ('pending', 'leased')
            AND d.next_at <= now()
      )
    ORDER BY t.id > $1 DESC, t.id
    LIMIT $2");

    FIND_MADE = "postback_target.find_made": "SELECT id FROM postback_targets WHERE made_by = $1";

    INSERT = "postback_target.insert": "
    INSERT INTO postback_targets (
        name, template, traffic_source_id, campaign_id, kind, method, url, headers, body, statuses, goals, mode, payout_rule,
        payout_factor, payout_amount, payout_currency, success_status_min, success_status_max, success_pattern,
        failure_pattern, follow_redirects, window_days, takes_refunds, is_active, made_by
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25
    )";

    UPDATE = "postback_target.update": "
    UPDATE postback_targets
    SET name = $1,
        template = $2,
        traffic_source_id = $3,
        campaign_id = $4,
        kind = $5,
        method = $6,
        url = $7,
        headers = $8,
        body = $9,
        statuses = $10,
        goals = $11,
        mode = $12,
        payout_rule = $13,
        payout_factor = $14,
        payout_amount = $15,
        payout_currency = $16,
        success_status_min = $17,
        success_status_max = $18,
        success_pattern = $19,
        failure_pattern = $20,
        follow_redirects = $21,
        window_days = $22,
        takes_refunds = $23,
        is_active = $24
    WHERE id = $25
      AND version = $26";

    PAUSE = "postback_target.pause": "
    UPDATE postback_targets
    SET paused_at = now(),
        pause_reason = 'owner'
    WHERE id = $1
      AND paused_at IS NULL";

    RESUME = "postback_target.resume": "
    UPDATE postback_targets
    SET paused_at = NULL,
        pause_reason = NULL,
        held_until = NULL,
        failures_in_a_row = 0
    WHERE id = $1
      AND paused_at IS NOT NULL";

    ROTATE = "postback_target.rotate_secret": "
    UPDATE postback_targets
    SET previous_secret = secret,
        secret = $2,
        secret_changed_at = now()
    WHERE id = $1";

    // That of a source goes with its postback_url; a trigger cancels what waits.
    DELETE = "postback_target.delete": "
    DELETE FROM postback_targets
    WHERE id = $1
      AND version = coalesce($2, version)
      AND NOT is_default";
}

/// Targets, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(db: &Db, filter: Filter, after: Option<i64>, limit: i64) -> Result<Vec<Target>, Error> {
    let after = after.unwrap_or(i64::MAX);
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST.query_as::<Row>().bind(after).bind(filter.q).bind(filter.traffic_source_id);
            let rows = query.bind(filter.campaign_id).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(Target::of).collect()
        })
    })
    .await
}

/// Targets that are to be told something now, at most `limit`, those after (above) `after` first.
pub async fn due(db: &Db, after: i64, limit: i64) -> Result<Vec<Target>, Error> {
    db.read_primary(DUE, move |c| {
        Box::pin(async move {
            let rows = DUE.query_as::<Row>().bind(after).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(Target::of).collect()
        })
    })
    .await
}

/// Pauses a target, or lets it go on; `None`: there is none.
pub async fn turn(db: &Db, id: i64, is_paused: bool) -> Result<Option<Target>, Error> {
    let statement = if is_paused { PAUSE } else { RESUME };
    db.write(statement, move |c| {
        Box::pin(async move {
            statement.query().bind(id).execute(c).await?;
            select(c, id).await
        })
    })
    .await
}

/// Gives a target a new secret; the one before signs too for a while.
pub async fn rotate(db: &Db, id: i64, secret: String) -> Result<Option<Target>, Error> {
    db.write(ROTATE, move |c| {
        Box::pin(async move {
            ROTATE.query().bind(id).bind(secret).execute(c).await?;
            select(c, id).await
        })
    })
    .await
}

impl Entry for Target {
    type Terms = TargetTerms;
    type Row = Row;

    const GET: Statement = GET;
    const FIND_MADE: Statement = FIND_MADE;
    const INSERT: Statement = INSERT;
    const UPDATE: Statement = UPDATE;
    const DELETE: Statement = DELETE;

    fn id(&self) -> i64 {
        self.id
    }

    fn terms(&self) -> &TargetTerms {
        &self.terms
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn bind(query: Query, terms: TargetTerms) -> Query {
        let statuses: Vec<&str> = terms.statuses.iter().map(|status| <&str>::from(*status)).collect();
        query
            .bind(terms.name)
            .bind(terms.template)
            .bind(terms.traffic_source_id)
            .bind(terms.campaign_id)
            .bind(<&str>::from(terms.kind))
            .bind(<&str>::from(terms.method))
            .bind(terms.url)
            .bind(Json(terms.headers))
            .bind(terms.body)
            .bind(statuses)
            .bind(terms.goals)
            .bind(<&str>::from(terms.mode))
            .bind(<&str>::from(terms.payout_rule))
            .bind(terms.payout_factor)
            .bind(terms.payout_amount.map(|money| money.amount))
            .bind(terms.payout_amount.map(|money| money.currency.to_string()))
            .bind(terms.success_status_min)
            .bind(terms.success_status_max)
            .bind(terms.success_pattern)
            .bind(terms.failure_pattern)
            .bind(terms.follow_redirects)
            .bind(terms.window_days)
            .bind(terms.takes_refunds)
            .bind(terms.is_active)
    }

    fn of(row: Row) -> sqlx::Result<Self> {
        row.read().map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// What [`GET`] and [`LIST`] read.
#[derive(FromRow)]
pub(crate) struct Row {
    id: i64,
    name: String,
    template: Option<String>,
    traffic_source_id: Option<i64>,
    campaign_id: Option<Uuid>,
    is_default: bool,
    kind: String,
    method: String,
    url: String,
    headers: Json<Vec<Header>>,
    body: Option<String>,
    statuses: Vec<String>,
    goals: Vec<String>,
    mode: String,
    payout_rule: String,
    payout_factor: Option<Decimal>,
    payout_amount: Option<Decimal>,
    payout_currency: Option<String>,
    success_status_min: i32,
    success_status_max: i32,
    success_pattern: Option<String>,
    failure_pattern: Option<String>,
    follow_redirects: i32,
    window_days: Option<i32>,
    takes_refunds: bool,
    secret: String,
    previous_secret: Option<String>,
    secret_changed_at: DateTime<Utc>,
    is_active: bool,
    paused_at: Option<DateTime<Utc>>,
    pause_reason: Option<String>,
    failures_in_a_row: i32,
    held_until: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<Target, String> {
        let currency = self.payout_currency.map(|text| text.parse::<Currency>()).transpose();
        let currency = currency.map_err(str::to_string)?;
        let payout_amount =
            self.payout_amount.zip(currency).map(|(amount, currency)| Money { amount, currency });
        let statuses =
            self.statuses.iter().map(|status| status.parse()).collect::<Result<Vec<Status>, String>>()?;
        let terms = TargetTerms {
            name: self.name,
            template: self.template,
            traffic_source_id: self.traffic_source_id,
            campaign_id: self.campaign_id,
            kind: self.kind.parse()?,
            method: self.method.parse()?,
            url: self.url,
            headers: self.headers.0,
            body: self.body,
            statuses,
            goals: self.goals,
            mode: self.mode.parse()?,
            payout_rule: self.payout_rule.parse()?,
            payout_factor: self.payout_factor,
            payout_amount,
            success_status_min: self.success_status_min,
            success_status_max: self.success_status_max,
            success_pattern: self.success_pattern,
            failure_pattern: self.failure_pattern,
            follow_redirects: self.follow_redirects,
            window_days: self.window_days,
            takes_refunds: self.takes_refunds,
            is_active: self.is_active,
        };
        Ok(Target {
            id: self.id,
            terms,
            is_default: self.is_default,
            secret: self.secret,
            previous_secret: self.previous_secret,
            secret_changed_at: self.secret_changed_at,
            paused_at: self.paused_at,
            pause_reason: self.pause_reason.map(|text| text.parse()).transpose()?,
            failures_in_a_row: self.failures_in_a_row,
            held_until: self.held_until,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
