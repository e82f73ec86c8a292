//! Who uses what of the library: campaigns that are not deleted.

use std::{collections::HashMap, fmt::Display};

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{
        Db, Error,
        statement::{Statement, statements},
    },
    model::campaign::Status,
};

/// A campaign that uses something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The campaign's.
    pub id: Uuid,
    /// What links show.
    pub key: String,
    /// For people.
    pub name: String,
    /// Whether it takes clicks.
    pub status: Status,
}

/// What is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A traffic source.
    TrafficSource(i64),
    /// An affiliate network, by way of an offer.
    AffiliateNetwork(i64),
    /// An offer, also where others lead to it once they are full.
    Offer(i64),
    /// A landing page.
    LandingPage(i64),
}

/// What became of what was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// There is none.
    Missing,
    /// It is not in the expected version.
    Stale,
    /// It is used.
    InUse,
}

impl Removal {
    /// Why nothing was deleted, by the version that was `found`.
    pub(super) fn refused(found: Option<i64>, expected: Option<i64>) -> Self {
        match found {
            None => Self::Missing,
            Some(version) if expected.is_some_and(|expected| expected != version) => Self::Stale,
            Some(_) => Self::InUse,
        }
    }
}

macro_rules! select_campaigns_that {
    ($condition:literal) => {
        concat!(
            "
    SELECT
        c.id,
        c.key,
        c.name,
        c.status
    FROM campaigns c
    WHERE c.deleted_at IS NULL
      AND c.id < $2
      AND ",
            $condition,
            "
    ORDER BY c.id DESC
    LIMIT $3"
        )
    };
}

/// Of each of the ids `$1` at most `$2`.
macro_rules! select_campaigns_of_each_that {
    ($condition:literal) => {
        concat!(
            "
    SELECT
        thing.id AS thing_id,
        c.id,
        c.key,
        c.name,
        c.status
    FROM unnest($1::bigint[]) AS thing (id)
    CROSS JOIN LATERAL (
        SELECT
            c.id,
            c.key,
            c.name,
            c.status
        FROM campaigns c
        WHERE c.deleted_at IS NULL
          AND ",
            $condition,
            "
        ORDER BY c.id DESC
        LIMIT $2
    ) AS c
    ORDER BY
        thing.id,
        c.id DESC"
        )
    };
}

statements! {
    OF_TRAFFIC_SOURCE = "use.of_traffic_source": select_campaigns_that!("c.traffic_source_id = $1");

    OF_AFFILIATE_NETWORK = "use.of_affiliate_network": select_campaigns_that!("c.library_offers && ARRAY(
          SELECT o.id
          FROM offers o
          WHERE o.affiliate_network_id = $1
      )");

    OF_OFFER = "use.of_offer": select_campaigns_that!("c.library_offers @> ARRAY[$1::bigint]");

    OF_LANDING_PAGE = "use.of_landing_page": select_campaigns_that!("c.library_landing_pages @> ARRAY[$1::bigint]");

    OF_TRAFFIC_SOURCES = "use.of_traffic_sources":
        select_campaigns_of_each_that!("c.traffic_source_id = thing.id");

    OF_AFFILIATE_NETWORKS = "use.of_affiliate_networks": select_campaigns_of_each_that!("c.library_offers && ARRAY(
              SELECT o.id
              FROM offers o
              WHERE o.affiliate_network_id = thing.id
          )");

    OF_OFFERS = "use.of_offers": select_campaigns_of_each_that!("c.library_offers @> ARRAY[thing.id]");

    OF_LANDING_PAGES = "use.of_landing_pages":
        select_campaigns_of_each_that!("c.library_landing_pages @> ARRAY[thing.id]");
}

impl Thing {
    fn statement(self) -> (Statement, i64) {
        match self {
            Self::TrafficSource(id) => (OF_TRAFFIC_SOURCE, id),
            Self::AffiliateNetwork(id) => (OF_AFFILIATE_NETWORK, id),
            Self::Offer(id) => (OF_OFFER, id),
            Self::LandingPage(id) => (OF_LANDING_PAGE, id),
        }
    }

    /// The same question of many of its kind.
    fn statement_of_each(self) -> Statement {
        match self {
            Self::TrafficSource(_) => OF_TRAFFIC_SOURCES,
            Self::AffiliateNetwork(_) => OF_AFFILIATE_NETWORKS,
            Self::Offer(_) => OF_OFFERS,
            Self::LandingPage(_) => OF_LANDING_PAGES,
        }
    }
}

/// Campaigns that use it, newest first, before (older than) `after`, at most `limit`; from the primary.
pub async fn list(db: &Db, thing: Thing, after: Option<Uuid>, limit: i64) -> Result<Vec<Use>, Error> {
    let (statement, id) = thing.statement();
    let after = after.unwrap_or(Uuid::max());
    db.read_primary(statement, move |c| {
        Box::pin(async move {
            let query = statement.query_as::<Row>().bind(id).bind(after).bind(limit);
            query.fetch_all(c).await?.into_iter().map(Row::into_use).collect()
        })
    })
    .await
}

/// Campaigns that use each of these, which are all of the kind of `thing`: newest first, at most `limit` of each; from a
/// replica.
pub async fn list_of_each(
    db: &Db,
    thing: Thing,
    ids: Vec<i64>,
    limit: i64,
) -> Result<HashMap<i64, Vec<Use>>, Error> {
    let statement = thing.statement_of_each();
    db.read(statement, move |c| {
        Box::pin(async move {
            let mut uses: HashMap<i64, Vec<Use>> = HashMap::new();
            for row in statement.query_as::<RowOf>().bind(ids).bind(limit).fetch_all(c).await? {
                uses.entry(row.thing_id).or_default().push(row.campaign.into_use()?);
            }
            Ok(uses)
        })
    })
    .await
}

#[derive(FromRow)]
struct RowOf {
    thing_id: i64,
    #[sqlx(flatten)]
    campaign: Row,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    key: String,
    name: String,
    status: String,
}

impl Row {
    fn into_use(self) -> sqlx::Result<Use> {
        let decode = |error: &dyn Display| sqlx::Error::Decode(error.to_string().into());
        let status = self.status.parse().map_err(|error: String| decode(&error))?;
        let Self { id, key, name, .. } = self;
        Ok(Use { id, key, name, status })
    }
}
