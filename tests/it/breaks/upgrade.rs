//! What octo 0.1.0 left behind is taken over: its database, journal, saved campaigns and token (`tests/data/v0.1.0`).

use std::{fs, path::Path, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{Octo, PrivatePostgres, PrivateRedis, Scratch, api::answer, eventually},
    tracker::{Table, assert_old_roll_ups_agree, header},
};

const OLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v0.1.0");
/// The first click of the old installation.
const OLD_CLICK: &str = "01a22738-cf36-7566-9cc7-d294755f84d0";
const SOON: Duration = Duration::from_secs(30);

/// A data directory as the old octo left it.
fn old_data(scratch: &Scratch) -> std::path::PathBuf {
    let data = scratch.dir().join("data");
    copy_tree(Path::new(OLD), &data);
    data
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn old_database() -> (PrivatePostgres, PgPool) {
    let postgres = PrivatePostgres::start().await;
    let dump = fs::read_to_string(format!("{OLD}/database.sql")).unwrap();
    // the dump empties the search path of its session
    let session = postgres.pool().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&session).await.unwrap();
    session.close().await;
    let pool = postgres.pool().await;
    (postgres, pool)
}

#[tokio::test]
async fn a_database_a_journal_and_a_token_of_0_1_0_are_taken_over() {
    let (postgres, pool) = old_database().await;
    assert_eq!(Table::Clicks.count(&pool).await.unwrap(), 5, "the old octo had stored these");
    let scratch = Scratch::create();
    let data = old_data(&scratch);
    let token = fs::read_to_string(data.join("admin-token")).unwrap();
    let octo = Octo::builder().database_url(postgres.url()).data_dir(&data).start().await;
    let click = octo.get("/click?cid=summer&sub1=new").await;
    assert_eq!(click.status(), StatusCode::FOUND);
    assert!(header(&click, "location").starts_with("https://a.example/?c="), "{click:?}");

    // the click and the event that were only in the old journal, and the new click
    eventually(SOON, async || {
        let (clicks, events) = (Table::Clicks.count(&pool).await?, Table::Events.count(&pool).await?);
        anyhow::ensure!((clicks, events) == (7, 3), "{clicks} clicks and {events} events");
        Ok(())
    })
    .await;
    assert_eq!(Table::DeadLetters.count(&pool).await.unwrap(), 0);
    let late: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE sub1 = 'late' AND is_bot")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(late, 1, "the click of the old journal");
    assert_old_roll_ups_agree(&pool).await;

    let api = octo.api(token.trim());
    let campaign = api.show("/campaigns/summer").await;
    assert_eq!(campaign["landing_pages"].as_array().unwrap().len(), 2);
    assert_eq!(campaign["payout"], json!({ "amount": "1.50", "currency": "EUR" }));
    let old = api.show(&format!("/clicks/{OLD_CLICK}")).await;
    assert_eq!(
        (&old["sub1"], &old["sub2"], &old["cost"]["amount"]),
        (&json!("a1"), &json!("€"), &json!("0.05"))
    );
    assert_eq!((&old["click_id_param"], &old["affiliate_sub5"]), (&json!("ext1"), &json!("z")), "{old}");
    let verify = octo.run(&["journal", "verify"]).await;
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
}

#[tokio::test]
async fn an_event_id_of_0_1_0_is_still_the_same_event() {
    let (postgres, pool) = old_database().await;
    let scratch = Scratch::create();
    let octo = Octo::builder().database_url(postgres.url()).data_dir(old_data(&scratch)).start().await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Events.count(&pool).await? == 3);
        Ok(())
    })
    .await;
    let again = json!({ "event_type": "purchase", "cid": "summer", "event_id": "019aaf3c-5f00-7abc-8def-0123456789ab" });
    let fresh = json!({ "event_type": "purchase", "cid": "summer", "event_id": "019aaf3c-5f00-7abc-8def-0123456789ac" });
    for event in [again, fresh] {
        let answer = octo.client().post(octo.url("/event")).json(&event).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    eventually(SOON, async || {
        let events = Table::Events.count(&pool).await?;
        anyhow::ensure!(events >= 4, "{events} events");
        Ok(())
    })
    .await;
    assert_eq!(Table::Events.count(&pool).await.unwrap(), 4, "only the fresh one was added");
}

#[tokio::test]
async fn campaigns_saved_by_0_1_0_are_served_while_the_database_is_away() {
    let scratch = Scratch::create();
    let refusing = "postgres://app_user@127.0.0.1:1/nothing";
    let octo = Octo::builder().database_url(refusing).data_dir(old_data(&scratch)).start().await;
    let click = octo.get("/click?cid=summer&sub1=x").await;
    assert_eq!(click.status(), StatusCode::FOUND);
    assert!(header(&click, "location").contains("&s=x"), "{click:?}");
    assert_eq!(header(&click, "x-octo-recorded"), "");
}

/// The value of a campaign in the Redis of 0.1.0, under another key of links.
fn left_in_redis(key: &str) -> String {
    let summer = fs::read_to_string(format!("{OLD}/redis-campaign-summer.json")).unwrap();
    summer.replace("\"key\":\"summer\"", &format!("\"key\":\"{key}\""))
}

#[tokio::test]
async fn campaigns_that_0_1_0_left_in_redis_are_served_while_the_database_is_away() {
    let redis = PrivateRedis::start().await;
    let mut connection = redis.connection().await;
    let mut set = async |name: &str, value: String| {
        let (): () = redis::cmd("SET").arg(name).arg(value).query_async(&mut connection).await.unwrap();
    };
    set("campaign:summer", left_in_redis("summer")).await;
    set("t:campaign:autumn", left_in_redis("autumn")).await;
    set("campaign:winter", left_in_redis("winter")).await;
    let mut new: Value = serde_json::from_str(&left_in_redis("winter")).unwrap();
    new.as_object_mut().unwrap().remove("schema");
    new["campaign"]["landing_pages"][0]["url"] = json!("https://new.example/");
    set("t:campaign_v1:winter", new.to_string()).await;

    let scratch = Scratch::create();
    let data = old_data(&scratch);
    let mut saved: Value = serde_json::from_slice(&fs::read(data.join("campaigns.json")).unwrap()).unwrap();
    saved["campaigns"].as_array_mut().unwrap().retain(|campaign| campaign["key"] == "demo");
    fs::write(data.join("campaigns.json"), saved.to_string()).unwrap();
    let refusing = "postgres://app_user@127.0.0.1:1/nothing";
    let builder = || Octo::builder().database_url(refusing).redis_url(redis.url());
    // as by default: names are made from a database that 0.1.0 did not save
    let mut octo = builder().data_dir(&data).start().await;
    let location = async |octo: &Octo, key: &str| {
        let click = octo.get(&format!("/click?cid={key}&sub1=x")).await;
        (click.status().as_u16(), header(&click, "location"))
    };
    let (status, to) = location(&octo, "summer").await;
    assert!(
        status == 302 && to.starts_with("https://a.example/?c=") && to.ends_with("&s=x"),
        "{status} {to}"
    );
    assert_eq!(location(&octo, "nobodys").await.0, 404);
    octo.kill9().await;

    let octo = builder().data_dir(&data).env("OCTO_REDIS__KEY_PREFIX", "t:").start().await;
    for key in ["summer", "autumn"] {
        let (status, to) = location(&octo, key).await;
        assert!(status == 302 && to.starts_with("https://a.example/?c="), "{key}: {status} {to}");
    }
    let (_, to) = location(&octo, "winter").await;
    assert!(to.starts_with("https://new.example/"), "what is new counts: {to}");
}

#[tokio::test]
async fn what_0_1_0_left_in_redis_hides_nothing_that_the_database_says_and_goes_with_a_change() {
    let (postgres, _) = old_database().await;
    let redis = PrivateRedis::start().await;
    let mut connection = redis.connection().await;
    for key in ["summer", "deleted"] {
        let set = redis::cmd("SET").arg(format!("campaign:{key}")).arg(left_in_redis(key)).take();
        set.exec_async(&mut connection).await.unwrap();
    }
    let scratch = Scratch::create();
    let data = old_data(&scratch);
    let token = fs::read_to_string(data.join("admin-token")).unwrap();
    let octo =
        Octo::builder().database_url(postgres.url()).redis_url(redis.url()).data_dir(&data).start().await;
    // as soon as the schema is up: until then nobody can ask the database
    eventually(SOON, async || {
        let status = octo.get("/click?cid=deleted").await.status();
        anyhow::ensure!(status == StatusCode::NOT_FOUND, "{status}");
        Ok(())
    })
    .await;
    let patch = octo.api(token.trim()).request(Method::PATCH, "/campaigns/summer");
    assert_eq!(answer(patch.json(&json!({ "name": "Late summer" }))).await.0, StatusCode::OK);
    let left: u32 = redis::cmd("EXISTS").arg("campaign:summer").query_async(&mut connection).await.unwrap();
    assert_eq!(left, 0);
}
