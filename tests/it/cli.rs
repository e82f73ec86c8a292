//! The command line beside the server.

use crate::{
    harness::{Database, Octo},
    tracker::{Table, Tracker},
};

#[tokio::test]
async fn config_print_names_every_value_and_its_origin_and_hides_secrets() {
    let octo = Octo::builder()
        .env("OCTO_DATABASE__URL", "postgres://u:canary@h/db")
        .env("OCTO_DRAIN__BATCH_ROWS", "7");
    let output = octo.run(&["config", "print"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(
        text.contains("batch_rows = 7") && text.contains("# environment OCTO_DRAIN__BATCH_ROWS"),
        "{text}"
    );
    assert!(text.contains("url = \"***\"") && !text.contains("canary"), "{text}");
    assert!(octo.run(&["config", "check"]).await.status.success());
    let wrong = Octo::builder().env("OCTO_DRAIN__BATCH_ROW", "7").run(&["config", "check"]).await;
    assert_eq!(wrong.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `drain.batch_rows`?"));
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_help_is_worth_reading() {
    assert_eq!(Octo::builder().run(&["dance"]).await.status.code(), Some(2));
    let help = Octo::builder().run(&["--help"]).await;
    let text = String::from_utf8_lossy(&help.stdout);
    for word in ["serve", "migrate", "token", "journal", "--data-dir", "never loses a click"] {
        assert!(text.contains(word), "{word} is not in the help");
    }
}

#[tokio::test]
async fn tokens_are_shown_once_listed_without_secret_and_revoked_at_once() {
    let tracker = Tracker::start("cli_tokens").await;
    let ask = async || {
        let request =
            tracker.octo.client().get(tracker.octo.url("/api/v1/campaigns")).bearer_auth(&tracker.token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 200);
    let list = String::from_utf8(tracker.octo.run(&["token", "list"]).await.stdout).unwrap();
    assert!(list.contains("admin") && !list.contains(&tracker.token), "{list}");
    let id = list.split(' ').next().unwrap();
    assert!(tracker.octo.run(&["token", "revoke", id]).await.status.success());
    assert_eq!(ask().await, 401);
    let again = tracker.octo.run(&["token", "revoke", "00000000-0000-0000-0000-000000000000"]).await;
    assert_eq!(again.status.code(), Some(1));
}

#[tokio::test]
async fn the_journal_is_inspected_and_damage_is_found_beside_a_running_octo() {
    let tracker = Tracker::start("cli_journal").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..10 {
        tracker.click("/c/demo").await;
    }
    tracker.wait_rows(Table::Clicks, 10).await;
    let output = tracker.octo.run(&["journal", "verify", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!((report["records"].as_u64(), report["damaged_records"].as_u64()), (Some(10), Some(0)));

    let stream = report["streams"][0]["id"].as_str().unwrap();
    let segment = tracker.octo.data_dir().join("journal").join(stream).join(format!("{:020}.seg", 0));
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = tracker.octo.run(&["journal", "verify"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 records are damaged"));
}

#[tokio::test]
async fn healthcheck_tells_ready_from_not() {
    let database = Database::create("cli_health").await;
    let octo = Octo::builder().database_url(database.url()).start().await;
    let address = octo.addr().to_string();
    let ask = |address: String| async move {
        Octo::builder().run(&["--listen", &address, "healthcheck"]).await.status.code()
    };
    assert_eq!(ask(address).await, Some(0));
    assert_eq!(ask("127.0.0.1:1".to_owned()).await, Some(1));
}
