//! What is posted as a postback: a form, or a JSON object, as `application/x-www-form-urlencoded`.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
};

use crate::{
    http::{
        body,
        error::Problem,
        track::event::loose::{self, Given, Members},
    },
    money::reading::kept::encoded,
};

const JSON_DEPTH_MAX: usize = 32;

/// Names and values of a body; nothing where it is neither a form nor an object. 413 where it is too long.
pub(super) async fn read(headers: &HeaderMap, posted: Body, bytes_max: usize) -> Result<String, Problem> {
    let bytes = body::read(posted, bytes_max).await?;
    let text = loose::text_of(&bytes);
    let text = text.trim();
    let media_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_multipart = media_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
    Ok(match text.as_bytes().first() {
        Some(b'{') => of_json(text),
        Some(b'[') => String::new(),
        _ if is_multipart => String::new(),
        _ => text.to_owned(), // whatever it is called: some senders call a form text
    })
}

/// The members of an object, and of those in it.
fn of_json(text: &str) -> String {
    let members = loose::parse(text, JSON_DEPTH_MAX).ok().and_then(|value| Members::of(value.get()));
    let mut pairs = Vec::new();
    for (name, given) in members.into_iter().flat_map(Members::rest) {
        push(&mut pairs, &name, &given);
        for (inner, given) in given.members().into_iter().flat_map(Members::rest) {
            push(&mut pairs, &format!("{name}.{inner}"), &given);
            push(&mut pairs, &inner, &given);
        }
    }
    pairs.join("&")
}

/// A text, a number as it is written, `true` or `false`; `null`, lists and objects are none.
fn push(pairs: &mut Vec<String>, name: &str, given: &Given<'_>) {
    if let Some(said) = given.said().filter(|_| !given.is_null()) {
        pairs.push(encoded(name, &said.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn forms_and_objects_are_read_and_nothing_else() {
        let multipart = "multipart/form-data; boundary=x";
        for (media_type, text, wanted) in [
            ("application/x-www-form-urlencoded", " a=1&b=%20 ", "a=1&b=%20"),
            ("text/plain", "a=1", "a=1"),
            (
                "application/json",
                r#"{"a":12345678901234567890.50,"b":"x y","c":true,"d":null,"e":[1]}"#,
                "a=12345678901234567890.50&b=x+y&c=true",
            ),
            ("application/x-www-form-urlencoded", r#"{"a":"1"}"#, "a=1"),
            (
                "application/json",
                "\u{feff}{\"data\":{\"payout\":1e3,\"deep\":{\"x\":1}},\"z\":0}",
                "data.payout=1e3&payout=1e3&z=0",
            ),
            ("application/json", "{\"a\":", ""),
            ("application/json", "[{\"a\":1}]", ""),
            ("application/json", "", ""),
            (multipart, "--x\r\na=1", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap());
            let read = read(&headers, Body::from(text.to_owned()), 1024).await;
            assert_eq!(read.ok().as_deref(), Some(wanted), "{text}");
        }
        let long = read(&HeaderMap::new(), Body::from("x".repeat(1025)), 1024).await;
        assert_eq!(long.unwrap_err().status(), 413);
    }
}
