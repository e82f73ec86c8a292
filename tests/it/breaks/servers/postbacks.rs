//! Postbacks while PostgreSQL is away, and after a start without it.

use octo::model::id::ClickId;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    harness::{Octo, PrivatePostgres, api::answer, eventually, migrate},
    tracker::{OFFER, SOON, header},
};

#[tokio::test]
async fn a_network_is_known_and_its_postbacks_are_taken_with_every_store_away() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut octo =
        Octo::builder().database_url(postgres.url()).redis_url("redis://127.0.0.1:1").start().await;
    octo.create_campaign("demo", OFFER).await; // without one, octo does not start while PostgreSQL is away
    let token = octo.admin_token().await;
    let body = json!({ "name": "n", "postback_key": "somenetwork", "postback_token": "s3cret-token" });
    let (status, made) =
        answer(octo.api(&token).request(Method::POST, "/affiliate-networks").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let saved = octo.data_dir().join("networks.json");
    eventually(SOON, async || {
        anyhow::ensure!(std::fs::read_to_string(&saved)?.contains("somenetwork"));
        Ok(())
    })
    .await;
    let ask = async |octo: &Octo, when: &str| {
        let good = format!("/postback/somenetwork?token=s3cret-token&clickid={}", ClickId::now());
        assert_eq!(octo.get(&good).await.status(), StatusCode::OK, "{when}");
        for (path, dropped) in [
            ("/postback/somenetwork?token=other", "wrong_token"),
            ("/postback/othernetwork?token=s3cret-token", "wrong_key"),
        ] {
            let answer = octo.get(path).await;
            let found = (answer.status(), header(&answer, "x-octo-dropped"));
            assert_eq!(found, (StatusCode::FORBIDDEN, dropped.to_owned()), "{when}: {path}");
        }
    };
    postgres.stop_fast().await;
    ask(&octo, "while it is away").await;
    octo.kill9().await;
    octo.start_again().await;
    ask(&octo, "after a start without it").await;

    // a node that never saw the networks refuses nobody: what it refused might never come again
    octo.kill9().await;
    std::fs::remove_file(&saved).unwrap();
    octo.start_again().await;
    let unknown = octo.get(&format!("/postback/othernetwork?clickid={}", ClickId::now())).await;
    assert_eq!(unknown.status(), StatusCode::OK);
}
