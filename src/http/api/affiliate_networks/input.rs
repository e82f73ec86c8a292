//! An affiliate network as it is asked for.

use std::{collections::BTreeSet, net::IpAddr, sync::LazyLock};

use ipnet::IpNet;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::{
    http::{
        api::library::{asked_schema, names},
        error::FieldError,
        fields::{Fields, Given},
    },
    model::{
        network::{
            ADDRESSES_MAX, NetworkTerms, PARAMETERS_MAX, PostbackParameter, RETRY_WINDOW_S_MAX, STATUSES_MAX,
            StatusWord,
        },
        postback::{HIDDEN, PostbackToken},
    },
    templates,
};

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] =
    &["id", "postback_url", "archived_at", "version", "created_at", "updated_at"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(AffiliateNetworkInput::schema()));
static PARAMETER_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(PostbackParameter::schema()));
static STATUS_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(StatusWord::schema()));

/// Reads an affiliate network that is to be made, or what is to change of one that `was`; names everything that is
/// wrong with it.
pub(super) fn read(value: &Value, was: Option<&NetworkTerms>) -> Result<NetworkTerms, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let base = was.cloned().unwrap_or_else(|| from_template(&mut f));
    let name = match f.given("name") {
        Given::Absent if !base.name.is_empty() => base.name,
        _ => f.name("name").unwrap_or_default(),
    };
    let click_id_parameter = match f.given("click_id_parameter") {
        Given::Absent => base.click_id_parameter,
        _ => f.optional_parsed("click_id_parameter", "pattern"),
    };
    let click_id_macro = match f.given("click_id_macro") {
        Given::Absent => base.click_id_macro,
        _ => f.optional_parsed("click_id_macro", "pattern"),
    };
    let status_map = match f.given("status_map") {
        Given::Absent => base.status_map,
        _ => read_statuses(&mut f),
    };
    let currency = match f.given("currency") {
        Given::Absent => base.currency,
        _ => f.optional_currency("currency"),
    };
    let repeats = f.choice("repeats", base.repeats);
    let postback_key = match f.given("postback_key") {
        Given::Absent => base.postback_key,
        _ => f.optional_parsed("postback_key", "pattern"),
    };
    let postback_token = match f.given("postback_token") {
        Given::Absent => base.postback_token,
        _ => read_token(&mut f, base.postback_token),
    };
    let postback_addresses = match f.given("postback_addresses") {
        Given::Absent => base.postback_addresses,
        _ => read_addresses(&mut f),
    };
    let postback_parameters = match f.given("postback_parameters") {
        Given::Absent => base.postback_parameters,
        _ => read_parameters(&mut f),
    };
    let default_status = match f.given("default_status") {
        Given::Absent => base.default_status,
        _ => f.optional_parsed("default_status", "choice"),
    };
    let retry_window_s =
        f.integer("retry_window_s", 0..=RETRY_WINDOW_S_MAX.into(), base.retry_window_s.into());
    let sums_lists = f.boolean("sums_lists", base.sums_lists);
    let is_archived = f.boolean("is_archived", base.is_archived);
    let read_only: Vec<&str> =
        READ_ONLY_FIELDS.iter().copied().chain(was.is_some().then_some("template")).collect();
    let known: Vec<&String> = FIELDS.iter().filter(|field| was.is_none() || *field != "template").collect();
    f.refuse_unknown(&known, &read_only);
    let template = base.template;
    f.finish_with(Some(NetworkTerms {
        name,
        template,
        click_id_parameter,
        click_id_macro,
        status_map,
        currency,
        repeats,
        postback_key,
        postback_token,
        postback_addresses,
        postback_parameters,
        default_status,
        retry_window_s: u32::try_from(retry_window_s).unwrap_or_default(), // within its range
        sums_lists,
        is_archived,
    }))
}

/// What the template that is named says; nothing where none is.
fn from_template(f: &mut Fields<'_>) -> NetworkTerms {
    let Some(key) = f.optional_text("template", 1..=64) else { return NetworkTerms::default() };
    let Some(template) = templates::network(key) else {
        let known: Vec<_> = templates::networks().iter().map(|template| template.key.as_str()).collect();
        f.refuse("template", "choice", format!("must be one of {}", known.join(", ")));
        return NetworkTerms::default();
    };
    NetworkTerms {
        name: template.name().to_owned(),
        template: Some(template.key.clone()),
        click_id_parameter: Some(template.click_id_parameter.clone()),
        click_id_macro: Some(template.click_id_macro.clone()),
        status_map: template.status_map.clone(),
        currency: template.currency,
        repeats: template.repeats,
        ..NetworkTerms::default()
    }
}

fn read_statuses(f: &mut Fields<'_>) -> Vec<StatusWord> {
    let mut words = BTreeSet::new();
    f.list("status_map", STATUSES_MAX, |f| {
        let word = f.text("word", 1..=64).map(str::trim);
        let status = f.parsed("status", "choice");
        let goal = f.optional_text("goal", 1..=64).map(str::trim);
        f.refuse_unknown(&STATUS_FIELDS, &[]);
        for (field, text) in [("word", word), ("goal", goal)] {
            if text.is_some_and(str::is_empty) {
                f.refuse(field, "length", "must not be blank");
            }
        }
        let (word, status) = (word?, status?);
        if !words.insert(word.to_lowercase()) {
            f.refuse("word", "repeated", "is there already, in this or another case");
        }
        Some(StatusWord { word: word.to_owned(), status, goal: goal.map(str::to_owned) })
    })
}

/// What is shown of a token, sent back, leaves it as it is.
fn read_token(f: &mut Fields<'_>, was: Option<PostbackToken>) -> Option<PostbackToken> {
    match f.given("postback_token") {
        Given::Value(Value::String(text)) if text == HIDDEN && was.is_some() => was,
        _ => f.optional_parsed("postback_token", "pattern"),
    }
}

fn read_addresses(f: &mut Fields<'_>) -> Vec<IpNet> {
    let texts = f.texts("postback_addresses", 0..=ADDRESSES_MAX, 1..=64).unwrap_or_default();
    let mut addresses = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        if let Ok(net) = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            addresses.push(net);
        } else {
            let wanted = "must be a network such as 198.51.100.0/24, or an address";
            f.refuse_below(&format!("postback_addresses/{i}"), "network", wanted);
        }
    }
    addresses
}

fn read_parameters(f: &mut Fields<'_>) -> Vec<PostbackParameter> {
    f.list("postback_parameters", PARAMETERS_MAX, |f| {
        let field = f.parsed("field", "choice");
        let name = f.parsed("name", "pattern");
        f.refuse_unknown(&PARAMETER_FIELDS, &[]);
        Some(PostbackParameter { field: field?, name: name? })
    })
}

/// An affiliate network as it is asked for.
pub(crate) struct AffiliateNetworkInput;

impl PartialSchema for AffiliateNetworkInput {
    fn schema() -> RefOr<Schema> {
        let description =
            "An affiliate network as it is asked for. A name is needed where there is no template.";
        let example = json!({"template": "everflow", "name": "Example Network"});
        let mut object = asked_schema(NetworkTerms::schema(), description, example, &[]);
        if let Some(RefOr::T(Schema::Object(template))) = object.properties.get_mut("template") {
            let keys = templates::networks().iter().map(|template| Value::from(template.key.clone()));
            template.enum_values = Some(keys.chain([Value::Null]).collect());
            template.description =
                Some("The template to make it from; GET /templates/networks shows them.".to_owned());
        }
        Schema::Object(object).into()
    }
}

impl ToSchema for AffiliateNetworkInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NetworkTerms::schemas(schemas);
    }
}

/// What is to change of an affiliate network.
pub(crate) struct AffiliateNetworkPatch;

impl PartialSchema for AffiliateNetworkPatch {
    fn schema() -> RefOr<Schema> {
        let description = "What is to change of an affiliate network; what is not given stays.";
        let object =
            asked_schema(NetworkTerms::schema(), description, json!({"repeats": "ignore"}), &["template"]);
        Schema::Object(object).into()
    }
}

impl ToSchema for AffiliateNetworkPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NetworkTerms::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::{MappedStatus, Repeats};

    fn faults(value: &Value, was: Option<&NetworkTerms>) -> Vec<(String, &'static str)> {
        read(value, was).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn a_template_is_enough_and_what_is_given_wins() {
        let made = read(&json!({"template": "adcombo"}), None).unwrap();
        let lead = made.status_map.iter().find(|s| s.word == "lead").unwrap();
        assert_eq!((made.name.as_str(), lead.status), ("AdCombo", MappedStatus::Approved));
        let body = json!({
            "template": "adcombo", "name": "mine", "currency": "usd", "repeats": "new", "click_id_macro": null,
            "status_map": [{"word": " dep ", "status": "approved", "goal": "deposit"}],
        });
        let made = read(&body, None).unwrap();
        assert_eq!((made.name.as_str(), made.repeats, made.click_id_macro), ("mine", Repeats::New, None));
        assert_eq!(
            (made.status_map[0].word.as_str(), made.status_map[0].goal.as_deref()),
            ("dep", Some("deposit"))
        );
        assert_eq!(made.click_id_parameter.unwrap().as_str(), "subacc4");
    }

    #[test]
    fn every_fault_of_a_network_is_named() {
        let body = json!({
            "name": "", "click_id_parameter": "a b", "click_id_macro": "", "currency": "ZZZ", "repeats": "twice",
            "template": "nosuch", "is_archived": 1, "version": 1, "statuses": [], "postback_key": "short",
            "postback_token": "***", "postback_addresses": ["198.51.100.7", "here"], "default_status": "unmapped",
            "postback_parameters": [{"field": "payout", "name": "sum"}, {"field": "money", "name": "a b", "x": 1}],
            "retry_window_s": 604_801, "sums_lists": null, "postback_url": "https://x.example/",
            "status_map": [
                {"word": "a", "status": "paid"},
                {"word": " ", "status": "approved", "goal": ""},
                {"word": "Lead", "status": "pending"},
                {"word": "lead", "status": "approved", "x": 1},
            ],
        });
        let wanted = [
            ("/template", "choice"),
            ("/name", "length"),
            ("/click_id_parameter", "pattern"),
            ("/click_id_macro", "pattern"),
            ("/status_map/0/status", "choice"),
            ("/status_map/1/goal", "length"),
            ("/status_map/1/word", "length"),
            ("/status_map/3/x", "unknown"),
            ("/status_map/3/word", "repeated"),
            ("/currency", "unknown_currency"),
            ("/repeats", "choice"),
            ("/postback_key", "pattern"),
            ("/postback_token", "pattern"),
            ("/postback_addresses/1", "network"),
            ("/postback_parameters/1/field", "choice"),
            ("/postback_parameters/1/name", "pattern"),
            ("/postback_parameters/1/x", "unknown"),
            ("/default_status", "choice"),
            ("/retry_window_s", "range"),
            ("/sums_lists", "required"),
            ("/is_archived", "type"),
            ("/postback_url", "read_only"),
            ("/statuses", "unknown"),
            ("/version", "read_only"),
        ];
        assert_eq!(faults(&body, None), wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_never_the_template() {
        let was = read(&json!({"template": "affise"}), None).unwrap();
        assert_eq!(read(&json!({}), Some(&was)).unwrap(), was);
        let patched = read(&json!({"currency": "EUR", "status_map": []}), Some(&was)).unwrap();
        assert_eq!(
            (patched.currency.map(|c| c.to_string()), patched.status_map.len()),
            (Some("EUR".into()), 0)
        );
        assert_eq!(faults(&json!({"template": "tune"}), Some(&was)), [("/template".to_owned(), "read_only")]);
        // of a token only the hash is there, and what is shown of it leaves it as it is
        let secret = read(&json!({"postback_token": "s3cret-token"}), Some(&was)).unwrap();
        assert!(secret.postback_token.is_some_and(|token| token.is("s3cret-token")));
        assert_eq!(read(&json!({"postback_token": "***"}), Some(&secret)).unwrap(), secret);
        assert_eq!(read(&json!({"postback_token": null}), Some(&secret)).unwrap(), was);
    }
}
