//! A campaign as it is asked for: how a request is read, and how the document describes it.
//!
//! What is asked for is read over what was (where a campaign is made: over the default), and only what differs from
//! that is checked: a destination that was allowed when it was stored does not stand in the way of another change.

use std::{borrow::Cow, sync::LazyLock};

use axum::http::{HeaderMap, header};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{AllOfBuilder, AnyOfBuilder, ArrayItems, Object, Schema, SchemaType, Type},
    },
};

use crate::{
    app::Parts,
    db::store::library::Named,
    http::{
        api::manners::request::parse_id,
        error::FieldError,
        fields::{Fields, Given},
    },
    model::{
        campaign::{Campaign, Destination, Terms},
        id::CampaignKey,
        rule::{Dimension, Path, Rule},
        scheme::Scheme,
    },
    routing::destination::Template,
    visitor::Knows,
};

use super::rules::{self, Was};

/// Entries of a list at most.
const DESTINATIONS_MAX: usize = 100;

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "version", "created_at", "updated_at", "click_url"];

static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| names(CampaignInput::schema()));
pub(super) static LANDING_PAGE_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    [names(LandingPageInput::schema()), names(DirectEntryInput::schema()), names(LibraryEntryInput::schema())]
        .concat()
});
pub(super) static OFFER_FIELDS: LazyLock<Vec<String>> =
    LazyLock::new(|| [names(OfferInput::schema()), names(LibraryEntryInput::schema())].concat());

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
    allowed: &Allowed,
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
    let standard = Terms::default();
    let before = campaign.map_or(&standard, |campaign| &campaign.terms);
    let destinations = Was::of(before);
    let name = match f.given("name") {
        Given::Absent if campaign.is_some() => was.name,
        _ => f.name("name").unwrap_or_default(),
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
        cost: given(&mut f, "cost", was.cost, Fields::money),
        revenue_share: given(&mut f, "revenue_share", was.revenue_share, |f, field| {
            f.optional_parsed(field, "range")
        }),
        payout: given(&mut f, "payout", was.payout, Fields::money),
        daily_budget: given(&mut f, "daily_budget", was.daily_budget, Fields::money),
        total_budget: given(&mut f, "total_budget", was.total_budget, Fields::money),
        fallback_url: match was.fallback_url {
            Some(url) if is_same(&f, "fallback_url", &url) => Some(url),
            url => given(&mut f, "fallback_url", url, |f, field| {
                let template = f.optional_url_template(field, &allowed.app_schemes)?;
                refuse_out_macros(&template, field, f);
                if template.is_store_link() {
                    f.refuse(field, "device", "must open on every device");
                }
                allowed.check(&template, field, f)
            }),
        },
        sticky: f.choice("sticky", was.sticky),
        epoch: i32::try_from(f.integer("epoch", 0..=i32::MAX.into(), was.epoch.into())).unwrap_or(i32::MAX),
        time_zone: match f.given("time_zone") {
            Given::Absent => was.time_zone,
            _ => rules::read_zone(&mut f).unwrap_or_default(),
        },
        traffic_source_id: given(&mut f, "traffic_source_id", was.traffic_source_id, |f, field| {
            f.optional_integer(field, 1..=i64::MAX)
        }),
        pass_through: f.boolean("pass_through", was.pass_through),
        ..read_all_paths(&mut f, before, &destinations, allowed)
    };
    let is_reversed = terms.start_at.zip(terms.end_at).is_some_and(|(start, end)| end <= start);
    if is_reversed && (terms.start_at, terms.end_at) != times {
        f.refuse("end_at", "range", "must be after start_at");
    }
    rules::check_together(&mut f, &terms, &destinations, allowed);
    f.refuse_unknown(&FIELDS, READ_ONLY_FIELDS);
    f.finish_with(Some(Asked { key, terms }))
}

/// The rules and paths of a request, with the default rule wherever it stands: as the last one of `rules`, as `paths`, or
/// as `landing_pages` and `offers`. What is given as it is stands in nobody's way.
fn read_all_paths(f: &mut Fields<'_>, was: &Terms, destinations: &Was, allowed: &Allowed) -> Terms {
    let only = Terms {
        landing_pages: given(f, "landing_pages", was.landing_pages.clone(), |f, field| {
            f.list(field, DESTINATIONS_MAX, |f| rules::read_landing_page(f, destinations, allowed))
        }),
        offers: given(f, "offers", was.offers.clone(), |f, field| {
            f.list(field, DESTINATIONS_MAX, |f| rules::read_offer(f, destinations, allowed))
        }),
        offer_choice: f.choice("offer_choice", was.offer_choice),
        caps: given(f, "caps", was.caps.clone(), |f, _| rules::read_caps(f)),
        ..Terms::default()
    };
    let has_lists = |terms: &Terms| !terms.landing_pages.is_empty() || !terms.offers.is_empty();
    let paths = given(f, "paths", was.paths.clone(), |f, _| rules::read_paths(f, destinations, allowed));
    let (rules, default) = match f.given("rules") {
        Given::Absent => (was.rules.clone(), None),
        _ => rules::read_rules(f, destinations, allowed),
    };
    let are_lists_new = has_lists(&only)
        && ["landing_pages", "offers"].into_iter().any(|list| f.given(list) != Given::Absent)
        && (&only.landing_pages, &only.offers) != (&was.landing_pages, &was.offers);
    let are_paths_new = !paths.is_empty() && f.given("paths") != Given::Absent && paths != was.paths;
    if default.is_some() && are_paths_new {
        f.refuse("paths", "conflict", "is the default rule, which stands in rules already");
    }
    let default = default.or((!paths.is_empty()).then_some(paths));
    let Some(default) = default else { return Terms { rules, ..only } };
    if are_lists_new {
        let list = if only.landing_pages == was.landing_pages { "offers" } else { "landing_pages" };
        let detail =
            "is the only path of the default rule, which has paths; give those, or `\"paths\": []` with it";
        f.refuse(list, "conflict", detail);
    }
    match &default[..] {
        [path] if path.when.is_empty() && path.is_active => Terms {
            rules,
            landing_pages: path.landing_pages.clone(),
            offers: path.offers.clone(),
            offer_choice: path.offer_choice,
            caps: path.caps.clone(),
            ..Terms::default()
        },
        _ => Terms { rules, paths: default, ..Terms::default() },
    }
}

/// What `read` makes of a field that is given; else what it was.
fn given<'v, T>(f: &mut Fields<'v>, field: &str, was: T, read: impl FnOnce(&mut Fields<'v>, &str) -> T) -> T {
    if f.given(field) == Given::Absent { was } else { read(f, field) }
}

fn is_same(f: &Fields<'_>, field: &str, was: &str) -> bool {
    matches!(f.given(field), Given::Value(Value::String(text)) if text == was)
}

/// Reads an entry of a list that was `was`: one that keeps its id and its URL keeps that, whatever is allowed now.
pub(super) fn read_destination(
    f: &mut Fields<'_>,
    was: &[Destination],
    kind: Kind,
    allowed: &Allowed,
) -> Option<Destination> {
    let name = f.name("name");
    let kept = was.iter().find(|d| is_kept(f, d));
    let url = if let Some(kept) = kept { Some(kept.url.clone()) } else { allowed.url(f, "url", kind) };
    let web_url = match kept.and_then(|kept| kept.web_url.clone()) {
        Some(web_url) if is_same(f, "web_url", &web_url) => Some(web_url),
        _ => allowed.web_url(f, "web_url", url.as_deref(), kind),
    };
    let standard = Destination::default();
    let id = f.optional_integer("id", 1..=i64::MAX);
    let weight = f.integer("weight", 0..=1_000_000, standard.weight.into());
    let is_active = f.boolean("is_active", standard.is_active);
    let weight = i32::try_from(weight).unwrap_or(i32::MAX);
    Some(Destination { id, name: name?, url: url?, weight, is_active, web_url, ..standard })
}

/// What a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http::api) enum Kind {
    LandingPage,
    Offer,
}

fn refuse_out_macros(template: &Template, field: &str, f: &mut Fields<'_>) {
    if template.has_out_macros() {
        let detail =
            "has {out_url} or {click_token}, which lead from landing pages to offers, and is no landing page";
        f.refuse(field, "macro", detail);
    }
}

fn is_kept(f: &Fields<'_>, was: &Destination) -> bool {
    let id = was.id.map(Value::from);
    is_same(f, "url", &was.url) && id.is_some_and(|id| f.given("id") == Given::Value(&id))
}

/// What may be asked for here: which destinations (a web address or a listed app's, but no click link of this tracker, which
/// would send visitors round and round), which conditions, and what of the library there is.
#[derive(Debug)]
pub(in crate::http::api) struct Allowed {
    own_hosts: Vec<String>,
    app_schemes: Vec<Scheme>,
    knows: Knows,
    pub(super) library: Named,
}

impl Allowed {
    /// For this request; `library` is what its body names of the library.
    pub(in crate::http::api) fn new(app: &Parts, headers: &HeaderMap, library: Named) -> Self {
        let knows = app.enricher.knows();
        Self::of(&app.public_url, headers, &app.config.tracking.app_schemes, knows, library)
    }

    fn of(
        public_url: &str,
        headers: &HeaderMap,
        app_schemes: &[Scheme],
        knows: Knows,
        library: Named,
    ) -> Self {
        let asked = headers.get(header::HOST).and_then(|v| v.to_str().ok());
        let urls = [Some(public_url.to_owned()), asked.map(|host| format!("http://{host}/"))];
        let host = |url: String| url::Url::parse(&url).ok()?.host_str().map(plain_host);
        let own_hosts = urls.into_iter().flatten().filter_map(host).collect();
        Self { own_hosts, app_schemes: app_schemes.to_vec(), knows, library }
    }

    /// Why this installation cannot know a dimension; `None`: it can.
    pub(super) fn unknowable(&self, dimension: Dimension) -> Option<&'static str> {
        let Knows { region, city, isp, connection } = self.knows;
        let (is_known, why) = match dimension {
            Dimension::Region => {
                (region, "is not known here: name a database of regions as tracking.city_file")
            }
            Dimension::City => (city, "is not known here: name a database of cities as tracking.city_file"),
            Dimension::Isp => (isp, "is not known here: name a database of providers as tracking.isp_file"),
            Dimension::Connection => {
                (connection, "is not known here: name a database of connections as tracking.connection_file")
            }
            _ => (true, ""),
        };
        (!is_known).then_some(why)
    }

    /// A destination that must be there, in canonical form.
    pub(in crate::http::api) fn url(&self, f: &mut Fields<'_>, field: &str, kind: Kind) -> Option<String> {
        let template = f.url_template(field, &self.app_schemes)?;
        if kind == Kind::Offer {
            refuse_out_macros(&template, field, f);
        }
        self.check(&template, field, f)
    }

    /// Where visitors without the app go that `url` leads into, if anywhere; on the web.
    pub(in crate::http::api) fn web_url(
        &self,
        f: &mut Fields<'_>,
        field: &str,
        url: Option<&str>,
        kind: Kind,
    ) -> Option<String> {
        let template = f.optional_web_template(field)?;
        let is_app_link = |url: &str| Template::parse_stored(url).is_ok_and(|url| url.is_app_link());
        if !url.is_none_or(is_app_link) {
            f.refuse(field, "conflict", "is for a url that leads into an app");
        }
        if kind == Kind::Offer {
            refuse_out_macros(&template, field, f);
        }
        self.check(&template, field, f)
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
        schemas.push((LibraryEntryInput::name().into_owned(), LibraryEntryInput::schema()));
        schemas.push((DirectEntryInput::name().into_owned(), DirectEntryInput::schema()));
        schemas.push((PathInput::name().into_owned(), PathInput::schema()));
        schemas.push((RuleInput::name().into_owned(), RuleInput::schema()));
    }
}

/// An entry that names one of the library.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `rules` reads")]
pub(crate) struct LibraryEntryInput {
    /// Which one of the library; its name, URL, payout and caps count.
    #[schema(minimum = 1, example = 12)]
    id: i64,
    /// `true`
    #[schema(example = true)]
    library: bool,
    /// Its share in the rotation.
    #[schema(minimum = 0, maximum = 1_000_000, default = 1)]
    weight: Option<i32>,
    /// Whether it takes clicks here.
    #[schema(default = true)]
    is_active: Option<bool>,
}

/// No landing page: this share goes straight to the offers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `rules` reads")]
pub(crate) struct DirectEntryInput {
    /// `true`
    #[schema(example = true)]
    direct: bool,
    /// Its share in the rotation.
    #[schema(minimum = 0, maximum = 1_000_000, default = 1)]
    weight: Option<i32>,
    /// Whether it takes clicks.
    #[schema(default = true)]
    is_active: Option<bool>,
}

/// A rule as it is asked for.
pub(crate) struct RuleInput;

impl PartialSchema for RuleInput {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_part(Rule::schema(), &json!(Rule::default()), "A rule as it is asked for.");
        lead_to(&mut object, "paths", &[PathInput::name()]);
        Schema::Object(object).into()
    }
}

impl ToSchema for RuleInput {}

/// A path as it is asked for.
pub(crate) struct PathInput;

impl PartialSchema for PathInput {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_part(Path::schema(), &json!(Path::default()), "A path as it is asked for.");
        for (list, entries) in entries() {
            lead_to(&mut object, list, &entries);
        }
        Schema::Object(object).into()
    }
}

impl ToSchema for PathInput {}

/// A part whose name is made up where it is not given, and that has an id only where it is there already.
fn asked_part(schema: RefOr<Schema>, defaults: &Value, description: &str) -> Object {
    let mut object = object(schema);
    object.required = vec!["name".to_owned()];
    object.description = Some(description.to_owned());
    set_defaults(&mut object, defaults);
    object.required.clear();
    may_have_no_id(&mut object);
    object
}

fn may_have_no_id(object: &mut Object) {
    if let Some(RefOr::T(Schema::Object(id))) = object.properties.get_mut("id") {
        id.schema_type = SchemaType::Array(vec![Type::Integer, Type::Null]);
        id.description = Some("The one it was; absent in a new entry.".to_owned());
    }
}

/// Makes the entries of a list one of some schemas.
fn lead_to(object: &mut Object, list: &str, entries: &[Cow<'_, str>]) {
    if let Some(RefOr::T(Schema::Array(list))) = object.properties.get_mut(list) {
        let more = "A `PATCH` replaces the list: entries with an `id` of the campaign keep it.";
        list.description = Some(format!("{} {more}", list.description.as_deref().unwrap_or_default()));
        let reference = |entry: &Cow<'_, str>| RefOr::<Schema>::from(Ref::from_schema_name(entry.as_ref()));
        let items = match entries {
            [one] => reference(one),
            several => {
                let any = several.iter().fold(AnyOfBuilder::new(), |any, entry| any.item(reference(entry)));
                Schema::AnyOf(any.build()).into()
            }
        };
        list.items = ArrayItems::RefOrSchema(Box::new(items));
    }
}

/// What may stand among landing pages, and among offers.
fn entries() -> [(&'static str, Vec<Cow<'static, str>>); 2] {
    let library = LibraryEntryInput::name;
    [
        ("landing_pages", vec![LandingPageInput::name(), library(), DirectEntryInput::name()]),
        ("offers", vec![OfferInput::name(), library()]),
    ]
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
        for of_others in ["payout", "caps", "overflow_offer_id", "direct", "library"] {
            object.properties.remove(of_others);
        }
        Schema::Object(object).into()
    }
}

impl ToSchema for LandingPageInput {}

/// An offer as it is asked for.
pub(crate) struct OfferInput;

impl PartialSchema for OfferInput {
    fn schema() -> RefOr<Schema> {
        let mut object = asked_destination("An offer as it is asked for.");
        for of_others in ["direct", "library"] {
            object.properties.remove(of_others);
        }
        Schema::Object(object).into()
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
    let parts = [("paths", vec![PathInput::name()]), ("rules", vec![RuleInput::name()])];
    for (list, entries) in entries().into_iter().chain(parts) {
        lead_to(&mut object, list, &entries);
    }
    object
}

fn asked_destination(description: &str) -> Object {
    let mut object = object(Destination::schema());
    object.required = vec!["name".to_owned(), "url".to_owned()];
    object.description = Some(description.to_owned());
    set_defaults(&mut object, &json!(Destination::default()));
    may_have_no_id(&mut object);
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

    fn allowed_with(app_schemes: &[Scheme]) -> Allowed {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("10.0.0.7:8080"))]);
        let library = Named { landing_pages: [12].into(), offers: [(13, Some(14)), (14, None)].into() };
        Allowed::of("https://Track.example", &headers, app_schemes, Knows::default(), library)
    }

    fn create(value: &Value) -> Result<Asked, Vec<FieldError>> {
        read(value, None, &allowed_with(&[]))
    }

    fn change(campaign: &Campaign, value: &Value) -> Result<Asked, Vec<FieldError>> {
        read(value, Some(campaign), &allowed_with(&[]))
    }

    fn faults(asked: Result<Asked, Vec<FieldError>>) -> Vec<(String, &'static str)> {
        asked.err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    fn named<const N: usize>(faults: [(&str, &'static str); N]) -> Vec<(String, &'static str)> {
        faults.into_iter().map(|(pointer, code)| (pointer.to_owned(), code)).collect()
    }

    /// Terms of which no field is as it would be if it were not given.
    fn whole() -> Value {
        let rule = json!({"id": 41, "name": "r", "is_active": false, "time_zone": "America/New_York",
                "when": [{"dimension": "country", "is": ["DE", "unknown"]},
                    {"dimension": "parameter", "name": "q", "present": false},
                    {"dimension": "os", "is_not": ["iOS >=15", "Android"]}],
                "paths": [{"id": 42, "name": "p", "weight": 7, "is_active": false, "offer_choice": "lander", "caps": [],
                    "when": [{"dimension": "time", "is": ["fri 22-4"]}],
                    "landing_pages": [{"id": 7, "name": "c", "url": "https://c.example/", "weight": 1, "is_active": true}],
                    "offers": []}]});
        json!({
            "name": "n", "description": "d", "status": "draft", "start_at": "2026-01-01T00:00:00Z",
            "end_at": "2026-02-01T00:00:00Z", "cost_model": "cpc", "cost": {"amount": "0.03", "currency": "USD"}, "revenue_share": "12.5", "payout": {"amount": "2.00", "currency": "EUR"},
            "daily_budget": {"amount": "3.00", "currency": "EUR"}, "total_budget": {"amount": "4.00", "currency": "EUR"},
            "fallback_url": "https://f.example/", "pass_through": true,
            "landing_pages": [{"id": 5, "name": "a", "url": "https://a.example/", "weight": 2, "is_active": false}],
            "offers": [{"id": 6, "name": "b", "url": "https://b.example/", "weight": 3, "is_active": false,
                "payout": {"amount": "1.00", "currency": "EUR"}, "overflow_offer_id": 13,
                "caps": [{"of": "clicks", "limit": 100, "per": "day", "time_zone": null}]}],
            "offer_choice": "lander", "caps": [{"of": "visitors", "limit": 9, "per": "total", "time_zone": "Asia/Kolkata"}],
            "sticky": "all", "epoch": 3, "time_zone": "Europe/Berlin", "traffic_source_id": 4, "paths": [],
            "rules": [rule],
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
            // paths and lists are one or the other
            assert!(name == "paths" || whole[&name] != value, "{name} is tried with what it is anyway");
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
    fn every_fault_of_rules_is_named_where_it_is() {
        let destination = json!({"name": "o", "url": "https://o.example/"});
        let body = json!({
            "name": "n",
            "rules": [
                {"when": [{"dimension": "country", "is": ["DE", "AT", "Germany"]}], "paths": [{"offers": [destination]}]},
                {"when": [{"dimension": "city", "is": ["Berlin"]}, {"dimension": "os", "is": ["iOS 17-15"]}]},
                {"when": [{"dimension": "hour", "is": ["9"], "is_not": ["10"]}, {"dimension": "moon", "is": ["full"]},
                    {"dimension": "parameter", "is": ["x"]}, {"dimension": "country", "starts": ["D"]}]},
                {"paths": [{"weight": -1, "caps": [{"of": "clicks", "per": "day"}],
                    "landing_pages": [{"direct": true, "id": 3}, {"library": true, "id": 99}],
                    "offers": [{"name": "o", "url": "https://o.example/", "overflow_offer_id": 98}]}]},
            ],
            "time_zone": "Berlin",
        });
        let wanted = named([
            ("/rules/0/when/0/is/2", "value"),
            ("/rules/1/when/0/dimension", "unknowable"),
            ("/rules/1/when/1/is/0", "value"),
            ("/rules/2/when/0/is_not", "required"),
            ("/rules/2/when/1/dimension", "choice"),
            ("/rules/2/when/2/name", "value"),
            ("/rules/2/when/3/starts", "value"),
            ("/rules/3/paths/0/weight", "range"),
            ("/rules/3/paths/0/landing_pages/0/id", "conflict"),
            ("/rules/3/paths/0/landing_pages/1/id", "not_found"),
            ("/rules/3/paths/0/caps/0/limit", "required"),
            ("/time_zone", "choice"),
            ("/offers/0/overflow_offer_id", "not_found"),
        ]);
        let mut found = faults(create(&body));
        let mut all = wanted.clone();
        found.sort();
        all.sort();
        assert_eq!(found, all);
    }

    #[test]
    fn the_default_rule_is_read_wherever_it_stands() {
        let offer = |n: i64| json!({"name": format!("o{n}"), "url": format!("https://o{n}.example/")});
        let path = |n: i64| json!({"name": format!("p{n}"), "offers": [offer(n)]});
        let when = json!([{"dimension": "country", "is": ["DE"]}]);
        let names = |terms: &Terms| {
            let of = |list: &[Destination]| list.iter().map(|d| d.name.clone()).collect::<Vec<_>>().join(" ");
            let paths = terms.paths.iter().map(|path| path.name.clone()).collect::<Vec<_>>().join(" ");
            (terms.rules.len(), of(&terms.offers), paths)
        };
        let of = |body: Value| names(&create(&body).unwrap().terms);
        let rule = json!({"name": "r", "when": when, "paths": [path(1)]});
        for (body, wanted) in [
            (json!({"name": "n", "rules": [rule, {"paths": [path(2)]}]}), (1, "o2", "")),
            (json!({"name": "n", "rules": [rule], "paths": [path(2)]}), (1, "o2", "")),
            (json!({"name": "n", "rules": [rule], "offers": [offer(2)]}), (1, "o2", "")),
            (json!({"name": "n", "rules": [rule, {"paths": [path(2), path(3)]}]}), (1, "", "p2 p3")),
            (json!({"name": "n", "paths": [path(2), path(3)]}), (0, "", "p2 p3")),
        ] {
            assert_eq!(of(body.clone()), (wanted.0, wanted.1.to_owned(), wanted.2.to_owned()), "{body}");
        }
        let both = json!({"name": "n", "rules": [{"paths": [path(2)]}], "offers": [offer(3)]});
        assert_eq!(faults(create(&both)), named([("/offers", "conflict")]));
        let twice = json!({"name": "n", "rules": [{"paths": [path(2)]}], "paths": [path(3)]});
        assert_eq!(faults(create(&twice)), named([("/paths", "conflict")]));
        let unreachable = json!({"name": "n", "rules": [{"paths": [path(2)]}, rule]});
        assert_eq!(faults(create(&unreachable)), named([("/rules/0/when", "length")]));

        let two = json!({"name": "n", "paths": [path(2), path(3)]});
        let stored = Campaign::of("k".parse().unwrap(), create(&two).unwrap().terms);
        let shown = serde_json::to_value(&stored.terms).unwrap();
        let patched = |value: &Value| change(&stored, value).map(|asked| names(&asked.terms));
        assert_eq!(patched(&json!({"name": "m"})).unwrap().2, "p2 p3");
        let whole = json!({"paths": shown["paths"], "offers": shown["offers"], "rules": shown["rules"]});
        assert_eq!(patched(&whole).unwrap().2, "p2 p3");
        assert_eq!(faults(change(&stored, &json!({"offers": [offer(4)]}))), named([("/offers", "conflict")]));
        assert_eq!(patched(&json!({"offers": [offer(4)], "paths": []})).unwrap().1, "o4");
    }

    #[test]
    fn overflows_lead_to_an_end() {
        let offer = |id: i64, overflow: i64| json!({"id": id, "name": "o", "url": "https://o.example/", "overflow_offer_id": overflow});
        let plain = json!({"name": "n", "offers": [{"id": 1, "name": "o", "url": "https://o.example/"},
            {"id": 2, "name": "o", "url": "https://o.example/"}]});
        let stored = Campaign::of("k".parse().unwrap(), create(&plain).unwrap().terms);
        let with = |offers: Value| faults(change(&stored, &json!({"offers": offers})));
        assert_eq!(with(json!([offer(1, 2), offer(2, 13)])), []);
        let circle = [("/offers/0/overflow_offer_id", "circle"), ("/offers/1/overflow_offer_id", "circle")];
        assert_eq!(with(json!([offer(1, 2), offer(2, 1)])), named(circle));
        assert_eq!(with(json!([offer(1, 1)])), named([("/offers/0/overflow_offer_id", "circle")]));
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
    fn only_a_landing_page_leads_out_and_only_an_app_has_a_web_address() {
        let out = "https://l.example/?next={out_url:2}";
        let body = json!({
            "name": "n", "fallback_url": out, "landing_pages": [{"name": "l", "url": out}],
            "offers": [{"name": "o", "url": out}, {"name": "o", "url": "market://details?id=a", "web_url": out}],
        });
        let wanted =
            named([("/fallback_url", "macro"), ("/offers/0/url", "macro"), ("/offers/1/web_url", "macro")]);
        assert_eq!(faults(create(&body)), wanted);

        let (store, web) = ("itms-apps://apps.apple.com/app/id1", "https://w.example/");
        let body = json!({
            "name": "n", "fallback_url": store,
            "offers": [
                {"name": "o", "url": web, "web_url": web},
                {"name": "o", "url": store, "web_url": store},
                {"name": "o", "url": store, "web_url": "https://track.example/click?cid=x"},
                {"name": "o", "url": store, "web_url": web},
                {"name": "o", "url": store},
                {"name": "o", "url": "intent://a.example/#Intent;package={sub1};end"},
            ],
        });
        let wanted = named([
            ("/fallback_url", "device"),
            ("/offers/0/web_url", "conflict"),
            ("/offers/1/web_url", "url"),
            ("/offers/2/web_url", "redirect_loop"),
            ("/offers/5/url", "url"),
        ]);
        assert_eq!(faults(create(&body)), wanted);
    }

    #[test]
    fn a_web_address_is_kept_and_can_be_taken_away() {
        let (app, web) = ("market://details?id=a", "https://w.example/");
        let body = json!({"name": "n", "offers": [{"id": 6, "name": "o", "url": app, "web_url": web}]});
        let campaign = Campaign::of("k".parse().unwrap(), create(&body).unwrap().terms);
        let offer =
            |offer: Value| change(&campaign, &json!({"offers": [offer]})).unwrap().terms.offers.remove(0);
        let kept = offer(json!({"id": 6, "name": "o", "url": app, "web_url": web}));
        assert_eq!(kept.web_url.as_deref(), Some(web));
        assert_eq!(offer(json!({"id": 6, "name": "o", "url": app})).web_url, None);
        let on_the_web = json!({"offers": [{"id": 6, "name": "o", "url": web, "web_url": web}]});
        assert_eq!(faults(change(&campaign, &on_the_web)), named([("/offers/0/web_url", "conflict")]));
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
        let allowed = read(&with_app, None, &allowed_with(&[app])).unwrap().terms;
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
