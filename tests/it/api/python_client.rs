//! A client that a stranger's tool makes of the OpenAPI document can do a tracker's work.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{harness::Scratch, tools::Tool, tracker::Tracker};

const TOOL: &str = "openapi-python-client";
const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_generated_python_client_makes_a_campaign_follows_its_link_and_reads_the_click() {
    let tracker = Tracker::start("python_client").await;
    let scratch = Scratch::create();
    let document = tracker.octo.get("/api/v1/openapi.json").await.bytes().await.unwrap();
    fs::write(scratch.dir().join("openapi.json"), document).unwrap();
    let generate = ["generate", "--path", "openapi.json", "--output-path", "octo_client", "--meta", "none"];
    Tool::program(TOOL, scratch.dir()).args(generate).run(LIMIT).await;

    fs::write(scratch.dir().join("drive.py"), include_str!("python_client/drive.py")).unwrap();
    let drive =
        Tool::script(TOOL, scratch.dir()).arg("drive.py").arg(tracker.octo.url("")).arg(&tracker.token);
    let found: Value = serde_json::from_str(&drive.run(LIMIT).await).expect("JSON");
    assert_eq!((&found["status"], &found["clicks"]), (&302.into(), &1.into()), "{found}");
    let click_id = found["click_id"].as_str().unwrap();
    assert_eq!(found["location"], format!("https://offer.example/?click={click_id}&s=banner%207"));
    assert_eq!(found["read"]["id"], click_id);
    assert_eq!(found["read"]["campaign_id"], found["campaign_id"]);
    assert_eq!(found["read"]["sub1"], "banner 7");
}
