//! `/api/v1/traffic-sources` and `/api/v1/affiliate-networks`, made from templates and from scratch.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::api::{answer, json_of},
    tracker::{Tracker, header},
};

/// Pointers and codes of the bad fields.
fn faults(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
}

/// What each of the two nouns is made of, and something to change.
fn nouns() -> [(&'static str, Value, Value); 2] {
    let source =
        json!({ "name": "Ads", "parameters": [{ "name": "zone", "macro": "{zone}", "slot": "placement" }] });
    let network =
        json!({ "name": "Net", "click_id_parameter": "s2", "click_id_macro": "#s2#", "repeats": "new" });
    [
        (
            "/traffic-sources",
            source,
            json!({ "postback_url": "https://ads.example/?id={external_click_id}" }),
        ),
        ("/affiliate-networks", network, json!({ "currency": "EUR" })),
    ]
}

#[tokio::test]
async fn sources_and_networks_are_made_changed_archived_and_deleted() {
    let tracker = Tracker::start("api_sources_life").await;
    for (noun, body, change) in nouns() {
        let response = tracker.api(Method::POST, noun).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let (location, etag) = (header(&response, "location"), header(&response, "etag"));
        let made = json_of(response).await;
        let one = format!("{noun}/{}", made["id"]);
        assert_eq!((location, etag.as_str()), (format!("/api/v1{one}"), "\"1\""));
        for (field, value) in body.as_object().unwrap() {
            assert_eq!(&made[field], value, "{made}");
        }
        assert_eq!((&made["is_archived"], &made["template"]), (&json!(false), &Value::Null));
        assert_eq!(tracker.show(&one).await, made);

        let patch = |body: &Value, if_match: &str| {
            tracker.api(Method::PATCH, &one).json(body).header("if-match", if_match)
        };
        let (status, changed) = answer(patch(&change, &etag)).await;
        assert_eq!((status, &changed["version"]), (StatusCode::OK, &json!(2)), "{changed}");
        assert_eq!(changed["name"], made["name"], "what is not given stays");
        let (status, problem) = answer(patch(&json!({ "name": "late" }), &etag)).await;
        let refused = (status, &problem["code"]);
        assert_eq!(refused, (StatusCode::PRECONDITION_FAILED, &json!("precondition_failed")));
        let (_, same) = answer(patch(&change, "*")).await;
        assert_eq!(same["version"], 2, "nothing changed");

        let (_, archived) = answer(patch(&json!({ "is_archived": true }), "*")).await;
        assert!(archived["archived_at"].is_string(), "{archived}");
        let list = async |query: &str| -> usize {
            tracker.show(&format!("{noun}?{query}")).await["data"].as_array().unwrap().len()
        };
        let counts = [list("").await, list("is_archived=true").await, list("is_archived=false").await];
        assert_eq!(counts, [1, 1, 0]);
        let (_, back) = answer(patch(&json!({ "is_archived": false }), "*")).await;
        assert_eq!((&back["archived_at"], &back["is_archived"]), (&Value::Null, &json!(false)));

        let delete = |if_match: &str| tracker.api(Method::DELETE, &one).header("if-match", if_match);
        assert_eq!(answer(delete("\"1\"")).await.0, StatusCode::PRECONDITION_FAILED);
        assert_eq!(answer(delete("\"4\"")).await.0, StatusCode::NO_CONTENT);
        assert_eq!(answer(tracker.api(Method::GET, &one)).await.0, StatusCode::NOT_FOUND);
        for nothing in ["0", "x", "-1", "99999999999999999999", "1.0", "%2b1"] {
            let nobody = format!("{noun}/{nothing}");
            assert_eq!(answer(tracker.api(Method::GET, &nobody)).await.0, StatusCode::NOT_FOUND, "{nobody}");
        }
    }
}

#[tokio::test]
async fn lists_are_read_page_by_page_and_searched_by_name() {
    let tracker = Tracker::start("api_sources_list").await;
    for (noun, body, _) in nouns() {
        for i in 0..5 {
            let mut body = body.clone();
            body["name"] = json!(format!("Name {i} %_"));
            assert_eq!(answer(tracker.api(Method::POST, noun).json(&body)).await.0, StatusCode::CREATED);
        }
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = tracker.show(&format!("{noun}?limit=2&cursor={cursor}")).await;
            names.extend(
                page["data"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        let wanted: Vec<_> = (0..5).rev().map(|i| format!("Name {i} %_")).collect();
        assert_eq!(names, wanted, "newest first");
        for (q, count) in [("name%203", 1), ("%25_", 5), ("E%204%20%25", 1), ("nobody", 0), ("", 5)] {
            let found = tracker.show(&format!("{noun}?q={q}")).await;
            assert_eq!(found["data"].as_array().unwrap().len(), count, "{q}");
        }
        let (status, problem) =
            answer(tracker.api(Method::GET, &format!("{noun}?is_archived=maybe&x=1"))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(faults(&problem), [("?x", "unknown"), ("?is_archived", "type")]);
    }
}

#[tokio::test]
async fn each_template_makes_a_source_or_a_network_and_what_is_given_wins() {
    let tracker = Tracker::start("api_templates").await;
    for (list, noun, least) in
        [("/templates/sources", "/traffic-sources", 15), ("/templates/networks", "/affiliate-networks", 10)]
    {
        let response = tracker.api(Method::GET, list).send().await.unwrap();
        let etag = header(&response, "etag");
        let templates = json_of(response).await;
        let again = tracker.api(Method::GET, list).header("if-none-match", etag);
        assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
        let all = templates["data"].as_array().unwrap();
        assert!(all.len() >= least && templates["has_more"] == false, "{} in {list}", all.len());
        for template in all {
            assert!(template["documentation"][0].is_string() && template["checked_live"] == false);
            let body = json!({ "template": template["key"] });
            let (status, made) = answer(tracker.api(Method::POST, noun).json(&body)).await;
            assert_eq!(status, StatusCode::CREATED, "{made}");
            assert_eq!((&made["name"], &made["template"]), (&template["name"], &template["key"]));
            for field in ["parameters", "click_id_parameter", "status_map", "repeats"] {
                assert_eq!(made.get(field), template.get(field), "{field} of {made}");
            }
            // a source is told of conversions as its template says; a network tells of them under the key that it got
            let told = template.get("postback_url").unwrap_or(&made["postback_url"]);
            assert_eq!(&made["postback_url"], told, "{made}");
        }
    }
    let body = json!({ "template": "propellerads", "name": "Push", "postback_url": null });
    let (_, made) = answer(tracker.api(Method::POST, "/traffic-sources").json(&body)).await;
    assert_eq!((&made["name"], &made["postback_url"]), (&json!("Push"), &Value::Null));
    assert_eq!(made["parameters"][0]["macro"], "${SUBID}");
    let (status, problem) =
        answer(tracker.api(Method::POST, "/traffic-sources").json(&json!({ "template": "nosuch" }))).await;
    assert_eq!((status, faults(&problem)[0]), (StatusCode::UNPROCESSABLE_ENTITY, ("/template", "choice")));
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("propellerads"), "{problem}");
}

#[tokio::test]
async fn the_same_request_makes_one_source_and_one_network() {
    let tracker = Tracker::start("api_sources_once").await;
    for (noun, body, _) in nouns() {
        let post = || tracker.api(Method::POST, noun).header("idempotency-key", noun).json(&body);
        let (status, first) = answer(post()).await;
        let response = post().send().await.unwrap();
        assert_eq!((status, response.status()), (StatusCode::CREATED, StatusCode::CREATED));
        assert_eq!(header(&response, "idempotency-replayed"), "true");
        assert_eq!(json_of(response).await, first);
        // a node died before it could keep the answer: whoever carries on finds what was made
        sqlx::query("UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, locked_until = now() - interval '1 hour'")
            .execute(&tracker.pool)
            .await
            .unwrap();
        let (status, carried_on) = answer(post()).await;
        assert_eq!((status, &carried_on["id"]), (StatusCode::CREATED, &first["id"]), "{carried_on}");
        assert_eq!(tracker.show(noun).await["data"].as_array().unwrap().len(), 1);
    }
}
