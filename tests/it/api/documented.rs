//! What octo answers is what its document says: the status, the media type, the headers of ours and every member of the
//! body, for requests that went well and for such as are refused. `schemathesis` asks more at random; here are the
//! cases that no generator hits, such as a prefetch or the second event of an address that may send one.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Table, Tracker, header},
};

/// Headers that the document names where they are sent.
const OURS: [&str; 13] = [
    "etag",
    "idempotency-replayed",
    "location",
    "referrer-policy",
    "retry-after",
    "www-authenticate",
    "x-click-id",
    "x-octo-adjusted",
    "x-octo-dropped",
    "x-octo-position",
    "x-octo-recorded",
    "x-request-id",
    "x-robots-tag",
];

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

struct Documented {
    document: Value,
    wrong: Vec<String>,
    /// The operations and statuses that were seen.
    seen: BTreeSet<String>,
}

impl Documented {
    async fn of(tracker: &Tracker) -> Self {
        let document = tracker.octo.get("/api/v1/openapi.json").await.json().await.unwrap();
        Self { document, wrong: Vec::new(), seen: BTreeSet::new() }
    }

    /// Holds the answer to what the document says of the operation with this path; gives its body.
    async fn check(&mut self, path: &str, request: RequestBuilder) -> Value {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let method = request.method().as_str().to_lowercase();
        let response = client.execute(request).await.unwrap();
        // HEAD is answered as GET is
        let operation = if method == "head" { "get" } else { &method };
        let place = format!("{operation} {path} {}", response.status().as_u16());
        let said = &self.document["paths"][path][operation]["responses"][response.status().as_str()];
        let said = said.clone();
        self.seen.insert(place.clone());
        if said.is_null() {
            self.wrong.push(format!("{place} is not described"));
        }
        self.headers(&place, &said, &response);
        let media_type = header(&response, "content-type");
        let media_type = media_type.split(';').next().unwrap().to_owned();
        let bytes = response.bytes().await.unwrap();
        if method == "head" || bytes.is_empty() {
            return Value::Null;
        }
        let Some(content) = said["content"].get(&media_type).cloned() else {
            self.wrong.push(format!("{place} is described without {media_type}"));
            return Value::Null;
        };
        if !media_type.ends_with("json") {
            return Value::from(String::from_utf8_lossy(&bytes).into_owned());
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        self.fits(&place, &body, &content["schema"]);
        body
    }

    fn headers(&mut self, place: &str, said: &Value, response: &Response) {
        let described: BTreeSet<_> =
            said["headers"].as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase()).collect();
        for name in OURS.iter().filter(|name| response.headers().contains_key(**name)) {
            if !described.contains(*name) {
                self.wrong.push(format!("{place} has {name}, which is not described"));
            }
        }
    }

    /// Notes where a value is not as its schema says: its type, a member that is not described or is missing, a text
    /// that is none of a closed set.
    fn fits(&mut self, place: &str, value: &Value, schema: &Value) {
        let faults = faults(&self.document, place, value, schema);
        self.wrong.extend(faults);
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference}")),
        None => schema,
    }
}

fn faults(document: &Value, place: &str, value: &Value, schema: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let found: Vec<_> = choices.iter().map(|choice| faults(document, place, value, choice)).collect();
        let fitting = found.iter().filter(|faults| faults.is_empty()).count();
        return if fitting == 1 { Vec::new() } else { found.concat() };
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let whole = parts.iter().map(|part| resolved(document, part)).fold(json!({}), |mut whole, part| {
            for (name, property) in part["properties"].as_object().into_iter().flatten() {
                whole["properties"][name] = property.clone();
            }
            whole["required"] = [&whole["required"], &part["required"]]
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .cloned()
                .collect();
            whole
        });
        return faults(document, place, value, &whole);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let is_kind = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    if !kinds.is_empty() && !kinds.iter().any(is_kind) {
        return vec![format!("{place} is {value}, not {kinds:?}")];
    }
    let mut wrong = Vec::new();
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        wrong.push(format!("{place} is {value}, not one of {values:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        wrong.extend(faults(document, &format!("{place}/-"), item, &schema["items"]));
    }
    if let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, member) in members {
            match properties.get(name) {
                Some(property) => {
                    wrong.extend(faults(document, &format!("{place}/{name}"), member, property));
                }
                None => wrong.push(format!("{place}/{name} is not described")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                wrong.push(format!("{place}/{name} is missing"));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn links_and_events_answer_as_the_document_says() {
    let tracker = Tracker::start_with("documented_tracking", |b| {
        b.env("OCTO_LIMITS__EVENTS_PER_MINUTE", "10")
            .env("OCTO_LIMITS__CLICKS_PER_MINUTE", "1")
            .env("OCTO_TRACKING__DUPLICATE_WINDOW_S", "0")
            // whom a proxy names is limited, and nobody else is
            .env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
    })
    .await;
    tracker.simple_campaign("demo").await;
    let mut documented = Documented::of(&tracker).await;
    let at = |method: Method, path: &str| {
        let request = tracker.octo.client().request(method, tracker.octo.url(path));
        request.header("x-forwarded-for", "203.0.113.9").header("user-agent", FIREFOX)
    };

    let missing = documented.check("/click", at(Method::GET, "/click")).await;
    let said = &documented.document["paths"]["/click"]["get"]["responses"]["400"]["content"]["text/plain"];
    assert_eq!((said["schema"]["type"].as_str(), &said["example"]), (Some("string"), &missing));
    let unknown = documented.check("/click", at(Method::GET, "/click?cid=none")).await;
    let said = &documented.document["paths"]["/click"]["get"]["responses"]["404"]["content"]["text/plain"];
    assert_eq!(said["example"], unknown);
    documented.check("/c/{key}", at(Method::GET, "/c/none")).await;
    for path in ["/click?cid=demo", "/c/demo"] {
        let template = if path == "/c/demo" { "/c/{key}" } else { "/click" };
        documented.check(template, at(Method::GET, path)).await;
        documented.check(template, at(Method::HEAD, path)).await;
        documented.check(template, at(Method::POST, path)).await;
        let prefetch = at(Method::GET, path).header("sec-purpose", "prefetch");
        documented.check(template, prefetch).await;
    }
    // one more than an address may: it is redirected, and labelled
    let id = header(&at(Method::GET, "/click?cid=demo").send().await.unwrap(), "x-click-id");
    tracker.wait_rows(Table::Clicks, 7).await;
    let click = documented
        .check("/api/v1/clicks/{click_id}", tracker.api(Method::GET, &format!("/clicks/{id}")))
        .await;
    assert_eq!(click["invalid_reason"], "rate_limited");
    let said =
        documented.document["components"]["schemas"]["Click"]["properties"]["invalid_reason"]["description"]
            .as_str()
            .unwrap();
    assert!(said.contains("`rate_limited`"), "{said}");

    let event = json!({ "event_type": "Add To Cart", "cid": "demo" });
    documented.check("/event", at(Method::POST, "/event").json(&event)).await;
    documented.check("/event", at(Method::POST, "/event").json(&json!({}))).await;
    documented.check("/event", at(Method::POST, "/event").body("{")).await;
    documented
        .check("/event", at(Method::POST, "/event").header("content-type", "image/png").body("x"))
        .await;
    let batch = json!([event, { "event_type": "" }]);
    documented.check("/events", at(Method::POST, "/events").json(&batch)).await;
    documented.check("/event.gif", at(Method::GET, "/event.gif?event_type=View&cid=demo")).await;
    while at(Method::POST, "/event").json(&event).send().await.unwrap().status() == 202 {}
    documented.check("/event", at(Method::POST, "/event").json(&event)).await;
    documented.check("/events", at(Method::POST, "/events").json(&batch)).await;
    documented.check("/event.gif", at(Method::GET, "/event.gif?event_type=View&cid=demo")).await;
    let postback = format!("/postback?payout=1&click_id={id}");
    documented.check("/postback", at(Method::GET, &postback)).await;
    documented.check("/postback", at(Method::HEAD, &postback)).await;
    documented.check("/postback", at(Method::GET, "/postback?click_id=foreign")).await;
    documented.check("/postback", at(Method::POST, "/postback").json(&json!({ "click_id": id }))).await;
    documented.check("/postback", at(Method::POST, "/postback").body("x".repeat(20_000))).await;
    let compressed = at(Method::POST, "/postback").header("content-encoding", "gzip").body("x");
    documented.check("/postback", compressed).await;
    let nobodys = async || tracker.octo.get("/postback/nobodysnetwork").await.status().as_u16();
    eventually(SOON, async || {
        anyhow::ensure!(nobodys().await == 403, "the networks are not read yet");
        Ok(())
    })
    .await;
    documented.check("/postback/{key}", at(Method::GET, "/postback/nobodysnetwork")).await;
    documented.check("/postback/{key}", at(Method::POST, "/nobodysnetwork/postback")).await;
    for path in ["/health", "/livez", "/readyz", "/readyz/redirect", "/robots.txt", "/metrics", "/docs"] {
        documented
            .check(path, tracker.octo.client().get(tracker.octo.url(path)).bearer_auth(&tracker.token))
            .await;
    }

    assert_eq!(documented.wrong, [""; 0]);
    for wanted in [
        "post /event 429",
        "post /events 429",
        "get /click 302",
        "post /c/{key} 303",
        "post /event 415",
        "post /postback 413",
        "post /postback 415",
        "get /postback/{key} 403",
    ] {
        assert!(documented.seen.contains(wanted), "{wanted} was not seen: {:?}", documented.seen);
    }
}

#[tokio::test]
async fn the_api_answers_as_the_document_says() {
    let tracker = Tracker::start("documented_api").await;
    let campaign = tracker.simple_campaign("demo").await;
    let (_, click) = tracker.click("/click?cid=demo&sub1=a&cost=0.05&currency=USD").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let mut documented = Documented::of(&tracker).await;
    let token = tracker.api(Method::POST, "/tokens").header("idempotency-key", "k");
    let token = documented.check("/api/v1/tokens", token.json(&json!({ "scope": "read" }))).await;
    let again = tracker.api(Method::POST, "/tokens").header("idempotency-key", "k");
    documented.check("/api/v1/tokens", again.json(&json!({ "scope": "read" }))).await;
    documented.check("/api/v1/tokens", tracker.api(Method::POST, "/tokens").json(&json!({}))).await;
    let (id, token) = (campaign["id"].as_str().unwrap(), token["id"].as_str().unwrap());
    let event = json!({ "event_type": "Sale", "click_id": click, "properties": { "n": 1 } });
    documented.check("/api/v1/events", tracker.api(Method::POST, "/events").json(&event)).await;
    let patch = json!({ "is_valid": false, "invalid_reason": "fraud" });
    let mut ids = Vec::new();
    for (noun, body) in [
        ("/traffic-sources", json!({ "template": "mgid" })),
        ("/affiliate-networks", json!({ "template": "affise" })),
        ("/landing-pages", json!({ "name": "p", "url": "https://page.example/" })),
        ("/offers", json!({ "name": "o", "url": "https://offer.example/", "affiliate_network_id": 1 })),
    ] {
        let template = format!("/api/v1{noun}");
        let made = documented.check(&template, tracker.api(Method::POST, noun).json(&body)).await;
        documented.check(&template, tracker.api(Method::GET, noun)).await;
        documented.check(&template, tracker.api(Method::POST, noun).json(&json!({ "name": "" }))).await;
        ids.push((noun, made["id"].clone()));
    }
    let use_all = json!({
        "traffic_source_id": ids[0].1,
        "landing_pages": [{ "library": true, "id": ids[2].1 }], "offers": [{ "library": true, "id": ids[3].1 }],
    });
    let request = tracker.api(Method::PATCH, "/campaigns/demo").json(&use_all);
    documented.check("/api/v1/campaigns/{id}", request).await;
    for (noun, id) in &ids {
        let (one, at) = (format!("/api/v1{noun}/{{id}}"), format!("{noun}/{id}"));
        documented.check(&one, tracker.api(Method::GET, &at)).await;
        let change = tracker.api(Method::PATCH, &at).json(&json!({ "is_archived": true }));
        documented.check(&one, change).await;
        let change = tracker.api(Method::PATCH, &at).json(&json!({ "is_archived": false }));
        documented.check(&one, change.header("if-match", "\"1\"")).await;
        documented
            .check(&format!("{one}/campaigns"), tracker.api(Method::GET, &format!("{at}/campaigns")))
            .await;
        documented.check(&one, tracker.api(Method::DELETE, &at)).await;
    }
    for (method, template, path, body) in [
        (Method::GET, "/campaigns", "/campaigns".to_owned(), None),
        (Method::GET, "/campaigns/{id}", format!("/campaigns/{id}"), None),
        (Method::POST, "/campaigns/{id}/pause", format!("/campaigns/{id}/pause"), None),
        (Method::GET, "/campaigns/{id}/links", "/campaigns/demo/links".to_owned(), None),
        (Method::POST, "/campaigns/{id}/clone", format!("/campaigns/{id}/clone"), None),
        (Method::GET, "/templates/sources", "/templates/sources".to_owned(), None),
        (Method::GET, "/templates/networks", "/templates/networks".to_owned(), None),
        (Method::GET, "/campaigns/{id}/stats", format!("/campaigns/{id}/stats"), None),
        (Method::GET, "/clicks", "/clicks?cid=demo".to_owned(), None),
        (Method::GET, "/clicks", "/clicks?cursor=x".to_owned(), None),
        (Method::PATCH, "/clicks/{click_id}", format!("/clicks/{click}"), Some(patch)),
        (Method::PATCH, "/clicks/{click_id}", format!("/clicks/{click}"), Some(json!({ "is_valid": 7 }))),
        (Method::GET, "/clicks/{click_id}", format!("/clicks/{click}"), None),
        (Method::GET, "/events", "/events".to_owned(), None),
        (Method::GET, "/dead-letters", "/dead-letters".to_owned(), None),
        (Method::POST, "/dead-letters/retry", "/dead-letters/retry".to_owned(), None),
        (Method::GET, "/tokens", "/tokens".to_owned(), None),
        (Method::GET, "/tokens/{id}", format!("/tokens/{token}"), None),
        (Method::DELETE, "/tokens/{id}", format!("/tokens/{token}"), None),
        (Method::GET, "/system/pools", "/system/pools".to_owned(), None),
        (Method::GET, "/system/cache", "/system/cache".to_owned(), None),
        (Method::POST, "/system/cache/flush", "/system/cache/flush".to_owned(), None),
        (Method::GET, "/system/database", "/system/database".to_owned(), None),
        (Method::GET, "/system/queries", "/system/queries".to_owned(), None),
        (Method::GET, "/system/queries/{query}/plan", "/system/queries/click.get/plan".to_owned(), None),
    ] {
        let request = tracker.api(method, &path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        documented.check(&format!("/api/v1{template}"), request).await;
    }
    let stranger = tracker.octo.client().get(tracker.octo.url("/api/v1/clicks"));
    documented.check("/api/v1/clicks", stranger).await;

    assert_eq!(documented.wrong, [""; 0]);
    for wanted in [
        "get /api/v1/tokens/{id} 200",
        "patch /api/v1/clicks/{click_id} 200",
        "get /api/v1/clicks 401",
        "delete /api/v1/offers/{id} 409",
        "patch /api/v1/traffic-sources/{id} 412",
    ] {
        assert!(documented.seen.contains(wanted), "{wanted} was not seen: {:?}", documented.seen);
    }
}

#[tokio::test]
async fn deliveries_answer_as_the_document_says() {
    let tracker = Tracker::start("documented_deliveries").await;
    let mut documented = Documented::of(&tracker).await;
    let hook = json!({ "name": "hook", "kind": "webhook", "url": "http://127.0.0.1:1/{secret:x}?key=y" });
    let noun = "/api/v1/postback-targets";
    let made = documented.check(noun, tracker.api(Method::POST, "/postback-targets").json(&hook)).await;
    let at = format!("/postback-targets/{}", made["id"]);
    let day = json!({ "target_id": made["id"], "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": true });
    for (method, template, path, body) in [
        (Method::GET, "/postback-targets", "/postback-targets?q=o", json!({})),
        (
            Method::POST,
            "/postback-targets",
            "/postback-targets",
            json!({ "name": "", "url": "x", "template": "nosuch" }),
        ),
        (Method::GET, "/postback-targets/{id}", &at, json!({})),
        (
            Method::PATCH,
            "/postback-targets/{id}",
            &at,
            json!({ "payout_rule": "factor", "payout_factor": "0.5" }),
        ),
        (Method::POST, "/postback-targets/{id}/pause", &format!("{at}/pause"), json!({})),
        (Method::POST, "/postback-targets/{id}/resume", &format!("{at}/resume"), json!({})),
        (Method::POST, "/postback-targets/{id}/secret", &format!("{at}/secret"), json!({})),
        (Method::POST, "/postback-targets/{id}/test", &format!("{at}/test"), json!({})),
        (Method::GET, "/deliveries", "/deliveries?state=dead", json!({})),
        (Method::GET, "/deliveries/{id}", "/deliveries/0b8aaf3c-5f00-4abc-8def-0123456789ab", json!({})),
        (
            Method::POST,
            "/deliveries/{id}/retry",
            "/deliveries/0b8aaf3c-5f00-4abc-8def-0123456789ab/retry",
            json!({}),
        ),
        (Method::POST, "/deliveries/replay", "/deliveries/replay", day),
        (Method::DELETE, "/postback-targets/{id}", &at, json!({})),
    ] {
        let request = tracker.api(method.clone(), path);
        let request =
            if matches!(method, Method::GET | Method::DELETE) { request } else { request.json(&body) };
        documented.check(&format!("/api/v1{template}"), request).await;
    }
    assert_eq!(documented.wrong, [""; 0]);
}

#[tokio::test]
async fn money_answers_as_the_document_says() {
    let tracker = Tracker::start("documented_money").await;
    tracker.simple_campaign("demo").await;
    let (_, click) = tracker.click("/click?cid=demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let mut documented = Documented::of(&tracker).await;
    let conversion = json!({ "click_id": click, "payout": { "amount": "1.50", "currency": "USD" } });
    let told = tracker.api(Method::POST, "/conversions").json(&conversion);
    let told = documented.check("/api/v1/conversions", told).await;
    let postback = told["postback_id"].as_str().unwrap().to_owned();
    let stored = async || {
        let page = tracker.show("/conversions").await;
        anyhow::ensure!(page["data"].as_array().is_some_and(|data| data.len() == 1), "{page}");
        Ok(())
    };
    eventually(SOON, stored).await;
    let page = tracker.show("/conversions").await;
    let id = page["data"][0]["id"].as_str().unwrap();
    let day = json!({ "from": "2026-01-01T00:00:00Z", "to": "2100-01-02T00:00:00Z" });
    let rate = |rate: &str| json!({ "rates": [{ "currency": "UAH", "day": "2026-10-01", "rate": rate }] });
    for (method, template, path, body) in [
        (Method::PUT, "/fx-rates", "/fx-rates".to_owned(), Some(rate("48"))),
        (Method::PUT, "/fx-rates", "/fx-rates".to_owned(), Some(rate("49"))),
        (Method::PUT, "/fx-rates", "/fx-rates".to_owned(), Some(rate("0"))),
        (Method::GET, "/fx-rates", "/fx-rates".to_owned(), None),
        (Method::GET, "/fx-rates", "/fx-rates?cursor=x".to_owned(), None),
        (Method::GET, "/fx-rates/restatements", "/fx-rates/restatements".to_owned(), None),
        (Method::POST, "/conversions", "/conversions".to_owned(), Some(json!({ "click_id": "x" }))),
        (Method::GET, "/conversions", "/conversions?cid=demo&status=approved".to_owned(), None),
        (Method::GET, "/conversions", "/conversions?status=paid".to_owned(), None),
        (Method::GET, "/conversions/{id}", format!("/conversions/{id}"), None),
        (Method::GET, "/conversions/{id}", format!("/conversions/{postback}"), None),
        (Method::GET, "/clicks/{click_id}/story", format!("/clicks/{click}/story"), None),
        (Method::GET, "/postbacks", "/postbacks?outcome=accepted".to_owned(), None),
        (Method::GET, "/postbacks/{id}", format!("/postbacks/{postback}"), None),
        (Method::GET, "/postbacks/{id}", "/postbacks/x".to_owned(), None),
        (Method::POST, "/postbacks/replay", "/postbacks/replay".to_owned(), Some(day)),
        (Method::POST, "/postbacks/replay", "/postbacks/replay".to_owned(), Some(json!({ "from": 7 }))),
    ] {
        let request = tracker.api(method, &path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        documented.check(&format!("/api/v1{template}"), request).await;
    }
    let file = |text: String| {
        tracker.api(Method::POST, "/conversions/import").header("content-type", "text/csv").body(text)
    };
    let import = "/api/v1/conversions/import";
    let results = documented.check(import, file(format!("click_id,payout\n{click},2\nx,1\n"))).await;
    assert_eq!((&results["stored"], &results["rejected"]), (&json!(1), &json!(1)), "{results}");
    documented.check(import, file(String::new())).await;
    documented.check(import, tracker.api(Method::POST, "/conversions/import").json(&json!({}))).await;
    let (_, network) =
        answer(tracker.api(Method::POST, "/affiliate-networks").json(&json!({ "name": "n" }))).await;
    let compare = "/api/v1/reconciliations";
    let ask = |query: String, report: String| {
        let request = tracker.api(Method::POST, &format!("/reconciliations?{query}"));
        request.header("content-type", "text/csv").body(report)
    };
    let query = format!("network={}&from=2026-01-01&to=2100-01-01", network["id"]);
    let report = format!("click_id,payout\n{click},3\n{click},1\nx,1\n");
    let compared = documented.check(compare, ask(query.clone(), report.clone())).await;
    assert_eq!(compared["data"].as_array().unwrap().len(), 3, "{compared}");
    documented.check(compare, ask(query.clone(), report).header("accept", "text/csv")).await;
    documented.check(compare, ask(query, String::new())).await;
    documented.check(compare, ask("tz=X".to_owned(), String::new())).await;
    assert_eq!(documented.wrong, [""; 0]);
    for wanted in [
        "get /api/v1/conversions/{id} 200",
        "get /api/v1/conversions/{id} 404",
        "post /api/v1/conversions/import 415",
        "post /api/v1/reconciliations 200",
        "post /api/v1/reconciliations 422",
    ] {
        assert!(documented.seen.contains(wanted), "{wanted} was not seen: {:?}", documented.seen);
    }
}
