//! What a click costs in CPU, without sockets and disks: each step of `GET /click`, and all of them in one; and the same of
//! `GET /out`.
//!
//! `cargo bench --bench click_path`

use std::{hint::black_box, net::IpAddr, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use octo::{
    facts::{click::Click, out_click::OutClick},
    model::{
        campaign::{Campaign, Destination, Terms},
        click::InvalidReason,
        id::{ClickId, new_uuid, time_of_uuid},
        link::Params,
        out_click::Carrier,
    },
    routing::{
        self, Decision, OutVisit, Routes, Visit,
        destination::{Carried, Known, Texts, Values},
    },
    seal::{
        Purpose,
        keys::Keyring,
        token::{TEXTS_BYTES_MAX, Ticket},
    },
    visitor::{Enricher, Files, Hints, Signs, Visitor},
};

mod support;

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
    group.bench_function("describe visitor (agent cached)", |b| {
        b.iter(|| enricher.describe(black_box(&signs(ip))));
    });
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

criterion_group!(benches, click_path, out_path);
criterion_main!(benches);
