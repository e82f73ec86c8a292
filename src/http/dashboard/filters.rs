//! What is left out of figures: chips in the address, `f=country:is:DE`, one each.

use askama::{Template, filters::HtmlSafe};
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{figures, form::Fields, query::Query};
use crate::{
    db::{
        self, Db,
        store::reports::names::{self, Ids, Names},
    },
    reports::question::{Dimension, Match, UNKNOWN},
};

/// The parameter.
pub(super) const PARAM: &str = "f";

/// What clicks are searched by beside their id.
pub(super) const SEARCHED: [Dimension; 5] =
    [Dimension::Sub1, Dimension::Sub2, Dimension::Sub3, Dimension::Sub4, Dimension::Sub5];

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// What is looked at.
    pub(super) dimension: Dimension,
    /// How.
    pub(super) matching: Match,
    /// What it is compared with.
    pub(super) value: String,
}

impl Filter {
    /// As it stands in an address.
    pub(super) fn text(&self) -> String {
        format!("{}:{}:{}", self.dimension, self.matching, self.value)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (dimension, matching, value) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            dimension: dimension.parse().ok()?,
            matching: matching.parse().ok()?,
            value: value.to_owned(),
        })
    }
}

/// All conditions of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters(Vec<Filter>);

impl Filters {
    /// Those of an address; what is none is as if it were not there.
    pub(super) fn of(fields: &Fields) -> Self {
        let mut list: Vec<Filter> = Vec::new();
        for filter in fields.all(PARAM).filter_map(Filter::parse) {
            if !list.contains(&filter) {
                list.push(filter);
            }
        }
        Self(list)
    }

    /// With one more.
    pub(super) fn and(&self, dimension: Dimension, value: &str) -> Self {
        let mut list = self.0.clone();
        list.push(Filter { dimension, matching: Match::Is, value: value.to_owned() });
        Self(list)
    }

    /// As they stand in an address.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Filter::text)
    }

    /// Whether a value of this dimension was chosen.
    pub(super) fn has_chosen(&self, dimension: Dimension) -> bool {
        self.0.iter().any(|filter| (filter.dimension, filter.matching) == (dimension, Match::Is))
    }

    /// As reports take them: several values of one dimension are one condition.
    pub(super) fn question(&self) -> Value {
        let mut grouped: Vec<(Dimension, Match, Vec<&str>)> = Vec::new();
        for Filter { dimension, matching, value } in &self.0 {
            match grouped.iter_mut().find(|(known, how, _)| (known, how) == (dimension, matching)) {
                Some((.., values)) => values.push(value),
                None => grouped.push((*dimension, *matching, vec![value])),
            }
        }
        let shown = |(dimension, matching, values): (Dimension, Match, Vec<&str>)| json!({ "dimension": dimension.to_string(), <&str>::from(matching): values });
        grouped.into_iter().map(shown).collect()
    }
}

/// A condition as it is shown, and the way to be rid of it.
struct Chip {
    text: String,
    without: String,
}

/// The conditions of a page, and a form for one more.
#[derive(Template)]
#[template(path = "filters.html")]
pub(super) struct FilterBar {
    chips: Vec<Chip>,
    none: String,
    action: String,
    hidden: Vec<(String, String)>,
    dimensions: Vec<(&'static str, &'static str)>,
}

impl HtmlSafe for FilterBar {}

impl FilterBar {
    /// Those of an address, with the names of what stands there as an id.
    pub(super) async fn of(db: &Db, query: &Query, filters: &Filters) -> Result<Self, db::Error> {
        let mut ids = Ids::default();
        for filter in &filters.0 {
            ids.add(filter.dimension, &filter.value);
        }
        let names = names::of_ids(db, ids).await?;
        let query = query.without("cursor");
        let chip = |filter: &Filter| Chip {
            text: in_words(filter, &names),
            without: query.without_value(PARAM, &filter.text()).to_string(),
        };
        Ok(Self {
            chips: filters.0.iter().map(chip).collect(),
            none: query.without(PARAM).to_string(),
            action: query.path().to_owned(),
            hidden: query.hidden(&[]),
            dimensions: Dimension::VARIANTS
                .iter()
                .filter(|dimension| !dimension.is_time())
                .map(|dimension| ((*dimension).into(), figures::dimension_name(*dimension)))
                .collect(),
        })
    }
}

fn in_words(filter: &Filter, names: &Names) -> String {
    let how = match filter.matching {
        Match::Is => "is",
        Match::IsNot => "is not",
        Match::Contains => "contains",
        Match::Starts => "begins with",
    };
    let name = names.get(&(filter.dimension, filter.value.clone())).cloned();
    let name = name.unwrap_or_else(|| figures::value_name(filter.dimension, Some(&filter.value)));
    format!("{} {how} {name}", figures::dimension_name(filter.dimension))
}

/// Where a form asked for one more condition: the address that has it.
pub(super) fn added(fields: &Fields, query: &Query) -> Option<String> {
    let (dimension, matching) = (fields.text("fd"), fields.text("fm"));
    let value = match fields.text("fv") {
        "" => UNKNOWN,
        value => value,
    };
    let filter = Filter::parse(&format!("{dimension}:{matching}:{value}"))?;
    Some(query.without("cursor").without_value(PARAM, &filter.text()).and(PARAM, &filter.text()).to_string())
}

/// Where somebody looks for a text in one of the link's own parameters: the address with that condition.
pub(super) fn searched(fields: &Fields, query: &Query) -> Option<String> {
    let dimension: Dimension = fields.text("in").parse().ok()?;
    let value = fields.text("q");
    let is_of_link = SEARCHED.contains(&dimension);
    let filter = Filter { dimension, matching: Match::Is, value: value.to_owned() };
    let query = query.without("cursor").without_value(PARAM, &filter.text());
    (is_of_link && !value.is_empty()).then(|| query.and(PARAM, &filter.text()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_conditions_and_a_question_has_them() {
        let fields = Fields::parse(
            "f=country:is:DE&f=country:is:AT&f=sub1:contains:a:b&f=nonsense&f=x:is:y&f=country:is:DE",
        );
        let filters = Filters::of(&fields);
        let wanted =
            json!([{"dimension": "country", "is": ["DE", "AT"]}, {"dimension": "sub1", "contains": ["a:b"]}]);
        assert_eq!(filters.question(), wanted);
        assert!(filters.has_chosen(Dimension::Country) && !filters.has_chosen(Dimension::Sub1));
        assert_eq!(filters.0[2].text(), "sub1:contains:a:b");
    }

    #[test]
    fn a_form_adds_one_condition_to_the_address() {
        let query = Query::new("/ui/report").with("range", "7d").with("cursor", "x");
        let added = |text| added(&Fields::parse(text), &query);
        assert_eq!(
            added("fd=country&fm=is_not&fv=DE").as_deref(),
            Some("/ui/report?range=7d&f=country%3Ais_not%3ADE")
        );
        assert_eq!(
            added("fd=source&fm=is&fv=").as_deref(),
            Some("/ui/report?range=7d&f=source%3Ais%3Aunknown")
        );
        assert_eq!((added("fd=planet&fm=is&fv=x"), added("")), (None, None));
    }

    #[test]
    fn a_search_for_a_sub_id_is_a_condition_and_one_for_anything_else_is_none() {
        let query = Query::new("/ui/clicks").with("range", "7d").with("cursor", "x");
        let searched = |text| searched(&Fields::parse(text), &query);
        assert_eq!(
            searched("in=sub2&q=zone:7").as_deref(),
            Some("/ui/clicks?range=7d&f=sub2%3Ais%3Azone%3A7")
        );
        for none in ["in=id&q=x", "in=sub1&q=", "in=country&q=DE", "q=x", "in=sub1"] {
            assert_eq!(searched(none), None, "{none}");
        }
    }
}
