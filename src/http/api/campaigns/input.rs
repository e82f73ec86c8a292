//! A campaign as it is asked for: how a request is read, and how the document describes it.
//!
//! What is asked for is read over what was (where a campaign is made: over the default), and only what differs from
//! that is checked: a destination that was allowed when it was stored does not stand in the way of another change.

use std::sync::LazyLock;

use axum::http::{HeaderMap, header};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{AllOfBuilder, ArrayItems, Object, Schema, SchemaType, Type},
    },
};

use crate::{
    app::Parts,
    http::{
        api::manners::request::parse_id,
        error::FieldError,
        fields::{Fields, Given},
    },
    model::{
        campaign::{Campaign, Destination, Terms},
        id::CampaignKey,
        scheme::Scheme,
    },
    routing::destination::Template,
};

/// Entries of a list at most.
const DESTINATIONS_MAX: usize = 100;

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "version", "created_at", "updated_at", "click_url"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(CampaignInput::schema()));
static LANDING_PAGE_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(LandingPageInput::schema()));
static OFFER_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(OfferInput::schema()));

/// What is asked of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `None`: a made-up one, or the one it has.
    pub(super) key: Option<CampaignKey>,
    pub(super) terms: Terms,
}

/// Reads a campaign that is to be made, or what is to change of `campaign`; names everything that is wrong with it.
pub(super) fn read(
    value: &Value,
    campaign: Option<&Campaign>,
    targets: &Targets,
) -> Result<Asked, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let key = f.optional_parsed::<CampaignKey>("key", "pattern");
    if key
        .as_ref()
        .is_some_and(|key| parse_id(key.as_str()).is_some() && Some(key) != campaign.map(|c| &c.key))
    {
        f.refuse("key", "pattern", "must not look like an id (a UUID)");
    }
    let was = campaign.map_or_else(Terms::default, |campaign| campaign.terms.clone());
    let times = (was.start_at, was.end_at);
    let name = match f.given("name") {
        Given::Absent if campaign.is_some() => was.name,
        _ => read_name(&mut f).unwrap_or_default(),
    };
    let terms = Terms {
        name,
        description: given(&mut f, "description", was.description, |f, field| {
            f.optional_text(field, 0..=2000).map(str::to_owned)
        }),
        status: f.choice("status", was.status),
        start_at: given(&mut f, "start_at", was.start_at, Fields::time),
        end_at: given(&mut f, "end_at", was.end_at, Fields::time),
        cost_model: f.choice("cost_model", was.cost_model),
        payout: given(&mut f, "payout", was.payout, Fields::money),
        daily_budget: given(&mut f, "daily_budget", was.daily_budget, Fields::money),
        total_budget: given(&mut f, "total_budget", was.total_budget, Fields::money),
        fallback_url: match was.fallback_url {
            Some(url) if is_same(&f, "fallback_url", &url) => Some(url),
            url => given(&mut f, "fallback_url", url, |f, field| {
                let template = f.optional_url_template(field, &targets.app_schemes)?;
                targets.check(&template, field, f)
            }),
        },
        landing_pages: given(&mut f, "landing_pages", was.landing_pages.clone(), |f, field| {
            f.list(field, DESTINATIONS_MAX, |f| {
                f.refuse_unknown(&LANDING_PAGE_FIELDS, &[]);
                read_destination(f, &was.landing_pages, targets)
            })
        }),
        offers: given(&mut f, "offers", was.offers.clone(), |f, field| {
            f.list(field, DESTINATIONS_MAX, |f| {
                f.refuse_unknown(&OFFER_FIELDS, &[]);
                let payout = f.money("payout");
                Some(Destination { payout, ..read_destination(f, &was.offers, targets)? })
            })
        }),
        pass_through: f.boolean("pass_through", was.pass_through),
    };
    let is_reversed = terms.start_at.zip(terms.end_at).is_some_and(|(start, end)| end <= start);
    if is_reversed && (terms.start_at, terms.end_at) != times {
        f.refuse("end_at", "range", "must be after start_at");
    }
    refuse_repeated_ids(&mut f, "landing_pages", &terms.landing_pages);
    refuse_repeated_ids(&mut f, "offers", &terms.offers);
    f.refuse_unknown(&FIELDS, READ_ONLY_FIELDS);
    f.finish_with(Some(Asked { key, terms }))
}

/// What `read` makes of a field that is given; else what it was.
fn given<'v, T>(f: &mut Fields<'v>, field: &str, was: T, read: impl FnOnce(&mut Fields<'v>, &str) -> T) -> T {
    if f.given(field) == Given::Absent { was } else { read(f, field) }
}

fn is_same(f: &Fields<'_>, field: &str, was: &str) -> bool {
    matches!(f.given(field), Given::Value(Value::String(text)) if text == was)
}

fn read_name(f: &mut Fields<'_>) -> Option<String> {
    let name = f.text("name", 1..=255)?;
    if name.trim().is_empty() {
        f.refuse("name", "length", "must not be blank");
        return None;
    }
    Some(name.to_owned())
}

/// Reads an entry of a list that was `was`: one that keeps its id and its URL keeps that, whatever is allowed now.
fn read_destination(f: &mut Fields<'_>, was: &[Destination], targets: &Targets) -> Option<Destination> {
    let name = read_name(f);
    let url = if let Some(kept) = was.iter().find(|d| is_kept(f, d)) {
        Some(kept.url.clone())
    } else {
        let template = f.url_template("url", &targets.app_schemes);
        template.and_then(|template| targets.check(&template, "url", f))
    };
    let standard = Destination::default();
    let id = f.optional_integer("id", 1..=i64::MAX);
    let weight = f.integer("weight", 0..=1_000_000, standard.weight.into());
    let is_active = f.boolean("is_active", standard.is_active);
    let weight = i32::try_from(weight).unwrap_or(i32::MAX);
    Some(Destination { id, name: name?, url: url?, weight, is_active, payout: None })
}

fn is_kept(f: &Fields<'_>, was: &Destination) -> bool {
    let id = was.id.map(Value::from);
    is_same(f, "url", &was.url) && id.is_some_and(|id| f.given("id") == Given::Value(&id))
}

fn refuse_repeated_ids(f: &mut Fields<'_>, list: &str, destinations: &[Destination]) {
    let mut ids: Vec<i64> = destinations.iter().filter_map(|d| d.id).collect();
    ids.sort_unstable();
    if let Some([id, _]) = ids.array_windows().find(|[a, b]| a == b) {
        f.refuse(list, "repeated", format!("has the id {id} more than once"));
    }
}

/// What a destination may be: a web address or a listed app's, but no click link of this tracker, which would send
/// visitors round and round.
#[derive(Debug)]
pub(super) struct Targets {
    own_hosts: Vec<String>,
    app_schemes: Vec<Scheme>,
}

impl Targets {
    pub(super) fn new(app: &Parts, headers: &HeaderMap) -> Self {
        Self::of(&app.public_url, headers, &app.config.tracking.app_schemes)
    }

    fn of(public_url: &str, headers: &HeaderMap, app_schemes: &[Scheme]) -> Self {
        let asked = headers.get(header::HOST).and_then(|v| v.to_str().ok());
        let urls = [Some(public_url.to_owned()), asked.map(|host| format!("http://{host}/"))];
        let host = |url: String| url::Url::parse(&url).ok()?.host_str().map(plain_host);
        let own_hosts = urls.into_iter().flatten().filter_map(host).collect();
        Self { own_hosts, app_schemes: app_schemes.to_vec() }
    }

    /// The template in canonical form, unless it leads to a click link of ours.
    fn check(&self, template: &Template, field: &str, f: &mut Fields<'_>) -> Option<String> {
        let is_own = self.own_hosts.contains(&plain_host(template.host()));
        if is_own && (matches!(template.path(), "/click" | "/click/") || template.path().starts_with("/c/")) {
            f.refuse(
                field,
                "redirect_loop",
                "is a click link of this tracker: clicks would go round and round",
            );
            return None;
        }
        Some(template.canonical())
    }
}

fn plain_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// A campaign as it is asked for: its terms and its key; what is not given is as in [`Terms::default`].
pub(crate) struct CampaignInput;

impl PartialSchema for CampaignInput {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_terms();
        object.required = vec!["name".to_owned()];
        set_defaults(&mut object, &json!(Terms::default()));
        object.description = Some("A campaign as it is asked for.".to_owned());
        object.example = Some(json!({
            "key": "summer-sale",
            "name": "Summer sale",
            "cost_model": "cpa",
            "payout": {"amount": "1.50", "currency": "USD"},
            "landing_pages": [{"name": "A", "url": "https://offer.example/?click={click_id}&s={sub1}", "weight": 3}],
        }));
        Schema::Object(object).into()
    }
}

impl ToSchema for CampaignInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Terms::schemas(schemas);
        schemas.push((LandingPageInput::name().into_owned(), LandingPageInput::schema()));
        schemas.push((OfferInput::name().into_owned(), OfferInput::schema()));
    }
}

/// What is to change of a campaign: as [`CampaignInput`], and nothing is required.
pub(crate) struct CampaignPatch;

impl PartialSchema for CampaignPatch {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_terms();
        object.required.clear();
        object.description = Some("What is to change of a campaign; what is not given stays.".to_owned());
        Schema::Object(object).into()
    }
}

impl ToSchema for CampaignPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CampaignInput::schemas(schemas);
    }
}

/// A landing page as it is asked for.
pub(crate) struct LandingPageInput;

impl PartialSchema for LandingPageInput {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_destination("A landing page as it is asked for.");
        object.properties.remove("payout");
        Schema::Object(object).into()
    }
}

impl ToSchema for LandingPageInput {}

/// An offer as it is asked for.
pub(crate) struct OfferInput;

impl PartialSchema for OfferInput {
    fn schema() -> RefOr<Schema> {
        Schema::Object(asked_destination("An offer as it is asked for.")).into()
    }
}

impl ToSchema for OfferInput {}

/// The terms, with the key, and with entries of lists as they are asked for.
fn asked_terms() -> Object {
    let mut object = object(Terms::schema());
    let key = json!({
        "type": ["string", "null"],
        "pattern": "^[A-Za-z0-9._-]{1,64}$",
        "description": "1 to 64 of `A-Z a-z 0-9 . _ -`, not a UUID; made up when it is not given.",
        "example": "summer-sale",
    });
    object.properties.insert("key".to_owned(), serde_json::from_value(key).expect("a schema"));
    for (list, entry) in [("landing_pages", LandingPageInput::name()), ("offers", OfferInput::name())] {
        if let Some(RefOr::T(Schema::Array(list))) = object.properties.get_mut(list) {
            let more = "A `PATCH` replaces the list: entries with an `id` of the campaign keep it.";
            list.description = Some(format!("{} {more}", list.description.as_deref().unwrap_or_default()));
            list.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(entry).into()));
        }
    }
    object
}

fn asked_destination(description: &str) -> Object {
    let mut object = object(Destination::schema());
    object.required = vec!["name".to_owned(), "url".to_owned()];
    object.description = Some(description.to_owned());
    set_defaults(&mut object, &json!(Destination::default()));
    if let Some(RefOr::T(Schema::Object(id))) = object.properties.get_mut("id") {
        id.schema_type = SchemaType::Array(vec![Type::Integer, Type::Null]);
        id.description = Some("The one it was; absent in a new entry.".to_owned());
    }
    object
}

/// Notes what is not required and holds where it is not given; null and an empty list go without saying.
fn set_defaults(object: &mut Object, defaults: &Value) {
    let Object { properties, required, .. } = object;
    for (name, property) in properties.iter_mut().filter(|(name, _)| !required.contains(name)) {
        let default = &defaults[name.as_str()];
        if default.is_null() || default.is_array() {
            continue;
        }
        if let RefOr::T(Schema::Object(property)) = property {
            property.default = Some(default.clone());
            continue;
        }
        let described = AllOfBuilder::new().item(property.clone()).default(Some(default.clone()));
        *property = Schema::AllOf(described.build()).into();
    }
}

fn object(schema: RefOr<Schema>) -> Object {
    match schema {
        RefOr::T(Schema::Object(object)) => object,
        _ => Object::default(),
    }
}

fn names(schema: RefOr<Schema>) -> Vec<String> {
    object(schema).properties.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::model::campaign::{CostModel, Status};

    fn targets_with(app_schemes: &[Scheme]) -> Targets {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("10.0.0.7:8080"))]);
        Targets::of("https://Track.example", &headers, app_schemes)
    }

    fn create(value: &Value) -> Result<Asked, Vec<FieldError>> {
        read(value, None, &targets_with(&[]))
    }

    fn change(campaign: &Campaign, value: &Value) -> Result<Asked, Vec<FieldError>> {
        read(value, Some(campaign), &targets_with(&[]))
    }

    fn faults(asked: Result<Asked, Vec<FieldError>>) -> Vec<(String, &'static str)> {
        asked.err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    fn named<const N: usize>(faults: [(&str, &'static str); N]) -> Vec<(String, &'static str)> {
        faults.into_iter().map(|(pointer, code)| (pointer.to_owned(), code)).collect()
    }

    /// Terms of which no field is as it would be if it were not given.
    fn whole() -> Value {
        json!({
            "name": "n", "description": "d", "status": "draft", "start_at": "2026-01-01T00:00:00Z",
            "end_at": "2026-02-01T00:00:00Z", "cost_model": "cpc", "payout": {"amount": "2.00", "currency": "EUR"},
            "daily_budget": {"amount": "3.00", "currency": "EUR"}, "total_budget": {"amount": "4.00", "currency": "EUR"},
            "fallback_url": "https://f.example/", "pass_through": true,
            "landing_pages": [{"id": 5, "name": "a", "url": "https://a.example/", "weight": 2, "is_active": false}],
            "offers": [{"id": 6, "name": "b", "url": "https://b.example/", "weight": 3, "is_active": false,
                "payout": {"amount": "1.00", "currency": "EUR"}}],
        })
    }

    fn campaign() -> Campaign {
        Campaign::of("k".parse().unwrap(), create(&whole()).unwrap().terms)
    }

    #[test]
    fn every_field_of_the_terms_is_read_as_it_is_shown() {
        let asked = create(&whole()).unwrap();
        assert_eq!(serde_json::to_value(&asked.terms).unwrap(), whole());
        let (Value::Object(whole), Value::Object(standard)) = (whole(), json!(Terms::default())) else {
            panic!()
        };
        for (name, value) in standard {
            assert_ne!(whole[&name], value, "{name} is tried with what it is anyway");
        }
    }

    #[test]
    fn a_name_is_enough() {
        let asked = create(&json!({"name": "Summer"})).unwrap();
        assert_eq!(
            asked,
            Asked { key: None, terms: Terms { name: "Summer".to_owned(), ..Terms::default() } }
        );
        assert_eq!((asked.terms.status, asked.terms.cost_model), (Status::Active, CostModel::Cpa));
    }

    #[test]
    fn every_fault_of_a_campaign_is_named() {
        let body = json!({
            "name": " ", "key": "019aaf3c-5f00-7abc-8def-0123456789ab", "status": "on",
            "start_at": "2026-02-01T00:00:00Z", "end_at": "2026-02-01T00:00:00Z", "id": 1, "ofers": [],
            "landing_pages": [{"name": "a", "url": "https://a.example/{nosuch}", "payout": null}],
            "offers": [{"id": 3, "name": "a", "url": "https://a.example/"}, {"id": 3, "name": "", "weight": -1},
                {"id": 3, "name": "a", "url": "https://a.example/"}],
        });
        let wanted = named([
            ("/key", "pattern"),
            ("/name", "length"),
            ("/status", "choice"),
            ("/landing_pages/0/payout", "unknown"),
            ("/landing_pages/0/url", "url"),
            ("/offers/1/name", "length"),
            ("/offers/1/url", "required"),
            ("/offers/1/weight", "range"),
            ("/end_at", "range"),
            ("/offers", "repeated"),
            ("/id", "read_only"),
            ("/ofers", "unknown"),
        ]);
        assert_eq!(faults(create(&body)), wanted);
        let near = create(&json!({"name": "n", "ofers": []})).unwrap_err();
        assert!(near[0].detail.contains("did you mean `offers`"), "{}", near[0].detail);
        assert_eq!(faults(create(&json!({}))), named([("/name", "required")]));
    }

    #[test]
    fn a_destination_must_not_lead_back_to_a_click_link() {
        let with =
            |url: &str| json!({"name": "n", "fallback_url": url, "offers": [{"name": "o", "url": url}]});
        for own in [
            "https://track.example/click?cid=x",
            "https://track.example/click/?cid=x",
            "http://TRACK.example:99/c/x",
            "http://10.0.0.7/c/{sub1}",
        ] {
            let wanted = named([("/fallback_url", "redirect_loop"), ("/offers/0/url", "redirect_loop")]);
            assert_eq!(faults(create(&with(own))), wanted, "{own}");
        }
        for other in ["https://track.example/thanks", "https://other.example/click?cid=x"] {
            assert_eq!(faults(create(&with(other))), [], "{other}");
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing() {
        let campaign = campaign();
        let same = Asked { key: None, terms: campaign.terms.clone() };
        assert_eq!(change(&campaign, &json!({})).unwrap(), same);
        assert_eq!(change(&campaign, &whole()).unwrap(), same);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_clears() {
        let campaign = campaign();
        let patch =
            json!({"payout": null, "name": "new", "offers": [{"name": "c", "url": "https://c.example"}]});
        let terms = change(&campaign, &patch).unwrap().terms;
        assert_eq!((terms.payout, terms.name.as_str(), terms.cost_model), (None, "new", CostModel::Cpc));
        assert_eq!((terms.landing_pages[0].id, terms.offers[0].id), (Some(5), None));
        assert_eq!(terms.offers[0].url, "https://c.example/", "in canonical form");
        let refused = change(&campaign, &json!({"name": null, "status": null}));
        assert_eq!(faults(refused), named([("/name", "required"), ("/status", "required")]));
    }

    #[test]
    fn a_patch_is_checked_for_what_it_changes_only() {
        let app: Scheme = "myapp".parse().unwrap();
        let with_app = json!({
            "name": "n", "fallback_url": "myapp://f", "landing_pages": [{"id": 5, "name": "a", "url": "myapp://a"}],
            "start_at": "2026-01-01T00:00:00Z",
        });
        let allowed = read(&with_app, None, &targets_with(&[app])).unwrap().terms;
        let (page, fallback) = (allowed.landing_pages[0].url.clone(), allowed.fallback_url.clone());
        let mut campaign = Campaign::of("k".parse().unwrap(), allowed);
        assert_eq!(change(&campaign, &json!({"name": "new"})).unwrap().terms.name, "new");
        let kept = json!({
            "fallback_url": fallback,
            "landing_pages": [{"id": 5, "name": "b", "url": page}, {"name": "c", "url": "https://c.example/"}],
        });
        assert_eq!(change(&campaign, &kept).unwrap().terms.landing_pages.len(), 2);
        let changed = json!({
            "fallback_url": "myapp://other",
            "landing_pages": [{"id": 5, "name": "a", "url": "myapp://other"}, {"name": "new", "url": page}],
        });
        let wanted = named([
            ("/fallback_url", "url"),
            ("/landing_pages/0/url", "url"),
            ("/landing_pages/1/url", "url"),
        ]);
        assert_eq!(faults(change(&campaign, &changed)), wanted);
        // of what belongs together, one is enough
        let end = json!({"end_at": "2025-01-01T00:00:00Z"});
        assert_eq!(faults(change(&campaign, &end)), named([("/end_at", "range")]));
        campaign.terms.end_at = Some("2025-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(faults(change(&campaign, &json!({"name": "new"}))), []);
        let later = json!({"start_at": "2026-03-01T00:00:00Z"});
        assert_eq!(faults(change(&campaign, &later)), named([("/end_at", "range")]));
    }
}
