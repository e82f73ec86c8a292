//! The library: landing pages and offers of no campaign, which the paths of many may name.

use std::collections::{HashMap, HashSet};

use sqlx::FromRow;

use crate::db::{Db, Error, statement::statements};

statements! {
    LANDING_PAGES = "library.landing_pages": "
    SELECT id
    FROM landing_pages
    WHERE id = ANY ($1)
      AND campaign_id IS NULL";

    OFFERS = "library.offers": "
    SELECT id, overflow_offer_id
    FROM offers
    WHERE id = ANY (octo_with_overflow($1))";
}

/// What of the library a request names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Landing pages that there are.
    pub landing_pages: HashSet<i64>,
    /// Offers that there are, with those they lead to once they are full; each with its next.
    pub offers: HashMap<i64, Option<i64>>,
}

/// A row of [`OFFERS`].
#[derive(FromRow)]
struct OfferRow {
    id: i64,
    overflow_offer_id: Option<i64>,
}

/// Which of these are in the library; from the primary: a writer sees what it wrote.
pub async fn named(db: &Db, landing_pages: Vec<i64>, offers: Vec<i64>) -> Result<Named, Error> {
    let mut named = Named::default();
    if !landing_pages.is_empty() {
        let ids: Vec<i64> = db
            .read_primary(LANDING_PAGES, move |c| {
                Box::pin(LANDING_PAGES.query_scalar().bind(landing_pages).fetch_all(c))
            })
            .await?;
        named.landing_pages = ids.into_iter().collect();
    }
    if !offers.is_empty() {
        let rows = db
            .read_primary(OFFERS, move |c| Box::pin(OFFERS.query_as::<OfferRow>().bind(offers).fetch_all(c)))
            .await?;
        named.offers = rows.into_iter().map(|row| (row.id, row.overflow_offer_id)).collect();
    }
    Ok(named)
}
