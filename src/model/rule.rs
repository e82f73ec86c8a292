//! The rules of a campaign: under which conditions which paths take a click, and what a path is.
//!
//! A rule that is written down is checked, and ready to decide, as a `Condition` of `routing`; here it is what its owner
//! says.

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{campaign::Destination, text::must_be_one_of};

/// Rules of a campaign at most.
pub const RULES_MAX: usize = 64;
/// Paths of a rule at most.
pub const PATHS_MAX: usize = 64;
/// Criteria of a rule or a path at most.
pub const CRITERIA_MAX: usize = 32;
/// Values of a criterion at most.
pub const VALUES_MAX: usize = 256;
/// Longest value of a criterion, in characters.
pub const VALUE_CHARS_MAX: usize = 255;
/// Landing pages of a path at most, and offers.
pub const ENTRIES_MAX: usize = 64;
/// Caps of a path or an offer at most.
pub const CAPS_MAX: usize = 8;

/// The id of the default rule, which has no conditions.
pub const DEFAULT_RULE: i64 = 0;
/// The id of the path that a campaign's own `landing_pages` and `offers` make.
pub const ONLY_PATH: i64 = 0;

/// Paths for visits that meet conditions. The first rule that a visit meets takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rule {
    /// Ours; clicks name it as `rule_id`.
    // None until it is stored, which what is shown always was
    #[schema(value_type = i64, minimum = 1, example = 41)]
    pub id: Option<i64>,
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "German iPhones")]
    pub name: String,
    /// Whether it takes visits.
    pub is_active: bool,
    /// What must hold of a visit: all of it; at most 32 criteria.
    #[schema(max_items = 32)]
    pub when: Vec<Criterion>,
    /// In which hours, weekdays and dates count; null: the campaign's zone.
    #[schema(value_type = Option<String>, format = "time-zone", example = "Europe/Berlin")]
    pub time_zone: Option<Tz>,
    /// Where its visits go, by weight; at most 64.
    #[schema(max_items = 64)]
    pub paths: Vec<Path>,
}

/// A way from a click to an offer, over a landing page or straight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Path {
    /// Ours; clicks name it as `path_id`.
    #[schema(value_type = i64, minimum = 0, example = 42)]
    pub id: Option<i64>,
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "Long page")]
    pub name: String,
    /// Share among the paths of its rule that take part, 0 to 1,000,000. 0: no new visitors.
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub weight: i32,
    /// Whether it takes visits.
    pub is_active: bool,
    /// What must hold for it to take part: all of it; at most 32 criteria.
    #[schema(max_items = 32)]
    pub when: Vec<Criterion>,
    /// First stop, by weight; at most 64. None: straight to the offers.
    #[schema(max_items = 64)]
    pub landing_pages: Vec<Destination>,
    /// Where landing pages lead, or the click itself, by weight; at most 64.
    #[schema(max_items = 64)]
    pub offers: Vec<Destination>,
    /// When the offer of a visit that sees a landing page is chosen.
    pub offer_choice: OfferChoice,
    /// How much it takes; at most 8.
    #[schema(max_items = 8)]
    pub caps: Vec<Cap>,
}

/// What holds where nothing is said; the name is empty, which no stored one's is.
impl Default for Path {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            weight: 1,
            is_active: true,
            when: Vec::new(),
            landing_pages: Vec::new(),
            offers: Vec::new(),
            offer_choice: OfferChoice::default(),
            caps: Vec::new(),
        }
    }
}

/// What holds where nothing is said; the name is empty, which no stored one's is.
impl Default for Rule {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            is_active: true,
            when: Vec::new(),
            time_zone: None,
            paths: Vec::new(),
        }
    }
}

/// When the offer of a visit that sees a landing page is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum OfferChoice {
    /// When the visitor leaves the page for it.
    #[default]
    Out,
    /// With the page, so that the page can name it (`{offer_name}`); honoured unless it is inactive then.
    Lander,
}

/// Something that must hold of a visit. Of its values one is enough; one that is not known is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Criterion {
    /// What is looked at.
    pub dimension: Dimension,
    /// Of the dimension `parameter`: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What must hold of it.
    #[serde(flatten)]
    pub test: Test,
}

/// What must hold of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is one of these.
    Is(Vec<String>),
    /// It is none of these.
    IsNot(Vec<String>),
    /// It begins with one of these.
    Starts(Vec<String>),
    /// One of these occurs in it.
    Contains(Vec<String>),
    /// Whether it is there at all.
    Present(bool),
}

/// A criterion as it is written, with every member that one may have: read so, it is read in one pass, and a start reads
/// many.
#[derive(Deserialize)]
struct Written {
    dimension: Dimension,
    name: Option<String>,
    is: Option<Vec<String>>,
    is_not: Option<Vec<String>>,
    starts: Option<Vec<String>>,
    contains: Option<Vec<String>>,
    present: Option<bool>,
}

impl TryFrom<Written> for Criterion {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { dimension, name, is, is_not, starts, contains, present } = written;
        let values = |test: fn(Vec<String>) -> Test, values: Option<Vec<String>>| {
            values.map(|mut values| {
                values.shrink_to_fit(); // they stay in memory
                test(values)
            })
        };
        let test = values(Test::Is, is)
            .or_else(|| values(Test::IsNot, is_not))
            .or_else(|| values(Test::Starts, starts))
            .or_else(|| values(Test::Contains, contains))
            .or_else(|| present.map(Test::Present));
        let test = test.ok_or("a criterion needs one of is, is_not, starts, contains, present")?;
        Ok(Self { dimension, name, test })
    }
}

impl PartialSchema for Criterion {
    fn schema() -> RefOr<Schema> {
        let values = || {
            json!({
                "type": "array",
                "minItems": 1,
                "maxItems": VALUES_MAX,
                "items": {"type": "string", "maxLength": VALUE_CHARS_MAX, "example": "DE"},
            })
        };
        let described = |mut schema: Value, text: &str| {
            schema["description"] = text.into();
            schema
        };
        let schema = json!({
            "type": "object",
            "description": "Something that must hold of a visit: one of `is`, `is_not`, `starts`, `contains`, `present`.",
            "required": ["dimension"],
            "minProperties": 2,
            "properties": {
                "dimension": {
                    "allOf": [{"$ref": "#/components/schemas/Dimension"}],
                    "description": "What is looked at.",
                },
                "name": {
                    "type": "string", "minLength": 1, "maxLength": 64, "example": "utm_source",
                    "description": "Of the dimension `parameter`: its name.",
                },
                "is": described(values(), "It is one of these; `unknown` is one that is not known."),
                "is_not": described(values(), "It is none of these; one that is not known is none of them."),
                "starts": described(values(), "It begins with one of these."),
                "contains": described(values(), "One of these occurs in it."),
                "present": {"type": "boolean", "description": "Whether it is there at all."},
            },
            "example": {"dimension": "country", "is": ["DE", "AT"]},
        });
        serde_json::from_value(schema).expect("a schema")
    }
}

impl ToSchema for Criterion {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Dimension::name().into_owned(), Dimension::schema()));
    }
}

impl Test {
    /// Its name and values as a request gives them.
    pub fn parts(&self) -> (&'static str, &[String]) {
        match self {
            Self::Is(values) => ("is", values),
            Self::IsNot(values) => ("is_not", values),
            Self::Starts(values) => ("starts", values),
            Self::Contains(values) => ("contains", values),
            Self::Present(_) => ("present", &[]),
        }
    }
}

/// What a criterion looks at. Nothing that tells people from bots is among it: both get the same destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Dimension {
    /// Two letters of ISO 3166-1, such as `DE`.
    Country,
    /// The part of ISO 3166-2 behind the country, such as `BY`.
    Region,
    /// Its English name.
    City,
    /// Two or three letters of ISO 639: the one the browser asks for most.
    Language,
    /// `desktop`, `mobile`, `tablet`, `tv`, `console`.
    Device,
    /// The system, with or without versions: `iOS`, `iOS 17`, `iOS >=15`, `Android <9`.
    Os,
    /// The browser, with or without versions: `Chrome`, `Chrome 100-120`.
    Browser,
    /// Who provides the connection.
    Isp,
    /// The kind of connection, such as `cellular`.
    Connection,
    /// The host of the page that led here, without `www.`.
    ReferrerHost,
    /// `traffic_source_id` of the link.
    Source,
    /// A parameter of the link, named by `name`.
    Parameter,
    /// Whether the visitor came to the campaign before: `true` or `false`.
    Returning,
    /// Whether this is the visitor's first click of the campaign today: `true` or `false`.
    Unique,
    /// The hour of the day: `9`, `9-18` (until before 18:00), `22:30-4:00`.
    Hour,
    /// `mon` to `sun`, `mon-fri`.
    Weekday,
    /// Both in one: `fri 22-4` lasts from Friday 22:00 to Saturday 4:00, `mon-fri 9-18`.
    Time,
    /// `2026-11-01` (that day), `2026-11-01/2026-12-01` or with times: until before the second.
    Date,
}

/// A bound on what a path or an offer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Cap {
    /// What is counted.
    pub of: CapOf,
    /// How many at most.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    pub limit: u32,
    /// In which time.
    pub per: CapPer,
    /// Where hours, days, weeks (from Monday) and months begin; null: in the campaign's zone, of an offer of the library
    /// in UTC.
    #[schema(value_type = Option<String>, format = "time-zone", example = "Europe/Berlin")]
    pub time_zone: Option<Tz>,
}

/// What a cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CapOf {
    /// Clicks that count as valid: of a path its clicks, of an offer those that went to it.
    Clicks,
    /// Conversions, when they arrive. Not taken yet: octo does not receive conversions.
    Conversions,
    /// Visitors: each once in the time of the cap, by day at the longest.
    Visitors,
}

/// In which time a cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CapPer {
    /// Each hour anew.
    Hour,
    /// Each day anew.
    Day,
    /// Each week anew, from Monday.
    Week,
    /// Each month anew.
    Month,
    /// For ever.
    Total,
}

/// Who gets again what he got before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Sticky {
    /// Nobody: every click is drawn anew.
    #[default]
    Off,
    /// A visitor gets the same path.
    Path,
    /// A visitor gets the same path, landing page and offer.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_criterion_is_read_as_it_was_written() {
        let some = || vec!["a".to_owned(), "b".to_owned()];
        let tests = [
            (Test::Is(some()), json!({"dimension": "city", "is": ["a", "b"]})),
            (Test::IsNot(some()), json!({"dimension": "city", "is_not": ["a", "b"]})),
            (Test::Starts(some()), json!({"dimension": "city", "starts": ["a", "b"]})),
            (Test::Contains(Vec::new()), json!({"dimension": "city", "contains": []})),
            (Test::Present(false), json!({"dimension": "city", "present": false})),
        ];
        for (test, mut written) in tests {
            let plain = Criterion { dimension: Dimension::City, name: None, test };
            assert_eq!(serde_json::to_value(&plain).unwrap(), written);
            written["since"] = json!({"a later": ["release"]});
            assert_eq!(serde_json::from_value::<Criterion>(written).unwrap(), plain);
            let named = Criterion { dimension: Dimension::Parameter, name: Some("q".to_owned()), ..plain };
            let written = serde_json::to_value(&named).unwrap();
            assert_eq!(serde_json::from_value::<Criterion>(written).unwrap(), named);
        }
        for wrong in
            [json!({"dimension": "city"}), json!({"is": ["a"]}), json!({"dimension": "no", "is": []})]
        {
            assert!(serde_json::from_value::<Criterion>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
