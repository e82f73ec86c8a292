//! What an event is asked to be, for the OpenAPI document: the schema of [`Members`], which `input` reads.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type},
    },
};

use super::{
    input::{EXTERNAL_ID_CHARS_MAX, PROPERTIES_MAX, TYPE_CHARS_MAX},
    loose::Members,
};
use crate::model::text::{HEADER_CHARS_MAX, PARAMETER_CHARS_MAX};

const DESCRIPTION: &str = "An event to store. Only what happened and to whom must be there: everything else is kept as well \
                           as it can be, and what was changed is named in `adjusted`. A number or boolean where a text \
                           is wanted becomes one; members of other names become properties, and so does what cannot be \
                           kept in its own place.";
const CLICK_ID_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";

impl PartialSchema for Members<'_> {
    fn schema() -> RefOr<Schema> {
        let cut = |what: &str, chars_max: usize| format!("{what}; cut at {chars_max} characters.");
        let event_type = text(
            format!(
                "1 to {TYPE_CHARS_MAX} of `a-z0-9_.-`. Others are folded, `Add To Cart` to `add_to_cart` and `PageView` \
                 to `pageview`, and the original is the `event_name` if there is none."
            ),
            "purchase",
        );
        let event_type = event_type.schema_type(Type::String).min_length(Some(1));
        let click_id = text(
            "The click it belongs to, as in `X-Click-Id`, also in the 22 characters of `{click_id:short}`; at least \
             one of `click_id` and `cid`. One that is not ours is a property where there is a `cid`.",
            "019aaf3c-5f00-7abc-8def-0123456789ab",
        );
        let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
        let event_id = format!(
            "The sender's own id, at most {EXTERNAL_ID_CHARS_MAX} characters. The same UUID from the same source (the \
             public, or a token) is the same event; any other text is where its campaign (else its click) and its \
             type are the same too."
        );
        let time = optional(
            &[Type::String, Type::Number],
            "When it happened: RFC 3339, or seconds or milliseconds since 1970; from 7 days ago to in 5 minutes, \
             otherwise it is a property. `created_at` is when it arrived.",
            json!("2026-01-31T12:00:00Z"),
        );
        let properties = format!(
            "What else there is to tell; the first {PROPERTIES_MAX} entries are kept, and numbers with their digits."
        );
        let cid = text("The key of the campaign it belongs to.", "demo");
        let url = cut("The page", HEADER_CHARS_MAX);
        let referrer = cut("What led to the page", HEADER_CHARS_MAX);
        ObjectBuilder::new()
            .description(Some(DESCRIPTION))
            .property("event_type", event_type)
            .required("event_type")
            .property("event_name", text(cut("For people", PARAMETER_CHARS_MAX), "Checkout done"))
            .property("click_id", click_id.format(Some(uuid)).pattern(Some(CLICK_ID_PATTERN)))
            .property("cid", cid.pattern(Some("^[A-Za-z0-9._-]{1,64}$")))
            .property("event_id", text(event_id, "order-1001"))
            .property("time", time)
            .property("url", text(url, "https://shop.example/checkout"))
            .property("referrer", text(referrer, "https://news.example/"))
            .property("session_id", text(cut("The sender's session", PARAMETER_CHARS_MAX), "s-81"))
            .property("user_id", text(cut("The sender's user", PARAMETER_CHARS_MAX), "u-4"))
            .property("properties", optional(&[Type::Object], properties, json!({ "sku": "A-1" })))
            .into()
    }
}

impl ToSchema for Members<'_> {
    fn name() -> std::borrow::Cow<'static, str> {
        "EventInput".into()
    }
}

fn text(description: impl Into<String>, example: &str) -> ObjectBuilder {
    optional(&[Type::String], description, json!(example))
}

fn optional(types: &[Type], description: impl Into<String>, example: Value) -> ObjectBuilder {
    let types = types.iter().cloned().chain([Type::Null]);
    ObjectBuilder::new()
        .schema_type(types.collect::<SchemaType>())
        .description(Some(description))
        .examples([example])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::track::event::input::FIELDS;

    #[test]
    fn the_document_describes_the_members_that_are_read() {
        let schema = serde_json::to_value(Members::schema()).unwrap();
        let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(described, FIELDS.into_iter().chain(["properties"]).map(str::to_owned).collect());
    }
}
