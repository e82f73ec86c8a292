//! Templates of traffic sources and affiliate networks: what each calls its parameters, from its documentation. They are
//! the files of `config/templates/`, built into the program; each says where its facts were read, and when.
//!
//! None was tried with a live account: `checked_live` says so. What of a template comes from elsewhere than the
//! documentation is marked in its file.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::model::{
    money::Currency,
    network::{Repeats, StatusWord},
    postback_target::{Header, Method},
    source::{Macro, Parameter, ParameterName},
};

/// A template of a traffic source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceTemplate {
    /// What `template` of a traffic source names.
    #[serde(default)]
    #[schema(example = "propellerads")]
    pub key: String,
    #[serde(flatten)]
    origin: Origin,
    /// What its links carry, in the order of the link.
    pub parameters: Vec<Parameter>,
    /// What it is to be told of a conversion; `REPLACE` is something of your account.
    #[schema(example = "https://ads.example/postback?id={external_click_id}&payout={payout}&key=REPLACE")]
    pub postback_url: Option<String>,
    /// How it is told, and what its answers mean.
    pub postback: Option<PostbackTemplate>,
}

/// How a traffic source is told of a conversion: what a target is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PostbackTemplate {
    /// Where its facts were read.
    #[schema(example = json!(["https://help.example/postback"]))]
    pub documentation: Vec<String>,
    /// The day they were read.
    #[schema(example = "2026-11-30")]
    pub read: String,
    /// Whether somebody tried it with a live account.
    pub checked_live: bool,
    /// How.
    pub method: Method,
    /// Where to, in place of the `postback_url`.
    #[schema(example = "https://ads.example/events")]
    pub url: Option<String>,
    /// Headers.
    pub headers: Vec<Header>,
    /// The body, with macros.
    pub body: Option<String>,
    /// What the answer to a success matches.
    #[schema(example = "^OK")]
    pub success_pattern: Option<String>,
    /// What the answer to a success does not match.
    #[schema(example = "ERROR")]
    pub failure_pattern: Option<String>,
    /// Days that it takes a conversion afterwards.
    #[schema(example = 7)]
    pub window_days: Option<i32>,
    /// Whether it can be told that a conversion was rejected or refunded.
    pub takes_refunds: bool,
}

/// A template of an affiliate network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkTemplate {
    /// What `template` of an affiliate network names.
    #[serde(default)]
    #[schema(example = "everflow")]
    pub key: String,
    #[serde(flatten)]
    origin: Origin,
    /// The parameter of its links that takes our click id.
    #[schema(value_type = String, example = "sub1")]
    pub click_id_parameter: ParameterName,
    /// What stands for our click id in the address that it calls.
    #[schema(value_type = String, example = "{sub1}")]
    pub click_id_macro: Macro,
    /// What stands for the money we get.
    #[schema(value_type = Option<String>, example = "{payout}")]
    pub payout_macro: Option<Macro>,
    /// What stands for what the buyer paid.
    #[schema(value_type = Option<String>, example = "{sale_amount}")]
    pub sale_amount_macro: Option<Macro>,
    /// What stands for the currency of the money.
    #[schema(value_type = Option<String>, example = "{currency}")]
    pub currency_macro: Option<Macro>,
    /// What stands for its id of the conversion; of some networks it is that of the click.
    #[schema(value_type = Option<String>, example = "{transaction_id}")]
    pub transaction_id_macro: Option<Macro>,
    /// What stands for the word of `status_map`.
    #[schema(value_type = Option<String>, example = "{status}")]
    pub status_macro: Option<Macro>,
    /// What stands for the goal.
    #[schema(value_type = Option<String>, example = "{event_name}")]
    pub goal_macro: Option<Macro>,
    /// What its words for the state of a conversion mean.
    #[serde(default)]
    pub status_map: Vec<StatusWord>,
    /// The currency of its money, where it says none.
    #[schema(value_type = Option<String>, example = "USD")]
    pub currency: Option<Currency>,
    /// What another report of the same click and goal is.
    pub repeats: Repeats,
}

/// Whose template it is, and where its facts were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TemplateOrigin)]
pub struct Origin {
    /// For people.
    #[schema(example = "PropellerAds")]
    pub name: String,
    /// Where its facts were read.
    #[schema(example = json!(["https://help.example/tracking"]))]
    pub documentation: Vec<String>,
    /// The day they were read.
    #[schema(example = "2026-11-29")]
    pub read: String,
    /// Whether somebody tried it with a live account.
    pub checked_live: bool,
    /// What else its user should know.
    #[schema(example = "Put the key of your account in place of REPLACE.")]
    pub note: Option<String>,
}

macro_rules! files {
    ($folder:literal: $($key:literal),+ $(,)?) => {
        &[$((
            $key,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/templates/", $folder, "/", $key, ".toml")),
        )),+]
    };
}

/// Keys and texts of the templates of sources, in order of key.
const SOURCE_FILES: &[(&str, &str)] = files!(
    "sources": "adsterra", "clickadilla", "clickadu", "evadav", "exoclick", "google-ads", "hilltopads", "kadam", "meta",
    "mgid", "microsoft-ads", "mondiad", "outbrain", "propellerads", "pushground", "richads", "taboola", "tiktok",
    "trafficjunky", "trafficstars", "zeropark",
);

/// Keys and texts of the templates of networks, in order of key.
const NETWORK_FILES: &[(&str, &str)] = files!(
    "networks": "adcombo", "affise", "cake", "clickbank", "everflow", "impact", "indoleads", "offer18", "scaleo",
    "trackier", "tune",
);

static SOURCES: LazyLock<Vec<SourceTemplate>> = LazyLock::new(|| {
    SOURCE_FILES
        .iter()
        .map(|&(key, text)| SourceTemplate { key: key.to_owned(), ..parsed(key, text) })
        .collect()
});

static NETWORKS: LazyLock<Vec<NetworkTemplate>> = LazyLock::new(|| {
    NETWORK_FILES
        .iter()
        .map(|&(key, text)| NetworkTemplate { key: key.to_owned(), ..parsed(key, text) })
        .collect()
});

/// Every template of a traffic source, in order of key.
pub fn sources() -> &'static [SourceTemplate] {
    &SOURCES
}

/// Every template of an affiliate network, in order of key.
pub fn networks() -> &'static [NetworkTemplate] {
    &NETWORKS
}

/// The template of a traffic source with this key.
pub fn source(key: &str) -> Option<&'static SourceTemplate> {
    SOURCES.iter().find(|template| template.key == key)
}

/// The template of an affiliate network with this key.
pub fn network(key: &str) -> Option<&'static NetworkTemplate> {
    NETWORKS.iter().find(|template| template.key == key)
}

impl SourceTemplate {
    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.origin.name
    }
}

impl NetworkTemplate {
    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.origin.name
    }
}

/// The files are part of the program, and a test reads each.
fn parsed<T: DeserializeOwned>(key: &str, text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|error| panic!("the template {key}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use url::{Host, Url};

    use super::*;
    use crate::{
        model::source::{CostUnit, Slot},
        postback::template::{Place, Template},
    };

    /// Addresses where something was read are on hosts with a name, and the day is one of the calendar.
    fn check_origin(key: &str, origin: &Origin) {
        assert!(!origin.name.is_empty() && !origin.documentation.is_empty(), "{key}");
        for address in &origin.documentation {
            let url = Url::parse(address).unwrap_or_else(|e| panic!("{key}: {address}: {e}"));
            assert!(is_plausible(&url), "{key}: {address}");
        }
        let read: chrono::NaiveDate = origin.read.parse().unwrap_or_else(|e| panic!("{key}: {e}"));
        assert!(origin.read.as_str() >= "2026-01-01", "{key}: read {read}");
        assert!(
            !origin.checked_live,
            "{key}: who tried it with an account takes this line out with the reason"
        );
    }

    fn is_plausible(url: &Url) -> bool {
        let has_name =
            matches!(url.host(), Some(Host::Domain(host)) if host.contains('.') && !host.contains("replace"));
        matches!(url.scheme(), "http" | "https") && has_name && url.port().is_none()
    }

    fn files(folder: &str) -> BTreeSet<String> {
        let folder = format!("{}/config/templates/{folder}", env!("CARGO_MANIFEST_DIR"));
        let entries =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.map(|name| name.strip_suffix(".toml").expect("a template").to_owned()).collect()
    }

    /// What serde leaves out in silence: misspelt keys, of the file and of the entries of its list.
    fn check_keys(key: &str, text: &str, template: &impl Serialize, list: &str, known: &[&str]) {
        let table: toml::Table = text.parse().unwrap();
        let shown = serde_json::to_value(template).unwrap();
        for name in table.keys() {
            assert!(shown.get(name).is_some(), "{key}: {name}");
        }
        for entry in table.get(list).and_then(toml::Value::as_array).into_iter().flatten() {
            for name in entry.as_table().unwrap().keys() {
                assert!(known.contains(&name.as_str()), "{key}: {list} with {name}");
            }
        }
    }

    fn check_postback(key: &str, template: &SourceTemplate, postback: &PostbackTemplate) {
        assert!(!postback.documentation.is_empty() && postback.read.as_str() >= "2026-01-01", "{key}");
        assert!(!postback.checked_live, "{key}: who tried it with an account takes this line out");
        let url = postback.url.as_ref().or(template.postback_url.as_ref()).expect("an address");
        assert!(Template::parse(url, Place::Address).is_ok(), "{key}: {url}");
        let body = postback.body.as_deref().unwrap_or_default();
        assert!(Template::parse(body, Place::Body).is_ok(), "{key}: {body}");
        assert_eq!(!body.is_empty(), postback.method == Method::Post, "{key}");
        assert!(format!("{url}{body}").contains("{external_click_id}"), "{key}");
        for header in &postback.headers {
            assert!(Template::parse(&header.value, Place::Header).is_ok(), "{key}: {}", header.name);
        }
        for pattern in postback.success_pattern.iter().chain(&postback.failure_pattern) {
            assert!(regex::Regex::new(pattern).is_ok(), "{key}: {pattern}");
        }
    }

    #[test]
    fn most_sources_are_told_and_each_by_its_own_rule() {
        let told: Vec<_> = sources().iter().filter(|template| template.postback.is_some()).collect();
        assert!(told.len() >= 15, "{}", told.len());
        for (key, good, bad) in [
            ("exoclick", "OK", "ERROR: unknown tag"),
            ("tiktok", r#"{"code": 0, "message": "OK"}"#, r#"{"code": 40001, "message": "denied"}"#),
            ("meta", r#"{"events_received":1}"#, r#"{"events_received":0}"#),
        ] {
            let postback = source(key).unwrap().postback.as_ref().unwrap();
            let success = regex::Regex::new(postback.success_pattern.as_ref().unwrap()).unwrap();
            assert!(success.is_match(good) && !success.is_match(bad), "{key}");
        }
    }

    #[test]
    fn every_file_is_a_template_and_every_template_a_file() {
        let sources: BTreeSet<_> = sources().iter().map(|t| t.key.clone()).collect();
        let networks: BTreeSet<_> = networks().iter().map(|t| t.key.clone()).collect();
        assert_eq!((&sources, &networks), (&files("sources"), &files("networks")));
        assert!(sources.len() >= 15 && networks.len() >= 10, "{sources:?} {networks:?}");
        assert!(
            SOURCE_FILES.is_sorted_by_key(|(key, _)| *key) && NETWORK_FILES.is_sorted_by_key(|(key, _)| *key)
        );
    }

    #[test]
    fn the_templates_of_sources_are_such_as_the_api_would_take() {
        for template in sources() {
            let key = &template.key;
            check_origin(key, &template.origin);
            let slots: BTreeSet<_> = template.parameters.iter().map(|p| <&str>::from(p.slot)).collect();
            let names: BTreeSet<_> = template.parameters.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(
                (slots.len(), names.len()),
                (template.parameters.len(), template.parameters.len()),
                "{key}"
            );
            assert!(slots.contains("click_id"), "{key} has no click id");
            for parameter in &template.parameters {
                let name = parameter.name.as_str();
                assert!(!parameter.name.is_taken_for(parameter.slot), "{key}: {name} is a word of ours");
                assert!(parameter.r#macro.as_ref().is_none_or(Macro::is_recognised), "{key}: {name}");
                let (unit, currency) = (parameter.unit, parameter.currency);
                assert!(parameter.slot == Slot::Cost || (unit, currency) == (None, None), "{key}: {name}");
                assert!(unit != Some(CostUnit::Mille) || currency.is_some(), "{key}: {name}");
                assert!(currency.is_none_or(|c| c.is_known()), "{key}: {name}");
            }
            if let Some(postback) = &template.postback_url {
                assert!(is_plausible(&Url::parse(postback).unwrap()), "{key}: {postback}");
                assert!(postback.contains("{external_click_id}"), "{key}: {postback}");
                assert!(Template::parse(postback, Place::Address).is_ok(), "{key}: {postback}");
            }
            if let Some(postback) = &template.postback {
                check_postback(key, template, postback);
            }
        }
        for ((key, text), template) in SOURCE_FILES.iter().zip(sources()) {
            check_keys(key, text, template, "parameters", &["name", "macro", "slot", "unit", "currency"]);
        }
    }

    #[test]
    fn the_templates_of_networks_are_such_as_the_api_would_take() {
        for template in networks() {
            let key = &template.key;
            check_origin(key, &template.origin);
            let macros = [
                &template.payout_macro,
                &template.sale_amount_macro,
                &template.currency_macro,
                &template.transaction_id_macro,
                &template.status_macro,
                &template.goal_macro,
            ];
            let macros = macros.into_iter().flatten().chain([&template.click_id_macro]);
            for m in macros {
                assert!(m.is_recognised(), "{key}: {}", m.as_str());
            }
            assert!(template.payout_macro.is_some(), "{key} sends money");
            let words: BTreeSet<_> =
                template.status_map.iter().map(|s| s.word.trim().to_lowercase()).collect();
            assert_eq!(words.len(), template.status_map.len(), "{key}");
            assert!(
                template.status_macro.is_none() || !words.is_empty(),
                "{key} has words that mean nothing"
            );
        }
        for ((key, text), template) in NETWORK_FILES.iter().zip(networks()) {
            check_keys(key, text, template, "status_map", &["word", "status", "goal"]);
        }
    }
}
