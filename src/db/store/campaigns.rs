//! Campaigns with their landing pages and offers: one row each, the lists as JSON.
//!
//! A node learns of changes by [`changed_since`], which polls by transaction id instead of by time: a
//! transaction that commits late is still seen, because every answer says from where to ask next.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    str::FromStr,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use sqlx::{FromRow, Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, statements},
    },
    model::{
        campaign::{Campaign, Destination, Status, Terms},
        id::{CampaignKey, new_uuid},
        money::{Money, Percent, parse_amount},
        rule::Cap,
        source::Source,
        stored_rules::StoredRules,
    },
};

/// Attempts to find a free key when none is given.
const KEY_ATTEMPTS: u32 = 5;

/// Characters of a made-up key; 32 of them, none that is easily taken for another.
const KEY_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

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

/// The columns that a request decides: `$2` to `$26`, as [`bind_columns`] gives them.
macro_rules! written_columns {
    () => {
        "key,
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
        pass_through,
        rules,
        sticky,
        epoch,
        time_zone,
        traffic_source_id,
        library_landing_pages,
        library_offers,
        cost_amount,
        cost_currency,
        revenue_share"
    };
}

macro_rules! written_values {
    () => {
        "$2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
         octo_with_overflow($23), $24, $25, $26"
    };
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
        c.cost_amount::text,
        c.cost_currency,
        c.revenue_share,
        c.payout_amount::text,
        c.payout_currency,
        c.daily_budget_amount::text,
        c.daily_budget_currency,
        c.total_budget_amount::text,
        c.total_budget_currency,
        c.fallback_url,
        c.pass_through,
        c.rules,
        c.sticky,
        c.epoch,
        c.time_zone,
        c.traffic_source_id,
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
                'is_active', d.is_active AND d.archived_at IS NULL,
                'library', d.campaign_id IS NULL,
                'web_url', d.web_url
            ) ORDER BY d.position, d.id), '[]')
            FROM landing_pages d
            WHERE d.campaign_id = c.id
               OR d.id = ANY (c.library_landing_pages)
        ) AS landing_pages,
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', d.id,
                'name', d.name,
                'url', d.url,
                'weight', d.weight,
                'is_active', d.is_active AND d.archived_at IS NULL,
                'payout_amount', d.payout_amount::text,
                'payout_currency', d.payout_currency,
                'library', d.campaign_id IS NULL,
                'web_url', d.web_url,
                'caps', d.caps,
                'overflow_offer_id', d.overflow_offer_id
            ) ORDER BY d.position, d.id), '[]')
            FROM offers d
            WHERE d.campaign_id = c.id
               OR d.id = ANY (c.library_offers)
        ) AS offers,
        (
            SELECT jsonb_build_object(
                'id', s.id,
                'name', s.name,
                'parameters', s.parameters
            )
            FROM traffic_sources s
            WHERE s.id = c.traffic_source_id
        ) AS source
    FROM campaigns c",
            $tail
        )
    };
}

statements! {
    /// One row at least: the horizon, also where nothing changed.
    CHANGED_SINCE = "campaign.changed_since": concat!(
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
    HEAL = "campaign.heal": "
    UPDATE campaigns
    SET changed_xid = pg_current_xact_id()
    WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())";

    BY_KEY = "campaign.by_key": select_campaigns!(
    "
    WHERE c.key = $1
      AND c.deleted_at IS NULL"
);

    GET = "campaign.get": select_campaigns!(
    "
    WHERE c.id = $1
      AND c.deleted_at IS NULL"
);

    LIST = "campaign.list": select_campaigns!(
    "
    WHERE c.id < $1
      AND c.deleted_at IS NULL
      AND ($2::text IS NULL OR position(lower($2) IN lower(c.name)) > 0 OR position(lower($2) IN lower(c.key)) > 0)
      AND ($3::text IS NULL OR c.status = $3)
      AND ($4::bigint IS NULL OR c.traffic_source_id = $4)
    ORDER BY c.id DESC
    LIMIT $5"
);

    IS_UNTOUCHED = "campaign.is_untouched": "SELECT NOT EXISTS (SELECT FROM campaigns)";

    IDS_OF_KEY = "campaign.ids_of_key": "
    SELECT id
    FROM campaigns
    WHERE key = $1";

    INSERT = "campaign.insert": concat!(
        "
    INSERT INTO campaigns (id, ",
        written_columns!(),
        ")
    VALUES ($1, ",
        written_values!(),
        ")"
    );

    UPDATE = "campaign.update": concat!(
        "
    UPDATE campaigns
    SET (",
        written_columns!(),
        ")
      = (",
        written_values!(),
        ")
    WHERE id = $1
      AND deleted_at IS NULL
      AND version = coalesce($27, version)"
    );

    DELETE = "campaign.delete": "
    UPDATE campaigns
    SET deleted_at = now()
    WHERE id = $1
      AND deleted_at IS NULL
      AND version = coalesce($2, version)";

    /// New ids of rules and paths, of landing pages and of offers; never given out again.
    NEW_IDS = "campaign.new_ids": "
    SELECT
        array(SELECT nextval('route_ids') FROM generate_series(1, $1)) AS routes,
        array(SELECT nextval(pg_get_serial_sequence('landing_pages', 'id')) FROM generate_series(1, $2))
            AS landing_pages,
        array(SELECT nextval(pg_get_serial_sequence('offers', 'id')) FROM generate_series(1, $3)) AS offers";

    /// Deletes what is not in the list, changes what is and differs, inserts the rest. A trigger tells the
    /// campaign.
    REPLACE_LANDING_PAGES = "campaign.replace_landing_pages": "
    WITH given AS (
        SELECT *
        FROM unnest($2::bigint[], $3::text[], $4::text[], $5::integer[], $6::boolean[], $7::text[])
            WITH ORDINALITY AS g (id, name, url, weight, is_active, web_url, position)
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
            is_active = g.is_active,
            web_url = g.web_url
        FROM given g
        WHERE d.campaign_id = $1
          AND d.id = g.id
          AND (d.position, d.name, d.url, d.weight, d.is_active, d.web_url)
              IS DISTINCT FROM (g.position, g.name, g.url, g.weight, g.is_active, g.web_url)
    )
    INSERT INTO landing_pages (id, campaign_id, position, name, url, weight, is_active, web_url)
    OVERRIDING SYSTEM VALUE
    SELECT
        g.id,
        $1,
        g.position,
        g.name,
        g.url,
        g.weight,
        g.is_active,
        g.web_url
    FROM given g
    WHERE NOT EXISTS (SELECT FROM landing_pages d WHERE d.campaign_id = $1 AND d.id = g.id)
    ORDER BY g.position";

    /// As [`REPLACE_LANDING_PAGES`], with what only offers have.
    REPLACE_OFFERS = "campaign.replace_offers": "
    WITH given AS (
        SELECT
            g.id,
            g.name,
            g.url,
            g.weight,
            g.is_active,
            g.web_url,
            g.payout_amount,
            g.payout_currency,
            g.caps::jsonb AS caps,
            g.overflow_offer_id,
            g.position
        FROM unnest(
            $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::boolean[], $7::text[],
            $8::numeric[], $9::text[], $10::text[], $11::bigint[]
        ) WITH ORDINALITY
            AS g (id, name, url, weight, is_active, web_url, payout_amount, payout_currency, caps,
                  overflow_offer_id, position)
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
            web_url = g.web_url,
            payout_amount = g.payout_amount,
            payout_currency = g.payout_currency,
            caps = g.caps,
            overflow_offer_id = g.overflow_offer_id
        FROM given g
        WHERE d.campaign_id = $1
          AND d.id = g.id
          AND (d.position, d.name, d.url, d.weight, d.is_active, d.web_url, d.payout_amount, d.payout_currency,
               d.caps, d.overflow_offer_id)
              IS DISTINCT FROM
              (g.position, g.name, g.url, g.weight, g.is_active, g.web_url, g.payout_amount, g.payout_currency,
               g.caps, g.overflow_offer_id)
    )
    INSERT INTO offers (
        id, campaign_id, position, name, url, weight, is_active, web_url, payout_amount, payout_currency, caps,
        overflow_offer_id
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        g.id,
        $1,
        g.position,
        g.name,
        g.url,
        g.weight,
        g.is_active,
        g.web_url,
        g.payout_amount,
        g.payout_currency,
        g.caps,
        g.overflow_offer_id
    FROM given g
    WHERE NOT EXISTS (SELECT FROM offers d WHERE d.campaign_id = $1 AND d.id = g.id)
    ORDER BY g.position";
}

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
    match db.read_primary(CHANGED_SINCE, move |c| select_changes(c, since, after, limit)).await {
        Err(Error::Unavailable(_)) if may_lag && !db.replicas().is_empty() => {
            db.read(CHANGED_SINCE, move |c| select_changes(c, since, after, limit)).await
        }
        answer => answer,
    }
}

/// Sets transaction ids that this server has not given out (they came with a dump of another one) to one of its own;
/// the campaigns stay in their version. Returns how many.
pub async fn heal(db: &Db) -> Result<u64, Error> {
    db.maintain(HEAL, |c| Box::pin(async move { Ok(HEAL.query().execute(c).await?.rows_affected()) })).await
}

/// The campaign that links with this key mean; from a replica.
pub async fn by_key(db: &Db, key: &str) -> Result<Option<Campaign>, Error> {
    let key = key.to_owned();
    db.read(BY_KEY, move |c| Box::pin(async move { select_by_key(c, &key).await })).await
}

/// As [`by_key`], from the primary: a writer sees what it wrote.
pub async fn get_by_key(db: &Db, key: &str) -> Result<Option<Campaign>, Error> {
    let key = key.to_owned();
    db.read_primary(BY_KEY, move |c| Box::pin(async move { select_by_key(c, &key).await })).await
}

/// The campaign with this id; from the primary.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Campaign>, Error> {
    db.read_primary(GET, move |c| Box::pin(select(c, id))).await
}

/// Which campaigns are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Part of the name or the key, in any case.
    pub q: Option<String>,
    /// In this state.
    pub status: Option<Status>,
    /// Of this traffic source.
    pub traffic_source_id: Option<i64>,
}

/// Campaigns, newest first, after (older than) `after`, at most `limit`; from a replica.
pub async fn list(db: &Db, filter: Filter, after: Option<Uuid>, limit: i64) -> Result<Vec<Campaign>, Error> {
    let after = after.unwrap_or(Uuid::max());
    let Filter { q, status, traffic_source_id } = filter;
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST.query_as::<Row>().bind(after).bind(q).bind(status.map(<&str>::from));
            let rows = query.bind(traffic_source_id).bind(limit).fetch_all(c).await?;
            Ok(rows.into_iter().map(|row| row.campaign).collect())
        })
    })
    .await
}

/// Every campaign that has or had this key: clicks of a deleted one are still there.
pub async fn ids_of_key(db: &Db, key: &str) -> Result<Vec<Uuid>, Error> {
    let key = key.to_owned();
    db.read(IDS_OF_KEY, move |c| Box::pin(IDS_OF_KEY.query_scalar().bind(key).fetch_all(c))).await
}

/// Whether there never was a campaign.
pub async fn is_untouched(db: &Db) -> Result<bool, Error> {
    db.read_primary(IS_UNTOUCHED, move |c| Box::pin(IS_UNTOUCHED.query_scalar().fetch_one(c))).await
}

/// Makes a campaign, with a made-up key where none is given; returns it as it is stored. A key that is taken is an
/// [`Error::Conflict`] with `campaigns_key`.
pub async fn insert(db: &Db, key: Option<CampaignKey>, terms: Terms) -> Result<Campaign, Error> {
    insert_as(db, new_uuid(), false, key, terms).await
}

/// As [`insert`], with this id; where an attempt before this one `may_exist`, what it made is the campaign.
pub async fn insert_as(
    db: &Db,
    id: Uuid,
    may_exist: bool,
    key: Option<CampaignKey>,
    terms: Terms,
) -> Result<Campaign, Error> {
    let attempts = if key.is_some() { 1 } else { KEY_ATTEMPTS };
    let mut attempt = 1;
    loop {
        let key = key.clone().map_or_else(new_key, Ok)?;
        let terms = terms.clone();
        match db.write(INSERT, move |c| Box::pin(insert_on(c, id, may_exist, key, terms))).await {
            Err(Error::Conflict { constraint }) if constraint == "campaigns_key" && attempt < attempts => {
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// Gives a campaign that is in the version `expected` (`None`: in any) this key and these terms; returns it as it is
/// stored. Destinations with an id of the campaign keep it, others are new.
pub async fn update(
    db: &Db,
    id: Uuid,
    expected: Option<i64>,
    key: CampaignKey,
    terms: Terms,
) -> Result<Written<Campaign>, Error> {
    db.write(UPDATE, move |c| Box::pin(update_on(c, id, expected, key, terms))).await
}

/// Marks a campaign as deleted; its key is free, its clicks stay.
pub async fn delete(db: &Db, id: Uuid, expected: Option<i64>) -> Result<Written<()>, Error> {
    db.write(DELETE, move |c| {
        Box::pin(async move {
            let done = DELETE.query().bind(id).bind(expected).execute(c).await?;
            match done.rows_affected() {
                0 => Ok(why_not(c, id).await?),
                _ => Ok(Written::Done(())),
            }
        })
    })
    .await
}

fn select_changes<'c>(
    c: &'c mut Session<'_>,
    since: i64,
    after: Uuid,
    limit: i64,
) -> BoxFuture<'c, sqlx::Result<Changes>> {
    Box::pin(async move {
        let query = CHANGED_SINCE.query_as::<ChangedRow>().bind(since.to_string());
        let rows = query.bind(since > 0).bind(after).bind(limit).fetch_all(c).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?; // one row at least
        let (horizon, server, is_foreign) = (first.horizon, first.server, first.is_foreign);
        let change = |Row { campaign, is_deleted }| Change { campaign, is_deleted };
        let list = rows.into_iter().filter_map(|row| row.changed).map(change).collect();
        Ok(Changes { horizon, server, is_foreign, list })
    })
}

async fn insert_on(
    c: &mut Session<'_>,
    id: Uuid,
    may_exist: bool,
    key: CampaignKey,
    mut terms: Terms,
) -> sqlx::Result<Campaign> {
    if may_exist && let Some(made) = select(c, id).await? {
        return Ok(made);
    }
    let mut tx = c.begin().await?;
    give_ids(&mut tx, &mut terms, &Terms::default()).await?;
    bind_columns(INSERT.query().bind(id), &key, &terms).execute(&mut tx).await?;
    replace_lists(&mut tx, id, &terms).await?;
    let campaign = select(&mut tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    tx.commit().await?;
    Ok(campaign)
}

async fn update_on(
    c: &mut Session<'_>,
    id: Uuid,
    expected: Option<i64>,
    key: CampaignKey,
    mut terms: Terms,
) -> sqlx::Result<Written<Campaign>> {
    let mut tx = c.begin().await?;
    let was = select(&mut tx, id).await?.map(|campaign| campaign.terms).unwrap_or_default();
    give_ids(&mut tx, &mut terms, &was).await?;
    let update = bind_columns(UPDATE.query().bind(id), &key, &terms).bind(expected);
    if update.execute(&mut tx).await?.rows_affected() == 0 {
        let why = why_not(&mut tx, id).await?;
        tx.rollback().await?;
        return Ok(why);
    }
    replace_lists(&mut tx, id, &terms).await?;
    let campaign = select(&mut tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    tx.commit().await?;
    Ok(Written::Done(campaign))
}

/// Why a change hit no row.
async fn why_not<T>(c: &mut Session<'_>, id: Uuid) -> sqlx::Result<Written<T>> {
    Ok(if select(c, id).await?.is_some() { Written::Stale } else { Written::Missing })
}

async fn select(c: &mut Session<'_>, id: Uuid) -> sqlx::Result<Option<Campaign>> {
    let row = GET.query_as::<Row>().bind(id).fetch_optional(c).await?;
    Ok(row.map(|row| row.campaign))
}

async fn select_by_key(c: &mut Session<'_>, key: &str) -> sqlx::Result<Option<Campaign>> {
    let row = BY_KEY.query_as::<Row>().bind(key.to_owned()).fetch_optional(c).await?;
    Ok(row.map(|row| row.campaign))
}

/// `$2` to `$26` of [`INSERT`] and [`UPDATE`]: the columns of `written_columns`.
fn bind_columns(query: Query, key: &CampaignKey, terms: &Terms) -> Query {
    let amount = |money: Option<Money>| money.map(|m| m.amount);
    let currency = |money: Option<Money>| money.map(|m| m.currency.to_string());
    query
        .bind(key.to_string())
        .bind(terms.name.clone())
        .bind(terms.description.clone())
        .bind(<&str>::from(terms.status))
        .bind(terms.start_at)
        .bind(terms.end_at)
        .bind(<&str>::from(terms.cost_model))
        .bind(amount(terms.payout))
        .bind(currency(terms.payout))
        .bind(amount(terms.daily_budget))
        .bind(currency(terms.daily_budget))
        .bind(amount(terms.total_budget))
        .bind(currency(terms.total_budget))
        .bind(terms.fallback_url.clone())
        .bind(terms.pass_through)
        .bind(StoredRules::of(terms).map(Json))
        .bind(<&str>::from(terms.sticky))
        .bind(terms.epoch)
        .bind(terms.time_zone.name())
        .bind(terms.traffic_source_id)
        .bind(terms.all_landing_pages().filter(|d| d.library).filter_map(|d| d.id).collect::<Vec<i64>>())
        .bind(library_offers(terms))
        .bind(amount(terms.cost))
        .bind(currency(terms.cost))
        .bind(terms.revenue_share.map(Percent::amount))
}

/// Offers of the library that the campaign names: one that is none of the library is left out by Postgres.
fn library_offers(terms: &Terms) -> Vec<i64> {
    let named = terms.all_offers().filter(|d| d.library).filter_map(|d| d.id);
    named.chain(terms.all_offers().filter_map(|d| d.overflow_offer_id)).collect()
}

/// Gives an id to each rule, path, landing page and offer that has none which the campaign `was` had; those of the library
/// have theirs.
async fn give_ids(c: &mut Session<'_>, terms: &mut Terms, was: &Terms) -> sqlx::Result<()> {
    let ids = |list: &mut dyn Iterator<Item = Option<i64>>| list.flatten().collect::<HashSet<i64>>();
    let known_rules = ids(&mut was.rules.iter().map(|rule| rule.id));
    let known_paths = ids(&mut was.all_paths().map(|path| path.id));
    let known_pages = ids(&mut was.all_landing_pages().filter(|d| !d.library).map(|d| d.id));
    let known_offers = ids(&mut was.all_offers().filter(|d| !d.library).map(|d| d.id));
    let (mut routes, mut pages, mut offers) = (Vec::new(), Vec::new(), Vec::new());
    let ask = |id: &mut Option<i64>, known: &HashSet<i64>| {
        id.take_if(|id| !known.contains(id));
        id.is_none()
    };
    pages.extend(terms.landing_pages.iter_mut());
    offers.extend(terms.offers.iter_mut());
    for rule in &mut terms.rules {
        if ask(&mut rule.id, &known_rules) {
            routes.push(&mut rule.id);
        }
        for path in &mut rule.paths {
            if ask(&mut path.id, &known_paths) {
                routes.push(&mut path.id);
            }
            pages.extend(path.landing_pages.iter_mut());
            offers.extend(path.offers.iter_mut());
        }
    }
    for path in &mut terms.paths {
        if ask(&mut path.id, &known_paths) {
            routes.push(&mut path.id);
        }
        pages.extend(path.landing_pages.iter_mut());
        offers.extend(path.offers.iter_mut());
    }
    pages.retain_mut(|d| !d.direct && !d.library && ask(&mut d.id, &known_pages));
    let mut old_offers = Vec::new();
    offers.retain_mut(|d| {
        let old = d.id;
        let is_new = !d.library && ask(&mut d.id, &known_offers);
        old_offers.extend(is_new.then_some(old));
        is_new
    });
    if routes.is_empty() && pages.is_empty() && offers.is_empty() {
        return Ok(());
    }
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let query = NEW_IDS.query_as::<NewIds>().bind(count(routes.len())).bind(count(pages.len()));
    let new = query.bind(count(offers.len())).fetch_one(c).await?;
    for (id, new) in routes.into_iter().zip(new.routes) {
        *id = Some(new);
    }
    for (page, new) in pages.into_iter().zip(new.landing_pages) {
        page.id = Some(new);
    }
    let mut renamed = HashMap::new();
    for ((offer, old), new) in offers.into_iter().zip(old_offers).zip(new.offers) {
        offer.id = Some(new);
        renamed.extend(old.map(|old| (old, new)));
    }
    // those of a copy lead to one another, and not to those of the original
    let paths = terms.rules.iter_mut().flat_map(|rule| &mut rule.paths).chain(&mut terms.paths);
    for offer in paths.flat_map(|path| &mut path.offers).chain(&mut terms.offers) {
        let next = offer.overflow_offer_id.and_then(|id| renamed.get(&id));
        offer.overflow_offer_id = next.copied().or(offer.overflow_offer_id);
    }
    Ok(())
}

/// A row of [`NEW_IDS`].
#[derive(FromRow)]
struct NewIds {
    routes: Vec<i64>,
    landing_pages: Vec<i64>,
    offers: Vec<i64>,
}

async fn replace_lists(c: &mut Session<'_>, id: Uuid, terms: &Terms) -> sqlx::Result<()> {
    let own = |d: &&Destination| !d.direct && !d.library;
    let pages: Vec<&Destination> = terms.all_landing_pages().filter(own).collect();
    bind_list(REPLACE_LANDING_PAGES.query().bind(id), &pages).execute(c).await?;
    let offers: Vec<&Destination> = terms.all_offers().filter(own).collect();
    let payouts = || offers.iter().map(|d| d.payout);
    let caps = |d: &&Destination| serde_json::to_string(&d.caps).map_err(|e| sqlx::Error::Encode(e.into()));
    let query = bind_list(REPLACE_OFFERS.query().bind(id), &offers)
        .bind(payouts().map(|p| p.map(|m| m.amount)).collect::<Vec<Option<Decimal>>>())
        .bind(payouts().map(|p| p.map(|m| m.currency.to_string())).collect::<Vec<Option<String>>>())
        .bind(offers.iter().map(caps).collect::<sqlx::Result<Vec<String>>>()?)
        .bind(offers.iter().map(|d| d.overflow_offer_id).collect::<Vec<Option<i64>>>());
    query.execute(c).await?;
    Ok(())
}

/// `$2` to `$7` of the statements that replace a list.
fn bind_list(query: Query, list: &[&Destination]) -> Query {
    query
        .bind(list.iter().map(|d| d.id).collect::<Vec<Option<i64>>>())
        .bind(list.iter().map(|d| d.name.clone()).collect::<Vec<String>>())
        .bind(list.iter().map(|d| d.url.clone()).collect::<Vec<String>>())
        .bind(list.iter().map(|d| d.weight).collect::<Vec<i32>>())
        .bind(list.iter().map(|d| d.is_active).collect::<Vec<bool>>())
        .bind(list.iter().map(|d| d.web_url.clone()).collect::<Vec<Option<String>>>())
}

/// Eight characters by chance: 40 bits, so that nobody guesses the links of others.
fn new_key() -> Result<CampaignKey, Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::Unavailable(Box::new(e)))?;
    let key: String = bytes.iter().map(|b| char::from(KEY_ALPHABET[usize::from(b % 32)])).collect();
    Ok(key.parse().expect("the alphabet is one of keys"))
}

/// A campaign of [`select_campaigns`].
struct Row {
    campaign: Campaign,
    is_deleted: bool,
}

/// A destination of [`select_campaigns`], in JSON.
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
    library: bool,
    web_url: Option<String>,
    #[serde(default)]
    caps: Vec<Cap>,
    #[serde(default)]
    overflow_offer_id: Option<i64>,
}

/// A row of [`CHANGED_SINCE`].
struct ChangedRow {
    horizon: i64,
    server: DateTime<Utc>,
    is_foreign: bool,
    changed: Option<Row>,
}

impl FromRow<'_, PgRow> for ChangedRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
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

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let (pages, offers) = (destinations(row, "landing_pages")?, destinations(row, "offers")?);
        let own = |all: &[Destination]| all.iter().filter(|d| !d.library).cloned().collect();
        let mut terms = Terms {
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            status: parsed(row, "status")?,
            start_at: row.try_get("start_at")?,
            end_at: row.try_get("end_at")?,
            cost_model: parsed(row, "cost_model")?,
            cost: money(row.try_get("cost_amount")?, row.try_get("cost_currency")?),
            revenue_share: row
                .try_get::<Option<Decimal>, _>("revenue_share")?
                .and_then(|p| p.try_into().ok()),
            payout: money(row.try_get("payout_amount")?, row.try_get("payout_currency")?),
            daily_budget: money(row.try_get("daily_budget_amount")?, row.try_get("daily_budget_currency")?),
            total_budget: money(row.try_get("total_budget_amount")?, row.try_get("total_budget_currency")?),
            fallback_url: row.try_get("fallback_url")?,
            landing_pages: own(&pages),
            offers: own(&offers),
            pass_through: row.try_get("pass_through")?,
            sticky: parsed(row, "sticky")?,
            epoch: row.try_get("epoch")?,
            time_zone: parsed(row, "time_zone")?,
            traffic_source_id: row.try_get("traffic_source_id")?,
            ..Terms::default()
        };
        if let Some(Json(rules)) = row.try_get::<Option<Json<StoredRules>>, _>("rules")? {
            rules.put_into(&mut terms, &pages, &offers);
        }
        let is_in_path = |offer: &Destination| terms.all_offers().any(|d| d.id == offer.id);
        let overflow_offers = offers.into_iter().filter(|d| d.library && !is_in_path(d)).collect();
        let source: Option<Json<Value>> = row.try_get("source")?;
        let campaign = Campaign {
            overflow_offers,
            source: source.and_then(|Json(stored)| Source::of_stored(&stored)).map(Arc::new),
            id: row.try_get("id")?,
            key: parsed(row, "key")?,
            terms,
            version: row.try_get("version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        };
        Ok(Self { campaign, is_deleted: row.try_get("is_deleted")? })
    }
}

fn parsed<T: FromStr<Err: Display>>(row: &PgRow, column: &str) -> sqlx::Result<T> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: T::Err| sqlx::Error::Decode(format!("{column}: {error}").into()))
}

fn destinations(row: &PgRow, column: &str) -> sqlx::Result<Vec<Destination>> {
    let Json(rows): Json<Vec<DestinationRow>> = row.try_get(column)?;
    let destination = |row: DestinationRow| Destination {
        id: Some(row.id),
        name: row.name,
        url: row.url,
        weight: row.weight,
        is_active: row.is_active,
        payout: money(row.payout_amount.as_deref(), row.payout_currency.as_deref()),
        direct: false,
        library: row.library,
        caps: row.caps,
        overflow_offer_id: row.overflow_offer_id,
        web_url: row.web_url,
    };
    Ok(rows.into_iter().map(destination).collect())
}

/// What was written by hand and is no money (`NaN`, currency `us`) counts as none: one odd row must not keep
/// a node from reading all the others.
pub(super) fn money(amount: Option<&str>, currency: Option<&str>) -> Option<Money> {
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
