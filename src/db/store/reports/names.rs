//! What the ids in reports are called.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{Db, Error, statement::statements},
    reports::question::Dimension,
};

statements! {
    // Rules and paths stand in their campaigns; those that are in none any more have no name.
    OF_IDS = "report_names.of_ids": "
    SELECT
        'campaign' AS dimension,
        id::text AS id,
        name
    FROM campaigns
    WHERE id = ANY ($1::uuid[])
    UNION ALL
    SELECT 'source', id::text, name
    FROM traffic_sources
    WHERE id = ANY ($2::bigint[])
    UNION ALL
    SELECT 'landing_page', id::text, name
    FROM landing_pages
    WHERE id = ANY ($3::bigint[])
    UNION ALL
    SELECT 'offer', id::text, name
    FROM offers
    WHERE id = ANY ($4::bigint[])
    UNION ALL
    SELECT 'rule', rule ->> 'id', rule ->> 'name'
    FROM campaigns c
    CROSS JOIN LATERAL jsonb_array_elements(c.rules -> 'rules') AS rule
    WHERE cardinality($5::bigint[]) > 0
      AND (rule ->> 'id')::bigint = ANY ($5)
    UNION ALL
    SELECT 'path', path ->> 'id', path ->> 'name'
    FROM campaigns c
    CROSS JOIN LATERAL (
        SELECT path
        FROM jsonb_array_elements(c.rules -> 'paths') AS path
        UNION ALL
        SELECT path
        FROM jsonb_array_elements(c.rules -> 'rules') AS rule
        CROSS JOIN LATERAL jsonb_array_elements(rule -> 'paths') AS path
    ) paths
    WHERE cardinality($6::bigint[]) > 0
      AND (path ->> 'id')::bigint = ANY ($6)";
}

/// Ids whose names are asked for, by what they are of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    campaigns: Vec<Uuid>,
    sources: Vec<i64>,
    rules: Vec<i64>,
    paths: Vec<i64>,
    landing_pages: Vec<i64>,
    offers: Vec<i64>,
}

/// Names by what they are of and the id, as reports show it.
pub type Names = HashMap<(Dimension, String), String>;

impl Ids {
    /// Asks for the name of one more, where such values have names.
    pub fn add(&mut self, dimension: Dimension, value: &str) {
        let numbers = match dimension {
            Dimension::Campaign => return self.campaigns.extend(value.parse::<Uuid>().ok()),
            Dimension::Source => &mut self.sources,
            Dimension::Rule => &mut self.rules,
            Dimension::Path => &mut self.paths,
            Dimension::LandingPage => &mut self.landing_pages,
            Dimension::Offer => &mut self.offers,
            _ => return,
        };
        numbers.extend(value.parse::<i64>().ok());
    }

    /// Each once.
    fn tidied(mut self) -> Self {
        self.campaigns.sort_unstable();
        self.campaigns.dedup();
        for numbers in
            [&mut self.sources, &mut self.rules, &mut self.paths, &mut self.landing_pages, &mut self.offers]
        {
            numbers.sort_unstable();
            numbers.dedup();
        }
        self
    }
}

#[derive(Debug, FromRow)]
struct Row {
    dimension: String,
    id: String,
    name: Option<String>,
}

/// The names of all these; what is in no list any more has none.
pub async fn of_ids(db: &Db, ids: Ids) -> Result<Names, Error> {
    if ids == Ids::default() {
        return Ok(Names::new());
    }
    let ids = ids.tidied();
    let rows: Vec<Row> = db
        .read(OF_IDS, move |c| {
            let query = OF_IDS
                .query_as()
                .bind(ids.campaigns)
                .bind(ids.sources)
                .bind(ids.landing_pages)
                .bind(ids.offers)
                .bind(ids.rules)
                .bind(ids.paths);
            Box::pin(query.fetch_all(c))
        })
        .await?;
    let named =
        |row: Row| Some(((row.dimension.parse().ok()?, row.id), row.name.filter(|name| !name.is_empty())?));
    Ok(rows.into_iter().filter_map(named).collect())
}
