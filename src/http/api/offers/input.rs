//! An offer of the library as it is asked for.

use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::{
    http::{
        api::{
            campaigns::{Allowed, Kind, read_caps},
            library::{asked_schema, names, read_url, read_web_url},
        },
        error::FieldError,
        fields::{Fields, Given},
    },
    model::library::OfferTerms,
};

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "archived_at", "version", "created_at", "updated_at", "hints"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(LibraryOfferInput::schema()));

/// Reads an offer that is to be made, or what is to change of one that `was`; names everything that is wrong with it.
pub(super) fn read(
    value: &Value,
    was: Option<&OfferTerms>,
    allowed: &Allowed,
) -> Result<OfferTerms, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let base = was.cloned().unwrap_or_default();
    let name = match f.given("name") {
        Given::Absent if was.is_some() => base.name,
        _ => f.name("name").unwrap_or_default(),
    };
    let url = read_url(&mut f, was.map(|was| was.url.as_str()), Kind::Offer, allowed);
    let web_url = read_web_url(&mut f, base.web_url, url.as_deref(), Kind::Offer, allowed);
    let payout = match f.given("payout") {
        Given::Absent => base.payout,
        _ => f.money("payout"),
    };
    let affiliate_network_id = match f.given("affiliate_network_id") {
        Given::Absent => base.affiliate_network_id,
        _ => f.optional_integer("affiliate_network_id", 1..=i64::MAX),
    };
    let caps = match f.given("caps") {
        Given::Absent => base.caps,
        _ => read_caps(&mut f),
    };
    let overflow_offer_id = match f.given("overflow_offer_id") {
        Given::Absent => base.overflow_offer_id,
        _ => f.optional_integer("overflow_offer_id", 1..=i64::MAX),
    };
    let is_archived = f.boolean("is_archived", base.is_archived);
    f.refuse_unknown(&FIELDS, READ_ONLY_FIELDS);
    f.finish_with(url.map(|url| OfferTerms {
        name,
        url,
        web_url,
        payout,
        affiliate_network_id,
        caps,
        overflow_offer_id,
        is_archived,
    }))
}

/// An offer of the library as it is asked for.
pub(crate) struct LibraryOfferInput;

impl PartialSchema for LibraryOfferInput {
    fn schema() -> RefOr<Schema> {
        let description = "An offer of the library as it is asked for.";
        let example = json!({
            "name": "Shoes DE", "url": "https://offer.example/?s={sub1}&click={click_id}",
            "payout": {"amount": "1.50", "currency": "USD"},
        });
        let mut object = asked_schema(OfferTerms::schema(), description, example, &[]);
        object.required = vec!["name".to_owned(), "url".to_owned()];
        Schema::Object(object).into()
    }
}

impl ToSchema for LibraryOfferInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        OfferTerms::schemas(schemas);
    }
}

/// What is to change of an offer of the library.
pub(crate) struct LibraryOfferPatch;

impl PartialSchema for LibraryOfferPatch {
    fn schema() -> RefOr<Schema> {
        let description = "What is to change of an offer of the library; what is not given stays.";
        let object = asked_schema(OfferTerms::schema(), description, json!({"payout": null}), &[]);
        Schema::Object(object).into()
    }
}

impl ToSchema for LibraryOfferPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        OfferTerms::schemas(schemas);
    }
}
