//! Dead letters: shown, tried again once the cause is gone, raced, refused again, forgotten; by API and command line.

use chrono::{TimeZone, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, api::answer},
    records::{click, encode_click, encode_event, event, write_journal},
    tracker::{Table, Tracker, assert_roll_ups_agree},
};

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not %', NEW.id USING ERRCODE = TG_ARGV[0];
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW WHEN (NEW.sub1 = 'bad')
    EXECUTE FUNCTION refuse('22003');
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_type = 'bad')
    EXECUTE FUNCTION refuse('23514');";

const ALLOW: &str = "DROP TRIGGER refuse ON clicks; DROP TRIGGER refuse ON events";

const REFUSE_OTHERWISE: &str = "
DROP TRIGGER refuse ON clicks;
CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW WHEN (NEW.sub1 = 'bad')
    EXECUTE FUNCTION refuse('22P02')";

/// A started octo whose journal held one good click, three bad ones, a bad event twice under one id, an event whose
/// properties are no JSON, and bytes that are no record: sequences 0, 1 to 3, 4 and 5, 6, 7.
struct Refused {
    tracker: Tracker,
    stream: Uuid,
    _data: tempfile::TempDir,
}

async fn refused(name: &str) -> Refused {
    let database = Database::create(name).await;
    let pool = database.pool().await;
    sqlx::raw_sql(REFUSE).execute(&pool).await.unwrap();
    let campaign = Uuid::now_v7();
    let mut records = vec![encode_click(&click(campaign))];
    for i in 0..3 {
        let mut bad = click(campaign);
        (bad.subs[0], bad.subs[1]) = (Some("bad".into()), Some(i.to_string().into()));
        bad.ip = Some("192.0.2.7".parse().unwrap());
        records.push(encode_click(&bad));
    }
    let mut twice = event(campaign);
    (twice.id, twice.is_idempotent, twice.event_type) = (Uuid::new_v4(), true, "bad".into());
    records.extend([encode_event(&twice), encode_event(&twice)]);
    let mut no_json = event(campaign);
    no_json.properties = Some(r#"{"a":"\ud800"}"#.into());
    records.extend([encode_event(&no_json), vec![200, 1, 2, 3]]);
    let data = tempfile::tempdir().unwrap();
    let stream = write_journal(data.path(), &records).await;
    let octo = Octo::builder().database_url(database.url()).data_dir(data.path()).start().await;
    let token = octo.admin_token().await;
    let tracker = Tracker { octo, pool, token, database };
    // the event that is given twice is one when both copies are in one batch, refused or not
    tracker.wait_rows(Table::DeadLetters, 7).await;
    tracker.wait_rows(Table::Clicks, 1).await;
    Refused { tracker, stream, _data: data }
}

impl Refused {
    async fn ask(&self, method: Method, path: &str) -> (u16, Value) {
        let (status, body) = answer(self.tracker.api(method, &format!("/dead-letters{path}"))).await;
        (status.as_u16(), body)
    }

    fn letter(&self, seq: i64) -> String {
        format!("/{}/{seq}", self.stream)
    }

    async fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.tracker.octo.run(&[&["journal"], args].concat()).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.tracker.pool).await.unwrap();
    }

    async fn count(&self, table: Table) -> i64 {
        table.count(&self.tracker.pool).await.unwrap()
    }
}

async fn letters(pool: &PgPool) -> Vec<(i64, String)> {
    sqlx::query_as("SELECT seq, sqlstate FROM dead_letters ORDER BY seq").fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn letters_are_shown_page_by_page_with_what_they_hold() {
    let it = refused("letters_shown").await;
    let (mut seqs, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = it.ask(Method::GET, &format!("?limit=3&cursor={cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 3);
        seqs.extend(data.iter().map(|letter| letter["seq"].as_i64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);

    let (_, click) = it.ask(Method::GET, &it.letter(2)).await;
    assert_eq!((&click["stream"], &click["sqlstate"]), (&json!(it.stream), &json!("22003")));
    let held = &click["record"]["click"];
    assert_eq!(
        (&held["sub1"], &held["sub2"], &held["ip_address"]),
        (&json!("bad"), &json!("1"), &json!("192.0.2.7"))
    );
    assert_eq!(click["message"], format!("not {}", held["id"].as_str().unwrap()));
    assert!(click["created_at"].is_string());
    let (_, event) = it.ask(Method::GET, &it.letter(6)).await;
    assert_eq!(
        (&event["sqlstate"], &event["record"]["event"]["properties"]),
        (&json!("22P02"), &json!(r#"{"a":"\ud800"}"#))
    );
    let (_, bytes) = it.ask(Method::GET, &it.letter(7)).await;
    assert_eq!((&bytes["sqlstate"], &bytes["record"]), (&json!("malformed"), &json!({ "hex": "c8010203" })));

    let (_, page) = it.ask(Method::GET, "?sqlstate=23514").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    assert!(!it.tracker.octo.stderr().contains("not 0"), "the log says nothing of what was refused");
}

#[tokio::test]
async fn a_list_leaves_out_what_is_long_and_one_letter_is_shown_whole() {
    let it = refused("letters_long").await;
    sqlx::query("UPDATE dead_letters SET record = $1 WHERE seq = 7")
        .bind(vec![200_u8; 100_000])
        .execute(&it.tracker.pool)
        .await
        .unwrap();
    let (_, page) = it.ask(Method::GET, "?sqlstate=malformed").await;
    assert_eq!((&page["data"][0]["record"], &page["data"][0]["bytes"]), (&json!("omitted"), &json!(100_000)));
    let (_, whole) = it.ask(Method::GET, &it.letter(7)).await;
    assert_eq!(whole["record"]["hex"].as_str().unwrap().len(), 200_000);
}

#[tokio::test]
async fn a_letter_is_stored_once_the_cause_is_gone() {
    let it = refused("letters_retried").await;
    it.sql(ALLOW).await;
    let (_, before) = it.ask(Method::GET, &it.letter(1)).await;
    let (status, answer) = it.ask(Method::POST, &format!("{}/retry", it.letter(1))).await;
    assert_eq!((status, answer), (200, json!({ "outcome": "stored" })));
    assert_eq!((it.ask(Method::GET, &it.letter(1)).await.0, it.count(Table::Clicks).await), (404, 2));
    assert_roll_ups_agree(&it.tracker.pool).await;
    let id = before["record"]["click"]["id"].as_str().unwrap();
    let stored: Value =
        it.tracker.api(Method::GET, &format!("/clicks/{id}")).send().await.unwrap().json().await.unwrap();
    assert_eq!(stored, before["record"]["click"], "what a letter shows is what is stored");

    let (status, first) = it.ask(Method::POST, "/retry?limit=2").await;
    assert_eq!((status, &first["stored"], &first["has_more"]), (200, &json!(2), &json!(true)));
    let next = first["next_cursor"].as_str().unwrap();
    let (_, rest) = it.ask(Method::POST, &format!("/retry?cursor={next}")).await;
    assert_eq!(
        (&rest["stored"], &rest["already_stored"], &rest["has_more"]),
        (&json!(1), &json!(1), &json!(false))
    );
    let stay: Vec<_> =
        rest["refused"].as_array().unwrap().iter().map(|r| (&r["seq"], &r["sqlstate"])).collect();
    assert_eq!(stay, [(&json!(6), &json!("22P02")), (&json!(7), &json!("malformed"))]);
    assert_eq!((it.count(Table::Clicks).await, it.count(Table::Events).await), (4, 1));
    assert_roll_ups_agree(&it.tracker.pool).await;
}

#[tokio::test]
async fn a_letter_that_is_refused_again_stays_and_says_why() {
    let it = refused("letters_again").await;
    it.sql(REFUSE_OTHERWISE).await;
    let (status, problem) = it.ask(Method::POST, &format!("{}/retry", it.letter(1))).await;
    assert_eq!(
        (status, &problem["code"], &problem["sqlstate"]),
        (409, &json!("refused_again"), &json!("22P02"))
    );
    let (_, letter) = it.ask(Method::GET, &it.letter(1)).await;
    assert_eq!((&letter["sqlstate"], &letter["record"]["click"]["sub1"]), (&json!("22P02"), &json!("bad")));
    assert_eq!(it.count(Table::Clicks).await, 1);
    let (status, problem) = it.ask(Method::POST, &format!("{}/retry", it.letter(7))).await;
    assert_eq!((status, &problem["sqlstate"]), (409, &json!("malformed")));
    assert_roll_ups_agree(&it.tracker.pool).await;
}

#[tokio::test]
async fn an_event_of_a_time_that_postgres_cannot_hold_stays_for_that_reason() {
    let it = refused("letters_time").await;
    let mut long_ago = event(Uuid::now_v7());
    long_ago.created_at = Utc.with_ymd_and_hms(-10_000, 1, 1, 0, 0, 0).unwrap();
    sqlx::query("UPDATE dead_letters SET record = $1 WHERE seq = 7")
        .bind(encode_event(&long_ago))
        .execute(&it.tracker.pool)
        .await
        .unwrap();
    let (status, problem) = it.ask(Method::POST, &format!("{}/retry", it.letter(7))).await;
    assert_eq!((status, &problem["sqlstate"]), (409, &json!("22008")), "{problem}");
}

#[tokio::test]
async fn a_letter_refused_at_the_commit_stays_too() {
    let it = refused("letters_deferred").await;
    it.sql(
        "DROP TRIGGER refuse ON clicks;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON clicks DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN (NEW.sub1 = 'bad') EXECUTE FUNCTION refuse('22008')",
    )
    .await;
    let (status, problem) = it.ask(Method::POST, &format!("{}/retry", it.letter(1))).await;
    assert_eq!((status, &problem["sqlstate"]), (409, &json!("22008")), "{problem}");
    assert_eq!(it.count(Table::Clicks).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_that_race_store_a_letter_once() {
    let it = refused("letters_raced").await;
    it.sql(ALLOW).await;
    // every retry takes its time, so that they meet
    it.sql(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    .await;
    let path = format!("{}/retry", it.letter(1));
    let one = async || it.ask(Method::POST, &path).await.0;
    let mut statuses: [u16; 4] = tokio::join!(one(), one(), one(), one()).into();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404, 404]);
    let all = async || it.ask(Method::POST, "/retry").await.1;
    let (a, b) = tokio::join!(all(), all());
    let sum = |name: &str| a[name].as_u64().unwrap() + b[name].as_u64().unwrap();
    assert_eq!((sum("stored"), sum("already_stored")), (3, 1), "{a} {b}");
    assert_eq!((it.count(Table::Clicks).await, it.count(Table::Events).await), (4, 1));
    assert_eq!(letters(&it.tracker.pool).await, [(6, "22P02".to_owned()), (7, "malformed".to_owned())]);
    assert_roll_ups_agree(&it.tracker.pool).await;
}

#[tokio::test]
async fn a_letter_whose_row_is_already_there_only_goes() {
    let it = refused("letters_there").await;
    it.sql(ALLOW).await;
    it.sql("CREATE TABLE kept AS SELECT * FROM dead_letters").await;
    assert_eq!(it.ask(Method::POST, "/retry").await.1["stored"], 4);
    it.sql("INSERT INTO dead_letters (stream, seq, record, sqlstate, message) SELECT stream, seq, record, '23505', '' FROM kept WHERE seq < 6")
        .await;
    for seq in 1..6 {
        let answer = it.ask(Method::POST, &format!("{}/retry", it.letter(seq))).await;
        assert_eq!(answer, (200, json!({ "outcome": "already_stored" })));
    }
    assert_eq!((it.count(Table::Clicks).await, it.count(Table::Events).await), (4, 1));
    assert_eq!(it.count(Table::DeadLetters).await, 2);
    assert_roll_ups_agree(&it.tracker.pool).await;
}

#[tokio::test]
async fn a_letter_is_forgotten_by_who_may() {
    let it = refused("letters_forgotten").await;
    let read = it.tracker.octo.token("read").await;
    let as_reader = async |method: Method, path: String| {
        let request = it.tracker.octo.api(&read).request(method, &format!("/dead-letters{path}"));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(as_reader(Method::GET, String::new()).await, 200);
    assert_eq!(as_reader(Method::GET, it.letter(1)).await, 200);
    assert_eq!(as_reader(Method::DELETE, it.letter(1)).await, 403);
    assert_eq!(as_reader(Method::POST, format!("{}/retry", it.letter(1))).await, 403);
    assert_eq!(as_reader(Method::POST, "/retry".to_owned()).await, 403);
    assert_eq!(it.ask(Method::DELETE, &it.letter(1)).await.0, 204);
    assert_eq!(it.ask(Method::DELETE, &it.letter(1)).await.0, 404);
    for (path, status) in
        [("/7/7", 404), ("?limit=0", 422), ("?sqlstate=no", 422), ("?cursor=7", 400), (&*it.letter(99), 404)]
    {
        assert_eq!(it.ask(Method::GET, path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn the_command_line_lists_letters_and_stores_them_again() {
    let it = refused("letters_cli").await;
    let stream = it.stream.to_string();
    let (code, text) = it.run(&["dead-letters"]).await;
    assert_eq!((code, text.lines().count()), (Some(0), 7), "{text}");
    assert!(text.contains(&format!("{stream} 1  22003")) && text.contains("unreadable (4 bytes)"), "{text}");
    let (code, text) = it.run(&["dead-letters", "--json"]).await;
    let shown: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, shown.len(), &shown[0]["seq"].is_i64()), (Some(0), 7, &true));

    let (code, text) = it.run(&["retry", &stream, "1"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("refused again, 22003"), "{text}");
    it.sql(ALLOW).await;
    assert_eq!(it.run(&["retry", &stream, "1"]).await, (Some(0), format!("{stream} 1  stored\n")));
    assert_eq!(it.run(&["retry", &stream, "1"]).await.0, Some(1), "there is none any more");
    assert_eq!(it.run(&["retry", "--all", "--sqlstate", "23514"]).await.0, Some(0));
    assert_eq!(it.run(&["retry", "--all"]).await.0, Some(1), "two stay");
    assert_eq!((it.count(Table::Clicks).await, it.count(Table::Events).await), (4, 1));
    assert_eq!(letters(&it.tracker.pool).await, [(6, "22P02".to_owned()), (7, "malformed".to_owned())]);
    assert_roll_ups_agree(&it.tracker.pool).await;
    for wrong in [
        &["retry"][..],
        &["retry", &stream],
        &["retry", &stream, "1", "--all"],
        &["retry", "--sqlstate", "22003"],
    ] {
        assert_eq!(it.run(wrong).await.0, Some(2), "{wrong:?}");
    }
}
