//! Tokens, sessions and rates by forms; and what the page of octo's health says, also while something is broken.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::sessions::{Visitor, between};
use crate::tracker::{Tracker, header};

#[tokio::test]
async fn a_token_is_made_by_a_form_shown_once_and_revoked_with_its_sessions() {
    let tracker = Tracker::start("ui_tokens").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let bad = visitor.post("/ui/settings", &[("action", "make"), ("name", "x"), ("scope", "root")]).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(bad.text().await.unwrap().contains("id=\"scope-fault\""));
    let late = [("action", "make"), ("name", "x"), ("scope", "read"), ("expires_on", "2020-01-01")];
    assert!(
        visitor.post("/ui/settings", &late).await.text().await.unwrap().contains("id=\"expires_on-fault\"")
    );

    let page = visitor.page("/ui/settings").await;
    let attempt = between(&page, "name=\"attempt\" value=\"", "\"");
    let fields = [("action", "make"), ("name", "re<b>porting"), ("scope", "read"), ("attempt", attempt)];
    let made = visitor.post("/ui/settings", &fields).await;
    assert_eq!((made.status(), header(&made, "cache-control")), (StatusCode::OK, "no-store".to_owned()));
    let made = made.text().await.unwrap();
    let secret = between(&made, "id=\"secret-text\" value=\"", "\"");
    assert!(made.contains("re&#60;b&#62;porting is made"), "{made}");
    let reader = Visitor::signed_in(&tracker.octo, secret).await;
    assert!(reader.page("/ui/campaigns").await.contains("read only"));

    let again = visitor.post("/ui/settings", &fields).await.text().await.unwrap();
    assert!(!again.contains("secret-text") && again.contains("nobody knows it any more"), "{again}");
    let page = visitor.page("/ui/settings").await;
    assert!(!page.contains(secret), "it is shown once");
    let row = between(&page, "re&#60;b&#62;porting</th>", "</tr>");
    let id = between(row, "name=\"id\" value=\"", "\"");
    let revoked = visitor.post("/ui/settings", &[("action", "revoke"), ("id", id)]).await;
    assert_eq!(header(&revoked, "location"), "/ui/settings?done=revoked");
    let ended = reader.request(Method::GET, "/ui/campaigns").send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::SEE_OTHER, "its sessions are over");
    let refused = visitor.post("/ui/settings", &[("action", "evil")]).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn sessions_are_listed_and_one_or_all_others_are_ended() {
    let tracker = Tracker::start("ui_session_list").await;
    let octo = &tracker.octo;
    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    let others = [
        Visitor::signed_in(octo, &tracker.token).await,
        Visitor::signed_in(octo, &tracker.token).await,
        Visitor::signed_in(octo, &tracker.token).await,
    ];
    let page = visitor.page("/ui/settings").await;
    assert_eq!(page.matches("value=\"end\"").count(), 4);
    assert_eq!(page.matches("this one").count(), 1);
    let other = page
        .split("<tr>")
        .find(|row| row.contains("value=\"end\"") && !row.contains("this one"))
        .expect("a session of another");
    let id = between(other, "name=\"id\" value=\"", "\"");
    let ended = visitor.post("/ui/settings", &[("action", "end"), ("id", id)]).await;
    assert_eq!(header(&ended, "location"), "/ui/settings?done=ended.1");
    let again = visitor.post("/ui/settings", &[("action", "end"), ("id", id)]).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    let mut alive = 0;
    for other in &others {
        let response = other.request(Method::GET, "/ui").send().await.unwrap();
        alive += usize::from(response.status() == StatusCode::OK);
    }
    assert_eq!(alive, 2);
    let ended = visitor.post("/ui/settings", &[("action", "end_others")]).await;
    assert_eq!(header(&ended, "location"), "/ui/settings?done=ended.2");
    for other in &others {
        let response = other.request(Method::GET, "/ui").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
    }
    assert!(visitor.page("/ui/settings?done=ended.2").await.contains("2 sessions are over."));
}

#[tokio::test]
async fn a_rate_of_ones_own_is_stored_by_a_form_and_is_that_of_the_api() {
    let tracker = Tracker::start("ui_rates").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let bad = [("currency_of", "ZZZ"), ("day", "2026-13-01"), ("rate", "0"), ("base", "BTC")];
    let bad = visitor.post("/ui/settings/rates", &bad).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let bad = bad.text().await.unwrap();
    for field in ["currency_of", "day", "rate", "base"] {
        assert!(bad.contains(&format!("id=\"{field}-fault\"")), "{field}: {bad}");
    }
    let good = [("currency_of", "uah"), ("day", "2026-10-01"), ("rate", "48.35"), ("base", "EUR")];
    for done in ["stored", "unchanged"] {
        let stored = visitor.post("/ui/settings/rates", &good).await;
        assert_eq!(header(&stored, "location"), format!("/ui/settings/rates?done={done}"));
    }
    let page = visitor.page("/ui/settings/rates?of=uah").await;
    assert!(page.contains(">48.35<") && page.contains(">yours<"), "{page}");
    let stored = tracker.show("/fx-rates?currency=UAH").await;
    assert_eq!(stored["data"][0]["rate"], "48.35");
}

#[tokio::test]
async fn health_names_every_part_and_its_diagnostics_hold_no_address_and_no_secret() {
    let tracker = Tracker::start("ui_health").await;
    tracker
        .campaign(json!({ "key": "a", "name": "secret campaign", "fallback_url": "https://o.example/" }))
        .await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let page = visitor.page("/ui/health").await;
    assert!(page.contains("Everything works.") && page.contains("<th scope=\"row\">journal</th>"), "{page}");
    let response = visitor.request(Method::GET, "/ui/health/diagnostics.txt").send().await.unwrap();
    assert!(header(&response, "content-type").starts_with("text/plain"));
    let text = response.text().await.unwrap();
    assert!(text.starts_with("octo ") && text.contains("journal: ok") && text.contains("query "), "{text}");
    for hidden in
        [tracker.token.as_str(), "127.0.0.1", "postgres://", "redis://", "password", "secret campaign"]
    {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let nobody = tracker.octo.get("/ui/health/diagnostics.txt").await;
    assert_eq!(nobody.status(), StatusCode::SEE_OTHER, "not for strangers");
}

#[tokio::test]
async fn what_postgres_refused_is_on_the_page_and_is_tried_again() {
    let tracker = Tracker::start("ui_letters").await;
    sqlx::query(
        "INSERT INTO dead_letters (stream, seq, sqlstate, message, record)
        VALUES (gen_random_uuid(), 1, '22P05', '<script>window.pwned = 1</script>', '\\x00ff')",
    )
    .execute(&tracker.pool)
    .await
    .unwrap();
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let page = visitor.page("/ui/health").await;
    assert!(page.contains("22P05") && !page.contains("<script>window"), "{page}");
    let tried = visitor.post("/ui/health", &[("action", "retry")]).await;
    assert_eq!(header(&tried, "location"), "/ui/health?done=0.1");
}
