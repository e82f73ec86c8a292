//! A target of postbacks as it is asked for.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::RegexBuilder;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::{
    db::store::postback_targets::Target,
    http::{
        api::library::{asked_schema, names},
        error::FieldError,
        fields::{Fields, Given},
    },
    model::{
        conversion::Status,
        money::parse_amount,
        postback_target::{GOALS_MAX, HEADERS_MAX, Header, Mode, PayoutRule, TargetKind, TargetTerms},
    },
    postback::template::{Place, Template, mask},
    templates,
};

/// Longest address, in characters.
const URL_CHARS_MAX: usize = 4096;

/// Longest body, in characters.
const BODY_CHARS_MAX: usize = 16_384;

/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What a template has in the place of something of an account.
const PLACEHOLDER: &str = "REPLACE";

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &[
    "id",
    "is_default",
    "paused_at",
    "pause_reason",
    "failures_in_a_row",
    "held_until",
    "version",
    "created_at",
    "updated_at",
];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(TargetInput::schema()));

/// Reads a target that is to be made, or what is to change of one that `was`; names everything that is wrong with it.
pub(super) fn read(value: &Value, was: Option<&Target>) -> Result<TargetTerms, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let base = was.map_or_else(|| from_template(&mut f), |target| target.terms.clone());
    let is_default = was.is_some_and(|target| target.is_default);
    let terms = read_terms(&mut f, base);
    check_payout(&mut f, &terms);
    check_whole(&mut f, &terms);
    let of_source = ["url", "traffic_source_id", "campaign_id"].into_iter().filter(|_| is_default);
    let template = was.is_some().then_some("template");
    let read_only: Vec<&str> = READ_ONLY_FIELDS.iter().copied().chain(of_source).chain(template).collect();
    let known: Vec<&String> = FIELDS.iter().filter(|field| !read_only.contains(&field.as_str())).collect();
    f.refuse_unknown(&known, &read_only);
    f.finish_with(Some(terms))
}

fn read_terms(f: &mut Fields<'_>, base: TargetTerms) -> TargetTerms {
    let name = match f.given("name") {
        Given::Absent if !base.name.is_empty() => base.name,
        _ => f.name("name").unwrap_or_default(),
    };
    let kind = f.choice("kind", base.kind);
    let (statuses_of_kind, mode_of_kind, refunds_of_kind) = match kind {
        TargetKind::Webhook if base.url.is_empty() => {
            (vec![Status::Pending, Status::Approved], Mode::All, true)
        }
        _ => (base.statuses, base.mode, base.takes_refunds),
    };
    TargetTerms {
        name,
        traffic_source_id: or(f, "traffic_source_id", base.traffic_source_id, |f, name| {
            f.optional_integer(name, 1..=i64::MAX)
        }),
        campaign_id: or(f, "campaign_id", base.campaign_id, |f, name| f.optional_parsed(name, "uuid")),
        kind,
        method: f.choice("method", base.method),
        url: read_url(f, base.url),
        headers: read_headers(f, base.headers),
        body: read_body(f, base.body),
        statuses: read_statuses(f, statuses_of_kind),
        goals: match f.given("goals") {
            Given::Absent => base.goals,
            _ => f.texts("goals", 0..=GOALS_MAX, 0..=64).unwrap_or_default(),
        },
        mode: f.choice("mode", mode_of_kind),
        payout_rule: f.choice("payout_rule", base.payout_rule),
        payout_factor: or(f, "payout_factor", base.payout_factor, read_factor),
        payout_amount: or(f, "payout_amount", base.payout_amount, Fields::money),
        success_status_min: integer(f, "success_status_min", 200..=599, base.success_status_min),
        success_status_max: integer(f, "success_status_max", 200..=599, base.success_status_max),
        success_pattern: or(f, "success_pattern", base.success_pattern, read_pattern),
        failure_pattern: or(f, "failure_pattern", base.failure_pattern, read_pattern),
        follow_redirects: integer(f, "follow_redirects", 0..=3, base.follow_redirects),
        window_days: or(f, "window_days", base.window_days, |f, name| {
            f.optional_integer(name, 1..=365).and_then(|days| i32::try_from(days).ok())
        }),
        takes_refunds: f.boolean("takes_refunds", refunds_of_kind),
        is_active: f.boolean("is_active", base.is_active),
        template: base.template,
    }
}

/// What a field says, else what it `was`; `null` clears it.
fn or<'v, T>(
    f: &mut Fields<'v>,
    name: &str,
    was: Option<T>,
    read: impl FnOnce(&mut Fields<'v>, &str) -> Option<T>,
) -> Option<T> {
    match f.given(name) {
        Given::Absent => was,
        _ => read(f, name),
    }
}

fn integer(f: &mut Fields<'_>, name: &str, range: std::ops::RangeInclusive<i64>, was: i32) -> i32 {
    i32::try_from(f.integer(name, range, i64::from(was))).unwrap_or(was)
}

/// What the template that is named says; nothing where none is.
fn from_template(f: &mut Fields<'_>) -> TargetTerms {
    let Some(key) = f.optional_text("template", 1..=64) else { return TargetTerms::default() };
    let found = templates::source(key).and_then(|template| Some((template, template.postback.as_ref()?)));
    let Some((template, postback)) = found else {
        f.refuse("template", "choice", format!("must be one of {}", keys().join(", ")));
        return TargetTerms::default();
    };
    let url = postback.url.as_ref().or(template.postback_url.as_ref()).cloned().unwrap_or_default();
    let made = TargetTerms {
        url,
        name: template.name().to_owned(),
        template: Some(template.key.clone()),
        method: postback.method,
        headers: postback.headers.clone(),
        body: postback.body.clone(),
        window_days: postback.window_days,
        takes_refunds: postback.takes_refunds,
        ..TargetTerms::default()
    };
    // nothing is sent before somebody has put the own values there
    TargetTerms { is_active: !has_placeholder(&made), ..made }
}

/// Whether something of an account is still missing.
fn has_placeholder(terms: &TargetTerms) -> bool {
    let values = terms.headers.iter().map(|header| &header.value);
    values.chain(&terms.body).chain([&terms.url]).any(|text| text.contains(PLACEHOLDER))
}

/// Templates that say how their source is told.
fn keys() -> Vec<&'static str> {
    let with = templates::sources().iter().filter(|template| template.postback.is_some());
    with.map(|template| template.key.as_str()).collect()
}

/// What was shown without its secrets stays as it was.
fn read_url(f: &mut Fields<'_>, was: String) -> String {
    if f.given("url") == Given::Absent && !was.is_empty() {
        return was;
    }
    let Some(text) = f.text("url", 1..=URL_CHARS_MAX) else { return was };
    if text == mask(&was, Place::Address) {
        return was;
    }
    check_template(f, "url", text, Place::Address);
    text.to_owned()
}

fn read_body(f: &mut Fields<'_>, was: Option<String>) -> Option<String> {
    if f.given("body") == Given::Absent {
        return was;
    }
    let text = f.optional_text("body", 1..=BODY_CHARS_MAX)?;
    match was {
        Some(was) if text == mask(&was, Place::Body) => Some(was),
        _ => {
            check_template(f, "body", text, Place::Body);
            Some(text.to_owned())
        }
    }
}

fn read_headers(f: &mut Fields<'_>, was: Vec<Header>) -> Vec<Header> {
    if f.given("headers") == Given::Absent {
        return was;
    }
    let mut names = BTreeSet::new();
    f.list("headers", HEADERS_MAX, |f| {
        let (name, value) = (f.text("name", 1..=64), f.text("value", 1..=1024));
        f.refuse_unknown(&["name", "value"], &[]);
        let (name, value) = (name?, value?);
        let lower = name.to_ascii_lowercase();
        let is_fit = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_fit || matches!(&*lower, "host" | "content-length" | "connection" | "transfer-encoding") {
            f.refuse(
                "name",
                "pattern",
                "must have 1 to 64 of A-Z a-z 0-9 - and be none that the request itself needs",
            );
        }
        if !names.insert(lower.clone()) {
            f.refuse("name", "repeated", "is there already");
        }
        let kept = was.iter().find(|header| {
            header.name.eq_ignore_ascii_case(name) && mask(&header.value, Place::Header) == value
        });
        if let Some(kept) = kept {
            return Some(kept.clone());
        }
        check_template(f, "value", value, Place::Header);
        Some(Header { name: name.to_owned(), value: value.to_owned() })
    })
}

fn check_template(f: &mut Fields<'_>, field: &str, text: &str, place: Place) {
    if let Err(error) = Template::parse(text, place) {
        f.refuse(field, if place == Place::Address { "url" } else { "template" }, error.to_string());
    }
}

fn read_statuses(f: &mut Fields<'_>, was: Vec<Status>) -> Vec<Status> {
    if f.given("statuses") == Given::Absent {
        return was;
    }
    let Some(texts) = f.texts("statuses", 1..=2, 1..=16) else { return was };
    let mut statuses = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(status @ (Status::Pending | Status::Approved)) if !statuses.contains(&status) => {
                statuses.push(status);
            }
            _ => f.refuse_below(&format!("statuses/{i}"), "choice", "must be pending or approved, each once"),
        }
    }
    statuses
}

fn read_factor(f: &mut Fields<'_>, name: &str) -> Option<Decimal> {
    let factor =
        parse_amount(f.optional_text(name, 1..=24)?).ok().filter(|factor| *factor <= Decimal::from(1000));
    if factor.is_none() {
        f.refuse(name, "range", "must be a decimal number from 0 to 1000 with at most six decimals");
    }
    factor
}

fn read_pattern(f: &mut Fields<'_>, name: &str) -> Option<String> {
    let text = f.optional_text(name, 1..=256)?;
    if let Err(error) = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build() {
        f.refuse(name, "pattern", format!("is no regular expression: {error}"));
    }
    Some(text.to_owned())
}

fn check_payout(f: &mut Fields<'_>, terms: &TargetTerms) {
    for (field, rule, is_given) in [
        ("payout_factor", PayoutRule::Factor, terms.payout_factor.is_some()),
        ("payout_amount", PayoutRule::Fixed, terms.payout_amount.is_some()),
    ] {
        if terms.payout_rule == rule && !is_given && f.is_valid() {
            f.refuse(field, "required", format!("is required where payout_rule is {rule}"));
        }
    }
}

fn check_whole(f: &mut Fields<'_>, terms: &TargetTerms) {
    if terms.success_status_min > terms.success_status_max {
        f.refuse("success_status_max", "range", "must not be below success_status_min");
    }
    if terms.is_active && has_placeholder(terms) {
        f.refuse(
            "url",
            "placeholder",
            format!("has a {PLACEHOLDER} of its template; put the value of your account there"),
        );
    }
}

/// A target as it is asked for.
pub(crate) struct TargetInput;

impl PartialSchema for TargetInput {
    fn schema() -> RefOr<Schema> {
        let description = "A target as it is asked for. Name and url are needed where there is no template.";
        let example = json!({"name": "My server", "kind": "webhook", "url": "https://hooks.example/octo"});
        let mut object = asked_schema(TargetTerms::schema(), description, example, &[]);
        if let Some(RefOr::T(Schema::Object(template))) = object.properties.get_mut("template") {
            let keys = keys().into_iter().map(Value::from);
            template.enum_values = Some(keys.chain([Value::Null]).collect());
            template.description =
                Some("The template to make it from; GET /templates/sources shows them.".to_owned());
        }
        Schema::Object(object).into()
    }
}

impl ToSchema for TargetInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TargetTerms::schemas(schemas);
    }
}

/// What is to change of a target.
pub(crate) struct TargetPatch;

impl PartialSchema for TargetPatch {
    fn schema() -> RefOr<Schema> {
        let description = "What is to change of a target; what is not given stays.";
        let object =
            asked_schema(TargetTerms::schema(), description, json!({"is_active": false}), &["template"]);
        Schema::Object(object).into()
    }
}

impl ToSchema for TargetPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TargetTerms::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(value: &Value) -> Vec<(String, &'static str)> {
        read(value, None).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn a_template_is_not_active_before_its_placeholders_are_filled() {
        let made = read(&json!({"template": "exoclick"}), None).unwrap();
        assert!(!made.is_active && made.url.contains("REPLACE"), "{made:?}");
        assert_eq!(
            faults(&json!({"template": "exoclick", "is_active": true})),
            [("/url".to_owned(), "placeholder")]
        );
        let url = "https://syndication.exoclick.com/tag.php?goal=0123&tag={external_click_id}";
        assert!(
            read(&json!({"template": "exoclick", "url": url, "is_active": true}), None).unwrap().is_active
        );
    }

    #[test]
    fn a_webhook_is_told_everything() {
        let made = read(&json!({"name": "w", "kind": "webhook", "url": "https://a.example/"}), None).unwrap();
        assert_eq!((made.mode, made.takes_refunds, made.statuses.len()), (Mode::All, true, 2));
    }

    #[test]
    fn every_fault_of_a_target_is_named() {
        let body = json!({
            "name": "n", "url": "https://a.example/?x={clickid}", "body": "{nosuch}", "method": "PUT", "version": 1,
            "headers": [{"name": "Host", "value": "a"}], "statuses": ["refunded"], "payout_factor": "2000",
            "success_status_min": 300, "success_status_max": 299, "success_pattern": "(", "follow_redirects": 4,
            "window_days": 0, "nonsense": 1, "payout_rule": "half",
        });
        let mut found = faults(&body);
        found.sort();
        let wanted = [
            ("/body", "template"),
            ("/follow_redirects", "range"),
            ("/headers/0/name", "pattern"),
            ("/method", "choice"),
            ("/nonsense", "unknown"),
            ("/payout_factor", "range"),
            ("/payout_rule", "choice"),
            ("/statuses/0", "choice"),
            ("/success_pattern", "pattern"),
            ("/success_status_max", "range"),
            ("/url", "url"),
            ("/version", "read_only"),
            ("/window_days", "range"),
        ];
        assert_eq!(found, wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
        assert_eq!(
            faults(&json!({"name": "n", "url": "https://a.example/", "payout_rule": "fixed"})),
            [("/payout_amount".to_owned(), "required")]
        );
    }
}
