//! The command line beside the server.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use crate::{
    harness::{Database, Octo, Scratch, free_address},
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
        let request = tracker.octo.api(&tracker.token).get("/campaigns");
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

#[tokio::test]
async fn healthcheck_sees_the_file_that_serve_sees() {
    let database = Database::create("cli_health_file").await;
    let scratch = Scratch::create();
    let (file, address) = (scratch.dir().join("octo.toml"), free_address());
    let text = format!(
        "[server]\nlisten = \"{address}\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    // the harness sets a listener of its own, which would win
    let builder =
        || Octo::builder().database_url(database.url()).env("OCTO_SERVER__LISTEN", address.to_string());
    let octo = builder().env("OCTO_CONFIG", &file).start().await;
    let seeing = octo.run(&["healthcheck"]).await;
    assert_eq!(seeing.status.code(), Some(0), "{}", String::from_utf8_lossy(&seeing.stderr));
    let blind = builder().run(&["healthcheck"]).await;
    assert_eq!(blind.status.code(), Some(1), "without the file no PROXY header is sent");
}

#[tokio::test]
async fn what_is_not_utf_8_in_the_environment_ends_nothing_but_our_own_configuration() {
    let odd = || OsString::from_vec(b"tweety\xff".to_vec());
    let check = async |name: &str| {
        let output = Octo::builder().env(name, odd()).run(&["config", "check"]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["SOMEBODY", "LC_SOMETHING", "OCTO_BIN", "OCTO"] {
        assert_eq!(check(name).await, (Some(0), String::new()), "{name}");
    }
    for name in ["DATABASE_URL", "REDIS_URL", "PORT", "OCTO_SERVER__PUBLIC_URL", "OCTO_SERVER__DATA_DIR"] {
        let (code, said) = check(name).await;
        assert_eq!(code, Some(3), "{name}: {said}");
        assert!(said.contains(&format!("{name} is not UTF-8")) && !said.contains("tweety"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn a_data_directory_whose_name_is_not_utf_8_is_the_one_that_is_used() {
    let database = Database::create("cli_data_dir").await;
    let scratch = Scratch::create();
    let odd = scratch.dir().join(OsString::from_vec(b"data \xff".to_vec()));
    let octo = Octo::builder().database_url(database.url()).data_dir(&odd).start().await;
    assert!(odd.join("journal").is_dir() && octo.get("/readyz").await.status() == 200);
    let names: Vec<_> =
        std::fs::read_dir(scratch.dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let others = names.iter().filter(|path| **path != odd && path.is_dir()).count();
    assert_eq!(others, 0, "and no other: {names:?}");
}

#[tokio::test]
async fn config_check_finds_a_password_that_is_not_encoded_and_names_the_remedy() {
    for (name, url) in [
        ("DATABASE_URL", "postgres://u:twe#ety@db:5432/octo"),
        ("DATABASE_URL", "postgres://u:twe/ety@db:5432/octo"),
        ("OCTO_DATABASE__DIRECT_URL", "postgres://u:twe?ety@db:5432/octo"),
        ("OCTO_DATABASE__REPLICA_URLS", "postgres://u:p@db/octo,postgres://u:12/ety@db/octo"),
        ("REDIS_URL", "redis://:twe/ety@cache:6379"),
        ("REDIS_URL", "redis://:twe#ety@cache:6379"),
        ("OCTO_REDIS__CLUSTER_URLS", "redis://:p@a,redis://:twe?ety@b"),
        ("OCTO_REDIS__SENTINEL_URLS", "redis://:twe#ety@cache:26379"),
    ] {
        for command in [&["config", "check"][..], &["serve"]] {
            let output = Octo::builder().env(name, url).run(command).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{url}: {said}");
            assert!(said.contains("write it as %") && said.contains("for example"), "{url}: {said}");
            assert!(!said.contains("twe") && !said.contains("ety"), "{said}");
        }
    }
}
