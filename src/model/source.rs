//! A traffic source: what its parameters are called in our links, and where their values go.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::{link, money::Currency, text::must_be_one_of, unexpanded::is_macro};

/// Parameters of a source at most.
pub const PARAMETERS_MAX: usize = 32;

/// Longest macro, in bytes.
const MACRO_BYTES_MAX: usize = 128;

/// Longest name of a parameter, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What the owner says of a traffic source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TrafficSourceTerms)]
pub struct SourceTerms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "PropellerAds")]
    pub name: String,
    /// The template it was made from.
    #[schema(example = "propellerads")]
    pub template: Option<String>,
    /// What its links carry, in the order of the link; at most 32.
    #[schema(max_items = 32)]
    pub parameters: Vec<Parameter>,
    /// Where the source is told of a conversion. It is a target of postbacks of its own, which says the rest
    /// (`/postback-targets?traffic_source_id=`); with a REPLACE of a template in it, that is not active.
    #[schema(
        max_length = 4096,
        example = "https://ads.example/postback?id={external_click_id}&payout={payout}"
    )]
    pub postback_url: Option<String>,
    /// Whether it is put away: it is not offered to new campaigns, and those that have it go on.
    pub is_archived: bool,
}

/// A parameter that a source adds to our link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SourceParameter)]
pub struct Parameter {
    /// Its name in the link.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._~:-]{1,64}$", example = "visitor_id")]
    pub name: ParameterName,
    /// What stands in its place in the link until the source fills it; null where the source adds the parameter by
    /// itself, as `gclid`.
    #[schema(value_type = Option<String>, pattern = "^[!#-%'-;=?-\\[\\]-_a-~]{1,128}$", example = "${SUBID}")]
    pub r#macro: Option<Macro>,
    /// Where its value goes.
    pub slot: Slot,
    /// Of a cost: what it is the price of; a click where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CostUnit>,
    /// Of a cost: its currency, where the link says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z]{3}$", example = "USD")]
    pub currency: Option<Currency>,
}

/// The source of a campaign, as nodes keep it beside it: what a click needs. It is written to disk and to Redis too, so
/// fields are added to it only, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Ours.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What its links carry.
    pub parameters: Vec<Mapping>,
}

/// A [`Parameter`] without its macro, which no click has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Its name in the link.
    pub name: ParameterName,
    /// Where its value goes.
    pub slot: Slot,
    /// Of a cost: what it is the price of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CostUnit>,
    /// Of a cost: its currency, where the link says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}

impl Source {
    /// The source that a stored object holds. A parameter that was written by hand and is none is left out: it must not
    /// keep a node from reading its campaigns.
    pub fn of_stored(stored: &Value) -> Option<Self> {
        let parameters = stored["parameters"].as_array().into_iter().flatten();
        Some(Self {
            id: stored["id"].as_i64()?,
            name: stored["name"].as_str()?.to_owned(),
            parameters: parameters.filter_map(|p| Mapping::deserialize(p).ok()).collect(),
        })
    }
}

/// Where a click keeps what a source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
#[schema(as = SourceSlot)]
pub enum Slot {
    /// The source's own id of the click.
    ClickId,
    /// What the click cost.
    Cost,
    /// `sub1`
    Sub1,
    /// `sub2`
    Sub2,
    /// `sub3`
    Sub3,
    /// `sub4`
    Sub4,
    /// `sub5`
    Sub5,
    /// What was searched for, or what the source calls so.
    Keyword,
    /// The ad that was shown.
    Creative,
    /// Where it was shown: a site, a zone, a widget.
    Placement,
}

/// What a cost is the price of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CostUnit {
    /// Of this click.
    #[default]
    Click,
    /// Of a thousand such clicks or views: divided by 1,000.
    Mille,
}

/// The name of a parameter in a link: 1 to 64 of `A-Z a-z 0-9 . _ ~ : -`, and none that means something else there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParameterName(String);

/// A macro of a source: 1 to 128 characters that may stand in a query as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Macro(String);

impl ParameterName {
    /// As it stands in the link.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether links say this in octo's own words, of something else than `slot`.
    pub fn is_taken_for(&self, slot: Slot) -> bool {
        let name = self.as_str();
        (name == "cid" || link::NAMES.contains(&name)) && name != <&str>::from(slot)
    }
}

impl FromStr for ParameterName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b':' | b'-');
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fit) {
            return Ok(Self(text.to_owned()));
        }
        Err("must have 1 to 64 characters of A-Z a-z 0-9 . _ ~ : -")
    }
}

impl Macro {
    /// As it stands in the link.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a click that still carries it is known to: it has one of the forms in which sources write macros.
    pub fn is_recognised(&self) -> bool {
        is_macro(&self.0)
    }
}

impl FromStr for Macro {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_fit = |b: u8| b.is_ascii_graphic() && !matches!(b, b'&' | b'"' | b'<' | b'>' | b'\\' | b'`');
        if (1..=MACRO_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fit) {
            return Ok(Self(text.to_owned()));
        }
        Err("must have 1 to 128 characters of ASCII without spaces, & \" < > \\ and `")
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

as_text!(ParameterName);
as_text!(Macro);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_macros_are_what_a_query_can_carry() {
        for good in ["visitor_id", "utm_source", "x", "a.b-c~d:e", &"n".repeat(64)] {
            assert_eq!(good.parse::<ParameterName>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a=b", "a&b", "a[]", "\u{e9}", &"n".repeat(65)] {
            assert!(bad.parse::<ParameterName>().is_err(), "{bad}");
        }
        for good in ["{x}", "${SUBID}", "[CLICK_ID]", "%x%", "__CID__", "{{a.b}}", "##S(a)##", "fixed"] {
            assert_eq!(good.parse::<Macro>().unwrap().as_str(), good);
        }
        for bad in ["", "{a b}", "a&b", "\"", "<x>", "\\", "`", "\u{e9}", &"m".repeat(129)] {
            assert!(bad.parse::<Macro>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_ours_goes_where_we_put_it() {
        let name: ParameterName = "sub1".parse().unwrap();
        assert!(!name.is_taken_for(Slot::Sub1));
        assert!(name.is_taken_for(Slot::Keyword));
        assert!("cid".parse::<ParameterName>().unwrap().is_taken_for(Slot::ClickId));
        for free in ["keyword", "zone", "Sub1"] {
            assert!(!free.parse::<ParameterName>().unwrap().is_taken_for(Slot::Placement), "{free}");
        }
    }

    #[test]
    fn a_parameter_that_was_written_by_hand_and_is_none_is_left_out() {
        let stored = serde_json::json!({"id": 3, "name": "Ads", "parameters": [
            {"name": "zone", "macro": "{zone}", "slot": "placement"}, {"name": "a b", "slot": "sub1"},
            {"name": "x", "slot": "nowhere"}, 7,
        ]});
        let source = Source::of_stored(&stored).unwrap();
        assert_eq!((source.id, source.parameters.len()), (3, 1));
        assert_eq!(serde_json::from_value::<Source>(serde_json::json!(source)).unwrap(), source);
        assert!(Source::of_stored(&serde_json::json!({"id": 3})).is_none());
    }

    #[test]
    fn a_parameter_is_stored_as_it_is_shown() {
        let json = r#"{"name":"bid","macro":"{bid}","slot":"cost","unit":"mille","currency":"USD"}"#;
        let parameter: Parameter = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&parameter).unwrap(), json);
        assert!(serde_json::from_str::<Parameter>(r#"{"name":"a b","macro":null,"slot":"sub1"}"#).is_err());
        assert!(serde_json::from_str::<Parameter>(r#"{"name":"a","macro":null,"slot":"sub6"}"#).is_err());
    }
}
