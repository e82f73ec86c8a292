//! `GET` and `POST /postback`, and the paths under which rival trackers take postbacks: what a network tells of a conversion,
//! on disk before the answer. `path` knows the paths, `body` reads what was posted.
//!
//! Nothing is decided here but who may and whether a click of ours is named: conversions are derived from the records
//! later. A network is never told to stop: what cannot be used is kept, and answered 200.

mod body;
mod path;

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    app::App,
    facts::postback::Postback,
    http::{
        client::{self, Peer},
        error::Problem,
        head::require_identity,
        track::{click, posted, signals},
    },
    journal::{PAYLOAD_BYTES_MAX, Pending},
    metrics,
    model::{
        conversion::{Channel, OutcomeReason, Refusal},
        id::{new_uuid, time_of_uuid},
        network::PostbackRules,
    },
    money::reading::{
        self, NoClick,
        kept::{Kept, keep},
    },
    networks::{Found, Network},
};
pub(crate) use path::PostbackPath;

/// The header that says why a postback was not taken.
const X_OCTO_DROPPED: HeaderName = HeaderName::from_static("x-octo-dropped");

/// Names under which a network sends its token.
const TOKENS: [&str; 2] = ["token", "key"];

/// What became of a postback.
#[derive(Debug, Serialize, ToSchema)]
struct Taken {
    /// `accepted`, or `ignored` with a reason; either is on disk.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Why it is ignored: `no_click_id`, or `bad_click_id` where it is no id of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false, example = "bad_click_id")]
    reason: Option<&'static str>,
}

/// Answers a postback. `body` is the one of a `POST`.
pub(super) async fn answer(
    app: &App,
    peer: Peer,
    path: PostbackPath,
    head: &Head,
    body: Option<Body>,
) -> Response {
    match head.method {
        Method::GET => take(app, peer, path, head).await,
        Method::POST => take_posted(app, peer, path, head, body.unwrap_or_default()).await,
        Method::HEAD => not_stored(),
        Method::OPTIONS => click::options(),
        _ => Problem::method_not_allowed().with_header(header::ALLOW, click::METHODS).into_response(),
    }
}

/// Report a conversion
///
/// What an affiliate network calls, answered once it is on disk. The names of the parameters are those of many trackers and
/// networks, in any case, with or without `-` and `_`; of each field the first usable value counts. What names no click of
/// ours is kept too, and answered 200 with the reason in `X-Octo-Dropped`: a network that is answered with an error sends
/// no more. A macro that was not filled (`{payout}`) is no value. The addresses of other trackers are taken alike:
/// `/postback.php`, `/{key}/postback`, `/click?cnv_id=`, `/click.php?cnv_id=`, `/cf/cv`, `/cf/postback`, `/pb/`, `/adclick.php`,
/// `/tracking202/static/gpb.php`. `HEAD`, `OPTIONS` and prefetches store nothing.
#[utoipa::path(
    get, path = "/postback", tag = "tracking", operation_id = "postback", security(()),
    params(
        ("click_id" = Option<String>, Query, description = "Our id of the click, or `<click id>.<offer id>`; `clickid`, `subid`, `sub_id`, `cid`, `cnv_id` and others too.", example = "019aaf3c-5f00-7abc-8def-0123456789ab"),
        ("payout" = Option<String>, Query, description = "What we are paid: `12.5`, `12,50`, `$12.50`; `revenue`, `sum`, `amount` and others too.", example = "12.50"),
        ("currency" = Option<String>, Query, description = "Of the payout.", example = "USD"),
        ("txid" = Option<String>, Query, description = "The network's id of the conversion; `tid`, `transaction_id` and others too.", example = "A-1001"),
        ("status" = Option<String>, Query, description = "The network's word for its state; approved where there is none.", example = "approved"),
        ("goal" = Option<String>, Query, description = "What was reached; `event`, `type` and others too.", example = "deposit"),
        ("return" = Option<String>, Query, description = "What to answer in place of JSON: 1 to 32 of `A-Z a-z 0-9 _ . -` and spaces.", example = "OK"),
    ),
    responses(
        (status = 200, description = "It is on disk.", content((Taken = "application/json"), (String = "text/plain", example = json!("OK"))), headers(
            ("X-Octo-Dropped" = String, description = "Why it is of no conversion; not sent otherwise."),
            ("Cache-Control" = String, description = "Each is asked for again."),
        )),
        (status = 403, description = "The key in the path is nobody's, or the network asks for a token or an address that this is not.", headers(
            ("X-Octo-Dropped" = String, description = "`wrong_key`, `wrong_token` or `wrong_address`."),
        )),
        (status = 503, description = "The disk does not take it; send it again after `Retry-After` seconds."),
    ),
)]
pub(super) async fn take(app: &App, peer: Peer, path: PostbackPath, head: &Head) -> Response {
    taken(app, peer, path, head, "").await
}

/// Report a conversion by POST
///
/// As `GET`, with a form or a JSON object; the query counts first. Of JSON, numbers stay as they are written, an object in
/// an object gives its names with and without the outer one (`data.payout`, `payout`), and lists are passed over.
#[utoipa::path(
    post, path = "/postback", tag = "tracking", operation_id = "post_postback", security(()),
    request_body(content = Value, description = "A form or a JSON object; of anything else nothing is read.", content_type = "application/json", example = json!({"click_id": "019aaf3c-5f00-7abc-8def-0123456789ab", "payout": "12.50"})),
    responses(
        (status = 200, description = "It is on disk.", content((Taken = "application/json"), (String = "text/plain", example = json!("OK"))), headers(
            ("X-Octo-Dropped" = String, description = "Why it is of no conversion; not sent otherwise."),
            ("Cache-Control" = String, description = "Each is asked for again."),
        )),
        (status = 400, description = "The body ended early."),
        (status = 403, description = "The key in the path is nobody's, or the network asks for a token or an address that this is not.", headers(
            ("X-Octo-Dropped" = String, description = "`wrong_key`, `wrong_token` or `wrong_address`."),
        )),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is longer than `postbacks.body_bytes_max`."),
        (status = 415, description = "The body is compressed."),
        (status = 503, description = "The disk does not take it; send it again after `Retry-After` seconds."),
    ),
)]
pub(super) async fn take_posted(
    app: &App,
    peer: Peer,
    path: PostbackPath,
    head: &Head,
    posted: Body,
) -> Response {
    let read = async {
        require_identity(&head.headers)?;
        body::read(&head.headers, posted, app.config.postbacks.body_bytes_max).await
    };
    match read.await {
        Ok(params) => taken(app, peer, path, head, &params).await,
        Err(problem) => {
            metrics::postback("refused");
            problem.into_response()
        }
    }
}

/// Waits for the disk only.
async fn taken(app: &App, peer: Peer, path: PostbackPath, head: &Head, posted: &str) -> Response {
    if signals::is_prefetch(&head.headers) {
        return not_stored();
    }
    let query = head.uri.query().unwrap_or_default();
    let params = if posted.is_empty() { query.to_owned() } else { format!("{query}&{posted}") };
    let from = client::address(peer.0.ip(), &head.headers, &app.config.server);
    let (network, refusal) = who(app, path.key(head.uri.path()), &params, from);
    let asks_for_privacy = signals::asks_for_privacy(&head.headers, &app.config.privacy);
    let mut told = Told::read(app, network.as_deref(), &params);
    told.postback.network_id = network.map(|network| network.id);
    told.postback.ip = (!asks_for_privacy).then(|| app.privacy.address_of_now(from)).flatten();
    told.postback.refusal = refusal;
    if let Some(refusal) = refusal {
        return refuse(app, refusal, &told.postback);
    }
    let pending = app.journal.append_with(|out| told.postback.encode(out));
    if let Err(problem) = durable(app, pending).await {
        return problem.into_response();
    }
    metrics::postback(if told.reason.is_some() { "ignored" } else { "accepted" });
    told.answer()
}

/// Whose postback it is, and why it is not let in.
fn who(app: &App, key: Option<&str>, params: &str, from: IpAddr) -> (Option<Arc<Network>>, Option<Refusal>) {
    let Some(key) = key else {
        return (None, app.config.postbacks.key_required.then_some(Refusal::WrongKey));
    };
    match app.networks.find(key) {
        Found::Nobody => (None, Some(Refusal::WrongKey)),
        // its offer tells whose it is; a conversion that is refused may never come again
        Found::Unknown => (None, None),
        Found::Network(network) => {
            let pairs: Vec<_> = reading::pairs(params).collect();
            let is_token = |name: &str| TOKENS.iter().any(|token| name.eq_ignore_ascii_case(token));
            let tokens = pairs.iter().filter(|(name, _)| is_token(name)).map(|(_, value)| value.as_ref());
            let refusal = network.refusal(tokens, from);
            (Some(network), refusal)
        }
    }
}

/// What a postback tells, as far as the answer needs it.
struct Told {
    postback: Postback<'static>,
    /// Why it is of no conversion.
    reason: Option<OutcomeReason>,
    return_text: Option<String>,
}

impl Told {
    fn read(app: &App, network: Option<&Network>, params: &str) -> Self {
        let nothing = PostbackRules::default();
        let rules = network.map_or(&nothing, |network| &network.rules);
        let bytes_max = app.config.postbacks.body_bytes_max.min(PAYLOAD_BYTES_MAX / 2);
        let Kept { params, left_out, cut } = keep(params, rules, bytes_max);
        metrics::postback_parameters_lost("private", left_out as u64);
        metrics::postback_parameters_lost("no_room", cut as u64);
        let id = new_uuid();
        let reading = reading::read(&params, rules, time_of_uuid(id));
        let reason = reading.leg.err().map(|no_click| match no_click {
            NoClick::Missing => OutcomeReason::NoClickId,
            NoClick::Bad => OutcomeReason::BadClickId,
        });
        let leg = reading.leg.ok();
        let postback = Postback {
            channel: Channel::Http,
            click_id: leg.map(|leg| leg.click_id),
            offer_id: leg.and_then(|leg| leg.offer_id),
            ..Postback::new(id, params)
        };
        Self { postback, reason, return_text: reading.return_text }
    }

    fn answer(self) -> Response {
        let reason = self.reason.map(<&str>::from);
        let mut response = if let Some(text) = self.return_text {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        } else {
            let status = if reason.is_some() { "ignored" } else { "accepted" };
            axum::Json(json!(Taken { status, reason })).into_response()
        };
        if let Some(reason) = reason {
            response.headers_mut().insert(X_OCTO_DROPPED, HeaderValue::from_static(reason));
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// 403. It is kept too, for who wonders where conversions stay; beyond some a minute it is only counted.
fn refuse(app: &App, refusal: Refusal, postback: &Postback<'_>) -> Response {
    metrics::postback("refused");
    if app.limits.refused_postbacks.count() {
        drop(app.journal.append_with(|out| postback.encode(out)));
    }
    let detail = match refusal {
        Refusal::WrongKey => "The key in the address is no affiliate network's.",
        Refusal::WrongToken => "This network's postbacks carry a token, and this is another one or none.",
        Refusal::WrongAddress => "This network's postbacks come from other addresses.",
    };
    let reason = HeaderValue::from_static(refusal.into());
    Problem::forbidden(detail).with_header(X_OCTO_DROPPED, reason).into_response()
}

/// Waits until the postback is on disk; 503 otherwise.
pub(crate) async fn durable(app: &App, pending: Pending) -> Result<(), Problem> {
    posted::durable(app, pending, "postback", || metrics::postback("unavailable")).await
}

/// Of who only looks.
fn not_stored() -> Response {
    (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response()
}
