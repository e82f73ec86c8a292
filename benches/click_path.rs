//! What a click costs in CPU, without sockets and disks: each step of `GET /click`, and all of them in one; and the same of
//! `GET /out`.
//!
//! `cargo bench --bench click_path`

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use octo::{
    caps::Caps,
    facts::{click::Click, out_click::OutClick},
    judge::uniques::{Uniques, visitor_key},
    model::{
        campaign::{Campaign, Destination, Terms},
        click::InvalidReason,
        id::{ClickId, new_uuid, time_of_uuid},
        link::Params,
        out_click::Carrier,
        rule::{Cap, CapOf, CapPer, Sticky},
    },
    privacy::keys::Keys,
    routing::{
        self, Decision, OutVisit, Routes, Visit,
        destination::{Carried, Known, Texts, Values},
        sticky::Choices,
    },
    seal::{
        Purpose,
        keys::Keyring,
        token::{TEXTS_BYTES_MAX, Ticket},
    },
    visitor::{Enricher, Files, Hints, Signs, Visitor},
};

#[path = "../tests/it/harness/mmdb.rs"]
mod mmdb;
mod support;

use serde_json::{Value, json};
use support::{REFERRER, USER_AGENT};

const QUERY: &str = "cid=demo&sub1=ad-1234&sub2=creative%207&sub3=placement+a&click_id=src-000000001234&traffic_source_id=3&cost=0.0125&currency=USD&gclid=abc";
const OFFER: &str = "https://offer.example/lp?cid={click_id}&s={sub1}&c={country}#top";

fn routes() -> Routes {
    routes_with(Vec::new())
}

/// As [`routes`], with a landing page in front of the offers.
fn funnel() -> Routes {
    let url = "https://lander.example/?go={out_url}".to_owned();
    routes_with(vec![Destination { id: Some(9), name: "page".to_owned(), url, ..Destination::default() }])
}

fn routes_with(landing_pages: Vec<Destination>) -> Routes {
    let offer = |id: i64, weight| Destination {
        id: Some(id),
        name: format!("offer {id}"),
        url: OFFER.to_owned(),
        weight,
        ..Destination::default()
    };
    let terms = Terms {
        name: "demo".to_owned(),
        landing_pages,
        offers: vec![offer(1, 3), offer(2, 2), offer(3, 1)],
        pass_through: true,
        ..Terms::default()
    };
    let campaign = Campaign::of("demo".parse().expect("a key"), terms);
    Routes::new(campaign).expect("the destinations are templates")
}

/// What Chrome on a phone sends over HTTPS.
fn signs(ip: IpAddr) -> Signs<'static> {
    let hints = Hints {
        brands: r#""Google Chrome";v="126", "Chromium";v="126", "Not/A)Brand";v="8""#,
        mobile: "?1",
        platform: "\"Android\"",
        ..Hints::default()
    };
    Signs { user_agent: USER_AGENT, hints, accept_language: "de-DE,de;q=0.9,en;q=0.8", ip: Some(ip) }
}

/// As `http::track::click` makes it, its headers taken as clean.
fn click<'a>(
    id: ClickId,
    ip: IpAddr,
    params: Params<'a>,
    routes: &Routes,
    decision: &Decision<'_>,
    visitor: Visitor<'a>,
) -> Click<'a> {
    let mut click = Click::of_link(id, routes.campaign.id, params);
    visitor.describe(&mut click);
    click.ip = Some(ip);
    click.user_agent = Some(USER_AGENT.into());
    click.referrer = Some(REFERRER.into());
    click.invalid_reason = decision.refused.or(visitor.is_bot.then_some(InvalidReason::Bot));
    click.landing_page_id = decision.landing_page_id().or(click.landing_page_id);
    click.campaign_offer_id = decision.offer_id().or(click.campaign_offer_id);
    click
}

/// One click from its query string to its destination and its bytes for the journal.
fn whole(query: &str, ip: IpAddr, enricher: &Enricher, routes: &Routes) -> (String, Vec<u8>) {
    let mut params = Params::parse(query);
    let id = ClickId::now();
    let visitor = enricher.describe(&signs(ip));
    let visit = Visit::new(&params, &visitor, id.created_at(), id.seed());
    let decision = routing::decide(routes, &visit);
    let unknown = std::mem::take(&mut params.unknown);
    let click = click(id, ip, params, routes, &decision, visitor);
    let values = routes.values(&decision, Known::Click(&click));
    let template = decision.template.expect("the campaign has offers");
    let location = template.expand(&values, &unknown);
    let mut bytes = Vec::with_capacity(512);
    click.encode(&mut bytes);
    (location, bytes)
}

/// What is sealed of a click that goes to a landing page.
fn ticket(click: &Click<'_>, routes: &Routes) -> Ticket {
    let path = routes.path(0).expect("its only path");
    let mut ticket = Ticket {
        rule_id: Some(0),
        path_id: Some(path.id),
        landing_page_id: Some(9),
        ..Ticket::new(click.id, click.campaign_id)
    };
    let texts = Texts::collect(&Values::of_click(click, "demo"), path.out_macros(), TEXTS_BYTES_MAX);
    texts.encode(&mut ticket.texts);
    ticket
}

/// One out-click from its token to its destination and its bytes for the journal, as `http::track::out` does it.
fn out_whole(
    token: &str,
    ip: IpAddr,
    enricher: &Enricher,
    routes: &Routes,
    keyring: &Keyring,
) -> (String, Vec<u8>) {
    let id = new_uuid();
    let params = Params::parse(token);
    let ticket = Ticket::open(keyring, Purpose::Out, token).expect("ours");
    let now = time_of_uuid(id);
    assert!(!ticket.is_older_than(Duration::from_hours(720), now));
    let visitor = enricher.describe(&signs(ip));
    let visit = OutVisit {
        rule_id: ticket.rule_id,
        path_id: ticket.path_id,
        offer_id: ticket.offer_id,
        nth: None,
        now,
        seed: ticket.click_id.seed(),
        visitor_key: None,
        bound_offer_id: None,
        os: visitor.os,
        is_full: &|_| false,
    };
    let decision = routing::decide_out(routes, &visit);
    let mut own = Click::of_link(ticket.click_id, routes.campaign.id, params);
    visitor.describe(&mut own);
    let carried = Carried {
        click_id: Some(ticket.click_id),
        campaign_id: ticket.campaign_id,
        landing_page_id: ticket.landing_page_id,
        offer_id: decision.offer_id(),
        texts: Texts::decode(&ticket.texts).expect("ours"),
    };
    let template = decision.template.expect("the campaign has offers");
    let location = template.expand(&routes.values(&decision, Known::Carried(&carried)), &[]);
    let out = OutClick {
        click_id: Some(ticket.click_id),
        campaign_id: Some(ticket.campaign_id),
        rule_id: decision.rule_id,
        path_id: decision.path_id(),
        landing_page_id: ticket.landing_page_id,
        offer_id: decision.offer_id(),
        carrier: Carrier::Token,
        is_bot: visitor.is_bot,
        country: own.country.clone(),
        device: own.device.clone(),
        os: own.os.clone(),
        browser: own.browser.clone(),
        ..OutClick::new(id)
    };
    let mut bytes = Vec::with_capacity(256);
    out.encode(&mut bytes);
    (location, bytes)
}

fn out_path(c: &mut Criterion) {
    let routes = funnel();
    let enricher = Enricher::open(&Files::default()).expect("the built-in data");
    let dir = tempfile::tempdir().expect("a directory");
    let keyring = Keyring::open(dir.path().join("token-keys.json")).expect("random numbers");
    let ip: IpAddr = [8, 8, 8, 8].into();
    let params = Params::parse(QUERY);
    let id = ClickId::now();
    let visitor = enricher.describe(&signs(ip));
    let decision = routing::decide(&routes, &Visit::new(&params, &visitor, id.created_at(), id.seed()));
    let click = click(id, ip, params.clone(), &routes, &decision, visitor);
    let token = ticket(&click, &routes).seal(&keyring, Purpose::Out, id.created_at());
    println!("a token of {} characters", token.len());

    let mut group = c.benchmark_group("out");
    group.bench_function("seal", |b| {
        b.iter(|| ticket(black_box(&click), &routes).seal(&keyring, Purpose::Out, id.created_at()));
    });
    group.bench_function("open", |b| {
        b.iter(|| Ticket::open(&keyring, Purpose::Out, black_box(&token)).expect("ours"));
    });
    group.bench_function("whole", |b| {
        b.iter(|| out_whole(black_box(&token), ip, &enricher, &routes, &keyring));
    });
    group.finish();
}

/// The same campaign with a cap on its path and on each offer, and with choices that are kept.
fn capped_and_sticky() -> Routes {
    let cap = |of| Cap { of, limit: 1_000_000_000, per: CapPer::Day, time_zone: None };
    let mut campaign = routes().campaign;
    campaign.terms.sticky = Sticky::All;
    campaign.terms.caps = vec![cap(CapOf::Clicks)];
    for offer in &mut campaign.terms.offers {
        offer.caps = vec![cap(CapOf::Clicks)];
    }
    Routes::new(campaign).expect("the destinations are templates")
}

/// What knows visitors and caps.
struct Memory {
    keys: Keys,
    uniques: Arc<Uniques>,
    caps: Caps,
    keyring: Keyring,
}

impl Memory {
    fn open(dir: &std::path::Path) -> Self {
        let uniques = Arc::new(Uniques::open(458_752, dir.join("visitors"), None));
        let caps = Caps::new(1000, uniques.clone());
        let keyring = Keyring::open(dir.join("keys.json")).expect("random numbers");
        Self { keys: Keys::new([7; 16]), uniques, caps, keyring }
    }
}

/// As [`whole`], with what is known and kept of the visitor, as `http::track` does it: whether he is unique, and where the
/// campaign says so, caps and the cookie, in and out.
fn whole_of_visitor(
    query: &str,
    ip: IpAddr,
    enricher: &Enricher,
    routes: &Routes,
    memory: &Memory,
    cookie: &str,
) -> (String, Vec<u8>, Option<String>) {
    let mut params = Params::parse(query);
    let id = ClickId::now();
    let (now, now_s) = (id.created_at(), id.timestamp_ms() / 1000);
    let visitor = enricher.describe(&signs(ip));
    let seen = memory.keys.hash_visit(ip, USER_AGENT, routes.campaign.id, now_s);
    let choices = (routes.campaign.terms.sticky != Sticky::Off).then(|| {
        let bytes = memory.keyring.open_text(Purpose::Sticky, cookie);
        bytes.map(|bytes| Choices::read(&bytes)).unwrap_or_default()
    });
    let visit = Visit {
        visitor_key: Some(visitor_key(seen)),
        bound: choices.as_ref().and_then(|choices| choices.bound(&routes.campaign)),
        is_full: &|target| memory.caps.is_full(routes, target, now, seen),
        ..Visit::new(&params, &visitor, now, id.seed())
    };
    let decision = routing::decide(routes, &visit);
    let unknown = std::mem::take(&mut params.unknown);
    let mut click = click(id, ip, params, routes, &decision, visitor);
    click.is_unique = memory.uniques.is_first_counted(seen, now_s);
    memory.caps.count_click(routes, decision.path_id(), decision.offer_id(), now, seen);
    let values = routes.values(&decision, Known::Click(&click));
    let template = decision.template.expect("the campaign has offers");
    let location = template.expand(&values, &unknown);
    let mut bytes = Vec::with_capacity(512);
    click.encode(&mut bytes);
    let cookie = choices.map(|mut choices| {
        choices.note(&routes.campaign, &decision);
        memory.keyring.seal(Purpose::Sticky, &choices.to_bytes(), now)
    });
    (location, bytes, cookie)
}

/// What visitors and caps cost, beside a click without them.
fn visitors(c: &mut Criterion) {
    let enricher = Enricher::open(&Files::default()).expect("the built-in data");
    let ip: IpAddr = [8, 8, 8, 8].into();
    let dir = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(dir.path());
    let mut group = c.benchmark_group("visitors");
    let off = routes();
    group.bench_function("nothing", |b| b.iter(|| whole(black_box(QUERY), ip, &enricher, &off)));
    let mut bench = |name: &str, routes: &Routes| {
        let (_, _, cookie) = whole_of_visitor(QUERY, ip, &enricher, routes, &memory, "");
        let cookie = cookie.unwrap_or_default();
        group.bench_function(name, |b| {
            b.iter(|| whole_of_visitor(black_box(QUERY), ip, &enricher, routes, &memory, &cookie));
        });
    };
    bench("unique", &off);
    let mut sticky = routes();
    sticky.campaign.terms.sticky = Sticky::All;
    let sticky = Routes::new(sticky.campaign).expect("the destinations are templates");
    bench("unique, sticky", &sticky);
    let mut caps = capped_and_sticky();
    caps.campaign.terms.sticky = Sticky::Off;
    let caps = Routes::new(caps.campaign).expect("the destinations are templates");
    bench("unique, caps", &caps);
    bench("unique, sticky, caps", &capped_and_sticky());
    group.finish();
}

/// A visitor by its agent and address alone, with hints and language, and with the operator's files too; and one whose
/// agent was not seen before.
fn describe(group: &mut BenchmarkGroup<'_, WallTime>, ip: IpAddr) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |kind: &str, record: Value| {
        let path = directory.path().join(kind);
        mmdb::write(&path, kind, &[("8.8.8.0/24", record)]);
        path
    };
    let city = file(
        "GeoLite2-City",
        json!({
            "city": { "names": { "en": "Munich" } },
            "country": { "iso_code": "DE" },
            "subdivisions": [{ "iso_code": "BY" }],
        }),
    );
    let isp = file("GeoIP2-ISP", json!({ "isp": "Example Net" }));
    let connection = file("GeoIP2-Connection-Type", json!({ "connection_type": "Cellular" }));
    let files = Files { country: None, city: Some(&city), isp: Some(&isp), connection: Some(&connection) };
    let enricher = Enricher::open(&Files::default()).expect("the built-in data");
    let with_files = Enricher::open(&files).expect("files just written");
    let all = signs(ip);
    let plain = Signs { hints: Hints::default(), accept_language: "", ..all };
    for (name, enricher, signs) in [
        ("describe visitor (agent cached)", &enricher, plain),
        ("describe visitor (agent cached, hints, language)", &enricher, all),
        ("describe visitor (agent cached, hints, language, three files)", &with_files, all),
    ] {
        group.bench_function(name, |b| b.iter(|| enricher.describe(black_box(&signs))));
    }
    let mut build = 0_u64;
    group.bench_function("describe visitor (new agent, hints, language)", |b| {
        b.iter_batched(
            || {
                build += 1;
                USER_AGENT.replace("SM-S918B", &format!("SM-{build}"))
            },
            |agent| enricher.describe(black_box(&Signs { user_agent: &agent, ..all })).is_bot,
            BatchSize::SmallInput,
        );
    });
}

fn click_path(c: &mut Criterion) {
    let routes = routes();
    let enricher = Enricher::open(&Files::default()).expect("the built-in data");
    let ip: IpAddr = [8, 8, 8, 8].into();
    let params = Params::parse(QUERY);
    let id = ClickId::now();
    let visitor = enricher.describe(&signs(ip));
    let visit = Visit::new(&params, &visitor, id.created_at(), id.seed());
    let decision = routing::decide(&routes, &visit);
    let template = decision.template.expect("the campaign has offers");
    let click = click(id, ip, params.clone(), &routes, &decision, visitor);
    let values = Values::of_click(&click, "demo");
    let mut bytes = Vec::with_capacity(512);

    let mut group = c.benchmark_group("click");
    group.bench_function("parse query", |b| b.iter(|| Params::parse(black_box(QUERY))));
    describe(&mut group, ip);
    group.bench_function("decide", |b| {
        b.iter(|| routing::decide(&routes, black_box(&visit)));
    });
    group.bench_function("expand template", |b| {
        b.iter(|| template.expand(black_box(&values), &params.unknown));
    });
    group.bench_function("encode", |b| {
        b.iter(|| {
            bytes.clear();
            black_box(&click).encode(&mut bytes);
            black_box(bytes.len())
        });
    });
    group.bench_function("whole", |b| b.iter(|| whole(black_box(QUERY), ip, &enricher, &routes)));
    group.finish();
}

criterion_group!(benches, click_path, visitors, out_path);
criterion_main!(benches);
