//! Canaries: secrets are put everywhere octo takes them, everything it can be made to say is collected, and none
//! of them may be in it. Likewise what visitors send, in the log at its usual level.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Database, Octo, RedisSentinel, eventually},
    tracker::{SOON, Table, Tracker},
};

/// Nothing that octo says by itself holds this word.
const CANARY: &str = "tweety";

/// Texts that octo said, by where it said them.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    async fn add_output(&mut self, octo: &Octo, args: &[&str]) {
        let output = octo.run(args).await;
        self.add(format!("octo {args:?}"), lossy(&output.stdout) + &lossy(&output.stderr));
    }

    /// Every file, read as bytes: a secret is ASCII.
    fn add_files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.add_files(&entry.path());
            } else {
                self.add(entry.path().display().to_string(), lossy(&fs::read(entry.path()).unwrap()));
            }
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, text)| text.len()).sum()
    }

    /// Fails if one of `secrets` was said anywhere, and quotes where.
    fn assert_free_of(&self, secrets: &[&str]) {
        let mut leaks = String::new();
        for secret in secrets {
            assert!(secret.len() >= 6, "{secret} is no secret");
            for (place, text) in &self.0 {
                for line in text.lines().filter(|line| line.contains(secret)) {
                    let _ = writeln!(leaks, "{secret} in {place}: {line:.600}");
                }
            }
        }
        assert!(leaks.is_empty(), "{leaks}");
        println!("{} secrets, {} texts, {} bytes: none found", secrets.len(), self.0.len(), self.bytes());
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The password in a URL.
fn password(url: &str) -> String {
    url::Url::parse(url).unwrap().password().expect("a password").to_owned()
}

/// A URL with another password.
fn with_password(url: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_password(Some(password)).unwrap();
    url.into()
}

#[tokio::test]
async fn no_secret_is_in_logs_metrics_answers_or_files() {
    let database = Database::create("canary_secrets").await;
    let dir = tempfile::tempdir().unwrap();
    let replicas = dir.path().join("replicas");
    // the first replica is good, the others refuse the password: failures are logged
    let urls = [
        database.replica_url(0),
        with_password(&database.replica_url(1), "tweety-replica"),
        with_password(&database.url(), "tweety-other"),
    ];
    fs::write(&replicas, urls.join(",") + "\n").unwrap();
    let redis = with_password(&database.redis_url(), "tweety-redis"); // refused too
    let with_user = redis.replacen("redis://", "redis://tweety-user", 1);
    for (format, redis) in [("text", redis), ("json", with_user)] {
        let octo = Octo::builder()
            .database_url(database.url())
            .env("OCTO_DATABASE__REPLICA_URLS_FILE", &replicas)
            .redis_url(redis)
            .env("OCTO_REDIS__PASSWORD", "tweety-sentinel-servers")
            .env("OCTO_DATABASE__PROBE_INTERVAL_MS", "100")
            .env("RUST_LOG", "trace")
            .env("OCTO_DATABASE__SLOW_QUERY_MS", "0")
            .env("OCTO_DATABASE__SLOW_QUERY_PLANS", "true")
            .env("RUST_BACKTRACE", "1")
            .arg("--log-format")
            .arg(format)
            .start()
            .await;
        let token = octo.admin_token().await;
        let mut said = Said::default();
        let made = ask_everything(&octo, &token, &mut said).await;
        eventually(SOON, async || {
            for pool in ["replica1", "replica2"] {
                let failed = format!("octo_db_connections_failed_total{{pool=\"{pool}\"}}");
                anyhow::ensure!(octo.metric(&failed).await > 0, "{pool} was not refused yet");
            }
            Ok(())
        })
        .await;
        for args in [&["config", "print"][..], &["config", "check"], &["token", "list"], &["--help"]] {
            said.add_output(&octo, args).await;
        }
        said.add_output(&octo, &["journal", "inspect"]).await;
        said.add_output(&octo, &["migrate", "status"]).await;
        said.add_files(&octo.data_dir());
        octo.sigterm();
        let mut octo = octo;
        octo.wait_exit(SOON).await;
        let log = octo.stderr();
        assert!(log.contains("DEBUG"), "the log is as loud as it gets");
        said.add("the log", log);
        let real = password(&database.url());
        said.assert_free_of(&[CANARY, &token[5..], &made[5..], &real]);
    }
}

/// Everything the API answers, with credentials of all sorts; gives the token it made.
async fn ask_everything(octo: &Octo, token: &str, said: &mut Said) -> String {
    let client = octo.client();
    let made = octo.api(token).post("/tokens").json(&json!({ "scope": "read" }));
    let made: Value = made.send().await.unwrap().json().await.unwrap(); // the one answer that shows a secret
    let mut paths: BTreeSet<String> = octo.operations().await.into_iter().map(|o| o.template).collect();
    paths.extend(["/metrics", "/nothing", "/click?cid=x"].map(str::to_owned));
    let shapeless = "octo_tweety".to_owned();
    let wrong = format!("octo_{:x<64}", "tweety");
    for path in &paths {
        for authorization in [
            format!("Bearer {token}"),
            format!("Bearer {shapeless}"),
            format!("Bearer {wrong}"),
            "Basic tweety".to_owned(),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                if method == Method::POST && path.ends_with("/tokens") {
                    continue;
                }
                let request = client
                    .request(method.clone(), octo.url(path))
                    .header("authorization", &authorization)
                    .header("idempotency-key", "tweety-idempotency")
                    .header("proxy-authorization", "Basic tweety")
                    .header("cookie", "session=tweety")
                    .json(&json!({ "event_type": "view" }));
                let answer = request.send().await.unwrap();
                let headers = format!("{:?}", answer.headers());
                said.add(format!("{method} {path}"), headers + &answer.text().await.unwrap());
            }
        }
    }
    let query = octo.get(&format!("/api/v1/campaigns?token={token}&access_token=tweety")).await;
    said.add("a token in the query", query.text().await.unwrap());
    let metrics = octo.metrics().await;
    said.add("/metrics", metrics);
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_secret_of_sentinel_or_of_a_start_that_fails_is_said() {
    let database = Database::create("canary_failures").await;
    let sentinel = RedisSentinel::start().await;
    let mut said = Said::default();
    let octo = Octo::builder()
        .database_url(database.url())
        .env("OCTO_REDIS__SENTINEL_URLS", with_password(&sentinel.urls(), "tweety-sentinel"))
        .env("OCTO_REDIS__SENTINEL_MASTER", sentinel.name())
        .env("OCTO_REDIS__PASSWORD", "tweety-servers")
        .env("RUST_LOG", "trace")
        .start()
        .await;
    said.add("/health", octo.get("/health").await.text().await.unwrap());
    said.add_output(&octo, &["config", "print"]).await;
    said.add("the log with Sentinel", octo.stderr());

    let refused = with_password(&database.url(), "tweety-refused");
    for args in [&["serve"][..], &["migrate"], &["token", "list"]] {
        for name in ["DATABASE_URL", "OCTO_DATABASE__URL"] {
            let output = Octo::builder().env(name, &refused).env("RUST_LOG", "trace").run(args).await;
            assert!(!output.status.success(), "{name} {args:?}");
            said.add(format!("{name} {args:?}"), lossy(&output.stdout) + &lossy(&output.stderr));
        }
    }
    said.assert_free_of(&[CANARY, &password(&database.url())]);
}

#[tokio::test]
async fn no_secret_is_in_what_is_said_of_a_wrong_configuration() {
    let mut said = Said::default();
    let wrong = [
        ("DATABASE_URL", "mysql://u:tweety@h/db"),
        ("DATABASE_URL", "postgres://u:tweety@h:port/db"),
        ("DATABASE_URL", "postgres://u:tweety@[/db"),
        ("DATABASE_URL", "tweety"),
        ("DATABASE_URL", "postgres://u:tweety@127.0.0.1:1/db?sslmode=never"),
        ("DATABASE_URL", "postgres://u:tweety@127.0.0.1:1/db?sslrootcert=tweety"),
        ("OCTO_DATABASE__REPLICA_URLS", "postgres://u:tweety@h:port/db"),
        ("OCTO_DATABASE__DIRECT_URL", "postgres://u:tweety@h:port/db"),
        ("OCTO_DATABASE__URLS", "postgres://u:tweety@h/db"),
        ("REDIS_URL", "redis://:tweety@h:port"),
        ("REDIS_URL", "tweety"),
        ("REDIS_URL", "http://:tweety@h"),
        ("REDIS_URL", "redis://:tweety@h/tweety"),
        ("OCTO_REDIS__CLUSTER_URLS", "redis://:tweety@h:port,redis://:tweety@h"),
        ("OCTO_REDIS__SENTINEL_URLS", "redis://:tweety@h:port"),
        ("DATABASE_URL_FILE", "tweety"),
        ("OCTO_REDIS__PASSWORD_FILE", "/nowhere/tweety"),
        ("OCTO_SERVER__PUBLIC_URL", "https://u:tweety@[/"),
        ("OCTO_SERVER__PUBLIC_URL", "ftp://u:tweety@h/"),
        ("OCTO_SERVER__PUBLIC_URL", "https://u:tweety@h/"),
        ("OCTO_TRACKING__FALLBACK_URL", "https://tweety@h/"),
    ];
    let database = "postgres://u:p@127.0.0.1:1/db"; // nobody there
    for (name, value) in wrong {
        let builder =
            Octo::builder().env("RUST_LOG", "trace").env("OCTO_DATABASE__ACQUIRE_TIMEOUT_MS", "100");
        let builder = if name.starts_with("DATABASE") { builder } else { builder.database_url(database) };
        let builder = builder.env(name, value);
        let place = format!("{name}={}", value.replace(CANARY, "***"));
        for args in [&["config", "check"][..], &["serve"]] {
            let output = builder.run(args).await;
            said.add(format!("{place} {args:?}"), lossy(&output.stdout) + &lossy(&output.stderr));
            if !output.status.success() {
                break; // serve would say the same
            }
            assert_eq!(args[0], "config", "{place} is refused by the one or the other");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("octo.toml");
    for text in [
        "[database]\nurl = \"postgres://u:tweety@h/db",
        "[database]\nurl = postgres://u:tweety@h/db",
        "[database]\nurl = [\"postgres://u:tweety@h/db\"]",
        "[database]\nreplica_urls = \"postgres://u:tweety@h/db\"",
        "[database]\nreplica_urls = [[\"tweety\"]]",
        "[database]\nurls = \"tweety\"",
        "[redis]\npassword = { is = \"tweety\" }",
        "[redis]\npassword = \"tweety\"\npassword = \"tweety\"",
        "[redis]\ndatabase = \"tweety\"",
        "redis = \"tweety\"",
    ] {
        fs::write(&file, text).unwrap();
        let output = Octo::builder().arg("--config").arg(&file).run(&["config", "check"]).await;
        assert_eq!(output.status.code(), Some(3), "{text}");
        let words = lossy(&output.stderr);
        assert!(words.contains("octo.toml"), "it says where: {words}");
        said.add(text.replace(CANARY, "***"), words);
    }
    said.assert_free_of(&[CANARY]);
}

#[tokio::test]
async fn what_visitors_send_is_not_in_the_log() {
    let tracker = Tracker::start("canary_visitors").await;
    tracker.simple_campaign("demo").await;
    // one record is refused, with its values in the words of the refusal
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no % here', NEW.sub2 USING ERRCODE = '22003', DETAIL = NEW.sub2; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW WHEN (NEW.sub2 <> '') EXECUTE FUNCTION refuse()",
    )
    .execute(&tracker.pool)
    .await
    .unwrap();
    let (octo, client) = (&tracker.octo, tracker.octo.client());
    let get = |path: &str| {
        let request = client.get(octo.url(path)).header("referer", "https://tweety.example/?q=tweety");
        request.header("user-agent", "tweety/1.0").header("cookie", "tweety=1").header("x-tweety", "tweety")
    };
    for path in [
        "/click?cid=demo&sub1=tweety&click_id=tweety&tweety=1",
        "/click?cid=demo&sub2=tweety",
        "/click?cid=tweety",
        "/c/demo?cost=tweety&sub3=%FF%00tweety",
        "/tweety",
        "/event.gif?event_type=view&cid=demo&user_id=tweety&tweety=tweety",
        "/event.gif?event_type=TWEETY%20tweety",
    ] {
        get(path).send().await.unwrap();
    }
    for body in [
        json!({ "event_type": "view", "cid": "demo", "user_id": "tweety", "properties": { "tweety": "tweety" } }),
        json!({ "event_type": "tweety tweety", "click_id": "tweety", "tweety": 1 }),
    ] {
        client.post(octo.url("/event")).json(&body).send().await.unwrap();
    }
    client.post(octo.url("/event")).body("{\"tweety\": tweety").send().await.unwrap();
    tracker.wait_rows(Table::Clicks, 2).await;
    tracker.wait_rows(Table::Events, 2).await;
    tracker.wait_rows(Table::DeadLetters, 1).await;
    let mut said = Said::default();
    said.add("the log", octo.stderr());
    said.add("/metrics", octo.metrics().await);
    said.add("/health", octo.get("/health").await.text().await.unwrap());
    said.assert_free_of(&[CANARY]);
    assert!(octo.stderr().contains("22003"), "the refusal itself is logged:\n{}", octo.stderr());
}
