//! Journeys in a real browser, with JavaScript and without.

use super::{
    pages::{hostile, screens},
    sessions::code,
};
use crate::{
    harness::{Browser, Engine, Page},
    tracker::{Table, Tracker},
};

/// octo and a browser.
pub(super) struct Stage {
    pub(super) tracker: Tracker,
    browser: Browser,
    has_scripts: bool,
}

impl Stage {
    pub(super) async fn set(name: &str, has_scripts: bool) -> Self {
        let name = format!("{name}_{}", if has_scripts { "js" } else { "plain" });
        let tracker = Tracker::start(&name).await;
        let browser = Browser::start(Engine::Chromium, &[("octo.example", tracker.octo.addr())]).await;
        Self { tracker, browser, has_scripts }
    }

    /// A tab of somebody who is signed in by the printed link.
    pub(super) async fn signed_in(&self) -> Page {
        let page = self.browser.new_page().await;
        if !self.has_scripts {
            page.without_scripts().await;
        }
        let code = code(&self.tracker.octo).await;
        page.go(&format!("http://octo.example/ui#t={code}")).await;
        if !self.has_scripts {
            page.wait_for("document.getElementById('secret')").await;
            page.fill("#secret", &code).await;
            page.click("button.first").await;
        }
        page.wait_for("document.querySelector('h1')?.textContent === 'Overview'").await;
        assert_eq!(page.eval("location.hash").await, "", "the code is not left in the address");
        page
    }
}

async fn a_campaign_is_made_followed_and_taken_apart(has_scripts: bool) {
    let stage = Stage::set("ui_journey", has_scripts).await;
    let page = stage.signed_in().await;
    page.click("a.button.first").await; // the empty overview says what to do first
    page.wait_for("document.getElementById('offer_url')").await;
    page.fill("#name", "Journey").await;
    page.fill("#offer_url", "https://offer.example/?c={click_id}").await;
    page.fill("#key", "journey").await;
    page.click("form.tall button.first").await;
    page.wait_for("document.querySelector('.notice')?.textContent.includes('The campaign is made')").await;
    let link = page.eval("document.getElementById('click').value").await;
    assert!(link.as_str().unwrap().ends_with("/click?cid=journey"), "{link}");
    let has_button = page.eval("!document.querySelector('[data-copy=click]').hidden").await;
    assert_eq!(has_button, has_scripts, "a button that needs JavaScript is shown where there is some");

    for n in 0..6 {
        stage.tracker.click(&format!("/click?cid=journey&sub1=zone-{}&sub2=ad-{}", n % 2, n % 3)).await;
    }
    stage.tracker.wait_rows(Table::Clicks, 6).await;
    page.click(".tabs a").await;
    page.wait_for("document.querySelector('.headline')").await;
    page.fill("#g1", "sub1").await;
    page.fill("#g2", "sub2").await;
    page.fill("#g3", "device").await;
    page.click("main form.row button").await;
    for (title, chips) in [("By sub1", 0), ("By sub2", 1), ("By Device", 2)] {
        let is_there = format!(
            "document.querySelector('.caption h2')?.textContent === '{title}' && document.querySelectorAll('.chip').length === {chips}"
        );
        page.wait_for(&is_there).await;
        page.click("tbody th a").await;
    }
    page.wait_for("document.querySelectorAll('.chip').length === 3").await;
    assert_eq!(
        page.eval("document.querySelector('tbody td').textContent").await,
        "1",
        "a zone, an ad, a device: one click"
    );
    let address = page.eval("location.href").await;
    page.click(".chip").await;
    page.wait_for("document.querySelectorAll('.chip').length === 2").await;
    page.back_to(address.as_str().unwrap()).await;
    page.click(".caption a").await;
    page.wait_for("document.querySelector('h1')?.textContent === 'Clicks'").await;
    page.click("tbody th a").await;
    page.wait_for("document.querySelector('ol.story li')").await;
    assert!(page.eval("document.body.textContent.includes('It counts.')").await == true);

    page.click("header form button").await; // out
    page.wait_for("document.getElementById('secret')").await;
    page.go("http://octo.example/ui/campaigns").await;
    page.wait_for("document.getElementById('secret')").await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn a_campaign_is_made_followed_and_taken_apart_with_javascript() {
        super::a_campaign_is_made_followed_and_taken_apart(true).await;
    }

    #[tokio::test]
    async fn a_campaign_is_made_followed_and_taken_apart_without_javascript() {
        super::a_campaign_is_made_followed_and_taken_apart(false).await;
    }

    #[tokio::test]
    async fn what_strangers_wrote_runs_on_no_screen_and_none_is_wider_than_a_telephone() {
        super::what_strangers_wrote_runs_on_no_screen_and_none_is_wider_than_a_telephone().await;
    }
}

async fn what_strangers_wrote_runs_on_no_screen_and_none_is_wider_than_a_telephone() {
    let stage = Stage::set("ui_stranger", true).await;
    let (campaign, click) = hostile(&stage.tracker).await;
    let page = stage.signed_in().await;
    page.resize(360, 800).await;
    for path in screens(&campaign, &click) {
        page.go(&format!("http://octo.example{path}")).await;
        page.wait_for("document.querySelector('h1')").await;
        let found = page
            .eval(
                "JSON.stringify([window.pwned || 0, document.querySelectorAll('script').length,
                    document.querySelectorAll('img, iframe, [onload], [onerror], [onmouseover], [style], a[href^=\"javascript:\"]').length,
                    document.documentElement.scrollWidth <= 360])",
            )
            .await;
        assert_eq!(found, "[0,1,0,true]", "{path}");
    }
    let errors = page.console().await;
    assert!(errors.is_empty(), "nothing is said of the policy, or of anything else: {errors:?}");
}
