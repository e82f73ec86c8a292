//! What a click costs in CPU, without sockets and disks: each step of `GET /click`, and all of them in one.
//!
//! `cargo bench --bench click_path`

use std::{hint::black_box, net::IpAddr};

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use octo::{
    facts::click::Click,
    model::{
        campaign::{Campaign, Destination, Terms},
        click::InvalidReason,
        id::ClickId,
        link::Params,
    },
    routing::{
        self, Decision, Routes, Visit,
        destination::{Known, Values},
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
    let offer = |id: i64, weight| Destination {
        id: Some(id),
        name: format!("offer {id}"),
        url: OFFER.to_owned(),
        weight,
        ..Destination::default()
    };
    let terms = Terms {
        name: "demo".to_owned(),
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

criterion_group!(benches, click_path);
criterion_main!(benches);
