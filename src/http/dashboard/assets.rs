//! The style and the module of the pages: in the binary, compressed once, under names with their hash, so that a browser asks for
//! each once a release.

use std::{io::Write as _, sync::LazyLock};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use crate::{
    http::{api::manners::request::Name, error::Problem, track::script::takes_gzip},
    model::text::hex,
};

/// What is sent, and under which name.
struct Asset {
    path: String,
    media_type: &'static str,
    text: Bytes,
    gzip: Bytes,
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("octo", "css", "text/css; charset=utf-8", include_str!("assets/octo.css")));
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("octo", "js", "text/javascript; charset=utf-8", include_str!("assets/octo.js"))
});

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, text: &'static str) -> Self {
        let mut hash = hex(&Sha256::digest(text));
        hash.truncate(16);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        Self {
            path: format!("/ui/assets/{name}.{hash}.{extension}"),
            media_type,
            text: Bytes::from_static(text.as_bytes()),
            gzip: gzip.expect("a vector takes everything").into(),
        }
    }
}

/// The address of the style.
pub(super) fn style() -> &'static str {
    &STYLE.path
}

/// The address of the module.
pub(super) fn script() -> &'static str {
    &SCRIPT.path
}

/// `GET /ui/assets/{name}`; a name of another release is none.
pub(super) async fn asset(Name(name): Name, headers: HeaderMap) -> Result<Response, Failure> {
    let path = format!("/ui/assets/{name}");
    let asset = [&*STYLE, &*SCRIPT].into_iter().find(|asset| asset.path == path);
    let asset = asset.ok_or_else(|| Problem::not_found("page"))?;
    let is_compressed = takes_gzip(&headers);
    let body = if is_compressed { &asset.gzip } else { &asset.text };
    let mut response = Response::new(Body::from(body.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_small() {
        println!("style {} bytes compressed, module {}", STYLE.gzip.len(), SCRIPT.gzip.len());
        assert!(SCRIPT.gzip.len() <= 6 * 1024, "{}", SCRIPT.gzip.len());
        assert!(STYLE.gzip.len() <= 8 * 1024, "{}", STYLE.gzip.len());
    }
}
