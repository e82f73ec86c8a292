//! What pages show and forms do, by HTTP: the same as the API, whatever strangers wrote, in few bytes.

use std::fmt::Write as _;

use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::sessions::{Visitor, between};
use crate::{
    harness::Octo,
    tracker::{Table, Tracker, header},
};

/// Every screen of a campaign and a click.
pub(super) fn screens(campaign: &str, click: &str) -> Vec<String> {
    let mut screens: Vec<String> = [
        "/ui",
        "/ui/campaigns",
        "/ui/campaigns/new",
        "/ui/report",
        "/ui/clicks",
        "/ui/clicks?kind=conversions",
        "/ui/first-steps",
        "/ui/library/sources",
        "/ui/library/networks",
        "/ui/library/sources/new?template=exoclick",
        "/ui/library/networks/new?template=adcombo",
        "/ui/library/landers/new",
        "/ui/library/offers/new",
        "/ui/health",
        "/ui/settings",
        "/ui/settings/rates",
        "/ui/costs",
        "/ui/costs/new",
        "/ui/reconciliation",
        "/ui/live",
    ]
    .map(str::to_owned)
    .into();
    for end in ["", "?g1=sub1&g2=sub2", "/flow", "/links", "/settings", "/clone"] {
        screens.push(format!("/ui/campaigns/{campaign}{end}"));
    }
    screens.push("/ui/report?g1=sub1&g2=referrer_host&g3=sub2&compare=previous".to_owned());
    screens.push("/ui/report?heat=profit&time=change".to_owned());
    screens.push(format!("/ui/clicks/{click}"));
    for path in ["conversions", "postbacks", "postbacks/replay", "deliveries"] {
        screens.push(format!("/ui/{path}"));
    }
    for tab in ["waiting", "orphan", "unmapped"] {
        screens.push(format!("/ui/conversions?tab={tab}"));
    }
    screens
}

#[tokio::test]
async fn figures_on_the_screen_are_those_of_the_api_and_of_the_csv() {
    let tracker = Tracker::start("ui_figures").await;
    let campaign = tracker
        .campaign(
            json!({ "key": "sale", "name": "Summer sale", "payout": { "amount": "2.50", "currency": "USD" },
            "offers": [{ "name": "o", "url": "https://offer.example/?c={click_id}" }] }),
        )
        .await;
    let mut clicks = Vec::new();
    for n in 0..5 {
        let (_, id) =
            tracker.click(&format!("/click?cid=sale&sub1=zone-{}&cost=0.40&currency=USD", n % 2)).await;
        clicks.push(id);
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    tracker
        .octo
        .get(&format!("/postback?click_id={}&payout=7.25&currency=USD&status=approved", clicks[0]))
        .await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    crate::harness::eventually(crate::tracker::SOON, async || {
        anyhow::ensure!(visitor.page("/ui/campaigns").await.contains("7.25"), "no revenue yet");
        Ok(())
    })
    .await;
    let id = campaign["id"].as_str().unwrap();
    // where nothing is said a report ends with the second before, a page with the hour
    let to = Utc::now() + TimeDelta::hours(1);
    let asked =
        json!({ "to": to, "group_by": ["sub1"], "measures": ["clicks", "revenue", "cost", "profit"] });
    let answer: Value =
        tracker.api(Method::POST, "/reports").json(&asked).send().await.unwrap().json().await.unwrap();
    let page = visitor.page("/ui/report?g1=sub1&m=clicks&m=revenue&m=cost&m=profit").await;
    for row in answer["rows"].as_array().unwrap() {
        let key = row["keys"]["sub1"].as_str().unwrap();
        let shown = between(&page, &format!(">{key}</a></th>"), "</tr>");
        for figure in ["revenue", "cost"] {
            let value = row["figures"][figure].as_str().unwrap();
            assert!(shown.contains(&format!(">{value}<")), "{figure} {value} in {shown}");
        }
    }
    assert!(page.contains(">+5.25<"), "profit has its sign: 7.25 less 5 clicks of 0.40");

    let csv = visitor
        .request(Method::GET, "/ui/report.csv?g1=sub1&m=clicks&m=revenue&m=cost&m=profit")
        .send()
        .await
        .unwrap();
    assert!(header(&csv, "content-type").starts_with("text/csv"));
    assert!(header(&csv, "content-disposition").starts_with("attachment; filename=\"report-"));
    let csv = csv.text().await.unwrap();
    for row in csv.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let shown = between(&page, &format!(">{}</a></th>", cells[0]), "</tr>");
        for cell in &cells[1..4] {
            assert!(shown.contains(&format!(">{cell}<")), "{cell} of {row} in {shown}");
        }
    }
    // from the table of campaigns a click away, and from there the clicks behind it
    let campaigns = visitor.page("/ui/campaigns").await;
    assert!(campaigns.contains(&format!("href=\"/ui/campaigns/{id}\"")) && campaigns.contains("Total of 1"));
    let drilled = visitor.page(&format!("/ui/campaigns/{id}?g1=sub1&g2=device&g3=os")).await;
    let next = between(&drilled, "<a href=\"", "\">zone-0</a>")
        .rsplit("<a href=\"")
        .next()
        .unwrap()
        .replace("&#38;", "&");
    let next = visitor.page(&next).await;
    assert!(next.contains("<h2>By Device</h2>") && next.contains("sub1 is zone-0"), "{next}");
    let story = visitor.page(&format!("/ui/clicks/{}", clicks[0])).await;
    assert!(
        story.contains("It counts.") && story.contains("7.25 USD") && story.contains("zone-0"),
        "{story}"
    );
    let found = visitor.request(Method::GET, &format!("/ui/clicks?q={}", clicks[1])).send().await.unwrap();
    assert_eq!(header(&found, "location"), format!("/ui/clicks/{}", clicks[1]));
}

#[tokio::test]
async fn a_campaign_is_made_changed_and_switched_by_forms_and_two_people_do_not_undo_each_other() {
    let tracker = Tracker::start("ui_forms").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    assert!(visitor.page("/ui/campaigns").await.contains("No campaigns yet"));
    let bad = visitor
        .post(
            "/ui/campaigns/new",
            &[
                ("name", " "),
                ("offer_url", "ftp://x"),
                ("key", "a b"),
                ("payout", "x"),
                ("payout_currency", "USD"),
            ],
        )
        .await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let bad = bad.text().await.unwrap();
    for field in ["name", "offer_url", "key", "payout"] {
        assert!(bad.contains(&format!("id=\"{field}-fault\"")), "{field}: {bad}");
    }
    assert!(bad.contains("value=\"ftp://x\"") && bad.contains("value=\"a b\""), "what was typed stays");

    let page = visitor.page("/ui/campaigns/new").await;
    let attempt = between(&page, "name=\"attempt\" value=\"", "\"");
    let fields = [
        ("name", "Autumn"),
        ("offer_url", "https://offer.example/?c={click_id}"),
        ("payout", "1.5"),
        ("payout_currency", "eur"),
        ("attempt", attempt),
    ];
    let made = visitor.post("/ui/campaigns/new", &fields).await;
    let location = header(&made, "location");
    assert_eq!(made.status(), StatusCode::SEE_OTHER, "{}", made.text().await.unwrap());
    let again = visitor.post("/ui/campaigns/new", &fields).await;
    assert_eq!(header(&again, "location"), location, "sent twice it is made once");
    assert!(visitor.page(&location).await.contains("The campaign is made."));
    let path = location.strip_suffix("/links?done=created").unwrap();
    let id = path.rsplit('/').next().unwrap();
    let campaign = tracker.show(&format!("/campaigns/{id}")).await;
    assert_eq!(campaign["payout"], json!({ "amount": "1.50", "currency": "EUR" }));
    assert_eq!(tracker.show("/campaigns").await["data"].as_array().unwrap().len(), 1);
    tracker.click(&format!("/click?cid={}", campaign["key"].as_str().unwrap())).await;

    let settings = format!("{path}/settings");
    let key = campaign["key"].as_str().unwrap();
    let save = async |name: &str, status: &str, version: &str| {
        let fields = [
            ("name", name),
            ("key", key),
            ("status", status),
            ("version", version),
            ("payout", "1.50"),
            ("payout_currency", "EUR"),
        ];
        let response = visitor.post(&settings, &fields).await;
        (response.status(), response.text().await.unwrap())
    };
    let version = between(&visitor.page(&settings).await, "name=\"version\" value=\"", "\"").to_owned();
    assert_eq!(save("Theirs", "active", &version).await.0, StatusCode::SEE_OTHER);
    let (status, merge) = save("Mine", "active", &version).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert!(merge.contains("Somebody else changed this campaign meanwhile"), "{merge}");
    assert!(merge.contains("Stored now: <b>Theirs</b>") && merge.contains("value=\"Mine\""), "{merge}");
    assert_eq!(merge.matches("Stored now").count(), 1, "only what differs: {merge}");
    let newer = between(&merge, "name=\"version\" value=\"", "\"").to_owned();
    assert_eq!(save("Mine", "active", &newer).await.0, StatusCode::SEE_OTHER);
    assert_eq!(tracker.show(&format!("/campaigns/{id}")).await["name"], "Mine");

    for (action, status) in [("pause", "paused"), ("resume", "active")] {
        let back = "range=30d&q=Mi&evil=1";
        let done = visitor.post("/ui/campaigns", &[("id", id), ("action", action), ("back", back)]).await;
        let location = header(&done, "location");
        assert_eq!(location, format!("/ui/campaigns?range=30d&q=Mi&done={action}d.1.0"));
        assert!(visitor.page(&location).await.contains(&format!("1 campaign {action}d.")), "{location}");
        assert_eq!(tracker.show(&format!("/campaigns/{id}")).await["status"], status);
    }
    assert_eq!(save("Mine", "completed", "99").await.0, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn the_table_of_campaigns_is_searched_sorted_and_turned_page_by_page() {
    let tracker = Tracker::start("ui_table").await;
    let octo = &tracker.octo;
    let api = octo.api(&tracker.token);
    for n in 0..103 {
        let offers = json!([{ "name": "o", "url": "https://offer.example/" }]);
        api.create(&json!({ "key": format!("c{n}"), "name": format!("Campaign {n:03}"), "offers": offers }))
            .await;
    }
    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    let page = visitor.page("/ui/campaigns?sort=name&range=30d").await;
    assert!(
        page.contains("1\u{2013}100 of 103")
            && page.contains("Campaign 099")
            && !page.contains("Campaign 100")
    );
    assert!(page.contains("aria-sort=\"ascending\""));
    let next = between(&page, "<a class=\"button\" href=\"", "\">Next")
        .rsplit("href=\"")
        .next()
        .unwrap()
        .replace("&#38;", "&");
    let page = visitor.page(&next).await;
    assert!(
        page.contains("101\u{2013}103 of 103")
            && page.contains("Campaign 102")
            && !page.contains("Campaign 099"),
        "{next}"
    );
    assert!(next.contains("range=30d") && next.contains("sort=name"), "what was asked goes along: {next}");
    let page = visitor.page("/ui/campaigns?q=CAMPAIGN+01&sort=-name").await;
    assert!(page.contains("1\u{2013}10 of 10") && page.find("Campaign 019") < page.find("Campaign 010"));
    assert!(visitor.page("/ui/campaigns?status=paused").await.contains("No campaign is like that"));
}

/// What strangers send: markup, scripts, quotes, templates, templates of ours.
pub(super) const HOSTILE: [&str; 8] = [
    "<script>window.pwned=1</script>",
    "\"><img src=x onerror=window.pwned=1>",
    "' onmouseover='window.pwned=1",
    "</title></textarea></select><svg onload=window.pwned=1>",
    "{{ 7*7 }}{% raw %}",
    "javascript:window.pwned=1",
    "&lt;b&gt;&#60;script&#62;",
    "\u{202e}\u{0000}=cmd|' /C calc'!A0",
];

/// octo with a campaign, clicks, events and postbacks full of hostile texts; the campaign's id and a click's.
pub(super) async fn hostile(tracker: &Tracker) -> (String, String) {
    let name: String = HOSTILE[..6].join(" ");
    let offers = json!([{ "name": HOSTILE[1], "url": "https://offer.example/?s={sub1}" }]);
    let campaign = tracker
        .campaign(json!({ "key": "h", "name": name, "description": HOSTILE[3], "offers": offers }))
        .await;
    let file = include_str!("../../data/hostile.txt");
    let lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut clicks = 0;
    let mut last = String::new();
    for text in HOSTILE.iter().copied().chain(lines) {
        let mut query = String::from("/click?cid=h");
        for name in ["sub1", "sub2", "click_id", "aff_sub", "keyword"] {
            let value = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            write!(query, "&{name}={value}").unwrap();
        }
        let client = tracker.octo.client();
        let agent = text.replace(|c: char| !(' '..='~').contains(&c), "?");
        let request = client
            .get(tracker.octo.url(&query))
            .header("referer", format!("http://{agent}/"))
            .header("user-agent", agent);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND, "{text}");
        last = header(&response, "x-click-id");
        clicks += 1;
        let told = format!(
            "/postback?click_id={last}&payout=1&status={0}&txid={0}&goal={0}",
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
        );
        tracker.octo.get(&told).await;
        let event =
            json!({ "event_type": text, "click_id": last, "event_name": text, "properties": { text: text } });
        tracker.octo.client().post(tracker.octo.url("/event")).json(&event).send().await.unwrap();
    }
    tracker.wait_rows(Table::Clicks, clicks).await;
    (campaign["id"].as_str().unwrap().to_owned(), last)
}

#[tokio::test]
async fn what_strangers_wrote_is_text_on_every_screen() {
    let tracker = Tracker::start("ui_hostile").await;
    let (campaign, click) = hostile(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    for path in screens(&campaign, &click) {
        let page = visitor.page(&path).await;
        for markup in ["<script>", "<img", "onload=window.pwned=1>", "49{", "<svg onload"] {
            assert!(!page.contains(markup), "{markup} on {path}");
        }
        assert_eq!(page.matches("<script").count(), 1, "but our own: {path}");
    }
}

#[tokio::test]
async fn pages_are_small() {
    let tracker = Tracker::start("ui_weights").await;
    for n in 0..100 {
        tracker.simple_campaign(&format!("campaign-{n}")).await;
    }
    let (mut last, mut first) = (String::new(), String::new());
    for n in 0..60 {
        let (_, id) = tracker.click(&format!("/click?cid=campaign-{n}&sub1=zone-{n}")).await;
        last = id.to_string();
    }
    tracker.wait_rows(Table::Clicks, 60).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    if let Some(id) = tracker.show("/campaigns/campaign-1").await["id"].as_str() {
        id.clone_into(&mut first);
    }
    let mut shared = 0;
    let page = visitor.page("/ui").await;
    for (before, after) in [("rel=\"stylesheet\" href=\"", "\""), ("type=\"module\" src=\"", "\"")] {
        shared += compressed(&visitor, between(&page, before, after)).await;
    }
    println!("style and module: {shared} bytes");
    let mut paths = screens(&first, &last);
    paths.push("/ui?range=90d".to_owned());
    for path in paths {
        let bytes = compressed(&visitor, &path).await;
        println!("{bytes:>6} bytes {path}");
        assert!(bytes <= 30_000, "{bytes} bytes of {path}");
        assert!(bytes + shared <= 60_000, "{bytes} and {shared} bytes of {path}");
    }
}

/// The bytes of an answer as a browser receives it.
async fn compressed(visitor: &Visitor<'_>, path: &str) -> usize {
    let request = visitor.request(Method::GET, path).header("accept-encoding", "gzip, deflate, br");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.bytes().await.unwrap().len()
}

#[tokio::test]
async fn a_start_without_configuration_prints_a_link_that_signs_in_and_a_program_is_told_of_no_dashboard() {
    let octo = Octo::builder().start().await;
    let log = octo.stderr();
    crate::harness::eventually(crate::tracker::SOON, async || {
        anyhow::ensure!(octo.stderr().contains("/ui#t="), "no link yet");
        Ok(())
    })
    .await;
    let said = octo.stderr();
    let code = between(&said, "/ui#t=", " ");
    assert!(
        said.contains(&format!("dashboard    {}/ui#t={code} (good once, for 30 minutes)", octo.url(""))),
        "{said} {log}"
    );
    let visitor = Visitor::signed_in(&octo, code).await;
    assert!(visitor.page("/ui/campaigns").await.contains("Demo campaign"));
    let document: Value = octo.get("/api/v1/openapi.json").await.json().await.unwrap();
    assert!(document["paths"].as_object().unwrap().keys().all(|path| !path.starts_with("/ui")));
}
