//! What senders of events do in good faith, and what is kept of it: byte for byte over the public surface, each with what
//! was adjusted and the row that came of it.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::eventually,
    tracker::{SOON, Table, Tracker, header},
};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

async fn post(tracker: &Tracker, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = tracker.octo.client().post(tracker.octo.url(path)).header("content-type", content_type);
    request.body(body).send().await.expect("an answer")
}

/// What is stored of an event, its properties as the text that PostgreSQL writes.
async fn row(tracker: &Tracker, id: &Value) -> Value {
    let id: Uuid = id.as_str().expect("an id").parse().expect("a UUID");
    eventually(SOON, async || {
        let sql = "SELECT to_jsonb(e) || jsonb_build_object('event_data', event_data::text) FROM events e WHERE id = $1";
        let row: Option<Value> = sqlx::query_scalar(sql).bind(id).fetch_optional(&tracker.pool).await?;
        row.ok_or_else(|| anyhow::anyhow!("{id} is not stored"))
    })
    .await
}

/// `code pointer`, as in a pixel's header.
fn adjusted(answer: &Value) -> Vec<String> {
    let list = answer["adjusted"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|a| format!("{} {}", a["code"].as_str().unwrap(), a["pointer"].as_str().unwrap()))
        .collect()
}

/// A body, what is adjusted of it, and columns of the row.
type Case = (&'static [u8], &'static [&'static str], Value);

/// Sends each as an event and, where it may be one of many, in the middle of a batch.
async fn assert_kept(tracker: &Tracker, cases: Vec<Case>) {
    let good = r#"{"cid":"demo","event_type":"good"}"#.as_bytes();
    for (body, wanted, columns) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        let response = post(tracker, "/event", JSON, body).await;
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 202, "{shown}: {answer}");
        assert_eq!(adjusted(&answer), wanted, "{shown}");
        let row = row(tracker, &answer["event_id"]).await;
        for (column, value) in columns.as_object().unwrap() {
            assert_eq!(&row[column], value, "{column} of {shown}");
        }
        if body.starts_with(b"\xef\xbb\xbf") {
            continue; // a mark is at the beginning of a body only
        }
        let batch = [b"[", good, b",", body, b",", good, b"]"].concat();
        let answer: Value = post(tracker, "/events", JSON, batch).await.json().await.unwrap();
        let statuses: Vec<_> =
            (0..3).map(|i| answer["results"][i]["status"].as_str().unwrap_or_default()).collect();
        assert_eq!(statuses, ["accepted"; 3], "{shown}");
        let in_batch: Vec<_> = wanted.iter().map(|named| named.replacen(' ', " /1", 1)).collect();
        assert_eq!(adjusted(&answer["results"][1]), in_batch, "{shown}");
    }
}

#[tokio::test]
async fn an_event_with_a_flaw_is_kept_and_the_flaw_is_named() {
    let tracker = Tracker::start("event_flaws").await;
    tracker.simple_campaign("demo").await;
    tracker.simple_campaign("2024").await;
    assert_kept(
        &tracker,
        vec![
            (b"\xef\xbb\xbf{\"cid\":\"demo\",\"event_type\":\"view\"}", &[], json!({ "event_type": "view" })),
            (br#" {"cid":" demo\u00a0","event_type":"\tview\n","user_id":" u1 "} "#, &[], json!({ "event_type": "view", "user_id": "u1" })),
            (br#"{"cid":"demo","event_type":"view","event_name":"a\ud800b"}"#, &["characters /event_name"], json!({ "event_name": "a\u{fffd}b" })),
            (br#"{"cid":"demo","event_type":"view","event_name":"\ud83d\ude00"}"#, &[], json!({ "event_name": "\u{1f600}" })),
            (br#"{"cid":"demo","event_type":"view","properties":{"\ud83d":["\udc00\ud800"]}}"#, &["characters /properties/\u{fffd}"], json!({ "event_data": "{\"\u{fffd}\": [\"\u{fffd}\u{fffd}\"]}" })),
            (br#"{"cid":"demo","event_type":"view","properties":{"a":"x\u0000y"}}"#, &["characters /properties/a"], json!({ "event_data": "{\"a\": \"x\u{fffd}y\"}" })),
            (b"{\"cid\":\"demo\",\"event_type\":\"view\",\"event_name\":\"caf\xe9\"}", &[], json!({ "event_name": "caf\u{fffd}" })),
            (br#"{"cid":"demo","event_type":"view","event_name":"a\r\nb"}"#, &["characters /event_name"], json!({ "event_name": "ab" })),
            (br#"{"cid":"demo","event_type":"view","user_id":18446744073709551616,"session_id":12.50}"#, &["type /session_id", "type /user_id"], json!({ "user_id": "18446744073709551616", "session_id": "12.50" })),
            (br#"{"cid":"demo","event_type":"view","user_id":true}"#, &["type /user_id"], json!({ "user_id": "true" })),
            (br#"{"cid":"demo","event_type":"view","url":{"href":"https://x.example/"}}"#, &["type /url"], json!({ "url": null, "event_data": r#"{"url": {"href": "https://x.example/"}}"# })),
            (br#"{"cid":"demo","event_type":"view","click_id":""}"#, &["empty /click_id"], json!({ "click_id": null })),
            (br#"{"cid":"demo","event_type":"view","click_id":null,"url":null,"properties":null,"more":null}"#, &[], json!({ "click_id": null, "event_data": null })),
            (br#"{"cid":"demo","event_type":"view","click_id":"undefined"}"#, &["click_id /click_id"], json!({ "click_id": null, "event_data": r#"{"click_id": "undefined"}"# })),
            (br#"{"cid":"nobody","event_type":"view","click_id":"019aaf3c-5f00-7abc-8def-0123456789ab"}"#, &["unknown_campaign /cid"], json!({ "click_id": "019aaf3c-5f00-7abc-8def-0123456789ab", "event_data": r#"{"cid": "nobody"}"# })),
            (br#"{"cid":"a b","event_type":"view","click_id":"019aaf3c5f007abc8def0123456789ab"}"#, &["pattern /cid"], json!({ "click_id": "019aaf3c-5f00-7abc-8def-0123456789ab" })),
            (br#"{"cid":2024,"event_type":"view"}"#, &["type /cid"], json!({ "event_type": "view" })),
            (br#"{"cid":"demo","event_type":"PageView"}"#, &["folded /event_type"], json!({ "event_type": "pageview", "event_name": "PageView" })),
            (br#"{"cid":"demo","event_type":"Add To Cart"}"#, &["folded /event_type"], json!({ "event_type": "add_to_cart", "event_name": "Add To Cart" })),
            (br#"{"cid":"demo","event_type":" Add/To--Cart! ","event_name":"Basket"}"#, &["folded /event_type"], json!({ "event_type": "add_to--cart", "event_name": "Basket" })),
            (br#"{"cid":"demo","event_type":1}"#, &["type /event_type"], json!({ "event_type": "1" })),
            ("{\"cid\":\"demo\",\"event_type\":\"Покупка\"}".as_bytes(), &["folded /event_type"], json!({ "event_type": "custom", "event_name": "Покупка" })),
            ("{\"cid\":\"demo\",\"event_type\":\"Покупка\",\"event_name\":\"x\"}".as_bytes(), &["folded /event_type"], json!({ "event_name": "x", "event_data": "{\"event_type\": \"Покупка\"}" })),
            (br#"{"cid":"demo","event_type":"view","properties":["a",1]}"#, &["type /properties"], json!({ "event_data": r#"{"properties": ["a", 1]}"# })),
            (br#"{"cid":"demo","event_type":"view","properties":"x"}"#, &["type /properties"], json!({ "event_data": r#"{"properties": "x"}"# })),
            (br#"{"cid":"demo","event_type":"view","properties":{"a":1e400000,"b":[{"c":-1e999}]}}"#, &["range /properties/a", "range /properties/b"], json!({ "event_data": r#"{"a": "1e400000", "b": [{"c": "-1e999"}]}"# })),
        ],
    )
    .await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_too_long_is_cut_and_what_is_too_many_is_left_out() {
    let tracker = Tracker::start("event_long").await;
    tracker.simple_campaign("demo").await;
    let send = async |body: String| {
        let response = post(&tracker, "/event", JSON, body).await;
        assert_eq!(response.status(), 202);
        response.json::<Value>().await.unwrap()
    };
    for (name, chars) in
        [("url", 2048), ("referrer", 2048), ("event_name", 255), ("session_id", 255), ("user_id", 255)]
    {
        for more in [0, 1, 700] {
            let text = "\u{e9}".repeat(chars + more);
            let answer = send(json!({ "cid": "demo", "event_type": "view", name: text }).to_string()).await;
            let wanted = if more == 0 { vec![] } else { vec![format!("length /{name}")] };
            assert_eq!(adjusted(&answer), wanted, "{name}");
            assert_eq!(row(&tracker, &answer["event_id"]).await[name], "\u{e9}".repeat(chars), "{name}");
        }
    }
    let answer = send(json!({ "cid": "demo", "event_type": "E".repeat(65) }).to_string()).await;
    assert_eq!(adjusted(&answer), ["folded /event_type", "length /event_type"]);
    assert_eq!(row(&tracker, &answer["event_id"]).await["event_type"], "e".repeat(64));

    let properties: Vec<_> = (0..70).map(|i| format!("\"k{i}\":{i}")).collect();
    let body =
        format!(r#"{{"cid":"demo","event_type":"view","late":1,"properties":{{{}}}}}"#, properties.join(","));
    let answer = send(body).await;
    let wanted: Vec<_> =
        (64..70).map(|i| format!("length /properties/k{i}")).chain(["length /late".to_owned()]).collect();
    assert_eq!(adjusted(&answer), wanted);
    let data = row(&tracker, &answer["event_id"]).await["event_data"].as_str().unwrap().to_owned();
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (data.as_object().unwrap().len(), &data["k63"], &data["late"]),
        (64, &json!(63), &Value::Null)
    );

    let many: Vec<_> = (0..200).map(|i| format!("\"/~{i}{}\":1", "x".repeat(100))).collect();
    let answer = send(format!(r#"{{"cid":"demo","event_type":"view",{}}}"#, many.join(","))).await;
    assert_eq!(adjusted(&answer).len(), 20, "what is named is bounded");
    assert!(
        adjusted(&answer)[0].starts_with("length /~1~064x") && answer.to_string().len() < 4096,
        "{answer}"
    );

    let item =
        |bytes: usize| format!(r#"{{"cid":"demo","event_type":"view","more":"{}"}}"#, "x".repeat(bytes));
    let response = post(&tracker, "/events", JSON, format!("[{},{}]", item(600 * 1024), item(9))).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["results"][0]["errors"][0]["code"], "too_large", "{answer}");
    assert_eq!(answer["results"][1]["status"], "accepted");
}

#[tokio::test]
async fn one_event_of_five_hundred_with_half_a_surrogate_pair_loses_nothing() {
    let tracker = Tracker::start("event_of_500").await;
    tracker.simple_campaign("demo").await;
    let item = |i: usize| match i {
        250 => r#"{"cid":"demo","event_type":"view","event_name":"cut \ud83d","url":"\udc00"}"#.to_owned(),
        _ => format!(r#"{{"cid":"demo","event_type":"view","n":{i}}}"#),
    };
    let batch = format!("[{}]", (0..500).map(item).collect::<Vec<_>>().join(","));
    let response = post(&tracker, "/events", JSON, batch).await;
    assert_eq!(response.status(), 202);
    let answer: Value = response.json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert!(results.len() == 500 && results.iter().all(|r| r["status"] == "accepted"));
    assert_eq!(adjusted(&results[250]), ["characters /250/event_name", "characters /250/url"]);
    tracker.wait_rows(Table::Events, 500).await;
    assert_eq!(row(&tracker, &results[250]["event_id"]).await["event_name"], "cut \u{fffd}");
}

#[tokio::test]
async fn what_says_nothing_is_refused_and_every_reason_is_named() {
    let tracker = Tracker::start("event_refused").await;
    tracker.simple_campaign("demo").await;
    for (body, status, wanted) in [
        (&br#"{"cid":"demo"}"#[..], 422, &["required /event_type"][..]),
        (br#"{"cid":"demo","event_type":null}"#, 422, &["required /event_type"]),
        (br#"{"cid":"demo","event_type":"  "}"#, 422, &["required /event_type"]),
        (br#"{"cid":"demo","event_type":"\u0000"}"#, 422, &["pattern /event_type"]),
        (br#"{"cid":"demo","event_type":["view"]}"#, 422, &["type /event_type"]),
        (br#"{"event_type":"view"}"#, 422, &["required /click_id"]),
        (br#"{"event_type":"view","click_id":"","cid":" "}"#, 422, &["required /click_id"]),
        (br#"{"event_type":"view","cid":"nobody"}"#, 422, &["unknown_campaign /cid"]),
        (
            br#"{"event_type":"view","click_id":"source-1","cid":"a b"}"#,
            422,
            &["click_id /click_id", "pattern /cid"],
        ),
        (br#"[{"cid":"demo","event_type":"view"}]"#, 422, &["type "]),
        (b"{\"cid\":\"demo\",\"event_type\":\"view\",\"a\":\"b\nc\"}", 400, &[]),
        (br#"{"cid":"demo","event_type":"view","a":NaN}"#, 400, &[]),
    ] {
        let response = post(&tracker, "/event", JSON, body).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(response.status(), status, "{shown}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(adjusted(&json!({ "adjusted": problem["errors"] })), wanted, "{shown}");
    }
    post(&tracker, "/event", JSON, r#"{"cid":"demo","event_type":"last"}"#).await;
    tracker.wait_rows(Table::Events, 1).await;
}

#[tokio::test]
async fn members_of_other_names_are_properties_and_numbers_keep_their_digits() {
    let tracker = Tracker::start("event_members").await;
    tracker.simple_campaign("demo").await;
    let with = |more: &str| format!(r#"{{"cid":"demo","event_type":"sale",{more}}}"#);
    for (more, stored) in [
        (r#""value":12.5,"currency":"EUR""#, r#"{"value": 12.5, "currency": "EUR"}"#),
        (r#""value":12.50"#, r#"{"value": 12.50}"#),
        (r#""order":18446744073709551616"#, r#"{"order": 18446744073709551616}"#),
        (
            r#""order":-9223372036854775809,"properties":{"a":0.10}"#,
            r#"{"a": 0.10, "order": -9223372036854775809}"#,
        ),
        (r#""price":0.1234567890123456789012345678901"#, r#"{"price": 0.1234567890123456789012345678901}"#),
        (r#""value":1,"properties":{"value":2}"#, r#"{"value": 2}"#),
        (
            r#""items":[{"sku":"A","price":3.00},null,true]"#,
            r#"{"items": [{"sku": "A", "price": 3.00}, null, true]}"#,
        ),
        (r#""__proto__":{"x":1},"a.b":"c","":0"#, r#"{"": 0, "a.b": "c", "__proto__": {"x": 1}}"#),
        (
            r#""event_data":{"a":1},"id":7,"created_at":0"#,
            r#"{"id": 7, "created_at": 0, "event_data": {"a": 1}}"#,
        ),
        (r#""a":1,"a":2,"\u0061":3.0"#, r#"{"a": 3.0}"#),
        (r#""big":9007199254740993,"neg":-0.0"#, r#"{"big": 9007199254740993, "neg": 0.0}"#),
    ] {
        let answer: Value = post(&tracker, "/event", JSON, with(more)).await.json().await.unwrap();
        assert_eq!(adjusted(&answer), [""; 0], "{more}");
        assert_eq!(row(&tracker, &answer["event_id"]).await["event_data"], stored, "{more}");
        // as they were stored they are shown, to whoever does not read them as floats
        let shown = tracker.api(Method::GET, "/events?limit=1").send().await.unwrap().text().await.unwrap();
        assert!(shown.contains(stored), "{stored} is not in {shown}");
        let request = tracker.api(Method::POST, "/events").header("content-type", JSON);
        let answer: Value = request.body(with(more)).send().await.unwrap().json().await.unwrap();
        assert_eq!(row(&tracker, &answer["event_id"]).await["event_data"], stored, "{more} by the API");
    }
}

#[tokio::test]
async fn an_id_of_the_sender_makes_one_event_by_source_campaign_and_type() {
    let tracker = Tracker::start("event_ids").await;
    tracker.simple_campaign("demo").await;
    tracker.simple_campaign("other").await;
    let long = "x".repeat(200);
    let uuid = Uuid::new_v4();
    // those of one line are one event
    let lines = [
        vec![json!({ "cid": "demo", "event_type": "sale", "event_id": "order-1001" }); 3],
        vec![
            json!({ "cid": "demo", "event_type": "sale", "event_id": 1001 }),
            json!({ "cid": " demo", "event_type": "sale", "event_id": "1001 ", "value": 7 }),
        ],
        vec![json!({ "cid": "other", "event_type": "sale", "event_id": "order-1001" }); 2],
        vec![json!({ "cid": "demo", "event_type": "refund", "event_id": "order-1001" }); 2],
        vec![
            json!({ "cid": "demo", "event_type": "Add To Cart", "event_id": "order-1001" }),
            json!({ "cid": "demo", "event_type": "add_to_cart", "event_id": "order-1001" }),
        ],
        vec![json!({ "cid": "demo", "event_type": "Покупка", "event_id": "order-1001" }); 2],
        vec![json!({ "cid": "demo", "event_type": "Возврат", "event_id": "order-1001" }); 2],
        vec![
            json!({ "click_id": "019aaf3c-5f00-7abc-8def-0123456789ab", "event_type": "sale", "event_id": "order-1001" });
            2
        ],
        vec![
            json!({ "click_id": "019aaf3c-5f00-7abc-8def-0123456789ac", "event_type": "sale", "event_id": "order-1001" });
            2
        ],
        vec![json!({ "cid": "demo", "event_type": "sale", "event_id": long.clone() + "a" }); 2],
        vec![json!({ "cid": "demo", "event_type": "sale", "event_id": long.clone() + "b" }); 2],
        vec![
            json!({ "cid": "demo", "event_type": "sale", "event_id": uuid }),
            json!({ "cid": "other", "event_type": "refund", "event_id": uuid.to_string().to_uppercase() }),
        ],
        vec![json!({ "cid": "demo", "event_type": "sale", "event_id": "ПЕРЕВОД № 7" }); 2],
    ];
    let mut ids = Vec::new();
    for line in &lines {
        let mut of_line = Vec::new();
        for body in line {
            let answer: Value = post(&tracker, "/event", JSON, body.to_string()).await.json().await.unwrap();
            of_line.push(answer["event_id"].clone());
        }
        assert!(of_line.iter().all(|id| *id == of_line[0]), "{line:?}: {of_line:?}");
        ids.push(of_line[0].clone());
    }
    // what a script writes where it has no id makes no event of all
    for none in [
        json!("undefined"),
        json!("null"),
        json!("[object Object]"),
        json!("{{order_id}}"),
        json!(""),
        json!(true),
        json!(Uuid::nil()),
    ] {
        for _ in 0..2 {
            let body = json!({ "cid": "demo", "event_type": "none", "event_id": none });
            let answer: Value = post(&tracker, "/event", JSON, body.to_string()).await.json().await.unwrap();
            assert!(adjusted(&answer)[0].ends_with("/event_id"), "{answer}");
        }
    }
    tracker.wait_rows(Table::Events, i64::try_from(lines.len()).unwrap() + 14).await;
    let distinct: std::collections::HashSet<_> = ids.iter().map(Value::to_string).collect();
    assert_eq!((distinct.len(), &ids[11]), (lines.len(), &json!(uuid)));
    assert_eq!(row(&tracker, &ids[0]).await["external_id"], "order-1001");
    assert_eq!(row(&tracker, &ids[9]).await["external_id"], "x".repeat(128));
    assert_eq!(row(&tracker, &ids[11]).await["external_id"], Value::Null);
    let listed: Value =
        tracker.api(Method::GET, "/events?limit=500").send().await.unwrap().json().await.unwrap();
    let shown = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["id"] == ids[0])
        .expect("it is shown by that id");
    assert_eq!((&shown["external_id"], &shown["source"]), (&json!("order-1001"), &json!("public")));
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
}

#[tokio::test]
async fn the_time_of_the_sender_is_kept_beside_the_time_of_receipt() {
    let tracker = Tracker::start("event_time").await;
    tracker.simple_campaign("demo").await;
    let now = Utc::now();
    let ago = |delta: TimeDelta| DateTime::from_timestamp((now - delta).timestamp(), 0).unwrap();
    let (hour, day) = (ago(TimeDelta::hours(1)), ago(TimeDelta::days(6)));
    let (soon, late) = (ago(TimeDelta::minutes(-4)), ago(TimeDelta::minutes(-9)));
    for (time, wanted, named) in [
        (json!(hour.timestamp()), Some(hour), ""),
        (json!(hour.timestamp_millis() + 123), Some(hour + TimeDelta::milliseconds(123)), ""),
        (json!(hour.timestamp().to_string()), Some(hour), ""),
        (json!(format!("{}.25", hour.timestamp())), Some(hour + TimeDelta::milliseconds(250)), ""),
        (json!(day.to_rfc3339()), Some(day), ""),
        (
            json!(hour.format("%Y-%m-%dT%H:%M:%S.500+00:00").to_string()),
            Some(hour + TimeDelta::milliseconds(500)),
            "",
        ),
        (json!(soon.to_rfc3339()), Some(soon), ""),
        (json!(late.timestamp()), None, "range /time"),
        (json!(ago(TimeDelta::days(8)).timestamp_millis()), None, "range /time"),
        (json!(0), None, "range /time"),
        (json!("9999-12-31T23:59:59Z"), None, "range /time"),
        (json!(1e300), None, "time /time, range /time"),
        (json!("yesterday"), None, "time /time"),
        (json!({ "at": 1 }), None, "time /time"),
        (json!(""), None, "empty /time"),
        (Value::Null, None, ""),
    ] {
        let body = json!({ "cid": "demo", "event_type": "view", "time": time });
        let answer: Value = post(&tracker, "/event", JSON, body.to_string()).await.json().await.unwrap();
        assert_eq!(adjusted(&answer).join(", "), named, "{time}");
        let row = row(&tracker, &answer["event_id"]).await;
        let at = |column: &str| row[column].as_str().map(|t| t.parse::<DateTime<Utc>>().unwrap());
        assert_eq!(at("occurred_at"), wanted, "{time}");
        assert!(at("created_at").unwrap() >= now, "{time}");
        let is_kept = row["event_data"].as_str().is_some_and(|data| data.starts_with("{\"time\": "));
        assert_eq!(is_kept, named.starts_with("range") || named.starts_with("time"), "{time}: {row}");
    }
    let response =
        tracker.octo.get(&format!("/event.gif?cid=demo&event_type=pixel&time={}", hour.timestamp())).await;
    assert_eq!(header(&response, "x-octo-adjusted"), "");
    eventually(SOON, async || {
        let listed: Value = tracker.api(Method::GET, "/events?limit=1").send().await?.json().await?;
        let shown: Option<DateTime<Utc>> =
            listed["data"][0]["occurred_at"].as_str().and_then(|t| t.parse().ok());
        anyhow::ensure!(listed["data"][0]["event_type"] == "pixel" && shown == Some(hour), "{listed}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn forms_and_pixels_are_read_alike_and_head_stores_nothing() {
    let tracker = Tracker::start("event_forms").await;
    tracker.simple_campaign("demo").await;
    // a query, what is adjusted, the type, and the properties
    for (query, named, kind, data) in [
        ("cid=demo&event_type=view", "", "view", None),
        ("cid=demo&amp;event_type=view&amp;sku=A+1&amp;empty=", "", "view", Some(r#"{"sku": "A 1"}"#)),
        (
            "event_type=Page%20View&cid=demo&value=9.50&value=1",
            "folded /event_type",
            "page_view",
            Some(r#"{"value": "9.50"}"#),
        ),
        ("cid=demo&event_type=view&click_id=", "empty /click_id", "view", None),
        (
            "cid=demo&event_type=view&click_id=%7Bclickid%7D",
            "click_id /click_id",
            "view",
            Some(r#"{"click_id": "{clickid}"}"#),
        ),
        ("cid=demo&event_type=view&url=https%3A%2F%2Fx.example%2F%3Fa%3D1%26amp%3Bb", "", "view", None),
        (
            "cid=demo&event_type=view&properties=x&a%5Bb%5D=c",
            "type /properties",
            "view",
            Some(r#"{"a[b]": "c", "properties": "x"}"#),
        ),
        (
            "cid=demo&event_type=view&bad=%ff%00&%zz=1",
            "",
            "view",
            Some("{\"%zz\": \"1\", \"bad\": \"\u{fffd}\"}"),
        ),
        ("&&cid=demo&event_type=view&=x&flag", "", "view", None),
    ] {
        let response = post(&tracker, "/event", &format!("{FORM};charset=UTF-8"), query.to_owned()).await;
        assert_eq!(response.status(), 202, "{query}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(adjusted(&answer).join(", "), named, "{query}");
        let row = row(&tracker, &answer["event_id"]).await;
        assert_eq!((row["event_type"].as_str(), row["event_data"].as_str()), (Some(kind), data), "{query}");
        let pixel = tracker.octo.get(&format!("/event.gif?{query}")).await;
        assert_eq!(header(&pixel, "x-octo-adjusted"), named, "{query}");
        assert_eq!(
            (pixel.status().as_u16(), header(&pixel, "x-octo-dropped")),
            (200, String::new()),
            "{query}"
        );
    }
    tracker.wait_rows(Table::Events, 18).await;
    let both = "SELECT count(DISTINCT (event_type, event_data, url)) FROM events";
    let both: i64 = sqlx::query_scalar(both).fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(both, 7, "forms and pixels gave the same; three are plain views");

    // as curl -d sends it
    let curl = post(&tracker, "/event", FORM, " {\"cid\":\"demo\",\"event_type\":\"curl\"}\n").await;
    assert_eq!(curl.status(), 202);
    let refused = post(&tracker, "/event", "multipart/form-data; boundary=x", "--x--").await;
    assert_eq!(refused.status(), 415);
    assert!(refused.text().await.unwrap().contains("URLSearchParams"));
    assert_eq!(post(&tracker, "/events", FORM, "cid=demo&event_type=view").await.status(), 415);
    assert_eq!(post(&tracker, "/event", FORM, "cid=demo").await.status(), 422);

    let head = tracker.octo.client().head(tracker.octo.url("/event.gif?cid=demo&event_type=head"));
    let head = head.send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-type")), (200, "image/gif".to_owned()));
    assert_eq!(
        (header(&head, "content-length"), header(&head, "cache-control")),
        ("43".to_owned(), "no-store".to_owned())
    );
    for path in ["/event", "/events"] {
        let head = tracker.octo.client().head(tracker.octo.url(path)).send().await.unwrap();
        assert_eq!((head.status().as_u16(), header(&head, "allow")), (405, "POST".to_owned()), "{path}");
    }
    let safe = "/event.gif?cid=demo&event_type=V%C3%A9lo&session_id=a%0d%0ab&%C3%A9,%25=1&last=1";
    let safe = tracker.octo.get(safe).await;
    assert_eq!(header(&safe, "x-octo-adjusted"), "folded /event_type");
    tracker.wait_rows(Table::Events, 20).await;
    let none: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'head'")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(none, 0);
}
