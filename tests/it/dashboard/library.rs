//! The library, the links of a campaign and the first steps: by HTTP, and as a journey in a browser.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    pages::HOSTILE,
    sessions::{Visitor, between},
};
use crate::{
    harness::{Browser, Engine, Octo, Page, eventually},
    tracker::{SOON, Table, Tracker, header},
};

/// How soon a line of the first steps is ticked off.
const TICKED: Duration = Duration::from_secs(2);
/// How soon a click is in the totals.
const COUNTED: Duration = Duration::from_secs(5);

/// A form that is sent, which must lead on; where to.
async fn sent(visitor: &Visitor<'_>, path: &str, fields: &[(&str, &str)]) -> String {
    let response = visitor.post(path, fields).await;
    let (status, location) = (response.status(), header(&response, "location"));
    assert_eq!(status, StatusCode::SEE_OTHER, "{path}: {}", response.text().await.unwrap());
    location
}

/// A form that is refused.
async fn refused(visitor: &Visitor<'_>, path: &str, fields: &[(&str, &str)], status: u16) -> String {
    let response = visitor.post(path, fields).await;
    let (found, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(found.as_u16(), status, "{path}: {text}");
    text
}

async fn version(visitor: &Visitor<'_>, path: &str) -> String {
    between(&visitor.page(path).await, "name=\"version\" value=\"", "\"").to_owned()
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&#60;", "<").replace("&#62;", ">").replace("&#34;", "\"")
}

/// Of each part of the library: its fields, and where the API shows one of them.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

const CASES: [Case; 4] = [
    (
        "sources",
        "/traffic-sources",
        &[
            ("parameters.name", "zone"),
            ("parameters.macro", "{zone}"),
            ("parameters.slot", "sub1"),
            ("parameters.unit", ""),
            ("parameters.currency", ""),
        ],
        "/parameters/0/slot",
        "sub1",
    ),
    (
        "networks",
        "/affiliate-networks",
        &[
            ("repeats", "add"),
            ("retry_window_s", "60"),
            ("sums_lists", "true"),
            ("postback_addresses", "198.51.100.0/24\r\n\r\n10.0.0.1"),
            ("status_map.word", "dep"),
            ("status_map.status", "approved"),
            ("status_map.goal", "deposit"),
        ],
        "/status_map/0/goal",
        "deposit",
    ),
    (
        "landers",
        "/landing-pages",
        &[("url", "https://page.example/?c={click_id}")],
        "/url",
        "https://page.example/?c={click_id}",
    ),
    (
        "offers",
        "/offers",
        &[
            ("url", "https://offer.example/?c={click_id}"),
            ("payout", "1.5"),
            ("payout_currency", "eur"),
            ("caps.limit", "100"),
            ("caps.of", "conversions"),
            ("caps.per", "day"),
            ("caps.time_zone", "Europe/Berlin"),
        ],
        "/caps/0/time_zone",
        "Europe/Berlin",
    ),
];

#[tokio::test]
async fn an_entry_of_each_part_of_the_library_is_made_changed_put_away_and_removed_by_forms() {
    let tracker = Tracker::start("ui_library").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    for (shelf, noun, fields, pointer, wanted) in CASES {
        let list = format!("/ui/library/{shelf}");
        assert!(visitor.page(&list).await.contains("None yet"), "{shelf}");
        let new = format!("{list}/new");
        let attempt = between(&visitor.page(&new).await, "name=\"attempt\" value=\"", "\"").to_owned();
        let with = |name: &'static str| {
            let mut all = vec![("name", name), ("attempt", attempt.as_str())];
            all.extend_from_slice(fields);
            all
        };
        let bad = refused(&visitor, &new, &with(" "), 422).await;
        assert!(bad.contains("id=\"name-fault\""), "{shelf}: {bad}");
        let location = sent(&visitor, &new, &with("First")).await;
        assert_eq!(
            sent(&visitor, &new, &with("First")).await,
            location,
            "sent twice it is made once: {shelf}"
        );
        let path = location.strip_suffix("?done=made").unwrap();
        let id = path.rsplit('/').next().unwrap();
        let stored = tracker.show(&format!("{noun}/{id}")).await;
        assert_eq!(stored.pointer(pointer).and_then(Value::as_str), Some(wanted), "{stored}");
        assert!(visitor.page(&location).await.contains("is made."));

        // what the page shows, sent back as it is, changes nothing
        let before = stored.clone();
        let mut same = with("First");
        let seen = version(&visitor, path).await;
        same.push(("version", &seen));
        let key = before["postback_key"].as_str().unwrap_or_default();
        same.push(("postback_key", key));
        sent(&visitor, path, &same).await;
        assert_eq!(tracker.show(&format!("{noun}/{id}")).await, before, "{shelf}");

        let mut theirs = with("Theirs");
        theirs.extend([("version", seen.as_str()), ("postback_key", key)]);
        sent(&visitor, path, &theirs).await;
        let mut mine = with("Mine");
        mine.extend([("version", seen.as_str()), ("postback_key", key)]);
        let merge = refused(&visitor, path, &mine, 412).await;
        assert!(merge.contains("Somebody else changed this"), "{shelf}: {merge}");
        assert!(merge.contains("Stored now: <b>Theirs</b>") && merge.contains("value=\"Mine\""), "{merge}");
        let newer = between(&merge, "name=\"version\" value=\"", "\"").to_owned();
        mine.retain(|(name, _)| *name != "version");
        mine.push(("version", &newer));
        sent(&visitor, path, &mine).await;
        let page = visitor.page(&format!("{list}?q=min")).await;
        assert!(page.contains(">Mine</a>") && page.contains("nobody"), "{page}");
        assert!(visitor.page(&format!("{list}?q=other")).await.contains("None is called so"));

        put_away_and_removed(&visitor, &list, path, &seen).await;
    }
    let missing = visitor.request(Method::GET, "/ui/library/evil").send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

/// The end of an entry that is called `Mine`; `seen` is a version that it had before.
async fn put_away_and_removed(visitor: &Visitor<'_>, list: &str, path: &str, seen: &str) {
    refused(visitor, path, &[("action", "remove"), ("version", seen)], 412).await;
    let now = version(visitor, path).await;
    sent(visitor, path, &[("action", "archive"), ("version", &now)]).await;
    assert!(visitor.page(list).await.contains("None yet"), "it is put away");
    let archived = visitor.page(&format!("{list}?archived=true")).await;
    assert!(archived.contains(">Mine</a>"), "{archived}");
    let now = version(visitor, path).await;
    sent(visitor, path, &[("action", "restore"), ("version", &now)]).await;
    let now = version(visitor, path).await;
    assert_eq!(
        sent(visitor, path, &[("action", "remove"), ("version", &now)]).await,
        format!("{list}?done=removed")
    );
    let gone = visitor.request(Method::GET, path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND, "{path}");
}

/// A source, a network, an offer of it and a landing page, and a campaign that uses them all; the ids of the five.
async fn used(tracker: &Tracker, name: &str) -> [Value; 5] {
    let make = async |noun: &str, body: Value| {
        let response = tracker.api(Method::POST, noun).json(&body).send().await.unwrap();
        let (status, made) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(status, StatusCode::CREATED, "{noun}: {made}");
        made["id"].clone()
    };
    let source = make("/traffic-sources", json!({ "template": "propellerads", "name": name })).await;
    let network = make("/affiliate-networks", json!({ "template": "everflow", "name": name })).await;
    let offer = json!({ "name": name, "url": "https://offer.example/", "affiliate_network_id": network });
    let offer = make("/offers", offer).await;
    let lander = make("/landing-pages", json!({ "name": name, "url": "https://page.example/" })).await;
    let campaign = tracker
        .campaign(json!({
            "key": "uses", "name": format!("Uses {name}"), "traffic_source_id": source,
            "landing_pages": [{ "library": true, "id": lander }], "offers": [{ "library": true, "id": offer }],
        }))
        .await;
    [source, network, offer, lander, campaign["id"].clone()]
}

#[tokio::test]
async fn who_uses_an_entry_stands_beside_it_and_what_is_used_is_not_removed() {
    let tracker = Tracker::start("ui_uses").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let [source, network, offer, lander, campaign] = used(&tracker, "Shoes").await;
    let address = format!("<a href=\"/ui/campaigns/{}\">Uses Shoes</a>", campaign.as_str().unwrap());
    for (shelf, id) in [("sources", source), ("networks", network), ("landers", lander), ("offers", offer)] {
        let list = visitor.page(&format!("/ui/library/{shelf}")).await;
        assert!(list.contains(&address), "{shelf}: {list}");
        let path = format!("/ui/library/{shelf}/{id}");
        let page = visitor.page(&path).await;
        assert!(
            page.contains(&address) && page.contains("cannot be removed while campaigns use it"),
            "{page}"
        );
        let seen = version(&visitor, &path).await;
        let kept = refused(&visitor, &path, &[("action", "remove"), ("version", &seen)], 409).await;
        assert!(kept.contains("It is in use."), "{kept}");
    }
}

#[tokio::test]
async fn a_template_fills_in_the_form_and_an_empty_row_is_added_where_one_is_missing() {
    let tracker = Tracker::start("ui_templates").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let page = visitor.page("/ui/library/sources/new?template=propellerads").await;
    assert!(page.contains("value=\"PropellerAds\"") && page.contains("value=\"${SUBID}\""), "{page}");
    assert!(
        page.contains("id=\"parameters-6-name\"") && !page.contains("id=\"parameters-7-name\""),
        "{page}"
    );
    let more = visitor
        .post("/ui/library/sources/new", &[("action", "more"), ("name", "x"), ("parameters.name", "a")])
        .await;
    assert_eq!(more.status(), StatusCode::OK);
    let more = more.text().await.unwrap();
    assert!(more.contains("id=\"parameters-8-name\"") && more.contains("value=\"a\""), "{more}");
    let bad = [
        ("name", "x"),
        ("parameters.name", ""),
        ("parameters.name", "a b"),
        ("parameters.slot", ""),
        ("parameters.slot", "sub1"),
    ];
    let bad = refused(&visitor, "/ui/library/sources/new", &bad, 422).await;
    assert!(bad.contains("id=\"parameters-0-name-fault\"") && bad.contains("value=\"a b\""), "{bad}");
    let made =
        [("template", "everflow"), ("name", "Everflow"), ("repeats", "update"), ("click_id_macro", "{sub1}")];
    let location = sent(&visitor, "/ui/library/networks/new", &made).await;
    let path = location.split('?').next().unwrap();
    let id = path.rsplit('/').next().unwrap();
    let network = tracker.show(&format!("/affiliate-networks/{id}")).await;
    assert_eq!(network["template"], "everflow");
    let shown = visitor.page(path).await;
    assert!(unescaped(&shown).contains(network["postback_url"].as_str().unwrap()), "{shown}");

    let reader = tracker
        .api(Method::POST, "/tokens")
        .json(&json!({ "name": "r", "scope": "read" }))
        .send()
        .await
        .unwrap();
    let reader: Value = reader.json().await.unwrap();
    let reader = Visitor::signed_in(&tracker.octo, reader["token"].as_str().unwrap()).await;
    let shown = reader.page(path).await;
    assert!(!shown.contains(">Save</button>") && !shown.contains("Put it away"), "{shown}");
    assert_eq!(reader.post(path, &[("name", "evil")]).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn links_per_source_are_those_of_the_api_and_values_of_ones_own_stand_in_a_built_one() {
    let tracker = Tracker::start("ui_links_page").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let [source, network, .., campaign] = used(&tracker, "Shoes").await;
    let path = format!("/ui/campaigns/{}/links", campaign.as_str().unwrap());
    let value = |page: &str, id: &str| unescaped(between(page, &format!("id=\"{id}\" value=\""), "\""));
    let page = visitor.page(&path).await;
    let links = tracker.show("/campaigns/uses/links").await;
    for (id, name) in [
        ("click", "click"),
        ("short", "short"),
        ("parameters", "parameters"),
        ("out", "out"),
        ("pixel", "pixel"),
    ] {
        assert_eq!(value(&page, id), links[name].as_str().unwrap(), "{id}");
    }
    let network = tracker.show(&format!("/affiliate-networks/{network}")).await;
    let id = format!("postback-{}", network["id"]);
    assert_eq!(value(&page, &id), network["postback_url"].as_str().unwrap());
    assert!(!page.contains("This campaign is not one of"), "{page}");

    let plain = visitor.page(&format!("{path}?source=none&p_sub1=a+b&p_sub2=%7Bzone%7D")).await;
    let base = format!("{}/click?cid=uses", tracker.octo.url(""));
    assert_eq!(value(&plain, "click"), base);
    assert_eq!(value(&plain, "built"), format!("{base}&sub1=a%20b&sub2={{zone}}"));
    let other = tracker
        .api(Method::POST, "/traffic-sources")
        .json(&json!({ "template": "mgid" }))
        .send()
        .await
        .unwrap();
    let other: Value = other.json().await.unwrap();
    let foreign = visitor.page(&format!("{path}?source={}", other["id"])).await;
    assert!(foreign.contains("This campaign is not one of MGID"), "{foreign}");
    tracker
        .api(Method::PATCH, "/campaigns/uses")
        .json(&json!({ "traffic_source_id": other["id"] }))
        .send()
        .await
        .unwrap();
    let links = tracker.show("/campaigns/uses/links").await;
    assert_eq!(
        value(&foreign, "click"),
        links["click"].as_str().unwrap(),
        "as the API says it once it is its source"
    );
    assert_ne!(other["id"], source);
}

#[tokio::test]
async fn what_strangers_wrote_is_text_in_the_library_too() {
    let tracker = Tracker::start("ui_library_hostile").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let name: String = HOSTILE[..6].join(" ");
    let [source, network, offer, lander, campaign] = used(&tracker, &name).await;
    let mut paths =
        vec![format!("/ui/campaigns/{}/links", campaign.as_str().unwrap()), "/ui/first-steps".to_owned()];
    for (shelf, id) in [("sources", source), ("networks", network), ("landers", lander), ("offers", offer)] {
        paths.extend([format!("/ui/library/{shelf}"), format!("/ui/library/{shelf}/{id}")]);
    }
    for path in paths {
        let page = visitor.page(&path).await;
        for markup in ["<script>", "<img", "onload=window.pwned=1>", "49{", "<svg onload"] {
            assert!(!page.contains(markup), "{markup} on {path}");
        }
        assert_eq!(page.matches("<script").count(), 1, "but our own: {path}");
    }
}

#[tokio::test]
async fn first_steps_are_ticked_off_by_a_test_click_that_is_not_valid_and_a_conversion_that_pays_nothing() {
    let tracker = Tracker::start("ui_first_steps").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let done = |page: &str| page.matches("<li class=\"done\"").count();
    let page = visitor.page("/ui/first-steps").await;
    assert_eq!((done(&page), page.contains("New campaign")), (0, true), "{page}");
    assert!(visitor.page("/ui").await.contains("/ui/first-steps"), "the overview leads there");
    tracker.simple_campaign("steps").await;
    let page = visitor.page("/ui/first-steps").await;
    assert_eq!(done(&page), 1, "{page}");
    let test = unescaped(between(&page, "octo_test=", "\""));
    tracker.click(&format!("/click?cid=steps&octo_test={test}")).await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let page = visitor.page("/ui/first-steps").await;
    assert!(done(&page) == 2 && page.contains("a test click, which is stored as"), "{page}");
    let told = unescaped(between(&page, "<p class=\"mono small address\">", "</p>"));
    assert!(visitor.page("/ui").await.contains("/ui/first-steps"), "there is no conversion yet");
    tracker.octo.get(told.strip_prefix(&tracker.octo.url("")).unwrap()).await;
    eventually(SOON, async || {
        let page = visitor.page("/ui/first-steps").await;
        ensure!(done(&page) == 3, "{page}");
        Ok(())
    })
    .await;
    let to = Utc::now() + TimeDelta::hours(1);
    let asked =
        json!({ "group_by": ["campaign"], "measures": ["valid_clicks", "conversions", "revenue"], "to": to });
    let report = tracker.api(Method::POST, "/reports").json(&asked).send().await.unwrap();
    let report: Value = report.json().await.unwrap();
    let figures = ["valid_clicks", "conversions", "revenue"].map(|name| &report["totals"][name]);
    assert_eq!(figures, [&json!(0), &json!(1), &json!("0.00")], "{report}");
    assert_eq!(tracker.show("/conversions").await["data"][0]["goal"], "test");
}

/// Waits until an expression is true of a page that is opened again where it does not change by itself.
async fn until(page: &Page, has_scripts: bool, url: &str, within: Duration, expression: &str) {
    let begun = Instant::now();
    if has_scripts {
        page.wait_for(expression).await;
    } else {
        eventually(within, async || {
            page.go(url).await;
            ensure!(page.eval(expression).await == true, "{expression} is not true of {url}");
            Ok(())
        })
        .await;
    }
    let took = begun.elapsed();
    assert!(took < within, "{expression} took {took:?}");
}

async fn from_the_printed_link_to_the_first_conversion(has_scripts: bool) {
    let octo = Octo::builder().start().await;
    eventually(SOON, async || {
        ensure!(octo.stderr().contains("/ui#t="), "no link yet");
        Ok(())
    })
    .await;
    let code = between(&octo.stderr(), "/ui#t=", " ").to_owned();
    let browser = Browser::start(Engine::Chromium, &[]).await;
    let page = browser.new_page().await;
    if !has_scripts {
        page.without_scripts().await;
    }
    page.go(&octo.url(&format!("/ui#t={code}"))).await;
    if !has_scripts {
        page.wait_for("document.getElementById('secret')").await;
        page.fill("#secret", &code).await;
        page.click("button.first").await;
    }
    page.wait_for("document.querySelector('h1')?.textContent === 'First steps'").await;
    let done = |count: u32| format!("document.querySelectorAll('li.done').length === {count}");
    page.wait_for(&done(1)).await; // the demo campaign
    page.click("#steps a[href='/ui/campaigns/new']").await;
    page.wait_for("document.getElementById('offer_url')").await;
    page.fill("#name", "First").await;
    page.fill("#offer_url", "https://offer.example/?c={click_id}").await;
    page.fill("#key", "first").await;
    page.click("form.tall button.first").await;
    page.wait_for("document.querySelector('.notice')?.textContent.includes('The campaign is made')").await;
    let link = page.eval("document.getElementById('click').value").await.as_str().unwrap().to_owned();
    assert_eq!(link, octo.url("/click?cid=first"));
    page.fill("#p_sub1", "my ad").await;
    if has_scripts {
        page.eval("document.getElementById('p_sub1').dispatchEvent(new Event('input', { bubbles: true }))")
            .await;
    } else {
        page.click("form.build button").await;
    }
    page.wait_for(&format!("document.getElementById('built')?.value === '{link}&sub1=my%20ad'")).await;
    if has_scripts {
        page.click("[data-copy=click]").await;
        page.wait_for("document.querySelector('[data-copy=click]').textContent === 'Copied'").await;
    }

    let steps = octo.url("/ui/first-steps");
    page.go(&steps).await;
    page.wait_for(&format!("document.getElementById('click').value === '{link}'")).await;
    assert_eq!(octo.get("/click?cid=first").await.status(), StatusCode::FOUND);
    until(&page, has_scripts, &steps, TICKED, &done(2)).await;
    let told = page.eval("document.querySelector('.address').textContent").await;
    let told = told.as_str().unwrap().strip_prefix(&octo.url("")).unwrap().to_owned();
    assert_eq!(octo.get(&told).await.status(), StatusCode::OK);
    until(&page, has_scripts, &steps, COUNTED, &done(3)).await;
    let counted = "document.querySelector('.headline .number')?.textContent === '1'";
    until(&page, false, &octo.url("/ui"), COUNTED, counted).await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn from_the_printed_link_to_the_first_conversion_with_javascript() {
        super::from_the_printed_link_to_the_first_conversion(true).await;
    }

    #[tokio::test]
    async fn from_the_printed_link_to_the_first_conversion_without_javascript() {
        super::from_the_printed_link_to_the_first_conversion(false).await;
    }
}
