//! Who uses what of the library: campaigns that are not deleted.

use std::fmt::Display;

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

statements! {
    OF_TRAFFIC_SOURCE = "use.of_traffic_source": select_campaigns_that!("c.traffic_source_id = $1");

    OF_AFFILIATE_NETWORK = "use.of_affiliate_network": select_campaigns_that!("c.library_offers && ARRAY(
          SELECT o.id
          FROM offers o
          WHERE o.affiliate_network_id = $1
      )");

    OF_OFFER = "use.of_offer": select_campaigns_that!("c.library_offers @> ARRAY[$1::bigint]");

    OF_LANDING_PAGE = "use.of_landing_page": select_campaigns_that!("c.library_landing_pages @> ARRAY[$1::bigint]");
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
