//! `octo privacy export|erase`: a person's records in every place, while octo runs and while it does not.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::eventually,
    load::send_all,
    tracker::{SOON, Table, Tracker, header},
};

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW WHEN (NEW.sub2 = 'bad') EXECUTE FUNCTION refuse();";

/// The drain waits as long as there is no such table.
const HOLD: &str = "ALTER TABLE campaign_stats_hourly RENAME TO held";
const LET_GO: &str = "ALTER TABLE held RENAME TO campaign_stats_hourly";

async fn sql(tracker: &Tracker, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&tracker.pool).await.unwrap();
}

/// A click of somebody, and an event of it.
async fn visit(tracker: &Tracker, who: &str, more: &str) -> Uuid {
    let (answer, id) = tracker.click(&format!("/click?cid=demo&sub1={who}{more}")).await;
    assert!(header(&answer, "x-octo-recorded").is_empty(), "it is on disk");
    let event = json!({ "event_type": "view", "click_id": id, "user_id": format!("user-{who}") });
    let request = tracker.octo.client().post(tracker.octo.url("/event")).json(&event);
    assert_eq!(request.send().await.unwrap().status(), 202);
    id
}

/// A tracker with records of alice and of bob in every place: stored, refused, and pending in the journal.
async fn everywhere(name: &str) -> (Tracker, Uuid) {
    let tracker = Tracker::start_with(name, |b| b.env("OCTO_PRIVACY__ERASURE_INTERVAL_S", "1")).await;
    tracker.simple_campaign("demo").await;
    sql(&tracker, REFUSE).await;
    let stored = visit(&tracker, "alice", "").await;
    visit(&tracker, "alice", "&sub2=bad").await;
    visit(&tracker, "bob", "").await;
    visit(&tracker, "bob", "&sub2=bad").await;
    tracker.wait_rows(Table::Clicks, 2).await;
    tracker.wait_rows(Table::Events, 4).await;
    tracker.wait_rows(Table::DeadLetters, 2).await;
    sql(&tracker, HOLD).await;
    visit(&tracker, "alice", "").await;
    visit(&tracker, "bob", "").await;
    (tracker, stored)
}

/// Runs `octo privacy ...`, which must give its JSON; its exit code and that.
async fn privacy(tracker: &Tracker, args: &[&str]) -> (Option<i32>, Value) {
    let output = tracker.octo.run(&[&["privacy"], args].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.code(), document)
}

fn lengths(document: &Value) -> [usize; 4] {
    ["clicks", "events", "dead_letters", "journal"].map(|place| document[place].as_array().unwrap().len())
}

/// Whether a text is in a file below a directory.
fn is_on_disk(dir: &Path, text: &str) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_on_disk(&path, text);
        }
        fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    })
}

async fn totals(tracker: &Tracker) -> Value {
    tracker.show("/campaigns/demo/stats").await["totals"].clone()
}

/// After the erasure of alice: what is left is bob's, the drain goes on where it was, and figures stay.
async fn assert_only_bob_is_left(tracker: &Tracker) {
    tracker.wait_rows(Table::Clicks, 2).await;
    tracker.wait_rows(Table::Events, 3).await;
    tracker.octo.wait_drained(SOON).await;
    let alice: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM clicks WHERE sub1 = 'alice')
              + (SELECT count(*) FROM events WHERE user_id = 'user-alice')
              + (SELECT count(*) FROM dead_letters WHERE position('alice'::bytea IN record) > 0)",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    let letters = Table::DeadLetters.count(&tracker.pool).await.unwrap();
    assert_eq!((alice, letters), (0, 1));
    assert!(!is_on_disk(&tracker.octo.data_dir(), "alice") && is_on_disk(&tracker.octo.data_dir(), "bob"));
    // of each a click with its event (one of a refused click is of no campaign), and since then those of bob
    let figures = totals(tracker).await;
    assert_eq!((&figures["clicks"], &figures["events"]), (&json!(3), &json!(3)), "figures stay: {figures}");
    let verified = tracker.octo.run(&["journal", "verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    // whoever comes again is somebody new
    visit(tracker, "alice", "").await;
    tracker.wait_rows(Table::Clicks, 3).await;
    tracker.wait_rows(Table::Events, 4).await;
}

#[tokio::test]
async fn a_person_is_exported_and_erased_while_octo_runs() {
    let (tracker, stored) = everywhere("erase_running").await;
    let (code, document) = privacy(&tracker, &["export", "--sub", "sub1=alice"]).await;
    assert_eq!((code, lengths(&document)), (Some(0), [1, 2, 1, 6]), "{document:#}");
    assert_eq!(document["clicks"][0]["id"], json!(stored));
    assert_eq!(document["dead_letters"][0]["click"]["sub2"], "bad");
    assert!(!document.to_string().contains("bob"), "{document:#}");

    let (code, report) = privacy(&tracker, &["erase", "--sub", "sub1=alice"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let wanted = json!({ "clicks": 1, "events": 2, "out_clicks": 0, "postbacks": 0, "dead_letters": 1, "journal_records": 6 });
    assert_eq!(report["erased"], wanted, "{report:#}");
    assert_eq!(
        (&report["journal"]["by"], &report["journal"]["records_left"]),
        (&json!("the running octo"), &json!(0))
    );
    assert_eq!(report["not_reached"].as_array().unwrap().len(), 5);
    sql(&tracker, LET_GO).await;
    assert_only_bob_is_left(&tracker).await;

    let (_, again) = privacy(&tracker, &["erase", "--sub", "sub1=nobody"]).await;
    assert_eq!(
        again["erased"],
        json!({ "clicks": 0, "events": 0, "out_clicks": 0, "postbacks": 0, "dead_letters": 0, "journal_records": 0 })
    );
}

#[tokio::test]
async fn a_person_is_exported_and_erased_while_octo_is_stopped() {
    let (mut tracker, _) = everywhere("erase_stopped").await;
    tracker.octo.kill9().await;
    let (code, document) = privacy(&tracker, &["export", "--sub", "sub1=alice"]).await;
    assert_eq!((code, lengths(&document)), (Some(0), [1, 2, 1, 6]), "{document:#}");
    let (code, report) = privacy(&tracker, &["erase", "--sub", "sub1=alice"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let wanted = json!({ "clicks": 1, "events": 2, "out_clicks": 0, "postbacks": 0, "dead_letters": 1, "journal_records": 6 });
    assert_eq!(
        (&report["erased"], &report["journal"]["by"]),
        (&wanted, &json!("this command")),
        "{report:#}"
    );
    assert!(!is_on_disk(&tracker.octo.data_dir(), "alice"));
    sql(&tracker, LET_GO).await;
    tracker.octo.start_again().await;
    assert_only_bob_is_left(&tracker).await;
}

#[tokio::test]
async fn one_click_is_erased_and_its_neighbours_stay() {
    let (tracker, stored) = everywhere("erase_click").await;
    sql(&tracker, LET_GO).await;
    tracker.wait_rows(Table::Clicks, 4).await;
    tracker.wait_rows(Table::Events, 6).await;
    let id = stored.to_string();
    let (_, document) = privacy(&tracker, &["export", "--click-id", &id]).await;
    assert_eq!(lengths(&document), [1, 1, 0, 2], "{document:#}");
    let (code, report) = privacy(&tracker, &["erase", "--click-id", &id]).await;
    let wanted = json!({ "clicks": 1, "events": 1, "out_clicks": 0, "postbacks": 0, "dead_letters": 0, "journal_records": 2 });
    assert_eq!((code, &report["erased"]), (Some(0), &wanted), "{report:#}");
    let (_, document) = privacy(&tracker, &["export", "--click-id", &id]).await;
    assert_eq!(lengths(&document), [0; 4], "{document:#}");
    assert_eq!(
        (
            Table::Clicks.count(&tracker.pool).await.unwrap(),
            Table::Events.count(&tracker.pool).await.unwrap()
        ),
        (3, 5)
    );
    for wrong in [
        &["erase"][..],
        &["erase", "--click-id", "7"],
        &["export", "--sub", "sub9=x"],
        &["export", "--sub", "sub1=x", "--click-id", &id],
    ] {
        let output = tracker.octo.run(&[&["privacy"], wrong].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

const REFUSE_EVENTS: &str = "
CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_name = 'bad') EXECUTE FUNCTION refuse_event();";

/// An event of somebody that belongs to no click.
async fn tell(tracker: &Tracker, who: &str, name: &str) {
    let event = json!({
        "event_type": "view", "event_name": name, "cid": "demo", "user_id": format!("user-{who}"),
        "session_id": format!("session-{who}"),
    });
    let request = tracker.octo.client().post(tracker.octo.url("/event")).json(&event);
    assert_eq!(request.send().await.unwrap().status(), 202);
}

/// A tracker with events of alice and of bob in every place, and a click of each.
async fn told_everywhere(name: &str) -> Tracker {
    let tracker = Tracker::start_with(name, |b| b.env("OCTO_PRIVACY__ERASURE_INTERVAL_S", "1")).await;
    tracker.simple_campaign("demo").await;
    sql(&tracker, REFUSE_EVENTS).await;
    for who in ["alice", "bob"] {
        visit(&tracker, who, "").await;
        tell(&tracker, who, "good").await;
        tell(&tracker, who, "bad").await;
    }
    tracker.wait_rows(Table::Events, 4).await;
    tracker.wait_rows(Table::DeadLetters, 2).await;
    sql(&tracker, HOLD).await;
    for who in ["alice", "bob"] {
        tell(&tracker, who, "pending").await;
    }
    tracker
}

#[tokio::test]
async fn events_of_a_user_are_exported_and_erased_with_or_without_a_click() {
    for is_running in [true, false] {
        let mut tracker = told_everywhere(if is_running { "erase_user" } else { "erase_user_stopped" }).await;
        if !is_running {
            tracker.octo.kill9().await;
        }
        let (code, document) = privacy(&tracker, &["export", "--user-id", " user-alice "]).await;
        assert_eq!((code, lengths(&document)), (Some(0), [0, 2, 1, 4]), "{document:#}");
        assert_eq!(document["subject"], json!({ "user_id": "user-alice" }));
        assert_eq!(document["dead_letters"][0]["event"]["event_name"], "bad");
        assert!(!document.to_string().contains("bob"), "{document:#}");
        // the event of the click says no session
        let (_, document) = privacy(&tracker, &["export", "--session-id", "session-bob"]).await;
        assert_eq!(lengths(&document), [0, 1, 1, 3], "{document:#}");

        let (code, report) = privacy(&tracker, &["erase", "--user-id", "user-alice"]).await;
        let wanted = json!({ "clicks": 0, "events": 2, "out_clicks": 0, "postbacks": 0, "dead_letters": 1, "journal_records": 4 });
        assert_eq!((code, &report["erased"]), (Some(0), &wanted), "{report:#}");
        let (code, report) = privacy(&tracker, &["erase", "--session-id", "session-bob"]).await;
        let wanted = json!({ "clicks": 0, "events": 1, "out_clicks": 0, "postbacks": 0, "dead_letters": 1, "journal_records": 3 });
        assert_eq!((code, &report["erased"]), (Some(0), &wanted), "{report:#}");
        let data = tracker.octo.data_dir();
        assert!(!is_on_disk(&data, "user-alice") && !is_on_disk(&data, "session-bob"));
        assert!(is_on_disk(&data, "user-bob"), "of the event of his click");

        sql(&tracker, LET_GO).await;
        if !is_running {
            tracker.octo.start_again().await;
        }
        tell(&tracker, "alice", "later").await;
        tracker.wait_rows(Table::Events, 2).await;
        let names = "SELECT user_id || ' ' || coalesce(event_name, '') FROM events ORDER BY 1";
        let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&tracker.pool).await.unwrap();
        assert_eq!(names, ["user-alice later", "user-bob "], "who comes again is somebody new");
        assert_eq!(
            Table::Clicks.count(&tracker.pool).await.unwrap(),
            2,
            "clicks are found by what their links said"
        );
        assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
        for wrong in [&["export", "--user-id", " "][..], &["erase", "--user-id", "a", "--session-id", "b"]] {
            let output = tracker.octo.run(&[&["privacy"], wrong].concat()).await;
            assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_beside_a_busy_drain_takes_what_came_before_it_and_nothing_else() {
    let tracker = Tracker::start_with("erase_busy", |b| {
        b.env("OCTO_PRIVACY__ERASURE_INTERVAL_S", "1").env("OCTO_DRAIN__BATCH_ROWS", "50")
    })
    .await;
    tracker.simple_campaign("demo").await;
    let request = |i: usize| {
        let who = if i.is_multiple_of(2) { "alice" } else { "bob" };
        format!("GET /click?cid=demo&sub1={who} HTTP/1.1\r\nHost: t\r\nUser-Agent: Firefox\r\n\r\n")
            .into_bytes()
    };
    let sending = tokio::spawn(send_all(tracker.octo.addr(), (0..6_000).map(request).collect(), 4));
    tracker.octo.get("/livez").await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&tracker.pool).await? > 200, "nothing yet");
        Ok(())
    })
    .await;
    let (code, report) = privacy(&tracker, &["erase", "--sub", "sub1=alice", "--wait", "60"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let before: chrono::DateTime<chrono::Utc> = report["erased_before"].as_str().unwrap().parse().unwrap();
    let answers = sending.await.unwrap();
    assert!(answers.len() == 6_000 && answers.iter().all(|a| a.status == 302));
    let time = |id: Uuid| {
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        chrono::DateTime::from_timestamp(i64::try_from(seconds).unwrap(), nanos).unwrap()
    };
    let later = answers.iter().filter(|a| time(a.id.unwrap()) >= before).count();
    tracker.octo.wait_drained(3 * SOON).await;
    let (early, alice, bob): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE sub1 = 'alice' AND created_at < $1),
                count(*) FILTER (WHERE sub1 = 'alice'), count(*) FILTER (WHERE sub1 = 'bob') FROM clicks",
    )
    .bind(before)
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!((early, bob), (0, 3_000), "of alice nothing from before, of bob everything");
    // every second click is hers, in whatever order they came
    let ids: Vec<Uuid> = answers.iter().filter_map(|a| a.id).filter(|id| time(*id) >= before).collect();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE id = ANY ($1)")
        .bind(ids)
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), later, "what came later is stored, hers too ({alice})");
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    tokio::time::timeout(Duration::from_mins(1), async {
        let verified = tracker.octo.run(&["journal", "verify"]).await;
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_a_drain_that_does_not_know_of_it() {
    let tracker = Tracker::start("erase_waits").await;
    let campaign = tracker.simple_campaign("demo").await;
    // what a drain does that began before: the watermark, then the rows
    let mut drain = tracker.pool.begin().await.unwrap();
    sqlx::raw_sql("UPDATE ingest_watermark SET updated_at = now() WHERE false")
        .execute(&mut *drain)
        .await
        .unwrap();
    let insert = "INSERT INTO clicks (id, campaign_id, sub1, is_valid, is_bot, created_at, updated_at)
                  VALUES ($1, $2::uuid, 'alice', true, false, $3, $3)";
    let id = octo::model::id::ClickId::now();
    let insert = sqlx::query(insert).bind(id.uuid()).bind(campaign["id"].as_str().unwrap());
    insert.bind(id.created_at()).execute(&mut *drain).await.unwrap();
    let erasing = privacy(&tracker, &["erase", "--sub", "sub1=alice"]);
    let committing = async {
        // until it waits; one that does not wait will find nothing
        eventually(SOON, async || {
            let noted =
                "SELECT (SELECT count(*) FROM pg_locks WHERE NOT granted) + (SELECT count(*) FROM erasures)";
            let noted: i64 = sqlx::query_scalar(noted).fetch_one(&tracker.pool).await?;
            anyhow::ensure!(noted > 0, "it did not come so far");
            Ok(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        drain.commit().await.unwrap();
    };
    let ((code, report), ()) = tokio::join!(erasing, committing);
    assert_eq!((code, &report["erased"]["clicks"]), (Some(0), &json!(1)), "{report:#}");
    assert_eq!(Table::Clicks.count(&tracker.pool).await.unwrap(), 0);
}

/// As a failover to a standby that lags and a return to an earlier moment do: rows, watermark and the note of the erasure
/// go back together.
const GO_BACK: &str = "
DELETE FROM clicks;
DELETE FROM events;
DELETE FROM erasures;
UPDATE ingest_watermark SET seq = 0;";

#[tokio::test]
async fn a_database_that_goes_back_behind_an_erasure_gets_everybody_again_but_the_erased() {
    let mut tracker = Tracker::start("erase_back").await;
    tracker.simple_campaign("demo").await;
    for who in ["alice", "bob"] {
        visit(&tracker, who, "").await;
    }
    tracker.wait_rows(Table::Clicks, 2).await;
    tracker.wait_rows(Table::Events, 2).await;
    tracker.octo.wait_drained(SOON).await;
    let (code, report) = privacy(&tracker, &["erase", "--sub", "sub1=alice"]).await;
    assert_eq!((code, &report["journal"]["records_left"]), (Some(0), &json!(0)), "{report:#}");
    tracker.octo.kill9().await;
    sql(&tracker, GO_BACK).await;
    tracker.octo.start_again().await;
    tracker.wait_rows(Table::Clicks, 1).await;
    tracker.wait_rows(Table::Events, 1).await;
    tracker.octo.wait_drained(SOON).await;
    let came_back: (String, String) =
        sqlx::query_as("SELECT (SELECT sub1 FROM clicks), (SELECT user_id FROM events)")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    assert_eq!(came_back, ("bob".to_owned(), "user-bob".to_owned()));
}
