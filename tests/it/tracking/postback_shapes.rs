//! Postbacks as networks and trackers send them, through the edge and out of the journal: `postback_shapes.txt`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use octo::{
    facts::{postback::Postback, record::Record},
    journal::{Journal, Options, disk::RealDisk},
    model::{id::ClickId, network::PostbackRules},
    money::reading::{Meaning, NoClick, Reading, read},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Octo, api::answer, eventually},
    tracker::{SOON, Tracker},
};

const SHAPES: &str = include_str!("postback_shapes.txt");

/// A line of the table.
struct Shape<'a> {
    line: &'a str,
    network: &'a str,
    request: &'a str,
    wanted: String,
}

fn shapes() -> Vec<Shape<'static>> {
    let lines = SHAPES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let shape = |line: &'static str| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [network, request, wanted @ ..] = fields.as_slice() else { panic!("{line}") };
        assert_eq!(wanted.len(), 6, "{line}");
        Shape { line, network, request, wanted: wanted.join(" | ") }
    };
    lines.map(shape).collect()
}

/// As the table says it.
fn shown(reading: &Reading) -> String {
    let click = match reading.leg {
        Ok(leg) => leg.offer_id.map_or_else(|| "ok".to_owned(), |offer| format!("ok.{offer}")),
        Err(NoClick::Missing) => "missing".to_owned(),
        Err(NoClick::Bad) => "bad".to_owned(),
    };
    let status = match reading.status {
        Meaning::Known(status) => status.to_string(),
        Meaning::Unmapped => "unmapped".to_owned(),
    };
    let payout = reading.payout.map(|payout| payout.to_string()).unwrap_or_default();
    let currency = reading.currency.map(|currency| currency.to_string()).unwrap_or_default();
    let money = format!("{payout} {currency}");
    let flags: Vec<_> = reading.flags.iter().map(ToString::to_string).collect();
    let (txid, goal, flags) = (&reading.txid, &reading.goal, flags.join(" "));
    format!("{click} | {txid} | {goal} | {status} | {} | {flags}", money.trim())
}

/// Makes a network and gives its key and its rules, as the table calls it.
async fn network(tracker: &Tracker, name: &str) -> (String, PostbackRules) {
    let body = match name {
        "plain" => json!({ "name": name }),
        "casino" => json!({
            "name": name, "sums_lists": true,
            "status_map": [
                { "word": "reg", "status": "pending", "goal": "registration" },
                { "word": "dep", "status": "approved", "goal": "deposit" },
            ],
        }),
        template => json!({ "template": template }),
    };
    let (status, made) = answer(tracker.api(Method::POST, "/affiliate-networks").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let rules = json!({
        "parameters": made["postback_parameters"], "status_map": made["status_map"],
        "default_status": made["default_status"], "currency": made["currency"], "repeats": made["repeats"],
        "retry_window_s": made["retry_window_s"], "sums_lists": made["sums_lists"],
    });
    (made["postback_key"].as_str().unwrap().to_owned(), serde_json::from_value(rules).unwrap())
}

async fn send(octo: &Octo, request: &str) -> reqwest::Response {
    let client = octo.client();
    let request = match request.split(' ').next().unwrap() {
        kind @ ("FORM" | "JSON") => {
            let (path, body) = request[kind.len() + 1..].split_once(' ').unwrap();
            let media_type =
                if kind == "FORM" { "application/x-www-form-urlencoded" } else { "application/json" };
            client.post(octo.url(path)).header("content-type", media_type).body(body.to_owned())
        }
        _ => client.get(octo.url(request)),
    };
    request.send().await.expect("an answer")
}

/// The postbacks in the journal of an octo that has ended, in their order.
pub(super) fn postbacks(octo: &Octo) -> Vec<Postback<'static>> {
    let options = Options {
        root: octo.data_dir().join("journal"),
        segment_bytes: 64 << 20,
        bytes_max: 1 << 30,
        queue_records_max: 16,
        queue_bytes_max: 1 << 20,
        keep_drained: Duration::from_hours(24),
        retry_interval: Duration::from_secs(1),
    };
    let journal = Journal::open(Arc::new(RealDisk), options).expect("a journal");
    let mut found = Vec::new();
    let mut see = |payload: &[u8]| {
        if let Ok(Record::Postback(postback)) = Record::decode(payload) {
            let params = postback.params.clone().into_owned();
            found.push(Postback { params: params.into(), ..owned(&postback) });
        }
    };
    journal.visit(&mut see).expect("it can be read");
    journal.close();
    found
}

fn owned(postback: &Postback<'_>) -> Postback<'static> {
    let Postback { id, network_id, channel, ip, click_id, offer_id, refusal, .. } = *postback;
    Postback { network_id, channel, ip, click_id, offer_id, refusal, ..Postback::new(id, String::new()) }
}

#[tokio::test]
async fn every_network_is_understood_as_it_writes() {
    let tracker = Tracker::start("postback_shapes").await;
    let shapes = shapes();
    assert!(shapes.len() >= 60, "{}", shapes.len());
    let mut networks = BTreeMap::from([("-", (String::new(), PostbackRules::default()))]);
    for shape in &shapes {
        if !networks.contains_key(shape.network) {
            networks.insert(shape.network, network(&tracker, shape.network).await);
        }
    }
    let id = ClickId::now();
    for (key, _) in networks.values().filter(|(key, _)| !key.is_empty()) {
        eventually(SOON, async || {
            let status =
                tracker.octo.client().head(tracker.octo.url(&format!("/postback/{key}"))).send().await?;
            anyhow::ensure!(status.status() == StatusCode::OK);
            let answer = tracker.octo.get(&format!("/postback/{key}?warm=up")).await;
            anyhow::ensure!(answer.status() == StatusCode::OK, "{} for {key}", answer.status());
            Ok(())
        })
        .await;
    }
    for shape in &shapes {
        let (key, _) = &networks[shape.network];
        let request = shape.request.replace("KEY", key).replace("CLICK", &id.to_string());
        let response = send(&tracker.octo, &request.replace("SHORT", &id.short())).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", shape.line);
        let dropped =
            response.headers().get("x-octo-dropped").map(|value| value.to_str().unwrap().to_owned());
        let wanted = match shape.wanted.split(' ').next().unwrap() {
            "missing" => Some("no_click_id"),
            "bad" => Some("bad_click_id"),
            _ => None,
        };
        assert_eq!(dropped.as_deref(), wanted, "{}", shape.line);
        let said = response.text().await.unwrap();
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        let word = if wanted.is_some() { "ignored" } else { "accepted" };
        assert!(status["status"] == word || said == "OK", "{}: {said}", shape.line);
    }
    let mut octo = tracker.octo;
    octo.kill9().await;
    let postbacks = postbacks(&octo);
    let kept: Vec<_> = postbacks.iter().filter(|p| p.refusal.is_none() && p.params != "warm=up").collect();
    assert_eq!(kept.len(), shapes.len());
    for (shape, postback) in shapes.iter().zip(kept) {
        let (key, rules) = &networks[shape.network];
        assert_eq!(postback.network_id.is_some(), !key.is_empty(), "{}", shape.line);
        assert!(!postback.params.contains("secret"), "{}", postback.params);
        let reading = read(&postback.params, rules, octo::facts::Fact::at(postback));
        assert_eq!(shown(&reading), shape.wanted, "{}\n{}", shape.line, postback.params);
        assert_eq!(postback.click_id, reading.leg.ok().map(|leg| leg.click_id), "{}", shape.line);
        assert_eq!(postback.offer_id, reading.leg.ok().and_then(|leg| leg.offer_id), "{}", shape.line);
    }
}
