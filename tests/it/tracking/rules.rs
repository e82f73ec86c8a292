//! Rules, paths, landing pages and offers over HTTP: where clicks go, what is stored of it, and what explains it.

use std::collections::BTreeMap;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::api::answer,
    tracker::{Table, Tracker, header},
};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";
const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
/// Registered in Germany, and in the United States.
const GERMAN: &str = "91.1.2.3";
const AMERICAN: &str = "8.8.8.8";

async fn start(name: &str) -> Tracker {
    Tracker::start_with(name, |octo| octo.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")).await
}

/// A campaign with a rule for German iPhones, a rule for a parameter, and a default.
fn campaign() -> Value {
    json!({
        "key": "shop",
        "name": "Shop",
        "rules": [
            {
                "name": "German iPhones",
                "when": [{"dimension": "country", "is": ["DE"]}, {"dimension": "os", "is": ["iOS"]}],
                "paths": [{
                    "name": "Long page",
                    "landing_pages": [{"name": "Lander", "url": "https://lander.example/?c={click_id}"}],
                    "offers": [{"name": "German shop", "url": "https://shop-de.example/?c={click_id}"}],
                }],
            },
            {
                "name": "Newsletter",
                "when": [{"dimension": "parameter", "name": "utm", "starts": ["news"]}],
                "paths": [{"name": "Letter", "offers": [{"name": "Letter shop", "url": "https://letter.example/"}]}],
            },
        ],
        "offers": [{"name": "World shop", "url": "https://shop.example/?c={click_id}"}],
    })
}

async fn click(tracker: &Tracker, path: &str, ip: &str, agent: &str) -> (Response, Uuid) {
    let request = tracker.octo.client().get(tracker.octo.url(path));
    let response = request.header("x-forwarded-for", ip).header("user-agent", agent).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND, "{path}");
    let id = header(&response, "x-click-id").parse().unwrap();
    (response, id)
}

fn host(response: &Response) -> String {
    let location = header(response, "location");
    location.split('/').nth(2).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_first_rule_that_holds_takes_the_click_and_the_story_says_why() {
    let tracker = start("rules_story").await;
    let made = tracker.campaign(campaign()).await;
    for (path, ip, agent, wanted) in [
        ("/c/shop", GERMAN, IPHONE, "lander.example"),
        ("/c/shop", GERMAN, WINDOWS, "shop.example"),
        ("/c/shop", AMERICAN, IPHONE, "shop.example"),
        ("/c/shop?utm=newsletter-7", AMERICAN, WINDOWS, "letter.example"),
        ("/c/shop?utm=news", GERMAN, IPHONE, "lander.example"),
        ("/c/shop", "192.0.2.1", IPHONE, "shop.example"),
    ] {
        assert_eq!(host(&click(&tracker, path, ip, agent).await.0), wanted, "{path} {ip}");
    }
    let (_, id) = click(&tracker, "/c/shop?sub1=x", GERMAN, IPHONE).await;
    tracker.wait_rows(Table::Clicks, 7).await;
    let story = tracker.show(&format!("/clicks/{id}/story")).await;
    let decision = &story["decision"];
    let rule = &made["rules"][0];
    assert_eq!(decision["rule"], json!({"id": rule["id"], "name": "German iPhones"}));
    assert_eq!(decision["path"], json!({"id": rule["paths"][0]["id"], "name": "Long page"}));
    let page = &rule["paths"][0]["landing_pages"][0];
    assert_eq!(decision["landing_page"], json!({"id": page["id"], "name": "Lander"}));
    assert_eq!(decision["why"], json!([]), "the first choice");
    assert_eq!(story["chapters"][0]["kind"], "click");
    assert_eq!(story["click"]["sub1"], "x");

    let (_, default) = click(&tracker, "/c/shop", AMERICAN, WINDOWS).await;
    tracker.wait_rows(Table::Clicks, 8).await;
    let stored = tracker.show(&format!("/clicks/{default}")).await;
    assert_eq!((&stored["rule_id"], &stored["path_id"]), (&json!(0), &json!(0)));
    assert_eq!(stored["campaign_offer_id"], made["offers"][0]["id"]);
}

#[tokio::test]
async fn a_bot_goes_where_a_person_with_its_agent_goes() {
    let tracker = start("rules_bots").await;
    tracker.campaign(campaign()).await;
    let bot = format!("{IPHONE} (compatible; Googlebot/2.1; +http://www.google.com/bot.html)");
    let (person, _) = click(&tracker, "/c/shop", GERMAN, IPHONE).await;
    let (robot, id) = click(&tracker, "/c/shop", GERMAN, &bot).await;
    assert_eq!((host(&person).as_str(), host(&robot).as_str()), ("lander.example", "lander.example"));
    tracker.wait_rows(Table::Clicks, 2).await;
    let stored = tracker.show(&format!("/clicks/{id}")).await;
    assert_eq!((&stored["device"], &stored["invalid_reason"]), (&json!("bot"), &json!("bot")));
}

#[tokio::test]
async fn what_is_explained_is_where_the_click_went() {
    let tracker = start("rules_explain").await;
    let mut body = campaign();
    body["paths"] = json!([
        {"name": "one", "weight": 3, "offers": [{"name": "a", "url": "https://a.example/"}, {"name": "b", "url": "https://b.example/"}]},
        {"name": "two", "weight": 1, "offers": [{"name": "c", "url": "https://c.example/"}]},
    ]);
    body.as_object_mut().unwrap().remove("offers");
    tracker.campaign(body).await;
    let mut hosts = BTreeMap::new();
    for _ in 0..20 {
        let (response, id) = click(&tracker, "/c/shop?sub1=q", AMERICAN, WINDOWS).await;
        let visitor = json!({"url": "https://t.example/c/shop?sub1=q", "ip": AMERICAN, "user_agent": WINDOWS, "click_id": id});
        let request = tracker.api(Method::POST, "/campaigns/shop/explain").json(&visitor);
        let (status, explained) = answer(request).await;
        assert_eq!(status, StatusCode::OK, "{explained}");
        assert_eq!(explained["location"], header(&response, "location"));
        assert_eq!(explained["rules"][0]["outcome"], "not_met");
        assert_eq!(
            explained["rules"][0]["when"][0],
            json!({"dimension": "country", "name": null, "value": "US", "holds": false})
        );
        assert_eq!(explained["rules"][2]["outcome"], "taken");
        *hosts.entry(host(&response)).or_insert(0) += 1;
        let probability = |offer: &str| {
            let id = explained["rules"][2]["paths"].as_array().unwrap().iter().find_map(|path| {
                path["offers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|o| o["name"] == offer)
                    .map(|o| o["id"].clone())
            });
            let ways = explained["ways"].as_array().unwrap();
            ways.iter().find(|way| Some(&way["offer_id"]) == id.as_ref()).unwrap()["probability"]
                .as_f64()
                .unwrap()
        };
        assert!((probability("a") - 0.375).abs() < 1e-9 && (probability("c") - 0.25).abs() < 1e-9);
    }
    assert!(hosts.len() >= 2, "{hosts:?}");
    let bad = json!({"ip": "somewhere", "click_id": "x", "moon": 1});
    let (status, problem) = answer(tracker.api(Method::POST, "/campaigns/shop/explain").json(&bad)).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (StatusCode::UNPROCESSABLE_ENTITY, 3));
}

#[tokio::test]
async fn the_command_line_explains_too() {
    let tracker = start("rules_cli").await;
    tracker.campaign(campaign()).await;
    let args = ["explain", "https://t.example/c/shop?sub1=q", "--ip", GERMAN, "--user-agent", IPHONE];
    let output = tracker.octo.run(&args).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for wanted in [
        "country DE",
        "rule German iPhones",
        "takes him",
        "landing page Lander",
        "https://lander.example/?c=",
        "rule Newsletter",
        "is not reached",
        "100.0 %",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let unknown = tracker.octo.run(&["explain", "/c/none"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no campaign with the key none"));
}

#[tokio::test]
async fn what_is_shown_can_be_written_back_and_ids_are_kept() {
    let tracker = start("rules_round_trip").await;
    let made = tracker.campaign(campaign()).await;
    let mut whole = made.clone();
    for read_only in ["id", "version", "created_at", "updated_at", "click_url"] {
        whole.as_object_mut().unwrap().remove(read_only);
    }
    let (status, same) = answer(tracker.api(Method::PATCH, "/campaigns/shop").json(&whole)).await;
    assert_eq!(status, StatusCode::OK, "{same}");
    assert_eq!((&same["rules"], &same["offers"]), (&made["rules"], &made["offers"]));
    // the list of 0.1.0 reads and writes the default rule alone
    let offers = json!({"offers": [{"id": made["offers"][0]["id"], "name": "World shop", "url": "https://shop.example/?c={click_id}", "weight": 5}]});
    let (_, changed) = answer(tracker.api(Method::PATCH, "/campaigns/shop").json(&offers)).await;
    assert_eq!((&changed["rules"], &changed["offers"][0]["weight"]), (&made["rules"], &json!(5)));
    assert_eq!(changed["offers"][0]["id"], made["offers"][0]["id"]);
    // a new path keeps the ids of the others
    let mut rules = made["rules"].clone();
    rules[0]["paths"]
        .as_array_mut()
        .unwrap()
        .push(json!({"offers": [{"name": "n", "url": "https://n.example/"}]}));
    let (_, more) =
        answer(tracker.api(Method::PATCH, "/campaigns/shop").json(&json!({"rules": rules}))).await;
    assert_eq!(more["rules"][0]["paths"][0], made["rules"][0]["paths"][0]);
    assert!(more["rules"][0]["paths"][1]["id"].as_i64().unwrap() > 0);
    let bad =
        json!({"rules": [{"when": [{"dimension": "country", "is": ["DE", "AT", "Germany"]}], "paths": []}]});
    let (status, problem) = answer(tracker.api(Method::PATCH, "/campaigns/shop").json(&bad)).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/rules/0/when/0/is/2"))
    );
}
