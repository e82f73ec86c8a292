//! The commands of the pages that a newcomer follows: they run, and do what the pages say.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::ensure;
use serde_json::Value;

use crate::{
    files::documentation::{commands, pages},
    harness::{Octo, eventually},
    tracker::SOON,
};

/// What the commands of a page may take together.
const COMMANDS_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs commands of a page as its reader would, beside this octo.
pub(super) async fn shell(octo: &Octo, commands: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_octo")).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let commands = commands.replace("http://127.0.0.1:8080", octo.url("").as_str());
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-euc", &commands]).env_clear().env("PATH", path).current_dir(octo.dir()).kill_on_drop(true);
    let output =
        tokio::time::timeout(COMMANDS_TIMEOUT, sh.output()).await.expect("the commands end").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_commands_of_the_readme_and_of_the_first_steps_do_what_the_pages_say() {
    let octo = Octo::builder().start().await;
    eventually(SOON, async || {
        ensure!(octo.get("/click?cid=demo").await.status() == 302, "the demo campaign is not there");
        ensure!(octo.data_dir().join("admin-token").exists(), "no token yet");
        Ok(())
    })
    .await;
    let pages = pages();
    let [click, list] = commands(&pages[Path::new("README.md")])[..] else {
        panic!("to click, and to see it")
    };
    let answer = shell(&octo, click).await;
    assert!(answer.starts_with("HTTP/1.1 302 Found") && answer.contains("&sub1=hello"), "{answer}");
    eventually(SOON, async || {
        let clicks: Value = serde_json::from_str(&shell(&octo, list).await)?;
        ensure!(clicks["data"][0]["sub1"] == "hello" && clicks["data"][0]["is_bot"] == true, "{clicks}");
        Ok(())
    })
    .await;

    let mut script = String::new();
    for block in commands(&pages[Path::new("docs/getting-started.md")]) {
        // a reader takes longer than the drain
        for (stored, sign) in [("clicks/$CLICK", "summer"), ("events?click_id=$CLICK", "purchase")] {
            if block.contains(stored) {
                let ask = format!("curl -sS -H \"Authorization: Bearer $TOKEN\" \"$OCTO/api/v1/{stored}\"");
                writeln!(script, "until {ask} | grep -q {sign}; do sleep 0.1; done").unwrap();
            }
        }
        script.push_str(block);
        script.push_str("\necho\n");
    }
    let said = shell(&octo, &script).await;
    let answers: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [campaign, click, accepted, events, stats] = &answers[..] else {
        panic!("five answers in JSON: {said}")
    };
    assert_eq!(campaign["key"], "summer");
    assert_eq!((&click["sub1"], &click["is_valid"]), (&"newsletter".into(), &true.into()));
    assert_eq!(accepted["status"], "accepted");
    assert_eq!(events["data"][0]["external_id"], "order-1001");
    let totals = &stats["totals"];
    let counted = [&totals["clicks"], &totals["valid_clicks"], &totals["events"]];
    assert_eq!(counted, [&Value::from(1); 3], "{stats}");
    let token = said.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    assert!(token.starts_with("octo_"), "a token is the last answer");
}

#[tokio::test]
async fn the_first_real_campaign_goes_as_its_page_says_and_the_story_names_every_decision() {
    let octo = Octo::builder().env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    eventually(SOON, async || {
        ensure!(octo.data_dir().join("admin-token").exists(), "no token yet");
        Ok(())
    })
    .await;
    let pages = pages();
    let mut script = String::new();
    for block in commands(&pages[Path::new("docs/first-campaign.md")]) {
        // a reader takes longer than the drain
        if block.contains("/story") {
            let ask = "curl -sS -H \"Authorization: Bearer $TOKEN\"";
            let (story, out) =
                ("\"$OCTO/api/v1/clicks/$(cut -d' ' -f1 german-iphone)/story\"", "grep -q out_click");
            writeln!(script, "until {ask} {story} | {out}; do sleep 0.1; done").unwrap();
        }
        script.push_str(block);
        script.push_str("\necho\n");
    }
    let said = shell(&octo, &script).await;
    let answers: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [campaign, links, story] = &answers[..] else { panic!("three answers in JSON: {said}") };
    assert_eq!(campaign["rules"][0]["name"], "German iPhones");
    let link = links["url"].as_str().or(links["short"].as_str()).unwrap_or_default();
    assert!(links.to_string().contains("visitor_id=${SUBID}"), "{link} {links}");
    let decision = &story["decision"];
    let names = ["rule", "path", "landing_page"].map(|part| decision[part]["name"].as_str().unwrap());
    assert_eq!(names, ["German iPhones", "With a page", "Page"]);
    assert_eq!(
        (&story["click"]["click_id_param"], &story["click"]["is_valid"]),
        (&"abc".into(), &true.into())
    );
    let chapters = story["chapters"].as_array().unwrap();
    let out = chapters.iter().find(|chapter| chapter["kind"] == "out_click").unwrap();
    assert!(out["text"].as_str().unwrap().contains("Shop DE"), "{out}");
    let went: Vec<&str> = said.lines().filter(|line| line.contains("https://shop")).collect();
    assert!(
        went.iter().any(|line| line.contains("https://shop-de.example/")),
        "out to the German shop: {said}"
    );
    assert!(said.contains("rule German iPhones") && said.contains("takes him"), "octo explain: {said}");
}

#[tokio::test]
async fn the_example_of_a_report_beside_what_is_stored_says_what_its_page_says() {
    let octo = Octo::builder().start().await;
    eventually(SOON, async || {
        ensure!(octo.data_dir().join("admin-token").exists(), "no token yet");
        Ok(())
    })
    .await;
    let pages = pages();
    let page = &pages[Path::new("docs/reconciliation.md")];
    let mut script = String::new();
    for block in commands(page) {
        // a reader takes longer than the drain
        if block.contains("conversions reconcile") {
            let count =
                "ask \"$OCTO/api/v1/conversions?network=$NETWORK\" | grep -o '\"txid\":\"T-' | grep -c .";
            writeln!(script, "until [ \"$({count})\" = 3 ]; do sleep 0.1; done").unwrap();
        }
        script.push_str(block);
    }
    let said = shell(&octo, &script).await;
    assert!(said.contains("missing_here,T-4,never_arrived"), "{said}");
    let shown = page.split("```\n").find(|block| block.contains("never_arrived") && block.contains("theirs"));
    assert_eq!(shown, Some(said.as_str()), "the page shows what is said");
}
