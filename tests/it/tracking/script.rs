//! The script of landing pages in real browsers: what is stored of its visits and events, and that nobody waits for it.
//! Each journey has a landing page at `lander.example`, octo at `go.example`, and somebody's shop at `shop.example`, and is
//! made in Chromium, Firefox and WebKit.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    harness::{
        Answer, Browser, Engine, OctoBuilder, Page, Request, Site, eventually, free_address, in_browsers,
    },
    tracker::{SOON, Table, Tracker},
};

// Only Chromium makes pages ready ahead of a visit, and WebKit knows no Global Privacy Control.
in_browsers! {
    all:
        a_visit_to_a_page_with_a_strict_policy_is_stored_and_fills_links_fields_and_events
        the_click_of_the_address_is_taken_with_its_token_and_no_visit_is_counted
        the_pinned_script_runs_by_its_integrity_and_under_names_of_ones_own
        links_work_and_nobody_waits_where_the_script_or_the_visit_is_blocked_or_hangs
        an_out_link_leads_to_the_offer_by_the_token_of_a_visit_and_by_the_cookie_where_the_script_is_blocked
        events_go_by_fetch_or_as_an_image_where_there_is_no_beacon_and_with_the_page_that_is_left
        going_back_and_loading_again_is_the_same_visit_and_keeps_the_back_forward_cache
        twenty_links_that_come_late_are_filled_and_so_are_those_of_an_application_in_one_page
        in_a_frame_of_another_site_it_works_with_storage_of_its_own_or_none
        until_there_is_consent_nothing_is_kept_or_sent_and_after_a_no_it_is_gone;
    chromium:
        a_page_that_is_made_ready_ahead_of_a_visit_counts_when_somebody_sees_it
        under_global_privacy_control_the_browser_keeps_nothing_and_the_visit_names_nobody;
    firefox:
        under_global_privacy_control_the_browser_keeps_nothing_and_the_visit_names_nobody;
}

const ID: &str = "019aaf3c-5f00-7abc-8def-0123456789ab";
const OTHER_ID: &str = "019aaf3c-5f00-7abc-8def-ba9876543210";
const SCRIPT: &str = "<script async src='http://go.example/o.js' data-campaign=demo></script>";
const STUB: &str =
    "<script nonce=n>window.octo=window.octo||function(){(octo.q=octo.q||[]).push(arguments)}</script>";
/// What a page finds wrong with itself: exceptions, what its policy forbids, and what does not load.
const FAULTS: &str = "<script nonce=n>window.faults = [];
    for (const kind of ['error', 'unhandledrejection', 'securitypolicyviolation'])
        addEventListener(kind, (e) => faults.push([kind, e.message || e.reason || e.blockedURI, e.target]), true)</script>";
/// A link to somewhere else, out-links and fields.
const LINKS: &str = "<a id=shop href='http://shop.example/?sub=&x=a%20b#top' data-octo=sub>buy</a>
    <a id=out href='http://go.example/out'>out</a>
    <form><input type=hidden name=click_id><input id=own data-octo></form>";

/// octo with the campaign `demo`, the sites and a browser.
struct Stage {
    tracker: Tracker,
    browser: Browser,
}

impl Stage {
    async fn set(engine: Engine, name: &str, pages: Vec<(&'static str, Answer)>) -> Self {
        Self::set_with(engine, name, pages, |octo| octo).await
    }

    async fn set_with(
        engine: Engine,
        name: &str,
        pages: Vec<(&'static str, Answer)>,
        set: impl FnOnce(OctoBuilder) -> OctoBuilder,
    ) -> Self {
        let tracker = Tracker::start_with(&format!("{name}_{}", engine.browser()).to_lowercase(), set).await;
        tracker.simple_campaign("demo").await;
        let lander = Site::start(pages).await;
        let shop = Site::start(vec![("/", Answer::page("<title>shop</title>"))]).await;
        let news = Answer::page("<a href='http://lander.example/?sub1=a'>story</a>");
        let news = Site::start(vec![("/story", news)]).await;
        // one that is not there yet when its page has loaded
        let late = page("<script async src='http://hanging.example/o.js' data-campaign=demo></script>");
        let late = Site::start(vec![("/", late)]).await;
        let shell = "<iframe src='http://lander.example/'></iframe>
            <iframe sandbox='allow-scripts' src='http://lander.example/sandboxed'></iframe>";
        let shell = Site::start(vec![("/", Answer::page(shell))]).await;
        let names = [
            ("go.example", tracker.octo.addr()),
            ("lander.example", lander.addr()),
            ("shop.example", shop.addr()),
            ("hanging.example", hanging().await),
            ("news.example", news.addr()),
            ("late.example", late.addr()),
            ("shell.example", shell.addr()),
        ];
        let browser = Browser::start(engine, &names).await;
        Self { tracker, browser }
    }

    /// The newest click, once there are so many.
    async fn click(&self, count: i64) -> Value {
        self.tracker.wait_rows(Table::Clicks, count).await;
        self.tracker.show("/clicks?cid=demo").await["data"][0].take()
    }

    /// The newest event, once there are so many.
    async fn event(&self, count: i64) -> Value {
        self.tracker.wait_rows(Table::Events, count).await;
        let row: (Value,) =
            sqlx::query_as("SELECT to_jsonb(e) FROM events e ORDER BY created_at DESC LIMIT 1")
                .fetch_one(&self.tracker.pool)
                .await
                .expect("a row");
        row.0
    }
}

/// Takes connections and says nothing, as long as the test lives.
async fn hanging() -> std::net::SocketAddr {
    let listener = TcpListener::bind(free_address()).await.expect("a free address");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = listener.accept().await {
            open.push(connection);
        }
    });
    address
}

/// A landing page with this in its head and the links in its body.
fn page(head: &str) -> Answer {
    Answer::page(format!("<!doctype html><title>lander</title>{head}<body>{LINKS}"))
}

/// The id of the click that the page's links have.
async fn id_in_links(page: &Page) -> String {
    let id = page.wait_for("new URL(document.querySelector('#shop').href).searchParams.get('sub')").await;
    id.as_str().expect("a text").to_owned()
}

/// Clicks the link to the shop, and gives how long it took until the shop was there.
async fn leave(page: &Page) -> Duration {
    let start = Instant::now();
    page.click("#shop").await;
    page.wait_for("document.title === 'shop'").await;
    start.elapsed()
}

/// Long enough for what should not happen, after something that came later.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn a_visit_to_a_page_with_a_strict_policy_is_stored_and_fills_links_fields_and_events(engine: Engine) {
    let policy = "default-src 'none'; script-src 'nonce-n'; connect-src http://go.example";
    let head = format!(
        "{FAULTS}{STUB}<script nonce=n>octo('event', {{ event_type: 'view', properties: {{ early: 1 }} }})</script>
        <script nonce=n async src='http://go.example/o.js' data-campaign=demo data-params='sub2=seo'></script>"
    );
    let pages = vec![("/", page(&head).header("content-security-policy", policy))];
    let stage = Stage::set(engine, "script_csp", pages).await;
    let page = stage.browser.open("http://news.example/story").await;
    page.click("a").await;
    page.wait_for("document.title === 'lander'").await;
    let id = id_in_links(&page).await;

    let click = stage.click(1).await;
    assert_eq!(click["id"], *id);
    assert_eq!((&click["sub1"], &click["sub2"]), (&json!("a"), &json!("seo")));
    assert_eq!((&click["via"], &click["invalid_reason"]), (&json!("script"), &Value::Null), "{click}");
    assert_eq!(
        (&click["browser"], &click["referrer"]),
        (&json!(engine.browser()), &json!("http://news.example/"))
    );
    let event = stage.event(1).await;
    assert_eq!((&event["click_id"], &event["event_type"]), (&json!(id), &json!("view")));
    assert_eq!(
        (&event["url"], &event["event_data"]),
        (&json!("http://lander.example/?sub1=a"), &json!({ "early": 1 }))
    );

    let filled = "[...document.querySelectorAll('a')].map((it) => it.href).concat([...document.querySelectorAll('input')].map((it) => it.value))";
    let shop = format!("http://shop.example/?sub={id}&x=a%20b#top");
    let mut filled = page.eval(filled).await;
    let out = filled[1].take();
    assert_eq!(filled, json!([shop, null, id, id]));
    // the visit's token, so that the way out belongs to it
    let token = out.as_str().unwrap().strip_prefix("http://go.example/out?k=").expect("a token");
    assert!(token.len() > 40, "{token}");
    let mut faults: Vec<String> = serde_json::from_value(page.eval("faults.map(String)").await).unwrap();
    faults.extend(page.console().await);
    // what Firefox says of its own request for an icon, and of octo's cookie, which is for octo's own site
    faults.retain(|it| !it.contains("/favicon.ico") && !it.contains("octo_c"));
    assert_eq!(faults, Vec::<String>::new());
    assert!(page.eval("localStorage.octo").await.as_str().unwrap().starts_with(&id));
}

async fn the_click_of_the_address_is_taken_with_its_token_and_no_visit_is_counted(engine: Engine) {
    let pages =
        vec![("/", page(SCRIPT)), ("/next", page("<script async src='http://go.example/o.js'></script>"))];
    let stage = Stage::set(engine, "script_address", pages).await;
    let page = stage.browser.open(&format!("http://lander.example/?click_id={ID}&k=tok-en_1")).await;
    assert_eq!(id_in_links(&page).await, ID);
    assert_eq!(page.eval("document.querySelector('#out').href").await, "http://go.example/out?k=tok-en_1");
    // the next page has it from what the browser keeps, and so has an event
    page.go("http://lander.example/next?click_id=not-ours").await;
    assert_eq!(id_in_links(&page).await, ID);
    assert_eq!(page.eval("document.querySelector('#out').href").await, "http://go.example/out?k=tok-en_1");
    page.eval("octo('event', { event_type: 'add_to_cart', sku: 'A-1' })").await;
    let event = stage.event(1).await;
    assert_eq!((&event["click_id"], &event["event_data"]), (&json!(ID), &json!({ "sku": "A-1" })));
    // another click takes its place, with nothing of the first
    page.go(&format!("http://lander.example/?click_id={OTHER_ID}.17")).await;
    assert_eq!(id_in_links(&page).await, OTHER_ID);
    assert_eq!(page.eval("document.querySelector('#out').href").await, "http://go.example/out");
    a_moment().await;
    assert_eq!(Table::Clicks.count(&stage.tracker.pool).await.unwrap(), 0);
    assert_eq!(stage.browser.requests("/visit"), []);
}

async fn the_pinned_script_runs_by_its_integrity_and_under_names_of_ones_own(engine: Engine) {
    let site = Stage::set_with(engine, "script_pinned", vec![("/", page(""))], |octo| {
        octo.env("OCTO_SERVER__PUBLIC_URL", "http://go.example")
            .env("OCTO_SCRIPT__PATH", "/assets/shop.js")
            .env("OCTO_SCRIPT__VISIT_PATH", "/seen")
            .env("OCTO_SCRIPT__EVENT_PATH", "/told")
            .env("OCTO_SCRIPT__GLOBAL", "shop")
    });
    let stage = site.await;
    let script = stage.tracker.show("/script").await;
    let page = stage.browser.open("http://lander.example/").await;
    let add = |element: &str| {
        // an element made by a page runs, one in innerHTML does not
        format!(
            "(() => {{ const made = document.createElement('div'); made.innerHTML = {};
                const script = document.createElement('script');
                for (const it of made.firstChild.attributes) script.setAttribute(it.name, it.value);
                script.setAttribute('data-campaign', 'demo');
                document.head.append(script);
                return new Promise((done) => {{ script.onload = () => done('ran'); script.onerror = () => done('refused'); }}); }})()",
            json!(element)
        )
    };
    let pinned = script["pinned_element"].as_str().unwrap();
    assert_eq!(page.eval(&add(&pinned.replace("sha384-", "sha384-A"))).await, "refused");
    assert_eq!(page.eval(&add(pinned)).await, "ran");
    let id = id_in_links(&page).await;
    assert_eq!(stage.click(1).await["id"], *id);
    page.eval("shop('event', { event_type: 'view' })").await;
    assert_eq!(stage.event(1).await["click_id"], *id);
    assert!(page.eval("localStorage.shop").await.as_str().unwrap().starts_with(&id));
    let paths: Vec<String> = stage.browser.requests("go.example/").into_iter().map(|it| it.url).collect();
    assert!(
        paths.iter().all(|it| ["/assets/shop.", "/seen", "/told"].iter().any(|name| it.contains(name))),
        "{paths:?}"
    );
    // the first names go on
    assert_eq!(page.eval(&add("<script src='http://go.example/o.js'></script>")).await, "ran");
}

async fn links_work_and_nobody_waits_where_the_script_or_the_visit_is_blocked_or_hangs(engine: Engine) {
    let script = |attributes: &str, host: &str| {
        format!("<script async src='http://{host}/o.js' data-campaign=demo {attributes}></script>")
    };
    let stage = Stage::set(
        engine,
        "script_blocked",
        vec![
            ("/", page(SCRIPT)),
            ("/hanging", page(&script("data-host=http://hanging.example", "go.example"))),
            ("/closed", page(SCRIPT).header("content-security-policy", "script-src 'self'")),
            ("/mute", page(SCRIPT).header("content-security-policy", "connect-src 'self'; img-src 'self'")),
        ],
    )
    .await;
    let tab = stage.browser.new_page().await;
    for (blocked, path) in [
        (&["*://go.example/*"][..], "/"),
        (&["*/visit"][..], "/"),
        (&[][..], "/closed"),
        (&[][..], "/mute"),
        (&[][..], "/hanging"),
    ] {
        stage.browser.block(blocked);
        tab.go(&format!("http://lander.example{path}")).await;
        let took = leave(&tab).await;
        assert!(took < Duration::from_secs(2), "{path} {blocked:?}: {took:?}");
        println!("{path} {blocked:?}: left within {took:?}");
    }
    assert!(
        stage.browser.requests("hanging.example/visit").iter().any(|it| it.status.is_none()),
        "the visit was asked to hang"
    );
    // a script that does not come holds up neither the page's own nor its links
    tab.head_for("http://late.example/").await;
    tab.wait_for(
        "!window.isLeft && document.readyState === 'interactive' && !!document.querySelector('#shop')",
    )
    .await;
    let took = leave(&tab).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("a script that hangs: left within {took:?}");
    assert_eq!(Table::Clicks.count(&stage.tracker.pool).await.unwrap(), 0);
}

async fn an_out_link_leads_to_the_offer_by_the_token_of_a_visit_and_by_the_cookie_where_the_script_is_blocked(
    engine: Engine,
) {
    let script = "<script async src='http://go.example/o.js' data-campaign=two></script>";
    let stage = Stage::set_with(engine, "script_out", vec![("/", page(script))], |octo| {
        octo.env("OCTO_SERVER__PUBLIC_URL", "http://go.example")
    })
    .await;
    stage
        .tracker
        .campaign(json!({
            "key": "two", "name": "page and offer",
            "landing_pages": [{ "name": "page", "url": "http://lander.example/" }],
            "offers": [{ "name": "shop", "url": "http://shop.example/?c={click_id}" }],
        }))
        .await;
    // what has not come once is in no cache
    stage.browser.block(&["*/o.js"]);
    let tab = stage.browser.open("http://go.example/click?cid=two").await;
    assert_eq!(tab.eval("location.hostname + typeof octo").await, "lander.exampleundefined");
    tab.click("#out").await;
    tab.wait_for("document.title === 'shop'").await;
    let clicked = tab.eval("new URLSearchParams(location.search).get('c')").await;

    stage.browser.block(&[]);
    tab.go("http://lander.example/").await;
    let visited = id_in_links(&tab).await;
    assert_ne!(clicked, *visited);
    tab.wait_for("document.querySelector('#out').href.startsWith('http://go.example/out?k=')").await;
    tab.click("#out").await;
    tab.wait_for(&format!("location.href === 'http://shop.example/?c={visited}'")).await;
    stage.tracker.wait_rows(Table::Clicks, 2).await;
    eventually(SOON, async || {
        let outs: Vec<(String, String)> =
            sqlx::query_as("SELECT click_id::text, carrier FROM out_clicks ORDER BY created_at")
                .fetch_all(&stage.tracker.pool)
                .await?;
        let clicked = clicked.as_str().unwrap_or_default();
        let wanted = [(clicked, "cookie"), (visited.as_str(), "token")];
        ensure!(outs.iter().map(|(id, carrier)| (&**id, &**carrier)).eq(wanted), "{outs:?}");
        Ok(())
    })
    .await;
}

async fn events_go_by_fetch_or_as_an_image_where_there_is_no_beacon_and_with_the_page_that_is_left(
    engine: Engine,
) {
    let no_beacon = "<script>navigator.sendBeacon = undefined</script>";
    let no_answer = "<script>{ const own = fetch; window.fetch = (url, ...rest) =>
        url.includes('/visit') ? new Promise(() => {}) : own(url, ...rest) }</script>";
    let only_images = "connect-src 'none'; img-src http://go.example";
    let stage = Stage::set(
        engine,
        "script_fallback",
        vec![
            ("/", page(&format!("{no_beacon}{SCRIPT}"))),
            ("/images", page(&format!("{no_beacon}{SCRIPT}")).header("content-security-policy", only_images)),
            ("/hanging", page(&format!("{no_answer}{STUB}{SCRIPT}"))),
        ],
    )
    .await;
    let event =
        |kind: &str| format!("octo('event', {{ event_type: '{kind}', properties: {{ total: 12.5 }} }})");
    let page = stage.browser.new_page().await;
    page.go("http://lander.example/").await;
    let id = id_in_links(&page).await;
    page.eval(&event("by_fetch")).await;
    let stored = stage.event(1).await;
    assert_eq!((&stored["event_type"], &stored["click_id"]), (&json!("by_fetch"), &json!(id)));

    page.eval("localStorage.clear()").await;
    page.go("http://lander.example/images").await;
    page.wait_for("window.octo?.on").await;
    page.eval(&event("by_image")).await;
    let stored = stage.event(2).await;
    assert_eq!((&stored["event_type"], &stored["click_id"]), (&json!("by_image"), &Value::Null));
    assert_eq!(stored["event_data"]["total"], "12.5");
    assert_eq!(stage.browser.requests("/event.gif")[0].status, Some(200));

    // the answer to the visit does not come, so the event goes with the page and names the campaign
    page.go("http://lander.example/hanging").await;
    page.wait_for("window.octo?.on").await;
    page.eval(&event("at_the_end")).await;
    a_moment().await;
    assert_eq!(Table::Events.count(&stage.tracker.pool).await.unwrap(), 2);
    leave(&page).await;
    let stored = stage.event(3).await;
    assert_eq!(
        (&stored["event_type"], &stored["event_data"]),
        (&json!("at_the_end"), &json!({ "total": 12.5 }))
    );
}

async fn going_back_and_loading_again_is_the_same_visit_and_keeps_the_back_forward_cache(engine: Engine) {
    let restored = "<script>addEventListener('pageshow', (e) => window.isRestored = e.persisted)</script>";
    let stage = Stage::set(engine, "script_back", vec![("/", page(&format!("{restored}{SCRIPT}")))]).await;
    let page = stage.browser.open("http://lander.example/").await;
    let id = id_in_links(&page).await;
    leave(&page).await;
    page.back_to("http://lander.example/").await;
    assert_eq!(page.eval("isRestored").await, true);
    assert_eq!(id_in_links(&page).await, id);
    page.eval("octo('event', { event_type: 'again' })").await;
    assert_eq!(stage.event(1).await["click_id"], *id);

    page.reload().await;
    page.wait_for("isRestored === false && window.octo?.on").await;
    assert_eq!(id_in_links(&page).await, id);
    a_moment().await;
    assert_eq!(stage.click(1).await["id"], *id);
    // who comes again comes anew
    page.go("http://lander.example/?sub1=again").await;
    let click = stage.click(2).await;
    assert_eq!(click["sub1"], "again");
    page.wait_for(&format!("document.querySelector('#shop').href.includes({})", click["id"])).await;
}

async fn a_page_that_is_made_ready_ahead_of_a_visit_counts_when_somebody_sees_it(engine: Engine) {
    // as a page does that the browser has rendered ahead: without a window it does not
    let ahead = "<script>let isAhead = true;
        Object.defineProperty(Document.prototype, 'prerendering', { get: () => isAhead });
        window.show = () => { isAhead = false; document.dispatchEvent(new Event('prerenderingchange')) }</script>";
    let stage = Stage::set(engine, "script_ahead", vec![("/", page(&format!("{ahead}{SCRIPT}")))]).await;
    let page = stage.browser.open("http://lander.example/").await;
    page.wait_for("window.octo?.on").await;
    a_moment().await;
    assert_eq!(stage.browser.requests("/visit"), []);
    page.eval("show()").await;
    assert_eq!(stage.click(1).await["id"], *id_in_links(&page).await);
}

async fn twenty_links_that_come_late_are_filled_and_so_are_those_of_an_application_in_one_page(
    engine: Engine,
) {
    let stage = Stage::set(engine, "script_late", vec![("/", page(SCRIPT))]).await;
    let page = stage.browser.open("http://lander.example/").await;
    let id = id_in_links(&page).await;
    page.eval(
        "[...Array(20).keys()].forEach((i) => setTimeout(() => {
            const part = document.createElement('section');
            part.innerHTML = `<p>text<a class=late data-octo=s href='/go?n=${i}'>link</a></p><input class=late name=click_id>`;
            document.body.append(part, 'text');
        }, i * 5))",
    )
    .await;
    let filled = format!(
        "document.querySelectorAll('a.late[href$=\"&s={id}\"]').length + document.querySelectorAll('.late').length * 100
            + [...document.querySelectorAll('input.late')].filter((it) => it.value === '{id}').length * 10000 === 204020"
    );
    page.wait_for(&filled).await;
    // a framework that draws a link again takes nothing away
    page.eval("document.querySelector('#shop').setAttribute('href', 'http://shop.example/?again')").await;
    page.wait_for(&format!("document.querySelector('#shop').href === 'http://shop.example/?again&sub={id}'"))
        .await;

    page.eval("history.pushState({}, '', '/two'), document.body.insertAdjacentHTML('beforeend', '<a id=two data-octo href=/x>two</a>')").await;
    page.wait_for(&format!(
        "document.querySelector('#two').href === 'http://lander.example/x?click_id={id}'"
    ))
    .await;
    page.eval(&format!("history.pushState({{}}, '', '/three?click_id={ID}&click_token=T')")).await;
    assert_eq!(page.eval("document.querySelector('#two').search").await, format!("?click_id={ID}"));
    assert_eq!(page.eval("document.querySelector('#out').search").await, "?k=T");
    page.eval(
        "new Promise((done) => { addEventListener('popstate', () => done(), { once: true }); history.back() })",
    )
    .await;
    assert_eq!(
        page.eval("location.pathname + document.querySelector('#two').search").await,
        format!("/two?click_id={ID}")
    );
    a_moment().await;
    assert_eq!(stage.click(1).await["id"], *id);
    // what is a visit of its own is for the page to say
    page.eval("octo('visit')").await;
    let click = stage.click(2).await;
    page.wait_for(&format!("document.querySelector('#two').search === '?click_id=' + {}", click["id"])).await;
}

async fn in_a_frame_of_another_site_it_works_with_storage_of_its_own_or_none(engine: Engine) {
    let pages = vec![("/", page(SCRIPT)), ("/sandboxed", page(SCRIPT))];
    let stage = Stage::set(engine, "script_frame", pages).await;
    let page = stage.browser.open("http://shell.example/").await;
    let own = page.frame("http://lander.example/").await;
    let id = id_in_links(&own).await;
    assert!(own.eval("localStorage.octo").await.as_str().unwrap().starts_with(&id));
    let sandboxed = page.frame("http://lander.example/sandboxed").await;
    let other = id_in_links(&sandboxed).await;
    assert_eq!(
        sandboxed.eval("(() => { try { return localStorage } catch (e) { return e.name } })()").await,
        "SecurityError"
    );
    sandboxed.eval("octo('event', { event_type: 'view' })").await;
    assert_eq!(stage.event(1).await["click_id"], *other);
    stage.click(2).await;
    let mut stored: Vec<String> =
        sqlx::query_scalar("SELECT id::text FROM clicks").fetch_all(&stage.tracker.pool).await.unwrap();
    stored.sort();
    let mut wanted = [id, other];
    wanted.sort();
    assert_eq!(stored, wanted);
}

async fn under_global_privacy_control_the_browser_keeps_nothing_and_the_visit_names_nobody(engine: Engine) {
    let heedless =
        "<script async src='http://go.example/o.js' data-campaign=demo data-storage=session></script>";
    let stage =
        Stage::set(engine, "script_gpc", vec![("/", page(SCRIPT)), ("/session", page(heedless))]).await;
    let kept = "[Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]";
    // without it, what the page asks for
    let page = stage.browser.open("http://lander.example/session").await;
    let id = id_in_links(&page).await;
    assert_eq!(page.eval(kept).await, json!([[], ["octo"], ""]));
    assert!(page.eval("sessionStorage.octo").await.as_str().unwrap().starts_with(&id));
    assert_ne!(stage.click(1).await["ip_address"], Value::Null);

    let page = stage.browser.new_page().await;
    page.object().await;
    page.go("http://lander.example/").await;
    let id = id_in_links(&page).await;
    assert_eq!(page.eval(kept).await, json!([[], [], ""]));
    let click = stage.click(2).await;
    assert_eq!(
        (&click["id"], &click["ip_address"], &click["user_agent"]),
        (&json!(id), &Value::Null, &Value::Null)
    );
    page.go("http://lander.example/session").await;
    stage.click(3).await;
    assert_eq!(page.eval(kept).await, json!([[], [], ""]));
}

async fn until_there_is_consent_nothing_is_kept_or_sent_and_after_a_no_it_is_gone(engine: Engine) {
    let head = format!(
        "{STUB}<script>octo('event', {{ event_type: 'view' }})</script>
        <script async src='http://go.example/o.js' data-campaign=demo data-consent=wait></script>"
    );
    let stage = Stage::set(engine, "script_consent", vec![("/", page(&head))]).await;
    let page = stage.browser.open("http://lander.example/?sub1=a").await;
    page.wait_for("window.octo?.on").await;
    let sent = || {
        let sent = stage.browser.requests("go.example").into_iter();
        sent.filter(|it| !it.url.ends_with("/o.js")).collect::<Vec<_>>()
    };
    let quiet = async |page: &Page, before: &[Request]| {
        a_moment().await;
        assert_eq!(sent(), before);
        assert_eq!(page.eval("Object.keys(localStorage)").await, json!([]));
    };
    quiet(&page, &[]).await;
    page.eval("octo('consent', true)").await;
    let id = id_in_links(&page).await;
    assert_eq!(stage.click(1).await["id"], *id);
    let event = stage.event(1).await;
    assert_eq!((&event["event_type"], &event["click_id"]), (&json!("view"), &json!(id)));
    assert!(page.eval("localStorage.octo").await.as_str().unwrap().starts_with(&id));

    page.eval("octo('consent', false), octo('event', { event_type: 'no' })").await;
    assert_eq!(page.eval("Object.keys(localStorage)").await, json!([]));
    let before = sent();
    // a link names the click by its address all the same: nothing is kept for that
    let page = stage.browser.open(&format!("http://lander.example/?click_id={ID}")).await;
    assert_eq!(id_in_links(&page).await, ID);
    quiet(&page, &before).await;
    leave(&page).await;
    eventually(SOON, async || {
        let rows = [
            Table::Clicks.count(&stage.tracker.pool).await?,
            Table::Events.count(&stage.tracker.pool).await?,
        ];
        ensure!(rows == [1, 1], "{rows:?}");
        Ok(())
    })
    .await;
}
