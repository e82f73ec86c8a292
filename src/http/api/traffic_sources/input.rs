//! A traffic source as it is asked for.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{Object, Schema, SchemaFormat},
    },
};

use crate::{
    http::{
        api::library::{asked_schema, names},
        error::FieldError,
        fields::{Fields, Given},
    },
    model::source::{PARAMETERS_MAX, Parameter, Slot, SourceTerms},
    postback::template::{Place, Template},
    templates,
};

/// Longest address of a postback, in characters.
const POSTBACK_CHARS_MAX: usize = 4096;

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "archived_at", "version", "created_at", "updated_at", "recent"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(TrafficSourceInput::schema()));
static PARAMETER_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(Parameter::schema()));

/// Reads a traffic source that is to be made, or what is to change of one that `was`; names everything that is wrong
/// with it.
pub(super) fn read(value: &Value, was: Option<&SourceTerms>) -> Result<SourceTerms, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let base = was.cloned().unwrap_or_else(|| from_template(&mut f));
    let name = match f.given("name") {
        Given::Absent if !base.name.is_empty() => base.name,
        _ => f.name("name").unwrap_or_default(),
    };
    let parameters = match f.given("parameters") {
        Given::Absent => base.parameters,
        _ => read_parameters(&mut f),
    };
    let postback_url = match f.given("postback_url") {
        Given::Absent => base.postback_url,
        _ => read_postback(&mut f),
    };
    let is_archived = f.boolean("is_archived", base.is_archived);
    let read_only: Vec<&str> =
        READ_ONLY_FIELDS.iter().copied().chain(was.is_some().then_some("template")).collect();
    let known: Vec<&String> = FIELDS.iter().filter(|field| was.is_none() || *field != "template").collect();
    f.refuse_unknown(&known, &read_only);
    f.finish_with(Some(SourceTerms { name, template: base.template, parameters, postback_url, is_archived }))
}

/// What the template that is named says; nothing where none is.
fn from_template(f: &mut Fields<'_>) -> SourceTerms {
    let Some(key) = f.optional_text("template", 1..=64) else { return SourceTerms::default() };
    let Some(template) = templates::source(key) else {
        let known: Vec<_> = templates::sources().iter().map(|template| template.key.as_str()).collect();
        f.refuse("template", "choice", format!("must be one of {}", known.join(", ")));
        return SourceTerms::default();
    };
    SourceTerms {
        name: template.name().to_owned(),
        template: Some(template.key.clone()),
        parameters: template.parameters.clone(),
        postback_url: template.postback_url.clone(),
        is_archived: false,
    }
}

fn read_parameters(f: &mut Fields<'_>) -> Vec<Parameter> {
    let (mut names, mut slots) = (BTreeSet::new(), BTreeSet::new());
    f.list("parameters", PARAMETERS_MAX, |f| {
        let name = f.parsed("name", "pattern");
        let r#macro = f.optional_parsed("macro", "pattern");
        let slot = f.parsed("slot", "choice");
        let unit = f.optional_parsed("unit", "choice");
        let currency = f.optional_currency("currency");
        f.refuse_unknown(&PARAMETER_FIELDS, &[]);
        let parameter = Parameter { name: name?, r#macro, slot: slot?, unit, currency };
        check_parameter(f, &parameter);
        if !names.insert(parameter.name.as_str().to_owned()) {
            f.refuse("name", "repeated", "is the name of another parameter");
        }
        if !slots.insert(<&str>::from(parameter.slot)) {
            f.refuse("slot", "repeated", "is where another parameter goes");
        }
        Some(parameter)
    })
}

fn check_parameter(f: &mut Fields<'_>, parameter: &Parameter) {
    let name = parameter.name.as_str();
    if parameter.name.is_taken_for(parameter.slot) {
        f.refuse("name", "reserved", format!("`{name}` of a link means something else; take another name"));
    }
    if parameter.slot != Slot::Cost {
        for (field, is_given) in
            [("unit", parameter.unit.is_some()), ("currency", parameter.currency.is_some())]
        {
            if is_given {
                f.refuse(field, "cost_only", "only a cost has one");
            }
        }
    }
}

fn read_postback(f: &mut Fields<'_>) -> Option<String> {
    let text = f.optional_text("postback_url", 1..=POSTBACK_CHARS_MAX)?;
    if let Err(error) = Template::parse(text, Place::Address) {
        f.refuse("postback_url", "url", error.to_string());
        return None;
    }
    Some(text.to_owned())
}

/// A traffic source as it is asked for.
pub(crate) struct TrafficSourceInput;

impl PartialSchema for TrafficSourceInput {
    fn schema() -> RefOr<Schema> {
        let description = "A traffic source as it is asked for. A name is needed where there is no template.";
        let example = json!({"template": "propellerads", "name": "PropellerAds push"});
        let mut object = asked_schema(SourceTerms::schema(), description, example, &[]);
        if let Some(RefOr::T(Schema::Object(template))) = object.properties.get_mut("template") {
            let keys = templates::sources().iter().map(|template| Value::from(template.key.clone()));
            template.enum_values = Some(keys.chain([Value::Null]).collect());
            template.description =
                Some("The template to make it from; GET /templates/sources shows them.".to_owned());
        }
        format_postback(&mut object);
        Schema::Object(object).into()
    }
}

impl ToSchema for TrafficSourceInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SourceTerms::schemas(schemas);
    }
}

/// What is to change of a traffic source.
pub(crate) struct TrafficSourcePatch;

impl PartialSchema for TrafficSourcePatch {
    fn schema() -> RefOr<Schema> {
        let description = "What is to change of a traffic source; what is not given stays.";
        let mut object =
            asked_schema(SourceTerms::schema(), description, json!({"is_archived": true}), &["template"]);
        format_postback(&mut object);
        Schema::Object(object).into()
    }
}

impl ToSchema for TrafficSourcePatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SourceTerms::schemas(schemas);
    }
}

fn format_postback(object: &mut Object) {
    if let Some(RefOr::T(Schema::Object(postback))) = object.properties.get_mut("postback_url") {
        postback.format = Some(SchemaFormat::Custom("url-template".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::CostUnit;

    fn faults(value: &Value, was: Option<&SourceTerms>) -> Vec<(String, &'static str)> {
        read(value, was).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn a_template_is_enough_and_what_is_given_wins() {
        let made = read(&json!({"template": "propellerads"}), None).unwrap();
        assert_eq!((made.name.as_str(), made.template.as_deref()), ("PropellerAds", Some("propellerads")));
        assert!(made.parameters.iter().any(|p| p.name.as_str() == "visitor_id" && p.slot == Slot::ClickId));
        let body = json!({"template": "propellerads", "name": "mine", "postback_url": null, "parameters": [
            {"name": "bid", "macro": "{bid}", "slot": "cost", "unit": "mille", "currency": "eur"}
        ]});
        let made = read(&body, None).unwrap();
        assert_eq!((made.name.as_str(), made.postback_url, made.parameters.len()), ("mine", None, 1));
        assert_eq!(made.parameters[0].unit, Some(CostUnit::Mille));
        assert_eq!(
            faults(&json!({"template": "nosuch"}), None),
            [("/template".to_owned(), "choice"), ("/name".to_owned(), "required")]
        );
    }

    #[test]
    fn every_fault_of_a_source_is_named() {
        let body = json!({
            "name": " ", "postback_url": "ftp://x/", "is_archived": null, "id": 1, "parametres": [],
            "parameters": [
                {"name": "a b", "slot": "sub1"},
                {"name": "x", "macro": "a&b", "slot": "sub9"},
                {"name": "cid", "slot": "click_id"},
                {"name": "y", "slot": "sub1", "unit": "click", "currency": "USD"},
                {"name": "y", "slot": "sub1", "x": 1},
                {"name": "z", "slot": "cost", "currency": "ZZZ"},
            ],
        });
        let wanted = [
            ("/name", "length"),
            ("/parameters/0/name", "pattern"),
            ("/parameters/1/macro", "pattern"),
            ("/parameters/1/slot", "choice"),
            ("/parameters/2/name", "reserved"),
            ("/parameters/3/unit", "cost_only"),
            ("/parameters/3/currency", "cost_only"),
            ("/parameters/4/x", "unknown"),
            ("/parameters/4/name", "repeated"),
            ("/parameters/4/slot", "repeated"),
            ("/parameters/5/currency", "unknown_currency"),
            ("/postback_url", "url"),
            ("/is_archived", "required"),
            ("/id", "read_only"),
            ("/parametres", "unknown"),
        ];
        assert_eq!(faults(&body, None), wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
        let many: Vec<_> = (0..33).map(|i| json!({"name": format!("p{i}"), "slot": "sub1"})).collect();
        assert_eq!(
            faults(&json!({"name": "n", "parameters": many}), None),
            [("/parameters".to_owned(), "length")]
        );
    }

    #[test]
    fn a_patch_changes_what_it_names_and_never_the_template() {
        let was = read(&json!({"template": "mgid"}), None).unwrap();
        assert_eq!(read(&json!({}), Some(&was)).unwrap(), was);
        let patched = read(&json!({"is_archived": true, "parameters": []}), Some(&was)).unwrap();
        assert_eq!((patched.is_archived, patched.parameters.len(), &patched.name), (true, 0, &was.name));
        assert_eq!(faults(&json!({"template": "meta"}), Some(&was)), [("/template".to_owned(), "read_only")]);
        assert_eq!(faults(&json!({"name": null}), Some(&was)), [("/name".to_owned(), "required")]);
    }
}
