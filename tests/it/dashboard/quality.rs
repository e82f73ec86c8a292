//! What every screen must be, measured by programs of others: [axe](https://github.com/dequelabs/axe-core) in the browser and
//! [html-validate](https://html-validate.org) on the text. `quality/package.json` has their versions; `./test` installs them.

use std::{fmt::Write as _, fs, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    journeys::Stage,
    pages::{HOSTILE, hostile, screens},
    sessions::{Visitor, between},
};
use crate::{
    harness::{Answer, Page, Scratch, Site},
    tools::{Tool, npm_package},
    tracker::{Table, Tracker, header},
};

/// Campaigns whose names are what strangers send, as far as the API takes it for a name; how many there are.
async fn hostile_campaigns(tracker: &Tracker) -> usize {
    let file = include_str!("../../data/hostile.txt");
    let lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut made = 0;
    for (n, name) in HOSTILE.iter().copied().chain(lines).enumerate() {
        let offers = json!([{ "name": "o", "url": "https://offer.example/" }]);
        let campaign = json!({ "key": format!("named-{n}"), "name": name, "offers": offers });
        let response = tracker.api(Method::POST, "/campaigns").json(&campaign).send().await.unwrap();
        match response.status() {
            StatusCode::CREATED => made += 1,
            status => assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}"),
        }
    }
    made
}

#[tokio::test]
async fn every_screen_is_valid_html_whatever_strangers_wrote() {
    let tracker = Tracker::start("ui_valid").await;
    let made = hostile_campaigns(&tracker).await;
    assert!(made > 40, "{made} of the names were taken");
    let (campaign, click) = hostile(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let scratch = Scratch::create();
    let screens = screens(&campaign, &click);
    for (n, path) in screens.iter().enumerate() {
        fs::write(scratch.dir().join(format!("{n}.html")), visitor.page(path).await).unwrap();
    }
    let last = screens.len();
    let sign_in = tracker.octo.get("/ui/sign-in").await.text().await.unwrap();
    fs::write(scratch.dir().join(format!("{last}.html")), sign_in).unwrap();
    // a page that is not valid, so that a validator that finds nothing in anything is found out
    fs::write(scratch.dir().join("bad.html"), "<p id=a><div id=a></div>").unwrap();
    fs::write(scratch.dir().join(".htmlvalidate.json"), include_str!("quality/htmlvalidate.json")).unwrap();
    let validator =
        Tool::of_npm("html-validate", scratch.dir()).args(["--formatter", "json=found.json", "*.html"]);
    let output = validator.end(Duration::from_mins(2)).await;
    let found = fs::read(scratch.dir().join("found.json"))
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let found: Value = serde_json::from_slice(&found).unwrap();
    let (mut told, mut has_found_the_bad) = (String::new(), false);
    for page in found.as_array().unwrap() {
        let file = page["filePath"].as_str().unwrap_or_default();
        if file.ends_with("bad.html") {
            has_found_the_bad = page["errorCount"].as_u64() > Some(0);
            continue;
        }
        let number = file.rsplit('/').next().and_then(|name| name.strip_suffix(".html"));
        let path = number.and_then(|n| screens.get(n.parse::<usize>().ok()?)).map_or(file, String::as_str);
        for message in page["messages"].as_array().unwrap() {
            writeln!(
                told,
                "{path}:{}: {} {}",
                message["line"],
                message["ruleId"].as_str().unwrap_or_default(),
                message["message"]
            )
            .unwrap();
        }
    }
    assert!(has_found_the_bad, "the validator looks: {found}");
    assert_eq!(told, "");
}

/// What axe finds serious or critical on a page: rule, how bad, and where.
async fn findings(page: &Page) -> Vec<Value> {
    let axe = fs::read_to_string(npm_package("axe-core").join("axe.min.js")).unwrap();
    page.eval(&format!("(() => {{ {axe}\n; return true; }})()")).await;
    let found = page
        .eval(
            "axe.run(document, { resultTypes: ['violations'] }).then(found => JSON.stringify({
                passed: found.passes.length,
                bad: found.violations.filter(it => it.impact === 'serious' || it.impact === 'critical')
                    .map(it => [it.id, it.impact, it.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + ' ' + (node.any[0]?.message || ''))])
            }))",
        )
        .await;
    let found: Value = serde_json::from_str(found.as_str().unwrap()).unwrap();
    assert!(found["passed"].as_u64() > Some(10), "axe looked: {found}");
    found["bad"].as_array().unwrap().clone()
}

async fn axe_finds_nothing_serious_on_any_screen_in_light_and_dark() {
    let stage = Stage::set("ui_axe", true).await;
    hostile_campaigns(&stage.tracker).await;
    let (campaign, click) = hostile(&stage.tracker).await;
    let page = stage.browser.new_page().await;
    page.go("http://octo.example/ui/sign-in").await;
    let mut found = findings(&page).await;
    let page = stage.signed_in().await;
    for scheme in ["light", "dark"] {
        page.prefers(scheme).await;
        for path in screens(&campaign, &click) {
            page.go(&format!("http://octo.example{path}")).await;
            let ground = page.eval("getComputedStyle(document.body).backgroundColor").await;
            let is_dark = ground == "rgb(14, 18, 24)";
            assert_eq!(is_dark, scheme == "dark", "{path}: {ground}");
            // what is folded up is looked at, too
            page.eval("document.querySelectorAll('main details').forEach(it => { it.open = true; })").await;
            found.extend(findings(&page).await.into_iter().map(|it| json!([scheme, path, it])));
        }
    }
    let mut told = String::new();
    for it in &found {
        writeln!(told, "{it}").unwrap();
    }
    assert_eq!(told, "");
    let errors = page.console().await;
    assert!(errors.is_empty(), "nothing is said of the policy, or of anything else: {errors:?}");
}

async fn no_name_of_a_campaign_is_markup_and_no_screen_is_wider_than_a_telephone() {
    let stage = Stage::set("ui_names", true).await;
    let made = hostile_campaigns(&stage.tracker).await;
    let page = stage.signed_in().await;
    page.resize(360, 800).await;
    page.go("http://octo.example/ui/campaigns?sort=name").await;
    let rows = page.eval("document.querySelectorAll('tbody tr').length").await;
    assert_eq!(rows, made, "each has its row");
    let own = "JSON.stringify([window.pwned || 0, document.querySelectorAll('script').length,
        document.querySelectorAll('tbody a.name *, img, iframe, svg, [style], [onload], [onerror], [onmouseover]').length,
        document.documentElement.scrollWidth <= 360])";
    assert_eq!(page.eval(own).await, "[0,1,0,true]");
    let name = page.eval("[...document.querySelectorAll('a.name')].map(it => it.textContent)").await;
    let names = name.as_array().unwrap();
    assert!(names.contains(&json!(HOSTILE[0])), "it is shown as it was written: {names:?}");
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn the_heat_map_has_the_figures_of_the_api_and_clicks_are_found_by_sub_id() {
    let tracker = Tracker::start("ui_heat").await;
    tracker.simple_campaign("warm").await;
    for n in 0..5 {
        tracker.click(&format!("/click?cid=warm&sub3=zone:{}", n % 2)).await;
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let plain = visitor.page("/ui/report").await;
    assert!(!plain.contains("class=\"heat\""), "it is there where it is asked for");
    let page = visitor.page("/ui/report?heat=clicks&time=conversion&tz=Asia/Tokyo").await;
    let to = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let asked = json!({ "to": to, "group_by": ["weekday", "hour_of_day"], "measures": ["clicks"], "tz": "Asia/Tokyo" });
    let answer: Value =
        tracker.api(Method::POST, "/reports").json(&asked).send().await.unwrap().json().await.unwrap();
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let rows = answer["rows"].as_array().unwrap();
    assert!(!rows.is_empty(), "{answer}");
    for row in rows {
        let number = |name: &str| row["keys"][name].as_str().unwrap().parse::<usize>().unwrap();
        let (day, hour) = (days[number("weekday") - 1], number("hour_of_day"));
        let title = format!("<title>{day} {hour:02}:00: {}</title>", row["figures"]["clicks"]);
        assert!(page.contains(&title), "{title}");
    }
    assert_eq!(page.matches("<rect ").count(), 7 * 24);
    assert!(page.contains("<option value=\"conversion\" selected>"), "what was chosen stays");

    let found = visitor.request(Method::GET, "/ui/clicks?in=sub3&q=zone:1&range=30d").send().await.unwrap();
    let address = header(&found, "location");
    assert_eq!(address, "/ui/clicks?range=30d&f=sub3%3Ais%3Azone%3A1");
    let page = visitor.page(&address).await;
    assert_eq!(between(&page, "<tbody>", "</tbody>").matches("<tr>").count(), 2, "two of five");
}

async fn another_site_can_neither_send_a_form_nor_show_a_page_in_a_frame() {
    let mut stage = Stage::set("ui_elsewhere", true).await;
    let campaign = stage.tracker.simple_campaign("target").await;
    let id = campaign["id"].as_str().unwrap();
    let form = format!(
        "<form method=post action='http://octo.example/ui/campaigns'><input name=id value={id}>
            <input name=action value=pause><input name=csrf value=''><button id=send>Win</button></form>"
    );
    let frame = |url: &str| Answer::page(format!("<iframe src='{url}'></iframe>"));
    let evil = Site::start(vec![
        ("/form", Answer::page(form)),
        ("/inner", Answer::page("<b id=inner>inside</b>")),
        ("/control", frame("http://other.example/inner")),
        ("/frame", frame("http://octo.example/ui/sign-in")),
    ])
    .await;
    stage.also_reach(&[("evil.example", evil.addr()), ("other.example", evil.addr())]).await;
    let page = stage.signed_in().await;
    page.go("http://evil.example/form").await;
    page.click("#send").await;
    page.wait_for("location.host === 'octo.example' && document.querySelector('h1')").await;
    let told = page.eval("document.querySelector('h1').textContent").await;
    let sent = stage.browser.requests("octo.example/ui/campaigns");
    let post = sent.iter().find(|request| request.method == "POST").expect("it was sent");
    assert_eq!(post.status, Some(403), "{told}");
    let now = stage.tracker.show(&format!("/campaigns/{id}")).await;
    assert_eq!(now["status"], "active", "{told}");

    let page = stage.browser.open("http://evil.example/control").await;
    let inner = page.frame("http://other.example/").await;
    inner.wait_for("document.getElementById('inner')").await;
    let page = stage.browser.open("http://evil.example/frame").await;
    crate::harness::eventually(crate::tracker::SOON, async || {
        let said = page.console().await;
        let is_refused = said.iter().any(|it| it.contains("octo.example") && it.contains("frame"));
        anyhow::ensure!(is_refused, "the browser refuses to show it: {said:?}");
        Ok(())
    })
    .await;
}

async fn shortcuts_lead_where_links_do_but_not_from_a_field_nor_where_they_are_off() {
    let stage = Stage::set("ui_keys", true).await;
    stage.tracker.simple_campaign("target").await;
    let page = stage.signed_in().await;
    let press = async |on: &str, key: &str| {
        page.eval(&format!(
            "{on}.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true, cancelable: true }}))"
        ))
        .await
    };
    page.go("http://octo.example/ui/clicks?f=sub1:is:x").await;
    press("document.body", "m").await;
    page.wait_for("location.search.includes('range=month') && document.readyState === 'complete'").await;
    assert_eq!(page.eval("document.querySelectorAll('.chip').length").await, 1, "the filter goes along");
    press("document.body", "ArrowLeft").await;
    page.wait_for("location.search.includes('range=custom') && document.readyState === 'complete'").await;
    press("document.body", "Escape").await;
    page.wait_for("document.readyState === 'complete' && !document.querySelector('.chip')").await;
    let address = page.eval("location.href").await;
    press("document.getElementById('q')", "d").await;
    press("document.body", "/").await;
    assert_eq!(page.eval("document.activeElement.id").await, "q");
    press("document.activeElement", "?").await;
    assert_eq!(page.eval("!!document.querySelector('dialog[open]')").await, false, "a field has the focus");

    page.eval("document.activeElement.blur()").await;
    press("document.body", "?").await;
    let listed = page.eval("document.querySelector('dialog[open] dl').textContent").await;
    for name in ["Today", "Earlier", "Search"] {
        assert!(listed.as_str().unwrap().contains(name), "{name} in {listed}");
    }
    let found = findings(&page).await;
    assert!(found.is_empty(), "{found:?}");
    page.click("dialog button").await;
    page.wait_for("document.querySelector('dialog').textContent.includes('They are off')").await;
    page.reload().await;
    press("document.body", "d").await;
    press("document.body", "?").await;
    assert_eq!(page.eval("!!document.querySelector('dialog[open]')").await, false, "they are off");
    assert_eq!(page.eval("location.href").await, address);
    page.click("#shortcuts").await;
    page.wait_for("document.querySelector('dialog[open]')?.textContent.includes('Turn them on')").await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

/// `OCTO_WRITE_DOCS=1 cargo nextest run -E 'test(/the_picture_of_the_readme/)'` makes it anew.
async fn the_picture_of_the_readme_is_of_the_demo_and_small() {
    let stage = Stage::set("ui_picture", true).await;
    let seeded = stage.tracker.octo.run(&["demo", "seed"]).await;
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
    let page = stage.signed_in().await;
    page.resize(1280, 960).await;
    page.prefers("light").await;
    page.go("http://octo.example/ui?range=30d").await;
    page.wait_for("document.querySelectorAll('.graph .line').length && document.querySelectorAll('tbody tr').length > 5").await;
    let picture = page.picture().await;
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{} bytes", picture.len());
    assert!(picture.len() <= 200_000, "{} bytes", picture.len());
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dashboard.png");
    if std::env::var_os("OCTO_WRITE_DOCS").is_some() {
        fs::write(&place, picture).unwrap();
    }
    assert!(fs::metadata(&place).unwrap().len() <= 200_000, "that of the README");
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn axe_finds_nothing_serious_on_any_screen_in_light_and_dark() {
        super::axe_finds_nothing_serious_on_any_screen_in_light_and_dark().await;
    }

    #[tokio::test]
    async fn no_name_of_a_campaign_is_markup_and_no_screen_is_wider_than_a_telephone() {
        super::no_name_of_a_campaign_is_markup_and_no_screen_is_wider_than_a_telephone().await;
    }

    #[tokio::test]
    async fn another_site_can_neither_send_a_form_nor_show_a_page_in_a_frame() {
        super::another_site_can_neither_send_a_form_nor_show_a_page_in_a_frame().await;
    }

    #[tokio::test]
    async fn shortcuts_lead_where_links_do_but_not_from_a_field_nor_where_they_are_off() {
        super::shortcuts_lead_where_links_do_but_not_from_a_field_nor_where_they_are_off().await;
    }

    #[tokio::test]
    async fn the_picture_of_the_readme_is_of_the_demo_and_small() {
        super::the_picture_of_the_readme_is_of_the_demo_and_small().await;
    }
}
