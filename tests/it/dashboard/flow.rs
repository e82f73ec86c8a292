//! The flow editor and the page that clones: each step of the editor by HTTP, and journeys in a browser, with JavaScript, without,
//! and by the keyboard alone.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    journeys::Stage,
    sessions::{Visitor, between},
};
use crate::{
    harness::Page,
    tracker::{Tracker, header},
};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";
const GERMAN: &str = "91.1.2.3";

/// The flow of a campaign in the hands of somebody: the fields of its form as the page shows them.
struct Editor<'a> {
    visitor: &'a Visitor<'a>,
    path: String,
    fields: Vec<(String, String)>,
    page: String,
}

impl<'a> Editor<'a> {
    async fn open(visitor: &'a Visitor<'a>, campaign: &Value) -> Self {
        let path = format!("/ui/campaigns/{}/flow", campaign["id"].as_str().unwrap());
        let page = visitor.page(&path).await;
        Self { visitor, path, fields: fields_of(&page), page }
    }

    fn set(&mut self, name: &str, value: &str) {
        let field = self.fields.iter_mut().find(|(known, _)| known == name);
        let field = field.unwrap_or_else(|| panic!("no field {name} in {}", self.page));
        value.clone_into(&mut field.1);
    }

    fn get(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(known, _)| known == name);
        &field.unwrap_or_else(|| panic!("no field {name} in {}", self.page)).1
    }

    /// Presses a button: whatever comes back is in the editor's hands.
    async fn press(&mut self, what: &str) -> StatusCode {
        let is_there = what == "apply" || self.page.contains(&format!("name=\"do\" value=\"{what}\""));
        assert!(is_there, "no button {what} in {}", self.page);
        let mut fields: Vec<(&str, &str)> =
            self.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        fields.push(("do", what));
        let response = self.visitor.post(&self.path, &fields).await;
        let status = response.status();
        let location = header(&response, "location");
        self.page = if status == StatusCode::SEE_OTHER {
            assert!(location.starts_with(&self.path), "{location}");
            self.visitor.page(&location).await
        } else {
            response.text().await.unwrap()
        };
        self.fields = fields_of(&self.page);
        status
    }

    /// Presses a button that changes the draft, and nothing else.
    async fn step(&mut self, what: &str) {
        assert_eq!(self.press(what).await, StatusCode::OK, "{what}: {}", self.page);
    }

    #[track_caller]
    fn shows(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.page.contains(text), "{text} in {}", self.page);
        }
    }
}

/// Names and values of the form, as a browser sends them.
fn fields_of(page: &str) -> Vec<(String, String)> {
    let form = page.split_once("<form class=\"flow\"").map_or("", |(_, form)| form);
    let mut fields = Vec::new();
    for tag in form.split('<') {
        let (head, rest) = tag.split_once('>').unwrap_or((tag, ""));
        let attribute = |name: &str| {
            head.split_once(&format!(" {name}=\"")).map(|(_, rest)| text(rest.split('"').next().unwrap()))
        };
        let Some(name) = attribute("name") else {
            if head.starts_with("option")
                && head.ends_with(" selected")
                && let Some((_, value)) = fields.last_mut()
            {
                *value = attribute("value").unwrap_or_default();
            }
            continue;
        };
        if head.starts_with("input") {
            if !head.contains("type=\"checkbox\"") || head.ends_with(" checked") {
                fields.push((name, attribute("value").unwrap_or_default()));
            }
        } else if head.starts_with("select") {
            fields.push((name, String::new()));
        } else if head.starts_with("textarea") {
            fields.push((name, text(rest.strip_prefix('\n').unwrap_or(rest))));
        }
    }
    fields
}

fn text(html: &str) -> String {
    [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")]
        .iter()
        .fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

async fn shop(tracker: &Tracker) -> Value {
    let offers = json!([{ "name": "World shop", "url": "https://shop.example/?c={click_id}" }]);
    tracker.campaign(json!({ "key": "shop", "name": "Shop", "offers": offers })).await
}

async fn stored(tracker: &Tracker) -> Value {
    tracker.show("/campaigns/shop").await
}

#[tokio::test]
async fn a_flow_is_written_step_by_step_and_stored_when_it_is_saved() {
    let tracker = Tracker::start("flow_steps").await;
    let campaign = shop(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut editor = Editor::open(&visitor, &campaign).await;
    editor.shows(&["Everybody else", "Default path", "World shop", "100\u{a0}%"]);

    editor.step("add-rule").await;
    editor.shows(&["Not saved yet", "id=\"at\""]);
    editor.set("name", "German iPhones");
    editor.set("time_zone", "Europe/Berlin");
    editor.set("w0-values", "DE, AT");
    editor.step("more.w").await;
    assert_eq!(editor.get("w0-values"), "DE\nAT", "what was typed came back");
    editor.set("w1-dimension", "parameter");
    editor.set("w1-name", "utm");
    editor.set("w1-test", "starts");
    editor.set("w1-values", "news");
    editor.step("more.w").await;
    editor.step("less.w.2").await;
    editor.step("open.r0p0").await;
    editor.shows(&["country is DE or AT", "parameter utm starts with news"]);
    editor.set("name", "Long page");
    editor.set("weight", "3");
    editor.set("o0-name", "German shop");
    editor.set("o0-url", "https://shop-de.example/?c={click_id}");
    editor.set("o0-payout", "2.50");
    editor.set("o0-currency", "eur");
    for step in ["more.l", "more.l.direct", "more.c", "more.o", "more.o0c"] {
        editor.step(step).await;
    }
    editor.set("l0-name", "Lander");
    editor.set("l0-url", "https://lander.example/?o={out_url}");
    editor.set("c0-limit", "500");
    editor.set("c0-per", "hour");
    editor.set("o0c0-limit", "7");
    editor.set("o1-name", "Second");
    editor.set("o1-url", "https://second.example/");
    editor.step("before.o.1").await;
    assert_eq!((editor.get("o0-name"), editor.get("o1-name")), ("Second", "German shop"));
    editor.step("before.l.1").await;
    editor.step("add-path.r0").await;
    editor.set("o0-name", "Other");
    editor.set("o0-url", "https://other.example/");
    editor.step("more.w").await;
    editor.set("w0-dimension", "device");
    editor.set("w0-values", "mobile");
    editor.step("close").await;
    editor.shows(&[
        "75\u{a0}%",
        "25\u{a0}%",
        "Only if",
        "device is mobile",
        "At most 500 clicks an hour",
        "pays 2.50 EUR",
    ]);
    assert_eq!(stored(&tracker).await["rules"], json!([]), "nothing was saved");

    assert_eq!(editor.press("save").await, StatusCode::SEE_OTHER, "{}", editor.page);
    editor.shows(&["The changes are saved."]);
    assert!(!editor.page.contains("Not saved yet"), "{}", editor.page);
    let now = stored(&tracker).await;
    let rule = &now["rules"][0];
    assert_eq!((&rule["name"], &rule["time_zone"]), (&json!("German iPhones"), &json!("Europe/Berlin")));
    let when = json!([{ "dimension": "country", "is": ["DE", "AT"] }, { "dimension": "parameter", "name": "utm", "starts": ["news"] }]);
    assert_eq!(rule["when"], when);
    let path = &rule["paths"][0];
    assert_eq!((&path["name"], &path["weight"]), (&json!("Long page"), &json!(3)));
    assert_eq!(
        (&path["landing_pages"][0]["direct"], &path["landing_pages"][1]["name"]),
        (&json!(true), &json!("Lander"))
    );
    assert_eq!(path["caps"][0], json!({ "of": "clicks", "limit": 500, "per": "hour", "time_zone": null }));
    assert_eq!(path["offers"][1]["payout"], json!({ "amount": "2.50", "currency": "EUR" }));
    assert_eq!(path["offers"][1]["caps"][0]["limit"], 7);
    assert_eq!(rule["paths"][1]["when"], json!([{ "dimension": "device", "is": ["mobile"] }]));
    assert_eq!(now["offers"], campaign["offers"], "the default path is as it was, with its ids");
}

#[tokio::test]
async fn rules_and_paths_change_places_and_go_and_what_is_left_keeps_its_id() {
    let tracker = Tracker::start("flow_places").await;
    let offer = |name: &str| json!([{ "name": name, "url": format!("https://{name}.example/") }]);
    let campaign = tracker
        .campaign(json!({ "key": "shop", "name": "Shop", "offers": offer("world"), "rules": [{
            "name": "Germans", "when": [{ "dimension": "country", "is": ["DE"] }],
            "paths": [{ "name": "Long", "offers": offer("long") }, { "name": "Short", "offers": offer("short") }],
        }] }))
        .await;
    let rule = &campaign["rules"][0];
    let path = &rule["paths"][0];
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut editor = Editor::open(&visitor, &campaign).await;
    editor.step("add-rule").await;
    editor.set("name", "Swiss");
    editor.set("w0-values", "CH");
    editor.step("open.r1p0").await;
    editor.set("o0-name", "Swiss shop");
    editor.set("o0-url", "https://ch.example/");
    editor.step("up.r1").await;
    editor.step("down.r1p0").await;
    assert_eq!(editor.press("save").await, StatusCode::SEE_OTHER, "{}", editor.page);
    let moved = stored(&tracker).await;
    assert_eq!((&moved["rules"][0]["name"], &moved["rules"][1]["id"]), (&json!("Swiss"), &rule["id"]));
    assert_eq!(moved["rules"][1]["paths"][1]["id"], path["id"], "it kept its id in its new place");
    editor.step("remove.r0").await;
    editor.step("remove.r0p0").await;
    editor.step("add-path.d").await;
    editor.set("o0-name", "Half");
    editor.set("o0-url", "https://half.example/");
    editor.step("open.dp0").await;
    editor.set("active", "");
    assert_eq!(editor.press("save").await, StatusCode::SEE_OTHER, "{}", editor.page);
    let last = stored(&tracker).await;
    assert_eq!((last["rules"].as_array().unwrap().len(), last["paths"].as_array().unwrap().len()), (1, 2));
    assert_eq!(
        (&last["paths"][0]["is_active"], &last["rules"][0]["paths"][0]["id"]),
        (&json!(false), &path["id"])
    );
    assert_eq!(last["paths"][0]["offers"][0]["id"], campaign["offers"][0]["id"]);
    editor.shows(&["inactive"]);
}

#[tokio::test]
async fn what_the_api_refuses_stands_beside_its_field_and_what_was_typed_stays() {
    let tracker = Tracker::start("flow_faults").await;
    let campaign = shop(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut editor = Editor::open(&visitor, &campaign).await;
    editor.step("add-rule").await;
    editor.set("w0-values", "Germany");
    editor.step("open.r0p0").await;
    editor.set("weight", "many");
    editor.set("o0-name", "Mine");
    editor.set("o0-url", "ftp://x");
    editor.step("more.c").await;
    assert_eq!(editor.press("save").await, StatusCode::UNPROCESSABLE_ENTITY);
    editor.shows(&[
        "This could not be saved.",
        "id=\"weight-fault\">It must be a whole number.",
        "id=\"o0-url-fault\"",
        "id=\"c0-limit-fault\"",
        "value=\"ftp://x\"",
        "value=\"many\"",
    ]);
    let rule = between(&editor.page, "<li class=\"card rule", "<ul class=\"paths\">");
    assert!(rule.contains("class=\"fault\""), "what is not open says so, too: {rule}");
    editor.step("open.r0").await;
    assert_eq!(editor.get("w0-values"), "Germany");
    assert_eq!(editor.press("save").await, StatusCode::UNPROCESSABLE_ENTITY);
    editor.shows(&["id=\"w0-values-fault\""]);
    // a rule without conditions is not taken for the default rule
    editor.step("less.w.0").await;
    editor.step("open.r0p0").await;
    editor.set("weight", "1");
    editor.set("o0-url", "https://x.example/");
    editor.set("c0-limit", "5");
    assert_eq!(editor.press("save").await, StatusCode::UNPROCESSABLE_ENTITY);
    editor.shows(&["must have a criterion"]);
    assert_eq!(stored(&tracker).await["version"], campaign["version"]);

    let broken = visitor.post(&editor.path, &[("do", "save"), ("draft", "{\"rules\":1}")]).await;
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST, "a form that is not whole changes nothing");
    assert_eq!(stored(&tracker).await["version"], campaign["version"]);
}

#[tokio::test]
async fn two_people_who_write_one_flow_lose_nothing() {
    let tracker = Tracker::start("flow_merge").await;
    let offer = |name: &str| json!([{ "name": "p", "offers": [{ "name": name, "url": format!("https://{name}.example/") }] }]);
    let rule = |name: &str, country: &str| json!({ "name": name, "when": [{ "dimension": "country", "is": [country] }], "paths": offer("first") });
    let campaign = tracker
        .campaign(json!({ "key": "shop", "name": "Shop", "rules": [rule("One", "DE"), rule("Two", "FR")],
            "offers": [{ "name": "rest", "url": "https://rest.example/" }] }))
        .await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut mine = Editor::open(&visitor, &campaign).await;
    let mut theirs = Editor::open(&visitor, &campaign).await;
    theirs.step("open.r0").await;
    theirs.set("name", "One of theirs");
    theirs.step("add-rule").await;
    theirs.set("name", "Three of theirs");
    theirs.set("w0-values", "ES");
    theirs.step("open.r2p0").await;
    theirs.set("o0-name", "spain");
    theirs.set("o0-url", "https://spain.example/");
    assert_eq!(theirs.press("save").await, StatusCode::SEE_OTHER, "{}", theirs.page);

    mine.step("open.r1").await;
    mine.set("name", "Two of mine");
    assert_eq!(mine.press("save").await, StatusCode::PRECONDITION_FAILED);
    mine.shows(&[
        "Somebody else changed this campaign meanwhile",
        "Two of mine",
        "One of theirs: if country is DE",
        "Three of theirs: if country is ES",
    ]);
    assert_eq!(stored(&tracker).await["rules"][1]["name"], "Two", "nothing of mine is stored yet");
    let ids: Vec<i64> = stored(&tracker).await["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].as_i64().unwrap())
        .collect();
    mine.step(&format!("take.{}", ids[0])).await;
    mine.shows(&["Somebody else changed this campaign meanwhile", "Three of theirs: if"]);
    mine.step(&format!("take.{}", ids[2])).await;
    assert_eq!(mine.press("save").await, StatusCode::SEE_OTHER, "{}", mine.page);
    let names = |campaign: &Value| -> Vec<String> {
        campaign["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let merged = stored(&tracker).await;
    assert_eq!(names(&merged), ["One of theirs", "Two of mine", "Three of theirs"]);
    assert_eq!(merged["rules"][2]["id"], ids[2], "it is the rule that they made");
    // one that keeps its own has it stored
    theirs.step("open.dp0").await;
    theirs.set("name", "x");
    theirs.set("o0-name", "rest of theirs");
    assert_eq!(theirs.press("save").await, StatusCode::PRECONDITION_FAILED, "mine was quicker this time");
    assert_eq!(theirs.press("save").await, StatusCode::SEE_OTHER);
    assert_eq!(stored(&tracker).await["offers"][0]["name"], "rest of theirs");
}

#[tokio::test]
async fn a_made_up_visitor_is_led_through_what_is_being_written() {
    let tracker = Tracker::start("flow_explain").await;
    let offer =
        |name: &str| json!([{ "name": name, "url": format!("https://{name}.example/?c={{click_id}}") }]);
    let campaign = tracker
        .campaign(json!({ "key": "shop", "name": "Shop", "offers": offer("world"), "rules": [
            { "name": "Germans", "when": [{ "dimension": "country", "is": ["DE"] }], "paths": [{ "name": "p", "offers": offer("german") }] },
        ] }))
        .await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut editor = Editor::open(&visitor, &campaign).await;
    editor.set("v-ip", GERMAN);
    editor.set("v-agent", "iphone");
    editor.set("v-url", "utm=news");
    editor.step("explain").await;
    editor.shows(&[
        "https://german.example/?c=",
        "Takes this visitor",
        "Seen as: DE, mobile, iOS",
        "Not reached",
    ]);
    // a rule of the draft that stands before it takes him, and the stored flow is as it was
    editor.step("add-rule").await;
    editor.set("name", "News");
    editor.set("w0-dimension", "parameter");
    editor.set("w0-name", "utm");
    editor.set("w0-values", "news");
    editor.step("open.r1p0").await;
    editor.set("o0-name", "letter");
    editor.set("o0-url", "https://letter.example/");
    editor.step("up.r1").await;
    editor.shows(&["https://letter.example/", "which is not saved yet"]);
    let first = between(&editor.page, "<ol class=\"rules\">", "<div class=\"inner\">");
    assert!(first.contains("card rule taken") && first.contains("1. News"), "{first}");
    editor.set("v-url", "utm=other");
    editor.set("v-ip", "8.8.8.8");
    editor.step("apply").await;
    editor.shows(&[
        "parameter utm is news: here it is other",
        "country is DE: here it is US",
        "https://world.example/?c=",
        "this visitor",
    ]);
    assert_eq!(stored(&tracker).await["rules"].as_array().unwrap().len(), 1);

    editor.set("v-ip", "somewhere");
    assert_eq!(editor.press("explain").await, StatusCode::UNPROCESSABLE_ENTITY);
    editor.shows(&["id=\"v-ip-fault\"", "value=\"somewhere\"", "Not saved yet"]);
    editor.set("v-ip", GERMAN);
    editor.step("open.r0").await;
    editor.set("w0-test", "is");
    editor.set("w0-name", "");
    assert_eq!(editor.press("explain").await, StatusCode::UNPROCESSABLE_ENTITY);
    editor.shows(&["This cannot be explained yet.", "id=\"w0-name-fault\""]);

    // who may only look has visitors explained, and writes nothing
    let token = tracker.octo.api(&tracker.token).request(Method::POST, "/tokens");
    let token: Value =
        token.json(&json!({ "name": "r", "scope": "read" })).send().await.unwrap().json().await.unwrap();
    let reader = Visitor::signed_in(&tracker.octo, token["token"].as_str().unwrap()).await;
    let mut looking = Editor::open(&reader, &campaign).await;
    assert!(!looking.page.contains("value=\"save\"") && !looking.page.contains("value=\"open.r0\""));
    looking.set("v-ip", GERMAN);
    looking.step("explain").await;
    looking.shows(&["https://german.example/?c="]);
    let mut fields: Vec<(&str, &str)> =
        looking.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    fields.push(("do", "save"));
    assert_eq!(reader.post(&looking.path, &fields).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_picture_says_what_is_used_of_caps_and_who_gets_how_much() {
    let tracker = Tracker::start("flow_caps").await;
    let cap = json!([{ "of": "clicks", "limit": 2, "per": "day" }]);
    let library = tracker
        .api(Method::POST, "/offers")
        .json(&json!({ "name": "Shelf", "url": "https://shelf.example/" }));
    let library: Value = library.send().await.unwrap().json().await.unwrap();
    let campaign = tracker
        .campaign(json!({ "key": "shop", "name": "Shop", "paths": [
            { "name": "A", "weight": 3, "caps": cap, "offers": [{ "name": "a", "url": "https://a.example/" }] },
            { "name": "B", "weight": 1, "is_active": false, "offers": [{ "name": "b", "url": "https://b.example/" }] },
        ] }))
        .await;
    for _ in 0..3 {
        tracker.octo.get("/click?cid=shop").await;
    }
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut editor = Editor::open(&visitor, &campaign).await;
    editor.shows(&["At most 2 clicks a day: <b>", "used</b>", "inactive", "0\u{a0}%"]);
    editor.step("open.dp1").await;
    editor.step("more.o.library").await;
    let id = library["id"].to_string();
    editor.set("o1-id", &id);
    editor.step("apply").await;
    editor.shows(&["Shelf", "library"]);
    editor.set("v-agent", "windows");
    editor.step("explain").await;
    assert_eq!(editor.press("save").await, StatusCode::SEE_OTHER, "{}", editor.page);
    let entry = &stored(&tracker).await["paths"][1]["offers"][1];
    assert_eq!((&entry["library"], &entry["id"]), (&json!(true), &library["id"]));
}

#[tokio::test]
async fn a_clone_has_everything_but_the_clicks_and_is_made_once() {
    let tracker = Tracker::start("flow_clone").await;
    let campaign = tracker
        .campaign(json!({ "key": "shop", "name": "Shop", "payout": { "amount": "2.00", "currency": "EUR" }, "rules": [
            { "name": "R", "when": [{ "dimension": "country", "is": ["DE"] }], "paths": [{ "name": "p", "offers": [{ "name": "o", "url": "https://o.example/" }] }] },
        ], "offers": [{ "name": "w", "url": "https://w.example/" }] }))
        .await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let path = format!("/ui/campaigns/{}", campaign["id"].as_str().unwrap());
    assert!(visitor.page(&path).await.contains(&format!("href=\"{path}/clone\">Clone</a>")));
    let page = visitor.page(&format!("{path}/clone")).await;
    assert!(
        page.contains("no clicks, conversions or costs are copied") && page.contains("value=\"Shop (copy)\""),
        "{page}"
    );
    let attempt = between(&page, "name=\"attempt\" value=\"", "\"").to_owned();
    let taken = visitor
        .post(&format!("{path}/clone"), &[("name", " "), ("key", "shop"), ("attempt", &attempt)])
        .await;
    assert_eq!(taken.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(taken.text().await.unwrap().contains("id=\"name-fault\""));
    let fields = [("name", "Autumn"), ("key", "autumn"), ("attempt", attempt.as_str())];
    let made = visitor.post(&format!("{path}/clone"), &fields).await;
    let location = header(&made, "location");
    assert_eq!(made.status(), StatusCode::SEE_OTHER, "{}", made.text().await.unwrap());
    let again = visitor.post(&format!("{path}/clone"), &fields).await;
    assert_eq!(header(&again, "location"), location, "sent twice it is made once");
    assert!(location.ends_with("/settings?done=cloned") && !location.starts_with(&path), "{location}");
    assert!(visitor.page(&location).await.contains("The copy is made."));
    let copy = tracker.show("/campaigns/autumn").await;
    assert_eq!(
        (&copy["name"], &copy["status"], &copy["payout"]),
        (&json!("Autumn"), &json!("draft"), &campaign["payout"])
    );
    assert_eq!(copy["rules"][0]["when"], campaign["rules"][0]["when"]);
    assert_ne!(copy["rules"][0]["id"], campaign["rules"][0]["id"]);
    assert_eq!(tracker.show("/campaigns").await["data"].as_array().unwrap().len(), 2);

    let ids = [&campaign["id"], &copy["id"]].map(|id| id.as_str().unwrap());
    let marked = [("id", ids[0]), ("id", ids[1]), ("action", "clone")];
    let marked = visitor.post("/ui/campaigns", &marked).await;
    let page = visitor.page(&header(&marked, "location")).await;
    assert!(
        page.contains("2 campaigns cloned; the copies are drafts.") && page.contains("Autumn (copy)"),
        "{page}"
    );
}

/// The page of the flow, in a tab of somebody who is signed in.
async fn flow_of(page: &Page, campaign: &Value) {
    page.go(&format!("http://octo.example/ui/campaigns/{}/flow", campaign["id"].as_str().unwrap())).await;
    page.wait_for("document.querySelector('form.flow')").await;
}

async fn press(page: &Page, what: &str) {
    page.click(&format!("button[name=do][value='{what}']")).await;
}

async fn has(page: &Page, selector: &str) {
    page.wait_for(&format!("document.querySelector({})", json!(selector))).await;
}

async fn has_text(page: &Page, text: &str) {
    page.wait_for(&format!("document.body.textContent.includes({})", json!(text))).await;
}

async fn a_rule_is_added_explained_saved_and_obeyed(has_scripts: bool) {
    let stage = Stage::set("ui_flow", has_scripts).await;
    let campaign = shop(&stage.tracker).await;
    let page = stage.signed_in().await;
    flow_of(&page, &campaign).await;
    press(&page, "add-rule").await;
    has(&page, "#w0-values").await;
    page.fill("#name", "Letters to iPhones").await;
    page.fill("#w0-dimension", "parameter").await;
    page.fill("#w0-name", "utm").await;
    page.fill("#w0-values", "news").await;
    press(&page, "more.w").await;
    has(&page, "#w1-values").await;
    page.fill("#w1-dimension", "os").await;
    page.fill("#w1-values", "iOS").await;
    press(&page, "open.r0p0").await;
    has(&page, "#o0-url").await;
    page.fill("#o0-name", "Letter shop").await;
    page.fill("#o0-url", "ftp://nowhere").await;
    press(&page, "save").await;
    has(&page, "#o0-url-fault").await; // it stays open, with what was typed
    page.fill("#o0-url", "https://letter.example/?c={click_id}").await;
    press(&page, "close").await;
    page.wait_for("!document.getElementById('o0-url') && document.querySelector('.rule')").await;

    page.click("details.visitor summary").await;
    page.wait_for("document.querySelector('details.visitor').open").await;
    page.fill("#v-agent", "iphone").await;
    page.fill("#v-url", "utm=news").await;
    press(&page, "explain").await;
    has(&page, ".result").await;
    has_text(&page, "which is not saved yet").await;
    assert_eq!(page.eval("document.querySelectorAll('.rule.taken').length").await, 1);
    assert_eq!(
        page.eval("document.querySelector('.rule.taken h2').textContent").await,
        "1. Letters to iPhones"
    );
    assert_eq!(stage.tracker.show("/campaigns/shop").await["rules"], json!([]));
    press(&page, "save").await;
    has_text(&page, "The changes are saved.").await;

    for (path, wanted) in
        [("/click?cid=shop&utm=news", "letter.example"), ("/click?cid=shop", "shop.example")]
    {
        let request =
            stage.tracker.octo.client().get(stage.tracker.octo.url(path)).header("user-agent", IPHONE);
        let location = header(&request.send().await.unwrap(), "location");
        assert!(location.starts_with(&format!("https://{wanted}/?c=")), "{path}: {location}");
    }
    let errors: Vec<String> =
        page.console().await.into_iter().filter(|said| !said.contains("status of 422")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

async fn two_people_write_one_flow() {
    let stage = Stage::set("ui_flow_two", false).await;
    let campaign = shop(&stage.tracker).await;
    let (mine, theirs) = (stage.signed_in().await, stage.browser.new_page().await);
    flow_of(&mine, &campaign).await;
    flow_of(&theirs, &campaign).await;
    for (page, name) in [(&theirs, "Theirs"), (&mine, "Mine")] {
        press(page, "open.dp0").await;
        has(page, "#o0-name").await;
        page.fill("#o0-name", name).await;
        press(page, "save").await;
        has_text(
            page,
            if name == "Mine" { "Somebody else changed this campaign" } else { "The changes are saved." },
        )
        .await;
    }
    has_text(&mine, "Mine").await;
    has_text(&mine, "Theirs (https://shop.example/").await;
    press(&mine, "take.d").await;
    mine.wait_for("!document.querySelector('.stored')").await;
    press(&mine, "save").await;
    has_text(&mine, "The changes are saved.").await;
    assert_eq!(stored(&stage.tracker).await["offers"][0]["name"], "Theirs");
}

/// Goes on by the tabulator until this has the focus.
async fn tab_to(page: &Page, selector: &str) {
    for _ in 0..150 {
        page.key("Tab").await;
        let is_there = format!("!!document.activeElement?.matches({})", json!(selector));
        if page.eval(&is_there).await == true {
            return;
        }
    }
    panic!("the tabulator does not lead to {selector}");
}

async fn a_rule_is_added_moved_and_saved_by_the_keyboard_alone() {
    let stage = Stage::set("ui_flow_keys", false).await;
    let campaign = shop(&stage.tracker).await;
    let page = stage.signed_in().await;
    flow_of(&page, &campaign).await;
    for (nth, (name, country)) in [("Germans", "DE"), ("Swiss", "CH")].into_iter().enumerate() {
        tab_to(&page, "button[value=add-rule]").await;
        page.key("Enter").await;
        page.wait_for(&format!("document.getElementById('name')?.value === 'Rule {}'", nth + 1)).await;
        tab_to(&page, "#name").await;
        page.type_text(name).await;
        tab_to(&page, "#w0-values").await;
        page.type_text(country).await;
        tab_to(&page, &format!("button[value='open.r{nth}p0']")).await;
        page.key("Space").await;
        has(&page, "#o0-name").await;
        tab_to(&page, "#o0-name").await;
        page.type_text(name).await;
        tab_to(&page, "#o0-url").await;
        page.type_text(&format!("https://{}.example/", country.to_lowercase())).await;
        page.key("Enter").await; // in a field: what was typed goes into the picture, and nothing else happens
        has_text(&page, &format!("{}.example", country.to_lowercase())).await;
    }
    tab_to(&page, "button[value='up.r1']").await;
    page.key("Space").await;
    page.wait_for("document.querySelector('.rule h2')?.textContent === '1. Swiss'").await;
    tab_to(&page, "button[value=save]").await;
    page.key("Enter").await;
    has_text(&page, "The changes are saved.").await;
    let rules = stored(&stage.tracker).await["rules"].clone();
    assert_eq!((&rules[0]["name"], &rules[1]["name"]), (&json!("Swiss"), &json!("Germans")));
    assert_eq!(rules[0]["when"], json!([{ "dimension": "country", "is": ["CH"] }]));
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn a_rule_is_added_explained_saved_and_obeyed_with_javascript() {
        super::a_rule_is_added_explained_saved_and_obeyed(true).await;
    }

    #[tokio::test]
    async fn a_rule_is_added_explained_saved_and_obeyed_without_javascript() {
        super::a_rule_is_added_explained_saved_and_obeyed(false).await;
    }

    #[tokio::test]
    async fn two_people_write_one_flow() {
        super::two_people_write_one_flow().await;
    }

    #[tokio::test]
    async fn a_rule_is_added_moved_and_saved_by_the_keyboard_alone() {
        super::a_rule_is_added_moved_and_saved_by_the_keyboard_alone().await;
    }
}
