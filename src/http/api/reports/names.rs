//! Names beside the ids in rows.

use serde_json::{Map, Value};

use crate::{
    db::store::reports::names::{Ids, Names},
    reports::{
        figures::{Key, Row},
        question::{Dimension, Question},
    },
};

/// What rule 0 and path 0 are called.
const DEFAULT: &str = "default";

/// The names of these values, by dimension; what has none is left out.
pub(super) fn named<'v>(
    names: &Names,
    values: impl Iterator<Item = (Dimension, Option<&'v str>)>,
) -> Map<String, Value> {
    let name = |(dimension, value): (Dimension, Option<&str>)| {
        let value = value?;
        let is_default = matches!(dimension, Dimension::Rule | Dimension::Path) && value == "0";
        let known = names.get(&(dimension, value.to_owned())).cloned();
        let name = known.or_else(|| is_default.then(|| DEFAULT.to_owned()))?;
        Some((dimension.to_string(), Value::from(name)))
    };
    values.filter_map(name).collect()
}

/// Whether values of the dimension have names.
pub(super) fn has_names(dimension: Dimension) -> bool {
    matches!(
        dimension,
        Dimension::Campaign
            | Dimension::Source
            | Dimension::Rule
            | Dimension::Path
            | Dimension::LandingPage
            | Dimension::Offer
    )
}

/// What the rows of a report have names of.
pub(super) fn ids_of(question: &Question, rows: &[Row]) -> Ids {
    let mut ids = Ids::default();
    for row in rows {
        for (dimension, value) in values(question, &row.key) {
            if let Some(value) = value {
                ids.add(dimension, value);
            }
        }
    }
    ids
}

/// The values of a row, by dimension.
pub(super) fn values<'k>(
    question: &'k Question,
    key: &'k Key,
) -> impl Iterator<Item = (Dimension, Option<&'k str>)> {
    question.group_by.iter().copied().zip(key.iter().map(Option::as_deref))
}
