//! Signing in and out by HTTP: cookies, links, what is refused, and what every page says of itself.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;

use crate::{
    harness::Octo,
    tracker::{Tracker, header},
};

/// The browser of these tests: a cookie and the token of its forms.
pub(super) struct Visitor<'a> {
    octo: &'a Octo,
    pub(super) cookie: String,
}

impl<'a> Visitor<'a> {
    /// Signed in by a token or the code of a link, with nothing in hand.
    pub(super) async fn signed_in(octo: &'a Octo, secret: &str) -> Self {
        let response = enter(octo, secret).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{}", response.text().await.unwrap());
        Self { octo, cookie: cookie_of(&response) }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.octo.client().request(method, self.octo.url(path)).header("cookie", &self.cookie)
    }

    /// A page, which must be one.
    pub(super) async fn page(&self, path: &str) -> String {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.request(Method::GET, path).send().await.unwrap().status()
    }

    /// What the forms of this session hold.
    pub(super) async fn csrf(&self) -> String {
        between(&self.page("/ui").await, "name=\"csrf\" value=\"", "\"").to_owned()
    }

    /// Sends a form as a page of this session does.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut fields = fields.to_vec();
        let csrf = self.csrf().await;
        fields.push(("csrf", &csrf));
        form(self.request(Method::POST, path).header("sec-fetch-site", "same-origin"), &fields)
            .send()
            .await
            .unwrap()
    }
}

pub(super) fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0
}

/// A request with the fields of a form.
fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

fn enter(octo: &Octo, secret: &str) -> RequestBuilder {
    form(octo.client().post(octo.url("/ui/sign-in")), &[("secret", secret), ("to", "/ui/campaigns")])
}

/// `name=value` of the cookie that an answer sets.
fn cookie_of(response: &Response) -> String {
    header(response, "set-cookie").split(';').next().unwrap_or_default().to_owned()
}

/// The code of a new link, made by the command line.
pub(super) async fn code(octo: &Octo) -> String {
    let output = octo.run(&["sign-in-link"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let link = String::from_utf8(output.stdout).unwrap();
    let (base, code) = link.trim().split_once("/ui#t=").expect("the code stands behind #");
    assert!(base.starts_with("http://") && code.len() == 43, "{link}");
    code.to_owned()
}

#[tokio::test]
async fn a_link_of_the_command_line_signs_in_once_and_its_session_ends_with_its_token() {
    let tracker = Tracker::start("ui_links").await;
    let octo = &tracker.octo;
    let link = code(octo).await;
    let stored: (Vec<u8>,) =
        sqlx::query_as("SELECT code_sha256 FROM sign_in_links").fetch_one(&tracker.pool).await.unwrap();
    assert_ne!(stored.0, link.as_bytes(), "only its hash is stored");

    let response = enter(octo, &format!("http://octo.example/ui#t={link}")).send().await.unwrap();
    assert_eq!(
        (response.status(), header(&response, "location")),
        (StatusCode::SEE_OTHER, "/ui/campaigns".to_owned())
    );
    let set = header(&response, "set-cookie");
    for part in ["octo_session=", "; Path=/ui", "; HttpOnly", "; SameSite=Strict", "; Max-Age=2592000"] {
        assert!(set.contains(part), "{part}: {set}");
    }
    assert!(!set.contains("Secure"), "over http: {set}");
    let again = enter(octo, &link).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED, "it was used");
    assert!(again.text().await.unwrap().contains("no link that is still good"));

    let visitor = Visitor { octo, cookie: cookie_of(&response) };
    assert!(visitor.page("/ui/campaigns").await.contains("<h1>Campaigns</h1>"));
    let tokens = tracker.show("/tokens").await;
    let token = tokens["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "signed in by a link")
        .unwrap();
    assert_eq!(token["scope"], "admin");
    let revoked = tracker
        .api(Method::DELETE, &format!("/tokens/{}", token["id"].as_str().unwrap()))
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        visitor.status("/ui/campaigns").await,
        StatusCode::SEE_OTHER,
        "revoking the token ends its sessions"
    );
}

#[tokio::test]
async fn a_link_that_is_late_is_none_and_so_is_a_session_that_was_not_used_or_began_long_ago() {
    let tracker = Tracker::start("ui_late").await;
    let octo = &tracker.octo;
    let link = code(octo).await;
    sqlx::query("UPDATE sign_in_links SET expires_at = now()").execute(&tracker.pool).await.unwrap();
    assert_eq!(enter(octo, &link).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    for (late, sql) in [
        (false, "UPDATE sessions SET last_used_at = now() - interval '11 hours'"),
        (true, "UPDATE sessions SET last_used_at = now() - interval '12 hours 1 minute'"),
        (true, "UPDATE sessions SET last_used_at = now(), expires_at = now()"),
    ] {
        sqlx::query(sql).execute(&tracker.pool).await.unwrap();
        let response = visitor.request(Method::GET, "/ui/campaigns?range=30d").send().await.unwrap();
        if late {
            assert_eq!(response.status(), StatusCode::SEE_OTHER, "{sql}");
            assert_eq!(
                header(&response, "location"),
                "/ui/sign-in?to=%2Fui%2Fcampaigns%3Frange%3D30d",
                "{sql}"
            );
            assert!(header(&response, "set-cookie").contains("Max-Age=0"), "the browser forgets it: {sql}");
        } else {
            assert_eq!(response.status(), StatusCode::OK, "{sql}");
        }
    }
    Visitor::signed_in(octo, &tracker.token).await;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(left, 1, "those that are over are gone once somebody signs in");
}

#[tokio::test]
async fn who_guesses_is_not_answered_whatever_is_guessed_and_who_is_signed_in_goes_on() {
    let tracker = Tracker::start_with("ui_guess", |octo| {
        octo.env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "1").env("OCTO_LIMITS__FAILED_AUTH_BURST", "5")
    })
    .await;
    let octo = &tracker.octo;
    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    visitor.page("/ui/campaigns").await; // it was seen to be valid
    let good = code(octo).await;
    let mut statuses = Vec::new();
    for n in 0..1000 {
        let guess = format!("{n:0>43}");
        let request = match n % 3 {
            0 => enter(octo, &guess),
            1 => enter(octo, &format!("octo_{n:0>64x}")),
            _ => octo.client().get(octo.url("/ui")).header("cookie", format!("octo_session={guess}")),
        };
        statuses.push(request.send().await.unwrap().status());
    }
    let answered = statuses.iter().filter(|status| **status != StatusCode::TOO_MANY_REQUESTS).count();
    assert!((5..=8).contains(&answered), "{answered} guesses were answered");
    assert!(!statuses.contains(&StatusCode::OK));
    assert_eq!(
        enter(octo, &good).send().await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS,
        "nor is the right one"
    );
    visitor.page("/ui/campaigns").await;
}

#[tokio::test]
async fn each_signing_in_has_a_cookie_of_its_own_and_signing_out_ends_it() {
    let tracker = Tracker::start("ui_fixation").await;
    let octo = &tracker.octo;
    let planted = "octo_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let response = enter(octo, &tracker.token).header("cookie", planted).send().await.unwrap();
    let first = Visitor { octo, cookie: cookie_of(&response) };
    assert_ne!(first.cookie, planted, "a cookie that somebody planted is never taken up");
    let response = enter(octo, &tracker.token).header("cookie", &first.cookie).send().await.unwrap();
    let second = Visitor { octo, cookie: cookie_of(&response) };
    assert_ne!(first.cookie, second.cookie);
    assert_eq!(first.status("/ui/campaigns").await, StatusCode::SEE_OTHER, "the one before is over");
    second.page("/ui/campaigns").await;

    let response = second.post("/ui/sign-out", &[]).await;
    assert_eq!(
        (response.status(), header(&response, "location")),
        (StatusCode::SEE_OTHER, "/ui/sign-in".to_owned())
    );
    assert!(header(&response, "set-cookie").contains("Max-Age=0"));
    assert_eq!(second.status("/ui/campaigns").await, StatusCode::SEE_OTHER);
    let stored: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn where_the_browser_speaks_https_the_cookie_is_of_this_host_alone() {
    let tracker =
        Tracker::start_with("ui_https", |octo| octo.env("OCTO_SERVER__PUBLIC_URL", "https://t.example"))
            .await;
    let octo = &tracker.octo;
    for (origin, is_secure) in
        [(None, true), (Some("https://t.example"), true), (Some(octo.url("").as_str()), false)]
    {
        let request = enter(octo, &tracker.token);
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        let set = header(&request.send().await.unwrap(), "set-cookie");
        assert_eq!(set.starts_with("__Host-octo_session="), is_secure, "{origin:?}: {set}");
        assert_eq!(set.contains("; Secure") && set.contains("; Path=/;"), is_secure, "{origin:?}: {set}");
        assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
    }
}

#[tokio::test]
async fn a_form_of_another_site_or_session_changes_nothing() {
    let tracker = Tracker::start("ui_csrf").await;
    tracker.simple_campaign("target").await;
    let octo = &tracker.octo;
    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    let other = Visitor::signed_in(octo, &tracker.token).await;
    let (own, foreign) = (visitor.csrf().await, other.csrf().await);
    let id = tracker.show("/campaigns/target").await["id"].as_str().unwrap().to_owned();
    let send = async |csrf: &str, headers: &[(&str, &str)]| {
        let fields = [("csrf", csrf), ("id", &id), ("action", "pause")];
        let mut request = form(visitor.request(Method::POST, "/ui/campaigns"), &fields);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let status = request.send().await.unwrap().status();
        (status, tracker.show("/campaigns/target").await["status"] == json!("paused"))
    };
    for (csrf, headers) in [
        ("", &[][..]),
        (&foreign, &[]),
        (&own, &[("sec-fetch-site", "cross-site")]),
        (&own, &[("sec-fetch-site", "same-site")]),
        (&own, &[("origin", "https://evil.example")]),
        (&own, &[("origin", "null")]),
    ] {
        assert_eq!(send(csrf, headers).await, (StatusCode::FORBIDDEN, false), "{csrf} {headers:?}");
    }
    let json =
        visitor.request(Method::POST, "/ui/campaigns").json(&json!({ "csrf": own })).send().await.unwrap();
    assert_eq!(
        json.status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "what a form can send is all that is taken"
    );
    // somebody else's session is not begun from another site either
    let login = enter(octo, &tracker.token).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!((login.status(), header(&login, "set-cookie")), (StatusCode::FORBIDDEN, String::new()));
    assert_eq!(send(&own, &[("origin", &octo.url(""))]).await, (StatusCode::SEE_OTHER, true));
}

#[tokio::test]
async fn who_may_read_sees_everything_and_changes_nothing() {
    let tracker = Tracker::start("ui_read").await;
    let made = tracker.simple_campaign("shown").await;
    let id = made["id"].as_str().unwrap().to_owned();
    let octo = &tracker.octo;
    let reader = Visitor::signed_in(octo, &octo.token("read").await).await;
    for path in ["/ui", "/ui/campaigns", "/ui/report", "/ui/clicks"] {
        let page = reader.page(path).await;
        assert!(page.contains("read only") && !page.contains("New campaign"), "{path}");
    }
    let settings = format!("/ui/campaigns/{id}/settings");
    assert!(reader.page(&settings).await.contains("changes nothing"));
    for (path, fields) in [
        ("/ui/campaigns", &[("action", "pause"), ("id", id.as_str())][..]),
        ("/ui/campaigns/new", &[("name", "x"), ("offer_url", "https://a.example/")]),
        (&settings, &[("name", "changed"), ("version", "1")]),
    ] {
        let refused = reader.post(path, fields).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(refused.text().await.unwrap().contains("scope read"), "{path}");
    }
    let campaign = tracker.show(&format!("/campaigns/{id}")).await;
    assert_eq!(campaign, made, "nothing changed");
    for scope in ["ingest", "metrics"] {
        let refused = enter(octo, &octo.token(scope).await).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{scope}");
        assert!(header(&refused, "set-cookie").is_empty(), "{scope}");
    }
    assert_eq!(reader.post("/ui/sign-out", &[]).await.status(), StatusCode::SEE_OTHER, "it may leave");
}

#[tokio::test]
async fn every_answer_forbids_frames_and_scripts_of_others_and_is_kept_by_nobody() {
    let tracker = Tracker::start("ui_headers").await;
    let octo = &tracker.octo;
    let visitor = Visitor::signed_in(octo, &tracker.token).await;
    let style = between(&visitor.page("/ui").await, "rel=\"stylesheet\" href=\"", "\"").to_owned();
    for path in ["/ui", "/ui/campaigns", "/ui/no-such-page", "/ui/sign-in", &style] {
        let response = visitor.request(Method::GET, path).send().await.unwrap();
        let policy = header(&response, "content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&response, "x-frame-options"), "DENY", "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&response, "referrer-policy"), "same-origin", "{path}");
        let kept = if path == style { "public, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(header(&response, "cache-control"), kept, "{path}");
    }
    let stranger = octo.get("/ui/no-such-page").await;
    assert_eq!(stranger.status(), StatusCode::NOT_FOUND);
    for path in ["/ui", "/ui/campaigns", "/ui/report.csv", "/ui/clicks"] {
        let response = octo.get(path).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(header(&response, "location").starts_with("/ui/sign-in?to="), "{path}");
    }
}

#[tokio::test]
async fn with_an_admin_listener_the_dashboard_is_there_and_not_where_strangers_are() {
    let admin = crate::harness::free_address();
    let tracker =
        Tracker::start_with("ui_admin", |octo| octo.env("OCTO_SERVER__ADMIN_LISTEN", admin.to_string()))
            .await;
    assert_eq!(tracker.octo.get("/ui").await.status(), StatusCode::NOT_FOUND);
    let there = tracker.octo.client().get(format!("http://{admin}/ui")).send().await.unwrap();
    assert_eq!(there.status(), StatusCode::SEE_OTHER);
    let output = tracker.octo.run(&["sign-in-link"]).await;
    let link = String::from_utf8(output.stdout).unwrap();
    assert!(link.starts_with(&format!("http://{admin}/ui#t=")), "{link}");
}
