//! `/postback`: what is answered, who may, what is kept. How networks write is in `postback_shapes`.

use std::{fs, path::Path};

use octo::model::{conversion::Refusal, id::ClickId};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::postback_shapes::postbacks;
use crate::{
    harness::{Octo, api::answer, eventually},
    tracker::{SOON, Tracker, header},
};

async fn make(tracker: &Tracker, body: Value) -> Value {
    let (status, made) = answer(tracker.api(Method::POST, "/affiliate-networks").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

/// Waits until the node knows a network's key.
async fn wait_known(octo: &Octo, key: &str) {
    eventually(SOON, async || {
        let answer = octo.get(&format!("/postback/{key}")).await;
        let dropped = header(&answer, "x-octo-dropped");
        anyhow::ensure!(dropped != "wrong_key", "{key} is not known yet");
        Ok(())
    })
    .await;
}

async fn body(response: Response) -> Value {
    response.json().await.expect("JSON")
}

/// Every byte of the segments on disk.
fn bytes_of(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(bytes_of(&path));
        } else {
            bytes.extend(fs::read(path).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_postback_is_answered_once_it_is_on_disk_and_who_only_looks_stores_nothing() {
    let tracker =
        Tracker::start_with("postback_answers", |b| b.env("OCTO_POSTBACKS__BODY_BYTES_MAX", "2048")).await;
    let (octo, id) = (&tracker.octo, ClickId::now());
    let accepted = octo.get(&format!("/postback?clickid={id}&payout=1")).await;
    assert_eq!((accepted.status(), header(&accepted, "cache-control")), (StatusCode::OK, "no-store".into()));
    assert_eq!(
        (header(&accepted, "x-octo-dropped"), body(accepted).await),
        (String::new(), json!({ "status": "accepted" }))
    );

    let ignored = octo.get("/postback?clickid=foreign-4711&return=OK").await;
    assert_eq!(
        (header(&ignored, "x-octo-dropped"), header(&ignored, "content-type")),
        ("bad_click_id".into(), "text/plain; charset=utf-8".into())
    );
    assert_eq!(ignored.text().await.unwrap(), "OK");
    let ignored = octo.get("/postback?payout=1").await;
    assert_eq!(body(ignored).await, json!({ "status": "ignored", "reason": "no_click_id" }));

    // who only looks
    let client = octo.client();
    let url = octo.url(&format!("/postback?clickid={id}&payout=2"));
    for method in [Method::HEAD, Method::OPTIONS] {
        let answer = client.request(method.clone(), &url).send().await.unwrap();
        assert!(answer.status().is_success(), "{method}: {}", answer.status());
    }
    for name in ["purpose", "sec-purpose", "x-moz"] {
        assert_eq!(client.get(&url).header(name, "prefetch").send().await.unwrap().status(), StatusCode::OK);
    }
    let deleted = client.delete(&url).send().await.unwrap();
    assert_eq!(
        (deleted.status(), header(&deleted, "allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, POST, OPTIONS".into())
    );
    let long = client.post(octo.url("/postback")).body("x".repeat(2049)).send().await.unwrap();
    assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // a page of any site may tell of a conversion
    let page = client.get(&url).header("origin", "https://shop.example").send().await.unwrap();
    assert_eq!(header(&page, "access-control-allow-origin"), "https://shop.example");

    for (outcome, count) in [("accepted", 2), ("ignored", 2), ("refused", 1), ("unavailable", 0)] {
        assert_eq!(
            octo.metric(&format!("octo_postbacks_total{{outcome=\"{outcome}\"}}")).await,
            count,
            "{outcome}"
        );
    }
    let mut octo = tracker.octo;
    octo.kill9().await;
    let kept = postbacks(&octo);
    assert_eq!(kept.len(), 4);
    assert_eq!((kept[0].click_id, kept[1].click_id), (Some(id), None));
    assert_eq!(
        (kept[0].params.as_ref(), kept[0].ip),
        (format!("clickid={id}&payout=1").as_str(), "127.0.0.1".parse().ok())
    );
}

#[tokio::test]
async fn a_network_lets_in_whom_it_names_and_nobody_else() {
    let tracker =
        Tracker::start_with("postback_who", |b| b.env("OCTO_POSTBACKS__REFUSED_PER_MINUTE_MAX", "4")).await;
    let octo = &tracker.octo;
    let open = make(&tracker, json!({ "name": "open", "postback_key": "opennetwork" })).await;
    assert_eq!(
        open["postback_url"],
        format!("http://{}/postback/opennetwork?click_id=REPLACE&payout=REPLACE", octo.addr())
    );
    make(
        &tracker,
        json!({ "name": "secret", "postback_key": "secretnetwork", "postback_token": "s3cret-token" }),
    )
    .await;
    make(
        &tracker,
        json!({ "name": "near", "postback_key": "nearnetwork", "postback_addresses": ["127.0.0.1"] }),
    )
    .await;
    make(
        &tracker,
        json!({ "name": "far", "postback_key": "farnetwork", "postback_addresses": ["203.0.113.0/24"] }),
    )
    .await;
    wait_known(octo, "farnetwork").await; // the last one that was made; it refuses this once

    for (path, dropped) in [
        ("/postback/opennetwork", ""),
        ("/opennetwork/postback", ""),
        ("/postback/nearnetwork", ""),
        ("/postback/secretnetwork?token=s3cret-token", ""),
        ("/postback/secretnetwork?key=s3cret-token", ""),
        ("/postback/secretnetwork?token=other", "wrong_token"),
        ("/secretnetwork/postback", "wrong_token"),
        ("/postback/farnetwork", "wrong_address"),
        ("/postback/nobodysnetwork", "wrong_key"),
        ("/nobodysnetwork/postback", "wrong_key"),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = octo.get(&format!("{path}{separator}clickid={}", ClickId::now())).await;
        let wanted = if dropped.is_empty() { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(
            (answer.status(), header(&answer, "x-octo-dropped").as_str()),
            (wanted, dropped),
            "{path}"
        );
    }
    let refused = octo.metric("octo_postbacks_total{outcome=\"refused\"}").await;
    let mut octo = tracker.octo;
    // an end in order: nobody waits until what is refused is on disk
    octo.sigterm();
    assert!(octo.wait_exit(2 * SOON).await.success());
    let kept = postbacks(&octo);
    let refusals: Vec<_> = kept.iter().filter_map(|postback| postback.refusal).collect();
    // those before the networks were known are among them
    assert!(refused >= 6 && refusals.len() == 4, "{refused} {refusals:?}");
    assert!(refusals.iter().any(|refusal| matches!(refusal, Refusal::WrongToken | Refusal::WrongKey)));
    assert!(!holds(&bytes_of(&octo.data_dir()), "s3cret-token"), "not in the journal, and not beside it");
}

#[tokio::test]
async fn where_a_key_is_required_nobody_comes_without_one() {
    let tracker =
        Tracker::start_with("postback_key_required", |b| b.env("OCTO_POSTBACKS__KEY_REQUIRED", "true")).await;
    make(&tracker, json!({ "name": "n", "postback_key": "somenetwork" })).await;
    wait_known(&tracker.octo, "somenetwork").await;
    for (path, status) in [("/postback", 403), ("/click?cnv_id=x", 403), ("/postback/somenetwork", 200)] {
        assert_eq!(tracker.octo.get(path).await.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn nobodys_name_is_in_the_journal() {
    let tracker = Tracker::start("postback_people").await;
    let (octo, id) = (&tracker.octo, ClickId::now());
    let query = "email=ann%40people.example&phone=%2B493012345&first_name=Annabel&sub7=ann%2540people.example&token=tokentoken";
    octo.get(&format!("/postback?clickid={id}&{query}&note=kept-note")).await;
    let json = json!({ "click_id": id.to_string(), "customer": { "name": "Annabel", "tel": "4930123456" }, "goal": "kept-goal" });
    octo.client().post(octo.url("/postback")).json(&json).send().await.unwrap();
    assert_eq!(octo.metric("octo_postback_parameters_left_out_total{reason=\"private\"}").await, 9);
    let stderr = octo.stderr();
    let data = octo.data_dir();
    let mut octo = tracker.octo;
    octo.kill9().await;
    let bytes = bytes_of(&data.join("journal"));
    for kept in ["kept-note", "kept-goal"] {
        assert!(holds(&bytes, kept), "{kept}");
    }
    for gone in ["people.example", "493012345", "Annabel", "4930123456", "tokentoken"] {
        assert!(!holds(&bytes, gone) && !stderr.contains(gone), "{gone}");
    }
}

#[tokio::test]
async fn what_nothing_is_read_from_is_removed_from_postbacks_when_they_are_old() {
    const INTERVAL: &str = "OCTO_DATABASE__PARTITIONS_INTERVAL_S";
    let tracker = Tracker::start_with("postback_cut", |b| b.env(INTERVAL, "1")).await;
    tracker.simple_campaign("cut").await;
    let parameters = json!([{ "field": "txid", "name": "ref" }]);
    make(&tracker, json!({ "name": "n", "postback_key": "cutting-1", "postback_parameters": parameters }))
        .await;
    wait_known(&tracker.octo, "cutting-1").await;
    let (_, id) = tracker.click("/click?cid=cut").await;
    let path = format!("/postback/cutting-1?clickid={id}&geo=DE&payout=2&ref=r1&user=7");
    for _ in 0..2 {
        assert_eq!(tracker.octo.get(&path).await.status(), StatusCode::OK);
    }
    let params = async || -> anyhow::Result<Vec<(String, bool)>> {
        let sql = "SELECT params, is_cut FROM postbacks WHERE click_id = $1 ORDER BY created_at";
        Ok(sqlx::query_as(sql).bind(id).fetch_all(&tracker.pool).await?)
    };
    eventually(SOON, async || {
        let found = params().await?.len();
        anyhow::ensure!(found == 2, "{found} are stored");
        Ok(())
    })
    .await;
    let age = "
        UPDATE postbacks
        SET created_at = created_at - interval '91 days'
        WHERE id = (SELECT id FROM postbacks WHERE click_id = $1 ORDER BY created_at LIMIT 1)";
    sqlx::query(age).bind(id).execute(&tracker.pool).await.unwrap();
    let (whole, left) =
        (format!("clickid={id}&geo=DE&payout=2&ref=r1&user=7"), format!("clickid={id}&payout=2&ref=r1"));
    eventually(SOON, async || {
        let found = params().await?;
        let wanted = [(left.clone(), true), (whole.clone(), false)];
        anyhow::ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await;
}
