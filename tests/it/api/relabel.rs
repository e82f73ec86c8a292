//! `octo relabel`: stored clicks get the labels that the lists of today give, and every figure follows.

use std::{path::Path, process::Output};

use chrono::{TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Scratch, eventually},
    tracker::{OFFER, SOON, Table, Tracker, assert_roll_ups_agree, header},
};

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const HOME: &str = "203.0.113.7";

/// What an older list took for a robot's, and what it did not know yet, with the figures that went with it.
const LABEL_AS_AN_OLDER_LIST: &str = "
WITH changed AS (
    UPDATE clicks
    SET is_bot = NOT is_bot,
        is_valid = is_bot,
        invalid_reason = CASE WHEN NOT is_bot THEN 'bot' END,
        device = CASE WHEN is_bot THEN 'desktop' ELSE 'bot' END,
        os = NULL,
        os_version = NULL,
        browser = NULL,
        browser_version = NULL
    WHERE id = $1
    RETURNING campaign_id, date_trunc('hour', created_at, 'UTC') AS hour, is_bot::integer AS bots, is_valid::integer AS valid
), counted AS (
    UPDATE campaign_stats_hourly s
    SET bot_clicks = bot_clicks + 2 * bots - 1,
        valid_clicks = valid_clicks + 2 * valid - 1
    FROM changed
    WHERE s.campaign_id = changed.campaign_id
      AND s.hour = changed.hour
)
UPDATE campaign_costs_hourly s
SET valid_clicks = s.valid_clicks + 2 * valid - 1
FROM changed
WHERE s.campaign_id = changed.campaign_id
  AND s.hour = changed.hour
  AND s.currency = 'USD'";

fn json_of(output: &Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{} {}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that is stored of the clicks but for when they changed.
async fn clicks(pool: &PgPool) -> Vec<String> {
    let sql = "SELECT (to_jsonb(k) - 'updated_at')::text FROM clicks k ORDER BY created_at, id";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

/// Reason, whether it is a bot, device and system.
async fn labels(pool: &PgPool, id: Uuid) -> (Option<String>, bool, Option<String>, Option<String>) {
    let sql = "SELECT invalid_reason, is_bot, device, os FROM clicks WHERE id = $1 AND is_valid = (invalid_reason IS NULL)";
    sqlx::query_as(sql).bind(id).fetch_one(pool).await.unwrap()
}

async fn click(tracker: &Tracker, path: &str, ip: &str, agent: &str, wants_privacy: bool) -> (Uuid, String) {
    let request = tracker.octo.client().get(tracker.octo.url(path)).header("user-agent", agent);
    let request = request.header("x-forwarded-for", ip);
    let request = if wants_privacy { request.header("sec-gpc", "1") } else { request };
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND, "{path}");
    (header(&response, "x-click-id").parse().unwrap(), header(&response, "location"))
}

/// Clicks, valid ones, bots, views and clicks of landing pages of all campaigns by the reports.
async fn reported(tracker: &Tracker) -> Value {
    let names =
        ["clicks", "valid_clicks", "bot_clicks", "lander_views", "lander_clicks", "unique_clicks", "cost"];
    // the second that is running too
    let to = (Utc::now() + TimeDelta::days(1)).format("%FT00:00:00Z");
    let report = tracker.show(&format!("/reports?measures={}&to={to}", names.join(","))).await;
    let figures = &report["totals"];
    json!(names.map(|name| &figures[name]))
}

/// Clicks that are labelled by an older list of robots, and one of data centres that is in this file.
struct Labelled {
    person: Uuid,
    bot: Uuid,
    once_hosted: Uuid,
    hosted: Uuid,
    duplicate: Uuid,
    private: Uuid,
}

async fn label_by_older_lists(list: &Path) -> (Tracker, Labelled) {
    std::fs::write(list, "198.51.100.0/24\n").unwrap();
    let file = list.to_owned();
    let tracker = Tracker::start_with("relabel", |b| {
        b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
            .env("OCTO_TRACKING__DUPLICATE_WINDOW_S", "3600")
            .env("OCTO_TRACKING__DATACENTER_NETWORKS_FILE", file)
    })
    .await;
    let offer = json!({ "name": "offer", "url": OFFER });
    tracker.campaign(json!({ "key": "direct", "name": "direct", "offers": [offer] })).await;
    tracker
        .campaign(json!({
            "key": "funnel", "name": "funnel",
            "landing_pages": [{ "name": "page", "url": "https://lander.example/?t={click_token}" }],
            "offers": [{ "name": "one", "url": "https://one.example/" }],
        }))
        .await;
    let direct = "/click?cid=direct&cost=0.10&currency=USD";
    let person = click(&tracker, direct, HOME, PERSON, false).await.0;
    let bot = click(&tracker, direct, HOME, BOT, false).await.0;
    let once_hosted = click(&tracker, direct, "198.51.100.200", PERSON, false).await.0;
    let (hosted, location) = click(&tracker, "/click?cid=funnel", "192.0.2.9", PERSON, false).await;
    let duplicate = click(&tracker, "/click?cid=funnel", "192.0.2.9", PERSON, false).await.0;
    let private = click(&tracker, direct, "192.0.2.10", PERSON, true).await.0;
    let token = location.split_once("t=").unwrap().1.to_owned();
    assert_eq!(tracker.octo.get(&format!("/out?k={token}")).await.status(), StatusCode::FOUND);
    tracker.wait_rows(Table::Clicks, 6).await;
    tracker.wait_rows(Table::OutClicks, 1).await;
    for id in [person, bot] {
        sqlx::query(LABEL_AS_AN_OLDER_LIST).bind(id).execute(&tracker.pool).await.unwrap();
    }
    assert_eq!(labels(&tracker.pool, person).await.0.as_deref(), Some("bot"));
    assert_eq!(labels(&tracker.pool, bot).await.0, None);
    assert_roll_ups_agree(&tracker.pool).await;
    (tracker, Labelled { person, bot, once_hosted, hosted, duplicate, private })
}

async fn wait_until_folded(pool: &PgPool) {
    eventually(SOON, async || {
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM report_deltas").fetch_one(pool).await?;
        anyhow::ensure!(pending == 0, "{pending} deltas are not folded");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn stored_clicks_get_the_labels_of_todays_lists_and_the_figures_follow() {
    let scratch = Scratch::create();
    let list = scratch.dir().join("datacenters.txt");
    let (tracker, labelled) = label_by_older_lists(&list).await;
    let Labelled { person, bot, once_hosted, hosted, duplicate, private } = labelled;
    let before = clicks(&tracker.pool).await;
    let figures_before = reported(&tracker).await;
    assert_eq!(figures_before, json!([6, 3, 1, 1, 1, 3, "0.40"]));

    std::fs::write(&list, "192.0.2.0/24\n").unwrap();
    let run = async |more: &[&str]| {
        let args = ["relabel", "--from", "2020-01-01", "--to", "2099-01-01", "--json"];
        json_of(&tracker.octo.run(&[&args[..], more].concat()).await)
    };
    let shown = run(&["--dry-run"]).await;
    assert_eq!(
        (&shown["is_dry_run"], &shown["clicks"], &shown["changed"], &shown["cannot_be_judged"]),
        (&json!(true), &json!(6), &json!(5), &json!(1)),
        "{shown:#}"
    );
    assert_eq!(clicks(&tracker.pool).await, before, "a dry run changes nothing");
    assert_eq!(reported(&tracker).await, figures_before);

    let done = run(&[]).await;
    assert_eq!(
        (&done["is_dry_run"], &done["changed"], &done["changes"], &done["changed_meanwhile"]),
        (&json!(false), &json!(5), &shown["changes"], &json!(0)),
        "as the dry run said: {done:#}"
    );
    let text = |text: &str| Some(text.to_owned());
    for (id, wanted) in [
        (person, (None, false, text("desktop"), text("Windows"))),
        (bot, (text("bot"), true, text("bot"), None)),
        (once_hosted, (None, false, text("desktop"), text("Windows"))),
        (hosted, (text("datacenter"), false, text("desktop"), text("Windows"))),
        (duplicate, (text("datacenter"), false, text("desktop"), text("Windows"))),
        (private, (None, false, text("desktop"), text("Windows"))),
    ] {
        assert_eq!(labels(&tracker.pool, id).await, wanted);
    }
    assert_eq!(reported(&tracker).await, json!([6, 3, 1, 0, 0, 3, "0.40"]));
    let stats = tracker.show("/campaigns/funnel/stats").await;
    assert_eq!(
        (&stats["totals"]["clicks"], &stats["totals"]["valid_clicks"]),
        (&json!(2), &json!(0)),
        "{stats}"
    );
    assert_eq!(stats["totals"]["lander_views"], 0);
    let stats = tracker.show("/campaigns/direct/stats").await;
    assert_eq!(
        (&stats["totals"]["valid_clicks"], &stats["totals"]["bot_clicks"]),
        (&json!(3), &json!(1)),
        "{stats}"
    );
    assert_roll_ups_agree(&tracker.pool).await;
    wait_until_folded(&tracker.pool).await;
    assert_roll_ups_agree(&tracker.pool).await;

    let again = run(&[]).await;
    assert_eq!((&again["changed"], &again["cannot_be_judged"]), (&json!(0), &json!(1)), "{again:#}");
    // one campaign and no other; without a list nobody is on it
    std::fs::write(&list, "").unwrap();
    let of_direct = run(&["--campaign", "direct"]).await;
    assert_eq!((&of_direct["clicks"], &of_direct["changed"]), (&json!(4), &json!(0)), "{of_direct:#}");
    let of_funnel = tracker
        .octo
        .run(&["relabel", "--from", "2020-01-01", "--to", "2099-01-01", "--campaign", "funnel"])
        .await;
    let said = String::from_utf8_lossy(&of_funnel.stdout).into_owned();
    assert!(said.contains("2  datacenter -> valid") && said.contains("2 clicks: 2 changed"), "{said}");
    assert_eq!(reported(&tracker).await, json!([6, 5, 1, 2, 1, 3, "0.40"]));
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn what_cannot_be_relabelled_is_refused_and_nothing_is_changed() {
    let tracker = Tracker::start("relabel_refused").await;
    for (args, part) in [
        (["--from", "2026-02-01", "--to", "2026-01-01", "--campaign", "demo"], "--to must be after --from"),
        (["--from", "soon", "--to", "2026-01-01", "--campaign", "demo"], "--from is a time or a day"),
        (["--from", "2026-01-01", "--to", "2026-02-01", "--campaign", "demo"], "there is no campaign demo"),
    ] {
        let output = tracker.octo.run(&[&["relabel"][..], &args[..]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(part), "{part}: {said}");
    }
}
