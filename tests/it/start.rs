//! The start without configuration, and starts that must fail.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    harness::{Octo, eventually},
    tracker::{SOON, header},
};

/// A value of the lines that end this start: an earlier one listened elsewhere.
fn printed(octo: &Octo, name: &str) -> String {
    let stderr = octo.stderr_of_this_start();
    let line = stderr.lines().find_map(|l| l.trim_start().strip_prefix(name)).unwrap_or_default();
    line.trim().split(' ').next().unwrap_or_default().to_owned()
}

async fn ready(octo: &Octo) {
    eventually(SOON, async || {
        anyhow::ensure!(!printed(octo, "admin token").is_empty(), "not announced yet");
        Ok(())
    })
    .await;
}

/// The token of the first start, which is the one that shows it.
fn token(octo: &Octo) -> String {
    let shown: Vec<_> = octo.stderr().matches("octo_").map(str::to_owned).collect();
    assert_eq!(shown.len(), 1, "a token is shown once:\n{}", octo.stderr());
    let stderr = octo.stderr();
    let line = stderr.lines().find_map(|l| l.trim_start().strip_prefix("admin token")).unwrap_or_default();
    line.trim().split(' ').next().unwrap_or_default().to_owned()
}

async fn stored_click(octo: &Octo, id: &str) -> Value {
    let token = token(octo);
    eventually(SOON, async || {
        let url = octo.url(&format!("/api/v1/clicks/{id}"));
        let response = octo.client().get(url).bearer_auth(&token).send().await?;
        anyhow::ensure!(response.status() == 200, "{}", response.status());
        Ok(response.json().await?)
    })
    .await
}

#[tokio::test]
async fn without_configuration_octo_brings_its_own_postgres_and_finds_its_data_again() {
    let start = Instant::now();
    let mut octo = Octo::builder().start().await;
    ready(&octo).await;
    println!("ready after {:?}", start.elapsed());
    let link = printed(&octo, "click link");
    let response = octo.client().get(&link).send().await.unwrap();
    assert_eq!(response.status(), 302);
    let id = header(&response, "x-click-id");
    assert!(header(&response, "location").contains(&id));
    assert_eq!(stored_click(&octo, &id).await["id"], id);

    octo.kill9().await;
    octo.start_again().await;
    ready(&octo).await;
    assert_eq!(stored_click(&octo, &id).await["id"], id, "found after kill -9");
    let second = octo.client().get(printed(&octo, "click link")).send().await.unwrap();
    assert_eq!(stored_click(&octo, &header(&second, "x-click-id")).await["campaign_key"], "demo");

    octo.sigterm();
    assert!(octo.wait_exit(Duration::from_secs(20)).await.success(), "{}", octo.stderr());
    octo.start_again().await;
    ready(&octo).await;
    assert_eq!(stored_click(&octo, &id).await["id"], id, "found after a stop");
    octo.sigterm();
    octo.wait_exit(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_taken_port_is_one_plain_sentence_and_exit_code_3() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Octo::builder().env("OCTO_SERVER__LISTEN", &address).run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("octo: {address} is in use")) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn a_data_directory_serves_one_octo_at_a_time() {
    let octo = Octo::builder().start().await;
    let other = Octo::builder().data_dir(octo.data_dir()).run(&["serve"]).await;
    assert_eq!(other.status.code(), Some(3));
    let text = String::from_utf8_lossy(&other.stderr);
    assert!(text.contains("in use by another octo"), "{text}");
    octo.sigterm();
    let mut octo = octo;
    octo.wait_exit(Duration::from_secs(20)).await;
}
