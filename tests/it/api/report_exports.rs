//! Exports: what is too much for an answer, made in the background, whatever becomes of the node that makes it.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use chrono::Utc;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::report_rows::fill;
use crate::{
    harness::{Octo, OctoBuilder, api::json_of, eventually},
    tracker::{Tracker, header},
};

/// How long an export may take on a busy machine.
const MADE: Duration = Duration::from_secs(30);

async fn filled(name: &str, clicks: i32, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Tracker {
    let set = |builder: OctoBuilder| {
        set(builder.env("OCTO_REPORTS__RAW_ROWS_MAX", "1000").env("OCTO_REPORTS__EXPORT_LEASE_MS", "1000"))
    };
    let tracker = Tracker::start_with(name, set).await;
    let campaign: Uuid = tracker.simple_campaign("demo").await["id"].as_str().unwrap().parse().unwrap();
    fill(&tracker.pool, campaign, clicks, 1).await;
    tracker
}

/// Asks for what is too much: where its export is.
async fn begin(tracker: &Tracker, path: &str, body: &Value) -> String {
    let answer = tracker.api(Method::POST, path).json(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{path} {body}");
    let location = header(&answer, "location");
    let export = json_of(answer).await;
    assert_eq!(location, format!("/api/v1/exports/{}", export["id"].as_str().unwrap()));
    assert!(["queued", "running"].contains(&export["state"].as_str().unwrap()), "{export}");
    location.strip_prefix("/api/v1").unwrap().to_owned()
}

async fn wait(tracker: &Tracker, path: &str, wanted: &str) -> Value {
    eventually(MADE, async || {
        let export = tracker.show(path).await;
        anyhow::ensure!(export["state"] == wanted, "{export}");
        Ok(())
    })
    .await;
    tracker.show(path).await
}

async fn file(tracker: &Tracker, path: &str) -> String {
    let answer = tracker.api(Method::GET, &format!("{path}/file")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(header(&answer, "content-disposition").starts_with("attachment; filename=\"octo-"));
    answer.text().await.unwrap()
}

fn files(octo: &Octo) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(octo.data_dir().join("exports"));
    directory.map(|files| files.map(|file| file.unwrap().path()).collect()).unwrap_or_default()
}

#[tokio::test]
async fn what_is_too_much_for_an_answer_becomes_an_export() {
    let tracker = filled("exports_big", 1500, |b| b).await;
    // sub1 is in no sum
    let body = json!({"group_by": ["sub1"], "measures": ["clicks", "cost"], "limit": 1});
    let path = begin(&tracker, "/reports", &body).await;
    let export = wait(&tracker, &path, "done").await;
    assert_eq!(
        (&export["rows"], &export["progress"], &export["format"]),
        (&json!(5), &json!(1.0), &json!("ndjson"))
    );
    let text = file(&tracker, &path).await;
    assert_eq!(export["bytes"], text.len());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let clicks: i64 = lines.iter().map(|line| line["figures"]["clicks"].as_i64().unwrap()).sum();
    assert_eq!((lines.len(), clicks), (5, 1500));

    // as a stream the facts are too many too; the export has them as the stream would have
    let answer = tracker
        .api(Method::GET, "/reports/facts?kind=clicks")
        .header("accept", "text/csv")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let path = format!("/exports/{}", json_of(answer).await["id"].as_str().unwrap());
    let export = wait(&tracker, &path, "done").await;
    assert_eq!(export["format"], "csv");
    let text = file(&tracker, &path).await;
    let rows = csv::Reader::from_reader(text.as_bytes()).records().count();
    assert_eq!(export["rows"], rows);
    assert!(rows >= 1500, "{rows} rows");

    let kept = files(&tracker.octo);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o777 == 0o600));
    let deleted = tracker.api(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    for gone in [path.clone(), format!("{path}/file")] {
        let answer = tracker.api(Method::GET, &gone).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(files(&tracker.octo).len(), 1);
}

#[tokio::test]
async fn an_export_whose_node_is_killed_is_begun_anew() {
    let mut tracker = filled("exports_killed", 12_000, |b| b).await;
    let to = Utc::now().to_rfc3339();
    let asked = |kind: &str| json!({"facts": {"kind": kind, "to": to}, "format": "ndjson"});
    let path = begin(&tracker, "/exports", &asked("clicks")).await;
    assert_eq!(begin(&tracker, "/exports", &asked("clicks")).await, path, "it is under way");
    let again = begin(&tracker, "/exports", &asked("costs")).await;
    assert_ne!(path, again);
    eventually(MADE, async || {
        let export = tracker.show(&path).await;
        anyhow::ensure!(export["state"] == "running" && export["rows"].as_i64() > Some(0), "{export}");
        Ok(())
    })
    .await;
    tracker.octo.kill9().await;
    assert!(files(&tracker.octo).iter().any(|file| file.extension().is_some_and(|end| end == "part")));
    tracker.octo.start_again().await;
    let export = wait(&tracker, &path, "done").await;
    let text = file(&tracker, &path).await;
    let clicks = text.lines().filter(|line| line.contains("\"kind\":\"click\"")).count();
    assert_eq!(clicks, 12_000);
    assert_eq!((&export["rows"], &export["bytes"]), (&json!(text.lines().count()), &json!(text.len())));
    let attempts: i32 = sqlx::query_scalar("SELECT attempts FROM report_exports WHERE id = $1")
        .bind(path.rsplit('/').next().unwrap().parse::<Uuid>().unwrap())
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(attempts, 2);
    wait(&tracker, &again, "done").await;
    assert_eq!(files(&tracker.octo).len(), 2);
}

#[tokio::test]
async fn only_the_node_that_made_it_has_the_file_and_others_say_which() {
    let tracker = filled("exports_nodes", 100, |b| b).await;
    let path = begin(&tracker, "/exports", &json!({"report": {"group_by": ["country"]}})).await;
    let export = wait(&tracker, &path, "done").await;
    let second = Octo::builder().database_url(tracker.database.url()).start().await;
    let answer = second.api(&tracker.token).get(&format!("{path}/file")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let problem = json_of(answer).await;
    assert_eq!(problem["code"], "on_another_node", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(export["node"].as_str().unwrap()), "{problem}");
    assert!(file(&tracker, &path).await.starts_with("country,"));
}

#[tokio::test]
async fn exports_have_bounds() {
    let set = |b: OctoBuilder| {
        b.env("OCTO_REPORTS__EXPORTS_MAX", "2")
            .env("OCTO_REPORTS__EXPORT_BYTES_MAX", "1024")
            .env("OCTO_REPORTS__EXPORT_KEEP_S", "4")
    };
    let tracker = filled("exports_bounds", 1500, set).await;
    let path = begin(&tracker, "/exports", &json!({"facts": {"kind": "clicks"}})).await;
    let export = wait(&tracker, &path, "failed").await;
    assert!(export["error"].as_str().unwrap().contains("1024 bytes"), "{export}");
    let answer = tracker.api(Method::GET, &format!("{path}/file")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(files(&tracker.octo), Vec::<PathBuf>::new());
    begin(&tracker, "/exports", &json!({"report": {}})).await;
    let body = json!({"report": {"group_by": ["country"]}});
    let full = tracker.api(Method::POST, "/exports").json(&body).send().await.unwrap();
    assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
    eventually(MADE, async || {
        let status = tracker.api(Method::GET, &path).send().await?.status();
        anyhow::ensure!(status == StatusCode::NOT_FOUND, "{status}");
        Ok(())
    })
    .await;
    begin(&tracker, "/exports", &body).await;
    for bad in [json!({}), json!({"report": {}, "facts": {}}), json!({"report": {"group_by": ["planet"]}})] {
        let answer = tracker.api(Method::POST, "/exports").json(&bad).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
}
