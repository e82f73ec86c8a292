//! Sealed texts: what octo gives into a link or a cookie and believes when it comes back.
//!
//! ```text
//! text = base64url without padding of
//!        version u8 = 1 | id of the key u32 | nonce 16 bytes | sealed bytes | tag 16 bytes
//! ```
//! Sealed with XChaCha20-Poly1305 (<https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha-03>, the AEAD of
//! RFC 8439 with a longer nonce): nobody else can read, change or make one. Of its 24 bytes of nonce 16 go along, 122
//! bits of them random, and the rest are zero: the first 16 are those that a key of its own is derived from for each text.
//! At so many bits any number of nodes may draw them without knowing of each other; the 96 bits of AES-GCM would not do
//! for a key that lives for a week at thousands of texts a second, and its hardware is not everywhere.
//!
//! What a text is for, its version and the id of its key are authenticated along (associated data), so that none can be
//! used in the place of another.

pub mod keys;
pub mod token;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use uuid::Uuid;

use self::keys::Key;

const VERSION: u8 = 1;

/// Version and id of the key.
const HEAD_BYTES: usize = 5;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// What a text is for: one that was made for something else does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The click of an out-link.
    Out,
    /// The choices of a test link.
    Test,
    /// The choices of a visitor.
    Sticky,
}

impl Purpose {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Out => b"octo out",
            Self::Test => b"octo test",
            Self::Sticky => b"octo sticky",
        }
    }

    fn associated(self, head: &[u8]) -> Vec<u8> {
        [self.name(), head].concat()
    }
}

/// Why a text does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOpened {
    /// It is cut off, changed, made for something else, or no such text at all.
    Bad,
    /// It was sealed with a key that is not known here.
    UnknownKey,
}

/// Seals `bytes` with a key.
fn seal(key: &Key, purpose: Purpose, bytes: &[u8]) -> String {
    let mut sealed = Vec::with_capacity(HEAD_BYTES + NONCE_BYTES + bytes.len() + TAG_BYTES);
    sealed.push(VERSION);
    sealed.extend_from_slice(&key.id().to_le_bytes());
    // of the fast generator of this thread, which is a cryptographic one
    let nonce = Uuid::new_v4().into_bytes();
    let payload = Payload { msg: bytes, aad: &purpose.associated(&sealed) };
    let body = cipher(key).encrypt(&whole(nonce), payload).expect("far shorter than 256 GiB");
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&body);
    BASE64_URL_SAFE_NO_PAD.encode(sealed)
}

/// The id of the key that a text says it was sealed with, and all its bytes.
fn read(text: &str) -> Result<(u32, Vec<u8>), NotOpened> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotOpened::Bad)?;
    match sealed.first_chunk() {
        Some(&[VERSION, a, b, c, d]) if sealed.len() >= HEAD_BYTES + NONCE_BYTES + TAG_BYTES => {
            Ok((u32::from_le_bytes([a, b, c, d]), sealed))
        }
        _ => Err(NotOpened::Bad),
    }
}

/// What was sealed, of the bytes that [`read`] gave.
fn open(key: &Key, purpose: Purpose, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
    let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(NotOpened::Bad)?;
    let (nonce, body) = rest.split_first_chunk().ok_or(NotOpened::Bad)?;
    let payload = Payload { msg: body, aad: &purpose.associated(head) };
    cipher(key).decrypt(&whole(*nonce), payload).map_err(|_| NotOpened::Bad)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.secret().into())
}

fn whole(nonce: [u8; NONCE_BYTES]) -> XNonce {
    let mut whole = XNonce::default();
    whole[..NONCE_BYTES].copy_from_slice(&nonce);
    whole
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::new([byte; 32], DateTime::UNIX_EPOCH)
    }

    fn opened(key: &Key, purpose: Purpose, text: &str) -> Result<Vec<u8>, NotOpened> {
        let (id, sealed) = read(text)?;
        if id == key.id() { open(key, purpose, &sealed) } else { Err(NotOpened::UnknownKey) }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_any_flipped_bit_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let text = seal(&key(1), Purpose::Out, &bytes);
            prop_assert_eq!(opened(&key(1), Purpose::Out, &text).unwrap(), bytes);
            let sealed = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut bent = sealed.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                let bent = BASE64_URL_SAFE_NO_PAD.encode(bent);
                prop_assert!(opened(&key(1), Purpose::Out, &bent).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn no_text_makes_the_opener_panic(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(opened(&key(1), Purpose::Out, &text).is_err());
            prop_assert!(opened(&key(1), Purpose::Out, &BASE64_URL_SAFE_NO_PAD.encode(&bytes)).is_err());
            // of the right version and key, as a stranger who saw one could make it
            let mut forged = vec![VERSION];
            forged.extend(key(1).id().to_le_bytes());
            forged.extend(&bytes);
            prop_assert!(opened(&key(1), Purpose::Out, &BASE64_URL_SAFE_NO_PAD.encode(&forged)).is_err());
        }
    }

    #[test]
    fn a_text_of_one_purpose_or_key_is_none_of_another() {
        let text = seal(&key(1), Purpose::Out, b"choices");
        assert_eq!(opened(&key(1), Purpose::Test, &text), Err(NotOpened::Bad));
        assert_eq!(opened(&key(2), Purpose::Out, &text), Err(NotOpened::UnknownKey));
        assert_ne!(text, seal(&key(1), Purpose::Out, b"choices"), "each has a nonce of its own");
        for cut in 0..text.len() {
            assert!(opened(&key(1), Purpose::Out, &text[..cut]).is_err(), "{cut}");
        }
    }

    /// Made with libsodium (PyNaCl's `crypto_aead_xchacha20poly1305_ietf_encrypt`). Texts live for a month, on landing
    /// pages and in cookies, and have to open in the next release.
    #[test]
    fn a_text_that_another_implementation_sealed_opens() {
        let text = "ATqhCf4BmMDeAABAAIAAAAAAAL7v4F_ykoSY7zW3wpQrNdXV4nVgp_-1GCG6fA";
        assert_eq!(opened(&key(7), Purpose::Out, text).as_deref(), Ok(&b"out-click"[..]));
    }
}
