//! A landing page of the library as it is asked for.

use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::{
    http::{
        api::{
            campaigns::{Allowed, Kind},
            library::{asked_schema, names, read_url, read_web_url},
        },
        error::FieldError,
        fields::{Fields, Given},
    },
    model::library::LandingPageTerms,
};

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "archived_at", "version", "created_at", "updated_at"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(LibraryLandingPageInput::schema()));

/// Reads a landing page that is to be made, or what is to change of one that `was`; names everything that is wrong with it.
pub(super) fn read(
    value: &Value,
    was: Option<&LandingPageTerms>,
    allowed: &Allowed,
) -> Result<LandingPageTerms, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let base = was.cloned().unwrap_or_default();
    let name = match f.given("name") {
        Given::Absent if was.is_some() => base.name,
        _ => f.name("name").unwrap_or_default(),
    };
    let url = read_url(&mut f, was.map(|was| was.url.as_str()), Kind::LandingPage, allowed);
    let web_url = read_web_url(&mut f, base.web_url, url.as_deref(), Kind::LandingPage, allowed);
    let is_archived = f.boolean("is_archived", base.is_archived);
    f.refuse_unknown(&FIELDS, READ_ONLY_FIELDS);
    f.finish_with(url.map(|url| LandingPageTerms { name, url, web_url, is_archived }))
}

/// A landing page of the library as it is asked for.
pub(crate) struct LibraryLandingPageInput;

impl PartialSchema for LibraryLandingPageInput {
    fn schema() -> RefOr<Schema> {
        let description = "A landing page of the library as it is asked for.";
        let example = json!({"name": "Quiz", "url": "https://page.example/?click={click_id}"});
        let mut object = asked_schema(LandingPageTerms::schema(), description, example, &[]);
        object.required = vec!["name".to_owned(), "url".to_owned()];
        Schema::Object(object).into()
    }
}

impl ToSchema for LibraryLandingPageInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        LandingPageTerms::schemas(schemas);
    }
}

/// What is to change of a landing page of the library.
pub(crate) struct LibraryLandingPagePatch;

impl PartialSchema for LibraryLandingPagePatch {
    fn schema() -> RefOr<Schema> {
        let description = "What is to change of a landing page of the library; what is not given stays.";
        let object = asked_schema(LandingPageTerms::schema(), description, json!({"is_archived": true}), &[]);
        Schema::Object(object).into()
    }
}

impl ToSchema for LibraryLandingPagePatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        LandingPageTerms::schemas(schemas);
    }
}
