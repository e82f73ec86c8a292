//! Costs that are entered later, and reports of networks beside what is stored.

use chrono::{Days, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    pages::HOSTILE,
    sessions::{Visitor, between, code},
};
use crate::{
    harness::{Browser, Engine, Page, eventually},
    tracker::{SOON, Table, Tracker, header},
};

async fn wait_conversions(tracker: &Tracker, count: i64) {
    eventually(SOON, async || {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM conversions").fetch_one(&tracker.pool).await?;
        anyhow::ensure!(stored == count, "{stored} conversions");
        Ok(())
    })
    .await;
}

/// Four clicks of `sale`, two of each `sub1`, and a conversion of 20.00.
async fn sale(tracker: &Tracker) -> (String, Vec<Uuid>) {
    let campaign = tracker.simple_campaign("sale").await;
    let mut clicks = Vec::new();
    for n in 0..4 {
        clicks.push(tracker.click(&format!("/click?cid=sale&sub1=zone-{}", n % 2)).await.1);
    }
    tracker.wait_rows(Table::Clicks, 4).await;
    tracker
        .octo
        .get(&format!("/postback?click_id={}&payout=20.00&currency=USD&status=approved", clicks[0]))
        .await;
    wait_conversions(tracker, 1).await;
    (campaign["id"].as_str().unwrap().to_owned(), clicks)
}

/// Days around today, so that a test at midnight has its clicks in them.
fn days() -> (String, String) {
    let today = Utc::now().date_naive();
    ((today - Days::new(1)).to_string(), (today + Days::new(2)).to_string())
}

#[tokio::test]
async fn budgets_are_set_by_the_settings_of_a_campaign_which_say_what_is_spent() {
    let tracker = Tracker::start("ui_budgets").await;
    let (id, _) = sale(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let path = format!("/ui/campaigns/{id}/settings");
    let page = visitor.page(&path).await;
    let version = between(&page, "name=\"version\" value=\"", "\"").to_owned();
    let with = |amount: &'static str| {
        let mut fields =
            vec![("name", "Sale"), ("key", "sale"), ("status", "active"), ("version", &*version)];
        fields.extend([("daily_budget", amount), ("daily_budget_currency", "usd"), ("total_budget", "")]);
        fields
    };
    let bad = visitor.post(&path, &with("much")).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(bad.text().await.unwrap().contains("id=\"daily_budget-fault\""));
    let saved = visitor.post(&path, &with("12.50")).await;
    assert_eq!(saved.status(), StatusCode::SEE_OTHER, "{}", saved.text().await.unwrap());
    let stored = tracker.show(&format!("/campaigns/{id}")).await;
    assert_eq!(stored["daily_budget"], json!({ "amount": "12.50", "currency": "USD" }));
    assert_eq!(stored["total_budget"], Value::Null);
    let page = visitor.page(&path).await;
    assert!(page.contains("Today: 0.00 of 12.50 USD are spent."), "{page}");
}

#[tokio::test]
async fn a_cost_is_entered_seen_and_taken_back_as_by_the_api() {
    let tracker = Tracker::start("ui_costs").await;
    let (id, _) = sale(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    assert!(visitor.page("/ui/costs").await.contains("No costs were entered later"));
    let (from, to) = days();
    let new = visitor.page("/ui/costs/new?campaign=sale").await;
    let attempt = between(&new, "name=\"attempt\" value=\"", "\"");
    let fields = [
        ("attempt", attempt),
        ("campaign", "sale"),
        ("begins", &*from),
        ("ends", &*to),
        ("zone", "UTC"),
        ("kind", "total"),
        ("amount", "12,50"),
        ("unit", "USD"),
        ("spread", "valid"),
        ("d1", "sub1"),
        ("v1", "zone-0 | zone-1"),
        ("note", "invoice 4711"),
    ];
    let looked = visitor.post("/ui/costs/new", &[&fields[..], &[("action", "look")]].concat()).await;
    assert_eq!(looked.status(), StatusCode::OK);
    let looked = looked.text().await.unwrap();
    assert!(looked.contains("The campaign has 4 clicks in this range, of which 4 count."), "{looked}");
    assert_eq!(tracker.show("/costs").await["data"], json!([]), "looking stores nothing");

    let made = visitor.post("/ui/costs/new", &fields).await;
    let location = header(&made, "location");
    assert_eq!(made.status(), StatusCode::SEE_OTHER, "{}", made.text().await.unwrap());
    let again = visitor.post("/ui/costs/new", &fields).await;
    assert_eq!(header(&again, "location"), location, "sent twice it is stored once");
    let stored = tracker.show("/costs").await;
    let [cost] = stored["data"].as_array().unwrap().as_slice() else { panic!("{stored}") };
    assert_eq!(
        (&cost["amount"], &cost["filters"], &cost["note"], &cost["is_live"]),
        (&json!("12.50"), &json!({ "sub1": ["zone-0", "zone-1"] }), &json!("invoice 4711"), &json!(true))
    );
    let page = visitor.page(&location).await;
    assert!(page.contains("The cost is stored.") && page.contains("<dt>Unallocated</dt><dd>0.00 USD</dd>"));
    assert!(page.contains("<dt>Clicks that bear it</dt><dd>4</dd>"), "{page}");
    let page = visitor.page("/ui/costs?campaign=sale").await;
    for text in ["12.50 USD", "sub1 is zone-0 or zone-1", "invoice 4711", ">counts<"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let campaign = visitor.page(&format!("/ui/campaigns/{id}")).await;
    assert!(campaign.contains("12.50") && campaign.contains("+7.50"), "20.00 less 12.50: {campaign}");

    // the same range and filters said again supersede it, and are void after one question
    let like = visitor.page(&format!("/ui/costs/new?like={}", cost["id"].as_str().unwrap())).await;
    assert!(like.contains("value=\"zone-0|zone-1\"") && like.contains("value=\"12.50\""), "{like}");
    let mut newer = fields;
    newer[0].1 = "";
    newer[6].1 = "8";
    let newer = header(&visitor.post("/ui/costs/new", &newer).await, "location");
    let page = visitor.page("/ui/costs").await;
    assert!(page.contains(">superseded<") && page.contains("8.00 USD"), "{page}");
    let path = newer.split('?').next().unwrap();
    assert!(visitor.page(path).await.contains("What it had superseded counts again."));
    let void = visitor.post(&format!("{path}/void"), &[]).await;
    assert_eq!(header(&void, "location"), format!("{path}?done=voided"));
    let page = visitor.page(&format!("{path}?done=voided")).await;
    assert!(page.contains("The cost is void.") && !page.contains("Void this cost"), "{page}");
    assert!(visitor.page(&location).await.contains(">counts<"), "what was superseded counts again");
    let (void, said) =
        (visitor.page("/ui/costs?state=void").await, visitor.page("/ui/costs?state=said").await);
    assert!(void.contains("8.00 USD") && !void.contains("12.50 USD"));
    assert!(said.contains("12.50 USD") && !said.contains("8.00 USD"));
}

#[tokio::test]
async fn a_cost_that_cannot_be_is_refused_beside_its_fields_and_what_no_click_bears_is_shown() {
    let tracker = Tracker::start("ui_cost_faults").await;
    sale(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let bad = [
        ("campaign", "sale"),
        ("begins", "yesterday"),
        ("ends", "2026-11-02"),
        ("zone", "Mars/Phobos"),
        ("kind", "total"),
        ("amount", HOSTILE[1]),
        ("d1", "source"),
        ("v1", "x"),
    ];
    let refused = visitor.post("/ui/costs/new", &bad).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let refused = refused.text().await.unwrap();
    for field in ["begins", "zone", "amount", "v1"] {
        assert!(refused.contains(&format!("id=\"{field}-fault\"")), "{field}: {refused}");
    }
    assert!(refused.contains("value=\"yesterday\"") && !refused.contains("<img"), "what was typed stays");
    let unknown = [
        ("campaign", "nobodys"),
        ("begins", "2026-11-01"),
        ("ends", "2026-11-02"),
        ("kind", "factor"),
        ("amount", "2"),
    ];
    let unknown = visitor.post("/ui/costs/new", &unknown).await;
    assert_eq!(unknown.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(unknown.text().await.unwrap().contains("id=\"campaign-fault\""));
    assert!(
        visitor
            .page("/ui/costs?campaign=nobodys")
            .await
            .contains("There is no campaign with this id or key.")
    );

    let (from, to) = days();
    let fields = [
        ("campaign", "sale"),
        ("begins", &*from),
        ("ends", &*to),
        ("kind", "total"),
        ("amount", "3"),
        ("unit", "EUR"),
        ("d1", "sub1"),
        ("v1", "nowhere"),
    ];
    let made = visitor.post("/ui/costs/new", &fields).await;
    let page = visitor.page(&header(&made, "location")).await;
    assert!(page.contains("<dt>Unallocated</dt><dd>3.00 EUR</dd>"), "{page}");

    let read = json!({ "name": "reader", "scope": "read" });
    let read: Value =
        tracker.api(Method::POST, "/tokens").json(&read).send().await.unwrap().json().await.unwrap();
    let reader = Visitor::signed_in(&tracker.octo, read["token"].as_str().unwrap()).await;
    assert!(!reader.page("/ui/costs").await.contains("Enter a cost"));
    assert_eq!(reader.post("/ui/costs/new", &fields).await.status(), StatusCode::FORBIDDEN);
}

/// A network and a report with a line of each kind; the click of one of them.
async fn report(tracker: &Tracker) -> (String, String, Uuid) {
    let made =
        json!({ "name": "Net", "currency": "USD", "status_map": [{ "word": "1", "status": "approved" }] });
    let network: Value = tracker
        .api(Method::POST, "/affiliate-networks")
        .json(&made)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let offer =
        json!({ "name": "o", "url": "https://offer.example/", "affiliate_network_id": network["id"] });
    let offer: Value =
        tracker.api(Method::POST, "/offers").json(&offer).send().await.unwrap().json().await.unwrap();
    let offers = json!([{ "id": offer["id"], "library": true }]);
    tracker.campaign(json!({ "key": "net", "name": "Net", "offers": offers })).await;
    let key = network["postback_key"].as_str().unwrap();
    eventually(SOON, async || {
        let asked = tracker.octo.client().head(tracker.octo.url(&format!("/postback/{key}"))).send().await?;
        anyhow::ensure!(asked.status() == 200, "the key is not known yet");
        Ok(())
    })
    .await;
    let (clicks_before, before): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM clicks), (SELECT count(*) FROM conversions)")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    let mut clicks = Vec::new();
    for _ in 0..7 {
        clicks.push(tracker.click("/click?cid=net").await.1);
    }
    tracker.wait_rows(Table::Clicks, clicks_before + 7).await;
    for (i, query) in [
        (0, "txid=m&payout=5&status=1"),
        (1, "txid=a&payout=5&status=1"),
        (2, "txid=s&payout=5&status=1"),
        (3, "txid=d&payout=5&status=1"),
        (4, "txid=t&payout=5&status=1"),
        (5, "txid=y&payout=5&status=1"),
    ] {
        let told = tracker.octo.get(&format!("/postback/{key}?subid={}&{query}", clicks[i])).await;
        assert_eq!(told.status(), StatusCode::OK, "{query}");
    }
    wait_conversions(tracker, before + 6).await;
    let line = |i: usize, rest: &str| format!("{},{rest}\n", clicks[i]);
    let long_ago = Utc::now().date_naive() - Days::new(20);
    let csv = ["click_id,txid,payout,status,date\n".to_owned()]
        .into_iter()
        .chain([
            line(0, "m,5.00,1,"),
            line(1, "a,5.50,1,"),
            line(2, "s,5.00,rejected,"),
            line(3, "d,5.00,1,"),
            line(3, "d,5.00,1,"),
            line(5, &format!("y,5.00,1,{long_ago}")),
            line(6, "h,4.00,1,"),
        ])
        .collect();
    (network["id"].to_string(), csv, clicks[6])
}

/// What comes of it: outcome, where it was lost.
const FOUND: [(&str, &str); 6] = [
    ("Other amount", "changed"),
    ("Other status", "changed"),
    ("Doubled", "twice there"),
    ("Other day", "changed"),
    ("Missing here", "never arrived"),
    ("Missing there", "approved"),
];

#[tokio::test]
async fn a_report_of_a_network_is_compared_line_by_line_and_nothing_of_it_is_kept() {
    let tracker = Tracker::start("ui_reconciliation").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    assert!(visitor.page("/ui/reconciliation").await.contains("No affiliate networks yet"));
    let (network, csv, missing) = report(&tracker).await;
    let read = json!({ "name": "reader", "scope": "read" });
    let read: Value =
        tracker.api(Method::POST, "/tokens").json(&read).send().await.unwrap().json().await.unwrap();
    let reader = Visitor::signed_in(&tracker.octo, read["token"].as_str().unwrap()).await;
    let (from, to) = days();
    let asked =
        [("network", &*network), ("begins", &*from), ("ends", &*to), ("zone", "UTC"), ("report", &*csv)];
    let found = reader.post("/ui/reconciliation", &asked).await;
    assert_eq!(found.status(), StatusCode::OK, "a question: a token of scope read will do");
    let found = found.text().await.unwrap();
    for (outcome, hop) in FOUND {
        let row = between(&found, &format!("<tr>\n<th scope=\"row\">{outcome}</th>\n"), "</tr>");
        assert!(row.contains(&format!("<td>{hop}</td>")), "{outcome}: {row}");
    }
    assert!(found.contains("<th scope=\"row\">Matched</th><td class=\"number-column\">2</td>"), "{found}");
    assert!(found.contains(&format!("href=\"/ui/clicks/{missing}\"")), "each leads to its click: {found}");
    assert!(found.contains("7 lines, 6 conversions of the range here"), "{found}");

    let bad =
        [("network", &*network), ("begins", "x"), ("ends", &*to), ("zone", "Mars"), ("report", HOSTILE[3])];
    let bad = visitor.post("/ui/reconciliation", &bad).await;
    assert!(bad.status().is_client_error());
    let bad = bad.text().await.unwrap();
    assert!(bad.contains("id=\"begins-fault\"") && bad.contains("id=\"zone-fault\""), "{bad}");
    assert!(!bad.contains("<svg"), "what was typed stays text");
    let empty = [("network", &*network), ("begins", &*from), ("ends", &*to)];
    let empty = visitor.post("/ui/reconciliation", &empty).await.text().await.unwrap();
    assert!(empty.contains("id=\"report-fault\""), "{empty}");
}

async fn signed_in(tracker: &Tracker, browser: &Browser, has_scripts: bool) -> Page {
    let page = browser.new_page().await;
    if !has_scripts {
        page.without_scripts().await;
    }
    let code = code(&tracker.octo).await;
    page.go(&format!("http://octo.example/ui#t={code}")).await;
    if !has_scripts {
        page.wait_for("document.getElementById('secret')").await;
        page.fill("#secret", &code).await;
        page.click("button.first").await;
    }
    page.wait_for("document.querySelector('h1')?.textContent === 'Overview'").await;
    page
}

async fn a_later_cost_is_entered_seen_and_taken_back(has_scripts: bool) {
    let name = format!("ui_cost_journey_{}", if has_scripts { "js" } else { "plain" });
    let tracker = Tracker::start(&name).await;
    let browser = Browser::start(Engine::Chromium, &[("octo.example", tracker.octo.addr())]).await;
    let (id, _) = sale(&tracker).await;
    let page = signed_in(&tracker, &browser, has_scripts).await;
    let campaign = format!("http://octo.example/ui/campaigns/{id}");
    page.go("http://octo.example/ui/costs").await;
    page.click("a.button.first").await;
    page.wait_for("document.getElementById('amount')").await;
    let (from, to) = days();
    page.fill("#campaign", "sale").await;
    page.fill("#begins", &from).await;
    page.fill("#ends", &to).await;
    page.fill("#amount", "12.50").await;
    page.click("button[value=look]").await;
    page.wait_for("document.getElementById('preview')?.textContent.includes('4 clicks')").await;
    page.click("button[value=save]").await;
    page.wait_for("document.querySelector('.notice')?.textContent.includes('is stored')").await;
    let address = page.eval("location.href").await;
    page.go(&campaign).await;
    page.wait_for("[...document.querySelectorAll('.headline')].some(it => it.textContent.includes('12.50')) && document.body.textContent.includes('+7.50')").await;

    page.go(address.as_str().unwrap()).await;
    page.click("details summary").await;
    page.click("details form button").await;
    page.wait_for("document.querySelector('.notice')?.textContent.includes('is void')").await;
    page.go(&campaign).await;
    page.wait_for("document.querySelector('.headline') && document.body.textContent.includes('+20.00')")
        .await;
    assert_eq!(page.eval("document.body.textContent.includes('12.50')").await, false, "it is gone again");

    let (network, csv, missing) = report(&tracker).await;
    page.go("http://octo.example/ui/reconciliation").await;
    page.fill("#network", &network).await;
    page.fill("#begins", &from).await;
    page.fill("#ends", &to).await;
    page.fill("#report", &csv).await;
    page.click("form.tall button.first").await;
    page.wait_for("document.getElementById('found')").await;
    for (outcome, hop) in FOUND {
        let is_there = format!(
            "[...document.querySelectorAll('table.list tbody tr')].some(row => row.textContent.includes('{outcome}') && row.textContent.includes('{hop}'))"
        );
        assert_eq!(page.eval(&is_there).await, true, "{outcome}");
    }
    page.click(&format!("a[href$='/ui/clicks/{missing}']")).await;
    page.wait_for("document.querySelector('ol.story li')").await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

mod chromium {
    #[tokio::test]
    async fn a_later_cost_is_entered_seen_and_taken_back_with_javascript() {
        super::a_later_cost_is_entered_seen_and_taken_back(true).await;
    }

    #[tokio::test]
    async fn a_later_cost_is_entered_seen_and_taken_back_without_javascript() {
        super::a_later_cost_is_entered_seen_and_taken_back(false).await;
    }
}
