//! What the head of a request says of its purpose and of its sender's wishes.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    config::Privacy,
    visitor::{ACCEPT_CH, HINT_BYTES_MAX, Hints},
};

/// `Sec-Purpose` (<https://fetch.spec.whatwg.org/#sec-purpose-header>) and its elder brothers.
pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get(*name).and_then(|v| v.to_str().ok()).is_some_and(|value| {
            value.split([';', ',', ' ']).any(|v| matches!(v, "prefetch" | "prerender" | "preview"))
        })
    })
}

/// `Sec-GPC: 1` (<https://www.w3.org/TR/gpc/>) or `DNT: 1`, where it is to be respected.
pub(crate) fn asks_for_privacy(headers: &HeaderMap, privacy: &Privacy) -> bool {
    const GPC: HeaderName = HeaderName::from_static("sec-gpc");
    let is_one = |name| headers.get(name).is_some_and(|value| value == "1");
    (privacy.respect_gpc && is_one(GPC)) || (privacy.respect_dnt && is_one(header::DNT))
}

/// What the browser says of itself beside its user agent. Who sends any hint sends its brands.
pub(crate) fn hints(headers: &HeaderMap) -> Hints<'_> {
    const BRANDS: HeaderName = HeaderName::from_static("sec-ch-ua");
    let Some(brands) = headers.get(BRANDS) else { return Hints::default() };
    let hint = |name| headers.get(HeaderName::from_static(name)).map_or("", hint);
    Hints {
        brands: self::hint(brands),
        full_versions: hint("sec-ch-ua-full-version-list"),
        mobile: hint("sec-ch-ua-mobile"),
        platform: hint("sec-ch-ua-platform"),
        platform_version: hint("sec-ch-ua-platform-version"),
        model: hint("sec-ch-ua-model"),
    }
}

fn hint(value: &HeaderValue) -> &str {
    value.to_str().ok().filter(|text| text.len() <= HINT_BYTES_MAX).unwrap_or_default()
}

/// Asks the browser for the hints that it does not send on its own, from its next request on.
pub(crate) fn ask_for_hints(headers: &mut HeaderMap) {
    const ACCEPT: HeaderName = HeaderName::from_static("accept-ch");
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPT_CH));
}

/// `Accept-Language`; what is not ASCII there is nothing.
pub(crate) fn accept_language(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        values.iter().map(header).collect()
    }

    #[test]
    fn hints_are_read_where_the_brands_are_sent_and_no_longer_than_their_bound() {
        let endless = "x".repeat(HINT_BYTES_MAX + 1);
        let (brands, platform) =
            (("sec-ch-ua", "\"Chromium\";v=\"131\""), ("sec-ch-ua-platform", "\"Windows\""));
        let sent =
            headers(&[brands, platform, ("sec-ch-ua-model", &endless), ("sec-ch-ua-mobile", "\u{e9}")]);
        let wanted = Hints { brands: brands.1, platform: platform.1, ..Hints::default() };
        assert_eq!(hints(&sent), wanted);
        assert_eq!(hints(&headers(&[platform])), Hints::default());
    }

    #[test]
    fn languages_that_are_not_ascii_are_none() {
        assert_eq!(accept_language(&headers(&[("accept-language", "de, en;q=0.5")])), "de, en;q=0.5");
        assert_eq!(accept_language(&headers(&[("accept-language", "d\u{e9}")])), "");
        assert_eq!(accept_language(&HeaderMap::new()), "");
    }
}
