//! schemathesis finds nothing: every operation of the OpenAPI document does what the document says, for requests
//! that are as it says and for such as are not. `tests/it/api/schemathesis/` has its configuration, and why.
//!
//! `OCTO_PROOF=long cargo nextest run --locked --profile proof -E 'test(/^api::schemathesis::/)'` asks fifty times as much.

use std::{fs, time::Duration};

use crate::{
    harness::{OctoBuilder, Scratch, is_long},
    tools::Tool,
    tracker::Tracker,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing() {
    let (examples, limit) =
        if is_long() { ("50", Duration::from_mins(19)) } else { ("1", Duration::from_mins(6)) };
    // each operation is asked with wrong credentials too
    let patient = |builder: OctoBuilder| {
        builder
            .env("OCTO_LIMITS__FAILED_AUTH_BURST", "10000")
            .env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "10000")
            .env("OCTO_REPORTS__EXPORTS_MAX", "10000")
    };
    let tracker = Tracker::start_with("schemathesis", patient).await;
    tracker.simple_campaign("demo").await; // the key of the document's examples
    let scratch = Scratch::create();
    for (name, text) in [
        ("schemathesis.toml", include_str!("schemathesis/schemathesis.toml")),
        ("hooks.py", include_str!("schemathesis/hooks.py")),
    ] {
        fs::write(scratch.dir().join(name), text).unwrap();
    }
    let said = Tool::program("schemathesis", scratch.dir())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .arg("run")
        .arg(tracker.octo.url("/api/v1/openapi.json"))
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", tracker.token))
        .args(["--max-examples", examples, "--seed", "1", "--generation-database", "none"])
        .run(limit)
        .await;
    let summary = said.rsplit_once("= SUMMARY =").map_or(&*said, |(_, summary)| summary);
    println!("{summary}");
    // it must have asked: of everything but the document, which it has, and a lot
    let operations = tracker.octo.operations().await;
    let operations = operations.iter().filter(|o| o.template != "/api/v1/openapi.json").count();
    let line = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default();
    let (tested, all) = (line("Tested:").trim(), line("Selected:").trim());
    assert_eq!((tested, all), (&*operations.to_string(), &*format!("{operations}/{operations}")));
    let cases = summary.lines().find(|line| line.contains(" generated, ")).unwrap_or_default();
    let counts: Vec<u32> = cases.split(", ").map(number).collect();
    assert!(counts.len() > 1 && counts[0] > 1000 && counts[0] == counts[1], "{cases}");
    let errors: Vec<_> =
        tracker.octo.stderr().lines().filter(|l| l.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(errors, [""; 0], "no failure on our side");
    assert_eq!(tracker.octo.get("/readyz").await.status(), 200);
}

/// The digits that a text begins with.
fn number(text: &str) -> u32 {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().unwrap_or(0)
}
