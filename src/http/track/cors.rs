//! What browsers ask before they let a page of another site use an address. Tracking endpoints are for pages of every
//! site: the origin that asks is let in with credentials and any header, because no answer there holds a secret and none
//! acts on a session. Nothing of this is on the API, the dashboard or the probes.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Seconds for which a browser may remember what it was told: a day.
const MAX_AGE_S: &str = "86400";

/// What a page may send with.
const METHODS: &str = "GET, HEAD, POST";

/// What a page may read of the answer beside its body.
const EXPOSED: &str =
    "Retry-After, X-Click-Id, X-Octo-Adjusted, X-Octo-Dropped, X-Octo-Recorded, X-Request-Id";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A page that asks a tracking endpoint for something.
#[derive(Debug)]
pub(crate) struct Page {
    /// Of a request of a script, or of a page that is sent along.
    origin: Option<HeaderValue>,
    /// Whether the browser only asks what it may send.
    is_preflight: bool,
    /// The headers that it asks for.
    headers: Option<HeaderValue>,
}

impl Page {
    /// Of a request to a tracking endpoint.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let origin = headers.get(header::ORIGIN).cloned();
        let is_preflight = method == Method::OPTIONS
            && origin.is_some()
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let asked = || headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        Self { origin, is_preflight, headers: is_preflight.then(asked).flatten() }
    }

    /// The answer to a preflight, without what [`Page::let_in`] adds.
    pub(crate) fn preflight(&self) -> Option<Response> {
        if !self.is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
        if let Some(asked) = &self.headers {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        Some(response)
    }

    /// Lets the page use the answer, whatever it is.
    pub(crate) fn let_in(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
