//! Connections, requests, and who is let in.

use std::{sync::LazyLock, time::Duration};

use ::metrics::{Counter, Histogram};

families! {
    counter requests("octo_http_requests_total", route, method, status) = "Requests answered.",
        zeros Rows(&[
            &[CLICK_ROUTE, "GET", "302"],
            &[CLICK_ROUTE, "GET", "500"],
            &[CLICK_ROUTE, "GET", "503"],
        ]);
    histogram request_duration("octo_http_request_duration_seconds", route) =
        "Time from a request's head to its answer's.",
        buckets &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
    counter connections("octo_http_connections_total", outcome) = "Connections accepted or refused.",
        zeros Each(&["accepted", "failed", "refused"]);
    gauge open_connections("octo_http_connections") = "Connections open."
        => /// The number of connections changed to `open`.
           http_connections(open: usize): open as f64;
    counter connections_closed("octo_http_connections_closed_total", reason) =
        "Idle connections closed: idle for too long, or their place was needed.",
        zeros Each(&["idle", "room"])
        => /// A connection was closed by us: `idle` for too long, or for the `room` it took.
           http_closed(reason: &'static str): 1;
    counter refused("octo_http_refused_total", reason) = "Requests refused before a route was looked for.",
        zeros Each(&Refused::LABELS);
    counter authentications("octo_auth_total", outcome) =
        "Requests that need a token, by the outcome of its check.",
        zeros Each(&["ok", "missing", "failed", "limited", "forbidden"]);
    counter over_limit("octo_limited_total", limit) = "Times that an address was found over a limit.",
        zeros Each(&["failed_auth", "clicks", "events"]);
    counter idempotent_requests("octo_idempotent_requests_total", outcome) =
        "API requests with an Idempotency-Key, by outcome."
        => /// What became of an API request with an `Idempotency-Key`: `run`, `replayed`, `different`, `running`.
           idempotent_request(outcome: &'static str): 1;
}

/// The route most requests take.
pub const CLICK_ROUTE: &str = "/click";

/// The series that each redirect touches, looked up once: a look-up costs an allocation and a hash of the
/// labels. First used after the recorder is installed: a handle made before that counts nothing.
struct Redirects {
    requests: Counter,
    duration: Histogram,
}

static REDIRECTS: LazyLock<Redirects> = LazyLock::new(|| Redirects {
    requests: requests(CLICK_ROUTE, "GET", "302"),
    duration: request_duration(CLICK_ROUTE),
});

/// One answered request. `route` is the pattern of the route, `unmatched` where there is none.
pub fn http_request(route: &str, method: &'static str, status: u16, took: Duration) {
    if (route, method, status) == (CLICK_ROUTE, "GET", 302) {
        REDIRECTS.duration.record(took);
        REDIRECTS.requests.increment(1);
    } else {
        request_duration(route.to_owned()).record(took);
        requests(route.to_owned(), method, status_label(status)).increment(1);
    }
}

/// A connection was accepted.
pub fn http_accepted() {
    connections("accepted").increment(1);
}

/// A connection could not be accepted (no file descriptors left and the like).
pub fn http_accept_failed() {
    connections("failed").increment(1);
}

/// A connection was refused: its address has all it may have.
pub fn http_accept_refused() {
    connections("refused").increment(1);
}

/// Why a request was refused before a route was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The method is no token, or what came is no HTTP at all (TLS, for one).
    Method,
    /// Neither an origin form nor a web address; `CONNECT`.
    Target,
    /// The target has bytes that no URI has.
    Uri,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The preface of HTTP/2.
    Http2,
    /// A header line is malformed.
    Header,
    /// No Host, two, or one that is no host.
    Host,
    /// The length of the body is not said in one clear way.
    Framing,
    /// Longer than a head, a target or a number of headers may be.
    TooLarge,
    /// The client closed in the middle of a request.
    Incomplete,
    /// The head took too long.
    Timeout,
    /// The body took too long.
    BodyTimeout,
    /// The client did not take its answer.
    WriteTimeout,
    /// A PROXY header from somebody who is no trusted proxy.
    ProxyUntrusted,
    /// A trusted proxy without its PROXY header.
    ProxyMissing,
    /// A PROXY header that cannot be read.
    ProxyMalformed,
    /// Something else.
    Other,
}

impl Refused {
    const ALL: [Self; 17] = [
        Self::Method,
        Self::Target,
        Self::Uri,
        Self::Version,
        Self::Http2,
        Self::Header,
        Self::Host,
        Self::Framing,
        Self::TooLarge,
        Self::Incomplete,
        Self::Timeout,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::ProxyUntrusted,
        Self::ProxyMissing,
        Self::ProxyMalformed,
        Self::Other,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::Uri => "uri",
            Self::Version => "version",
            Self::Http2 => "http2",
            Self::Header => "header",
            Self::Host => "host",
            Self::Framing => "framing",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Timeout => "timeout",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyMissing => "proxy_missing",
            Self::ProxyMalformed => "proxy_malformed",
            Self::Other => "other",
        }
    }

    const LABELS: [&'static str; Self::ALL.len()] = {
        let mut labels = [""; Self::ALL.len()];
        let mut i = 0;
        while i < labels.len() {
            labels[i] = Self::ALL[i].label();
            i += 1;
        }
        labels
    };
}

/// A request was refused before a route was looked for, or its client was too slow.
pub fn http_refused(reason: Refused) {
    refused(reason.label()).increment(1);
}

/// What became of the question who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// A valid token whose scope is enough.
    Ok,
    /// No credentials.
    Missing,
    /// Credentials that are no valid token.
    Failed,
    /// Not looked at: the address failed too often.
    Limited,
    /// A valid token whose scope is too small.
    Forbidden,
}

/// A request that needs a token was let in or not.
pub fn auth(outcome: Auth) {
    let outcome = match outcome {
        Auth::Ok => "ok",
        Auth::Missing => "missing",
        Auth::Failed => "failed",
        Auth::Limited => "limited",
        Auth::Forbidden => "forbidden",
    };
    authentications(outcome).increment(1);
}

/// A limit of `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Attempts with credentials that are no valid token.
    FailedAuth,
    /// Clicks.
    Clicks,
    /// Events.
    Events,
}

/// An address was found over a limit.
pub fn limited(limit: Limit) {
    let limit = match limit {
        Limit::FailedAuth => "failed_auth",
        Limit::Clicks => "clicks",
        Limit::Events => "events",
    };
    over_limit(limit).increment(1);
}

/// The statuses octo answers, as text; others by class.
fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        302 => "302",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        _ if status < 400 => "other",
        _ if status < 500 => "4xx",
        _ => "5xx",
    }
}
