//! Secrets of targets, and what is signed with them: messages by Standard Webhooks 1.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>), and addresses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::model::text::hex;

/// How a secret begins.
const PREFIX: &str = "whsec_";

/// The key in a secret; `None`: it is no secret of 24 to 64 bytes.
pub fn key_of(secret: &str) -> Option<Vec<u8>> {
    let key = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// `webhook-signature` of a message: one signature for each secret.
pub fn of_message(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
    let text = format!("{id}.{timestamp}.{body}");
    let keys = secrets.iter().filter_map(|secret| key_of(secret));
    let signatures = keys.map(|key| format!("v1,{}", BASE64_STANDARD.encode(hmac(&key, text.as_bytes()))));
    signatures.collect::<Vec<_>>().join(" ")
}

/// `{signature}` behind this much of an address, in hexadecimal digits.
pub fn of_address(secret: &str, address: &str) -> String {
    let key = key_of(secret).unwrap_or_default();
    hex(&hmac(&key, address.as_bytes()))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is one");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn a_message_is_signed_as_the_specification_says() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signature = of_message(&[secret], id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = of_message(&[secret, secret], id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(both, format!("{signature} {signature}"));
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        for (bytes, is_one) in [(23, false), (24, true), (64, true), (65, false)] {
            let secret = format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
            assert_eq!(key_of(&secret).is_some(), is_one, "{bytes}");
        }
        assert!(key_of("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_none());
    }

    /// RFC 4231, case 2, has a short key: here only the form matters.
    #[test]
    fn an_address_is_signed_in_64_digits() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signature = of_address(secret, "https://a.example/?id=1&s=");
        assert!(signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(signature, of_address(secret, "https://a.example/?id=2&s="));
    }
}
