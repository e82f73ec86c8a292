//! What is refused in the head of a request before a route is looked for, as RFC 9112 asks of a server: a proxy in
//! front and octo must never read the same bytes as two different requests.
//!
//! hyper itself sees to `Content-Length` beside `Transfer-Encoding`, as RFC 9112 section 6.3 allows: it goes by the chunks
//! and ends the connection with the answer, so that nothing behind them is read (tests/it/edge/smuggling.rs).

use axum::{
    http::{HeaderMap, HeaderValue, Method, Uri, Version, header},
    response::{IntoResponse, Response},
};

use super::error::Problem;
use crate::metrics::{self, Refused};

/// The answer to a head that no server should read on from; its connection ends with it.
pub(super) fn refuse(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Option<Response> {
    let (reason, problem) = if !is_target(method, uri) {
        let detail = "The target of a request is a path, or an http or https URL without a user.";
        (Refused::Target, Problem::bad_request("target", detail))
    } else if !has_host(version, headers) {
        (
            Refused::Host,
            Problem::bad_request("host", "A request has one Host, a name or address and maybe a port."),
        )
    } else if !is_framed(method, headers) {
        let detail = "A body has a Content-Length, or its Transfer-Encoding is chunked and nothing else; GET and HEAD have no chunks.";
        (Refused::Framing, Problem::bad_request("framing", detail))
    } else {
        return None;
    };
    metrics::http_refused(reason);
    Some(problem.with_header(header::CONNECTION, HeaderValue::from_static("close")).into_response())
}

/// Refuses a body that is compressed.
pub(super) fn require_identity(headers: &HeaderMap) -> Result<(), Problem> {
    let is_identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        Ok(())
    } else {
        Err(Problem::unsupported_encoding())
    }
}

/// Origin form or absolute form (RFC 9112 section 3.2). `CONNECT` is for proxies, and there is nothing here that
/// `OPTIONS *` could ask about.
fn is_target(method: &Method, uri: &Uri) -> bool {
    if !uri.path().starts_with('/') || method == Method::CONNECT {
        return false;
    }
    let is_web = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => true,
        (Some(scheme), Some(authority)) => is_web(scheme) && is_host(authority.as_str().as_bytes()),
        _ => false,
    }
}

/// RFC 9112 section 3.2: exactly one, but HTTP/1.0 may go without.
fn has_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// A name, an IPv4 address or an IPv6 address in brackets, and maybe a port. Narrower than the grammar of RFC 3986:
/// names with `!$&'()*,;=%` are nobody's, but two hosts joined by a comma are somebody's trick.
fn is_host(text: &[u8]) -> bool {
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|b| *b == b']') else { return false };
            let is_address =
                |b: &[u8]| str::from_utf8(b).is_ok_and(|t| t.parse::<std::net::Ipv6Addr>().is_ok());
            if !is_address(&rest[..end]) {
                return false;
            }
            (&b"ipv6"[..], &rest[end + 1..])
        }
        _ => text.split_at(text.iter().position(|b| *b == b':').unwrap_or(text.len())),
    };
    let is_port = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && str::from_utf8(digits).is_ok_and(|d| is_digits(d) && d.parse::<u16>().is_ok())
        }
        _ => false,
    };
    is_port && !host.is_empty() && host.iter().all(name)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// No coding, or chunks and nothing else. A body of unknown length means nothing in a `GET` (RFC 9110 section 9.3.1) and
/// has been used to smuggle a second request.
fn is_framed(method: &Method, headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !matches!(*method, Method::GET | Method::HEAD)
        }
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for good in
            ["t", "go.example.com", "a_b-c.example.", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "t:"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a\\b",
            "u@a",
            "a,b",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:+80",
            "a:-1",
            "[::1",
            "::1",
            "[]",
            "[x]",
            "[::1]x",
            "a?b",
            "a#b",
            "<a>",
            "a%2fb",
            "\u{e9}.example",
            "a;b",
            "'a'",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_web_address() {
        for good in ["/", "/click?cid=x", "//x/click", "http://t/click", "HTTPS://t:8080/click"] {
            assert!(is_target(&Method::GET, &good.parse().unwrap()), "{good}");
        }
        for bad in
            ["*", "t:443", "ftp://t/click", "http://user@t/click", "http://user:pw@t/", "javascript://t/"]
        {
            assert!(!is_target(&Method::GET, &bad.parse().unwrap()), "{bad}");
        }
        assert!(!is_target(&Method::CONNECT, &"t:443".parse().unwrap()));
    }

    #[test]
    fn only_http_1_0_may_go_without_a_host() {
        let none = HeaderMap::new();
        assert!(has_host(Version::HTTP_10, &none) && !has_host(Version::HTTP_11, &none));
        let mut hosts = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a"))]);
        assert!(has_host(Version::HTTP_11, &hosts));
        hosts.append(header::HOST, HeaderValue::from_static("a"));
        assert!(!has_host(Version::HTTP_11, &hosts) && !has_host(Version::HTTP_10, &hosts));
    }
}
