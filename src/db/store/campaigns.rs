//! Campaigns with their landing pages and offers: one row each, the lists as JSON.
//!
//! A node learns of changes by [`changed_since`], which polls by transaction id instead of by time: a
//! transaction that commits late is still seen, because every answer says from where to ask next.

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde::Deserialize;
use sqlx::{Connection, FromRow, PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    db::{Db, Error, monitor::part},
    model::{
        campaign::{Campaign, CostModel, Destination, Status},
        id::{CampaignKey, new_uuid},
        money::{Money, parse_amount},
    },
};

/// Attempts to find a free key when none is given.
const KEY_ATTEMPTS: u32 = 5;

/// Characters of a made-up key; 32 of them, none that is easily taken for another.
const KEY_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Every statement of this module.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("campaign.changed_since", CHANGED_SINCE_SQL),
    ("campaign.heal", HEAL_SQL),
    ("campaign.by_key", BY_KEY_SQL),
    ("campaign.get", GET_SQL),
    ("campaign.list", LIST_SQL),
    ("campaign.ids_of_key", IDS_OF_KEY_SQL),
    ("campaign.is_untouched", IS_UNTOUCHED_SQL),
    ("campaign.insert", INSERT_SQL),
    ("campaign.update", UPDATE_SQL),
    ("campaign.delete", DELETE_SQL),
    ("campaign.replace_landing_pages", REPLACE_LANDING_PAGES_SQL),
    ("campaign.replace_offers", REPLACE_OFFERS_SQL),
];

/// A campaign as it is asked for: to be made, or to take the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// `None` asks for a made-up one, or leaves it as it is.
    pub key: Option<CampaignKey>,
    /// 1 to 255 characters.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whether it takes clicks.
    pub status: Status,
    /// Not before this time.
    pub start_at: Option<DateTime<Utc>>,
    /// Not from this time on.
    pub end_at: Option<DateTime<Utc>>,
    /// How we are paid.
    pub cost_model: CostModel,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// For people and reports.
    pub daily_budget: Option<Money>,
    /// For people and reports.
    pub total_budget: Option<Money>,
    /// A template in canonical form.
    pub fallback_url: Option<String>,
    /// In their order.
    pub landing_pages: Vec<NewDestination>,
    /// In their order.
    pub offers: Vec<NewDestination>,
    /// Whether unknown parameters of a click go to the destination too.
    pub pass_through: bool,
}

/// A landing page or offer as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDestination {
    /// The id of an entry of this campaign keeps it; anything else is a new entry.
    pub id: Option<i64>,
    /// 1 to 255 characters.
    pub name: String,
    /// A template in canonical form.
    pub url: String,
    /// 0 to 1,000,000
    pub weight: i32,
    /// Whether it takes clicks.
    pub is_active: bool,
    /// Offers only.
    pub payout: Option<Money>,
}

impl New {
    /// A campaign to try octo with: one landing page at `url`, a template in canonical form. What is no key
    /// gets a made-up one.
    pub fn demo(key: &str, url: &str) -> Self {
        let page = NewDestination {
            id: None,
            name: "Demo page".to_owned(),
            url: url.to_owned(),
            weight: 1,
            is_active: true,
            payout: None,
        };
        Self {
            key: key.parse().ok(),
            name: "Demo campaign".to_owned(),
            description: Some("To try octo with; change it or delete it.".to_owned()),
            status: Status::Active,
            start_at: None,
            end_at: None,
            cost_model: CostModel::Cpa,
            payout: None,
            daily_budget: None,
            total_budget: None,
            fallback_url: None,
            landing_pages: vec![page],
            offers: Vec::new(),
            pass_through: false,
        }
    }
}

/// A campaign that was made, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it is, or was when it was deleted.
    pub campaign: Campaign,
    /// Whether it is gone.
    pub is_deleted: bool,
}

/// An answer to [`changed_since`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What to ask for next time: the oldest transaction that was still running when this was read, on the
    /// server that answered. The smallest one of all pages counts.
    pub horizon: i64,
    /// Since when the server that answered runs: another server, or one that was started again, has another time. What
    /// was read of the one before may be lost here.
    pub server: DateTime<Utc>,
    /// Whether there are transaction ids that this server has not given out yet: [`heal`] is needed.
    pub is_foreign: bool,
    /// In order of id.
    pub list: Vec<Change>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written<T> {
    /// It is done.
    Done(T),
    /// There is no such campaign.
    Missing,
    /// It is not in the expected version.
    Stale,
}

/// `SELECT` of whole campaigns, with what follows `FROM campaigns c`.
macro_rules! select_campaigns {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        c.id,
        c.key,
        c.name,
        c.description,
        c.status,
        c.start_at,
        c.end_at,
        c.cost_model,
        c.payout_amount::text,
        c.payout_currency,
        c.daily_budget_amount::text,
        c.daily_budget_currency,
        c.total_budget_amount::text,
        c.total_budget_currency,
        c.fallback_url,
        c.pass_through,
        c.version,
        c.created_at,
        c.updated_at,
        c.deleted_at IS NOT NULL AS is_deleted,
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', d.id,
                'name', d.name,
                'url', d.url,
                'weight', d.weight,
                'is_active', d.is_active
            ) ORDER BY d.position, d.id), '[]')
            FROM landing_pages d
            WHERE d.campaign_id = c.id
        ) AS landing_pages,
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', d.id,
                'name', d.name,
                'url', d.url,
                'weight', d.weight,
                'is_active', d.is_active,
                'payout_amount', d.payout_amount::text,
                'payout_currency', d.payout_currency
            ) ORDER BY d.position, d.id), '[]')
            FROM offers d
            WHERE d.campaign_id = c.id
        ) AS offers
    FROM campaigns c",
            $tail
        )
    };
}

/// One row at least: the horizon, also where nothing changed.
const CHANGED_SINCE_SQL: &str = concat!(
    "
    SELECT
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
        pg_postmaster_start_time() AS server,
        EXISTS (
            SELECT
            FROM campaigns
            WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())
        ) AS is_foreign,
        changed.*
    FROM (SELECT 1) AS one
    LEFT JOIN (",
    select_campaigns!(
        "
        WHERE c.changed_xid >= $1::text::xid8
          AND (c.deleted_at IS NULL OR $2)
          AND c.id > $3
        ORDER BY c.id
        LIMIT $4"
    ),
    "
    ) AS changed ON true
    ORDER BY changed.id"
);

// No row that is seen was written by a transaction from here on: their ids came with a dump from another server.
const HEAL_SQL: &str = "
    UPDATE campaigns
    SET changed_xid = pg_current_xact_id()
    WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())";

const BY_KEY_SQL: &str = select_campaigns!(
    "
    WHERE c.key = $1
      AND c.deleted_at IS NULL"
);

const GET_SQL: &str = select_campaigns!(
    "
    WHERE c.id = $1
      AND c.deleted_at IS NULL"
);

const LIST_SQL: &str = select_campaigns!(
    "
    WHERE c.id < $1
      AND c.deleted_at IS NULL
    ORDER BY c.id DESC
    LIMIT $2"
);

const IS_UNTOUCHED_SQL: &str = "SELECT NOT EXISTS (SELECT FROM campaigns)";

const IDS_OF_KEY_SQL: &str = "
    SELECT id
    FROM campaigns
    WHERE key = $1";

const INSERT_SQL: &str = "
    INSERT INTO campaigns (
        id,
        key,
        name,
        description,
        status,
        start_at,
        end_at,
        cost_model,
        payout_amount,
        payout_currency,
        daily_budget_amount,
        daily_budget_currency,
        total_budget_amount,
        total_budget_currency,
        fallback_url,
        pass_through
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

const UPDATE_SQL: &str = "
    UPDATE campaigns
    SET key = coalesce($2, key),
        name = $3,
        description = $4,
        status = $5,
        start_at = $6,
        end_at = $7,
        cost_model = $8,
        payout_amount = $9,
        payout_currency = $10,
        daily_budget_amount = $11,
        daily_budget_currency = $12,
        total_budget_amount = $13,
        total_budget_currency = $14,
        fallback_url = $15,
        pass_through = $16
    WHERE id = $1
      AND deleted_at IS NULL
      AND version = coalesce($17, version)";

const DELETE_SQL: &str = "
    UPDATE campaigns
    SET deleted_at = now()
    WHERE id = $1
      AND deleted_at IS NULL
      AND version = coalesce($2, version)";

/// Deletes what is not in the list, changes what is and differs, inserts the rest. A trigger tells the
/// campaign.
const REPLACE_LANDING_PAGES_SQL: &str = "
    WITH given AS (
        SELECT *
        FROM unnest($2::bigint[], $3::text[], $4::text[], $5::integer[], $6::boolean[])
            WITH ORDINALITY AS g (id, name, url, weight, is_active, position)
    ), gone AS (
        DELETE FROM landing_pages d
        WHERE d.campaign_id = $1
          AND NOT EXISTS (SELECT FROM given g WHERE g.id = d.id)
    ), kept AS (
        UPDATE landing_pages d
        SET position = g.position,
            name = g.name,
            url = g.url,
            weight = g.weight,
            is_active = g.is_active
        FROM given g
        WHERE d.campaign_id = $1
          AND d.id = g.id
          AND (d.position, d.name, d.url, d.weight, d.is_active)
              IS DISTINCT FROM (g.position, g.name, g.url, g.weight, g.is_active)
    )
    INSERT INTO landing_pages (campaign_id, position, name, url, weight, is_active)
    SELECT
        $1,
        g.position,
        g.name,
        g.url,
        g.weight,
        g.is_active
    FROM given g
    WHERE NOT EXISTS (SELECT FROM landing_pages d WHERE d.campaign_id = $1 AND d.id = g.id)
    ORDER BY g.position";

/// As [`REPLACE_LANDING_PAGES_SQL`], with payouts.
const REPLACE_OFFERS_SQL: &str = "
    WITH given AS (
        SELECT *
        FROM unnest($2::bigint[], $3::text[], $4::text[], $5::integer[], $6::boolean[], $7::numeric[], $8::text[])
            WITH ORDINALITY
            AS g (id, name, url, weight, is_active, payout_amount, payout_currency, position)
    ), gone AS (
        DELETE FROM offers d
        WHERE d.campaign_id = $1
          AND NOT EXISTS (SELECT FROM given g WHERE g.id = d.id)
    ), kept AS (
        UPDATE offers d
        SET position = g.position,
            name = g.name,
            url = g.url,
            weight = g.weight,
            is_active = g.is_active,
            payout_amount = g.payout_amount,
            payout_currency = g.payout_currency
        FROM given g
        WHERE d.campaign_id = $1
          AND d.id = g.id
          AND (d.position, d.name, d.url, d.weight, d.is_active, d.payout_amount, d.payout_currency)
              IS DISTINCT FROM
              (g.position, g.name, g.url, g.weight, g.is_active, g.payout_amount, g.payout_currency)
    )
    INSERT INTO offers (campaign_id, position, name, url, weight, is_active, payout_amount, payout_currency)
    SELECT
        $1,
        g.position,
        g.name,
        g.url,
        g.weight,
        g.is_active,
        g.payout_amount,
        g.payout_currency
    FROM given g
    WHERE NOT EXISTS (SELECT FROM offers d WHERE d.campaign_id = $1 AND d.id = g.id)
    ORDER BY g.position";

/// Campaigns changed in transactions from `since` on, in order of id after `after`, at most `limit`. With
/// `since` 0: all that are not deleted; else deleted ones too.
///
/// From the primary, so that a node sees what it wrote; with `may_lag`, from a replica while the primary is
/// unavailable: good for a node that knows nothing yet, but it could take a change back from one that does. The
/// horizon is read in the statement that reads the rows, so both come from one snapshot of one server: the
/// horizon of one server says nothing about the rows of another that lags.
pub async fn changed_since(
    db: &Db,
    since: i64,
    after: Option<Uuid>,
    limit: i64,
    may_lag: bool,
) -> Result<Changes, Error> {
    let after = after.unwrap_or(Uuid::nil());
    match db.read_primary("campaign.changed_since", move |c| select_changes(c, since, after, limit)).await {
        Err(Error::Unavailable(_)) if may_lag && !db.replicas().is_empty() => {
            db.read("campaign.changed_since", move |c| select_changes(c, since, after, limit)).await
        }
        answer => answer,
    }
}

/// Sets transaction ids that this server has not given out (they came with a dump of another one) to one of its own;
/// the campaigns stay in their version. Returns how many.
pub async fn heal(db: &Db) -> Result<u64, Error> {
    db.maintain("campaign.heal", |c| {
        Box::pin(async move { Ok(crate::db::query(HEAL_SQL).execute(c).await?.rows_affected()) })
    })
    .await
}

/// The campaign that links with this key mean; from a replica.
pub async fn by_key(db: &Db, key: &str) -> Result<Option<Campaign>, Error> {
    let key = key.to_owned();
    db.read("campaign.by_key", move |c| Box::pin(async move { select_by_key(c, &key).await })).await
}

/// As [`by_key`], from the primary: a writer sees what it wrote.
pub async fn get_by_key(db: &Db, key: &str) -> Result<Option<Campaign>, Error> {
    let key = key.to_owned();
    db.read_primary("campaign.by_key", move |c| Box::pin(async move { select_by_key(c, &key).await })).await
}

/// The campaign with this id; from the primary.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Campaign>, Error> {
    db.read_primary("campaign.get", move |c| Box::pin(select(c, id))).await
}

/// Campaigns, newest first, after (older than) `after`, at most `limit`; from a replica.
pub async fn list(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<Campaign>, Error> {
    let after = after.unwrap_or(Uuid::max());
    db.read("campaign.list", move |c| {
        Box::pin(async move {
            let rows = crate::db::query_as::<Row>(LIST_SQL).bind(after).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(Row::into_campaign).collect()
        })
    })
    .await
}

/// Every campaign that has or had this key: clicks of a deleted one are still there.
pub async fn ids_of_key(db: &Db, key: &str) -> Result<Vec<Uuid>, Error> {
    let key = key.to_owned();
    db.read("campaign.ids_of_key", move |c| {
        Box::pin(crate::db::query_scalar(IDS_OF_KEY_SQL).bind(key).fetch_all(c))
    })
    .await
}

/// Whether there never was a campaign.
pub async fn is_untouched(db: &Db) -> Result<bool, Error> {
    db.read_primary("campaign.is_untouched", move |c| {
        Box::pin(crate::db::query_scalar(IS_UNTOUCHED_SQL).fetch_one(c))
    })
    .await
}

/// Makes a campaign; returns it as it is stored. A key that is taken is an [`Error::Conflict`] with
/// `campaigns_key`.
pub async fn insert(db: &Db, new: New) -> Result<Campaign, Error> {
    insert_as(db, new_uuid(), false, new).await
}

/// As [`insert`], with this id; where an attempt before this one `may_exist`, what it made is the campaign.
pub async fn insert_as(db: &Db, id: Uuid, may_exist: bool, new: New) -> Result<Campaign, Error> {
    let attempts = if new.key.is_some() { 1 } else { KEY_ATTEMPTS };
    let mut attempt = 1;
    loop {
        let key = new.key.clone().map_or_else(new_key, Ok)?;
        let new = new.clone();
        match db.write("campaign.insert", move |c| Box::pin(insert_on(c, id, may_exist, key, new))).await {
            Err(Error::Conflict { constraint }) if constraint == "campaigns_key" && attempt < attempts => {
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// Puts `new` in the place of a campaign that is in the version `expected` (`None`: in any); returns it as it
/// is stored.
pub async fn update(db: &Db, id: Uuid, expected: Option<i64>, new: New) -> Result<Written<Campaign>, Error> {
    db.write("campaign.update", move |c| Box::pin(update_on(c, id, expected, new))).await
}

/// Marks a campaign as deleted; its key is free, its clicks stay.
pub async fn delete(db: &Db, id: Uuid, expected: Option<i64>) -> Result<Written<()>, Error> {
    db.write("campaign.delete", move |c| {
        Box::pin(async move {
            let done = crate::db::query(DELETE_SQL).bind(id).bind(expected).execute(&mut *c).await?;
            match done.rows_affected() {
                0 => Ok(why_not(c, id).await?),
                _ => Ok(Written::Done(())),
            }
        })
    })
    .await
}

fn select_changes(
    c: &mut PgConnection,
    since: i64,
    after: Uuid,
    limit: i64,
) -> BoxFuture<'_, sqlx::Result<Changes>> {
    Box::pin(async move {
        let query = crate::db::query_as::<ChangedRow>(CHANGED_SINCE_SQL).bind(since.to_string());
        let rows = query.bind(since > 0).bind(after).bind(limit).fetch_all(c).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?; // one row at least
        let (horizon, server, is_foreign) = (first.horizon, first.server, first.is_foreign);
        let list = rows.into_iter().filter_map(|row| row.changed).map(Row::into_change);
        Ok(Changes { horizon, server, is_foreign, list: list.collect::<Result<_, _>>()? })
    })
}

async fn insert_on(
    c: &mut PgConnection,
    id: Uuid,
    may_exist: bool,
    key: CampaignKey,
    new: New,
) -> sqlx::Result<Campaign> {
    if may_exist && let Some(made) = part("campaign.get", select(c, id)).await? {
        return Ok(made);
    }
    let mut tx = c.begin().await?;
    bind_columns(crate::db::query(INSERT_SQL).bind(id), Some(&key), &new).execute(&mut *tx).await?;
    replace_lists(&mut tx, id, &new).await?;
    let campaign = part("campaign.get", select(&mut tx, id)).await?.ok_or(sqlx::Error::RowNotFound)?;
    tx.commit().await?;
    Ok(campaign)
}

async fn update_on(
    c: &mut PgConnection,
    id: Uuid,
    expected: Option<i64>,
    new: New,
) -> sqlx::Result<Written<Campaign>> {
    let mut tx = c.begin().await?;
    let update = bind_columns(crate::db::query(UPDATE_SQL).bind(id), new.key.as_ref(), &new).bind(expected);
    if update.execute(&mut *tx).await?.rows_affected() == 0 {
        let why = why_not(&mut tx, id).await?;
        tx.rollback().await?;
        return Ok(why);
    }
    replace_lists(&mut tx, id, &new).await?;
    let campaign = part("campaign.get", select(&mut tx, id)).await?.ok_or(sqlx::Error::RowNotFound)?;
    tx.commit().await?;
    Ok(Written::Done(campaign))
}

/// Why a change hit no row.
async fn why_not<T>(c: &mut PgConnection, id: Uuid) -> sqlx::Result<Written<T>> {
    Ok(if part("campaign.get", select(c, id)).await?.is_some() { Written::Stale } else { Written::Missing })
}

async fn select(c: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Campaign>> {
    let row = crate::db::query_as::<Row>(GET_SQL).bind(id).fetch_optional(c).await?;
    row.map(Row::into_campaign).transpose()
}

async fn select_by_key(c: &mut PgConnection, key: &str) -> sqlx::Result<Option<Campaign>> {
    let row = crate::db::query_as::<Row>(BY_KEY_SQL).bind(key.to_owned()).fetch_optional(c).await?;
    row.map(Row::into_campaign).transpose()
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// `$2` to `$16` of [`INSERT_SQL`] and [`UPDATE_SQL`].
fn bind_columns(query: Query, key: Option<&CampaignKey>, new: &New) -> Query {
    let amount = |money: Option<Money>| money.map(|m| m.amount);
    let currency = |money: Option<Money>| money.map(|m| m.currency.to_string());
    query
        .bind(key.map(ToString::to_string))
        .bind(new.name.clone())
        .bind(new.description.clone())
        .bind(<&str>::from(new.status))
        .bind(new.start_at)
        .bind(new.end_at)
        .bind(<&str>::from(new.cost_model))
        .bind(amount(new.payout))
        .bind(currency(new.payout))
        .bind(amount(new.daily_budget))
        .bind(currency(new.daily_budget))
        .bind(amount(new.total_budget))
        .bind(currency(new.total_budget))
        .bind(new.fallback_url.clone())
        .bind(new.pass_through)
}

async fn replace_lists(c: &mut PgConnection, id: Uuid, new: &New) -> sqlx::Result<()> {
    let pages = bind_list(crate::db::query(REPLACE_LANDING_PAGES_SQL).bind(id), &new.landing_pages);
    part("campaign.replace_landing_pages", pages.execute(&mut *c)).await?;
    let payouts = || new.offers.iter().map(|d| d.payout);
    let offers = bind_list(crate::db::query(REPLACE_OFFERS_SQL).bind(id), &new.offers)
        .bind(payouts().map(|p| p.map(|m| m.amount)).collect::<Vec<Option<Decimal>>>())
        .bind(payouts().map(|p| p.map(|m| m.currency.to_string())).collect::<Vec<Option<String>>>());
    part("campaign.replace_offers", offers.execute(&mut *c)).await?;
    Ok(())
}

/// `$2` to `$6` of the statements that replace a list.
fn bind_list(query: Query, list: &[NewDestination]) -> Query {
    query
        .bind(list.iter().map(|d| d.id).collect::<Vec<Option<i64>>>())
        .bind(list.iter().map(|d| d.name.clone()).collect::<Vec<String>>())
        .bind(list.iter().map(|d| d.url.clone()).collect::<Vec<String>>())
        .bind(list.iter().map(|d| d.weight).collect::<Vec<i32>>())
        .bind(list.iter().map(|d| d.is_active).collect::<Vec<bool>>())
}

/// Eight characters by chance: 40 bits, so that nobody guesses the links of others.
fn new_key() -> Result<CampaignKey, Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::Unavailable(Box::new(e)))?;
    let key: String = bytes.iter().map(|b| char::from(KEY_ALPHABET[usize::from(b % 32)])).collect();
    Ok(key.parse().expect("the alphabet is one of keys"))
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    key: String,
    name: String,
    description: Option<String>,
    status: String,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    cost_model: String,
    payout_amount: Option<String>,
    payout_currency: Option<String>,
    daily_budget_amount: Option<String>,
    daily_budget_currency: Option<String>,
    total_budget_amount: Option<String>,
    total_budget_currency: Option<String>,
    fallback_url: Option<String>,
    pass_through: bool,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    is_deleted: bool,
    landing_pages: Json<Vec<DestinationRow>>,
    offers: Json<Vec<DestinationRow>>,
}

#[derive(Deserialize)]
struct DestinationRow {
    id: i64,
    name: String,
    url: String,
    weight: i32,
    is_active: bool,
    #[serde(default)]
    payout_amount: Option<String>,
    #[serde(default)]
    payout_currency: Option<String>,
}

/// A row of [`CHANGED_SINCE_SQL`].
struct ChangedRow {
    horizon: i64,
    server: DateTime<Utc>,
    is_foreign: bool,
    changed: Option<Row>,
}

impl FromRow<'_, sqlx::postgres::PgRow> for ChangedRow {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        use sqlx::Row as _;

        let id: Option<Uuid> = row.try_get("id")?;
        let changed = id.map(|_| Row::from_row(row)).transpose()?;
        Ok(Self {
            horizon: row.try_get("horizon")?,
            server: row.try_get("server")?,
            is_foreign: row.try_get("is_foreign")?,
            changed,
        })
    }
}

impl Row {
    fn into_change(self) -> sqlx::Result<Change> {
        let is_deleted = self.is_deleted;
        Ok(Change { campaign: self.into_campaign()?, is_deleted })
    }

    fn into_campaign(self) -> sqlx::Result<Campaign> {
        let unknown = |e: String| sqlx::Error::Decode(e.into());
        Ok(Campaign {
            id: self.id,
            key: self.key.parse().map_err(|e: &str| unknown(e.to_owned()))?,
            name: self.name,
            description: self.description,
            status: self.status.parse().map_err(unknown)?,
            start_at: self.start_at,
            end_at: self.end_at,
            cost_model: self.cost_model.parse().map_err(unknown)?,
            payout: money(self.payout_amount.as_deref(), self.payout_currency.as_deref()),
            daily_budget: money(self.daily_budget_amount.as_deref(), self.daily_budget_currency.as_deref()),
            total_budget: money(self.total_budget_amount.as_deref(), self.total_budget_currency.as_deref()),
            fallback_url: self.fallback_url,
            landing_pages: self.landing_pages.0.into_iter().map(DestinationRow::into_destination).collect(),
            offers: self.offers.0.into_iter().map(DestinationRow::into_destination).collect(),
            pass_through: self.pass_through,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl DestinationRow {
    fn into_destination(self) -> Destination {
        Destination {
            id: self.id,
            name: self.name,
            url: self.url,
            weight: self.weight,
            is_active: self.is_active,
            payout: money(self.payout_amount.as_deref(), self.payout_currency.as_deref()),
        }
    }
}

/// What was written by hand and is no money (`NaN`, currency `us`) counts as none: one odd row must not keep
/// a node from reading all the others.
fn money(amount: Option<&str>, currency: Option<&str>) -> Option<Money> {
    let amount = parse_amount(amount?).ok()?;
    let currency = currency.unwrap_or("USD").parse().ok()?;
    Some(Money { amount, currency })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_up_of_plain_characters_and_differ() {
        let (a, b) = (new_key().unwrap(), new_key().unwrap());
        assert_eq!(a.as_str().len(), 8);
        assert_ne!(a, b);
    }

    #[test]
    fn what_is_no_money_counts_as_none() {
        assert!(
            money(Some("1.500000"), None).is_some_and(|m| m.currency == crate::model::money::Currency::USD)
        );
        assert_eq!(money(Some("NaN"), Some("USD")), None);
        assert_eq!(money(Some("1"), Some("us")), None);
        assert_eq!(money(None, Some("USD")), None);
    }
}
