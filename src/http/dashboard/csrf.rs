//! What forms hold to show that they are of their session. It is written differently on each page: pages are compressed, and hold words
//! of their address, so the length of many answers could otherwise tell a text that is the same in all of them (BREACH).

use subtle::ConstantTimeEq as _;

use crate::model::{text::hex, token::Hash};

/// The token behind a pad of this page's own, and the pad before it.
pub(super) fn masked(token: &Hash) -> String {
    let mut pad = Hash::default();
    if let Err(error) = getrandom::fill(&mut pad) {
        // the form works all the same, and where there is no randomness nobody signs in
        tracing::warn!(error = &error as &dyn std::error::Error, "a form's token could not be masked");
    }
    with_pad(token, &pad)
}

fn with_pad(token: &Hash, pad: &Hash) -> String {
    hex(pad) + &hex(&xor(token, pad))
}

/// Whether a form holds this token, whatever its pad.
pub(super) fn is_of(token: &Hash, text: &str) -> bool {
    let Some((pad, masked)) = text.split_at_checked(2 * token.len()) else { return false };
    let (Some(pad), Some(masked)) = (unhexed(pad), unhexed(masked)) else { return false };
    xor(&masked, &pad).ct_eq(token).into()
}

fn xor(a: &Hash, b: &Hash) -> Hash {
    std::array::from_fn(|i| a[i] ^ b[i])
}

fn unhexed(text: &str) -> Option<Hash> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Hash::default();
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_differently_each_time_and_known_each_time() {
        let token = crate::model::token::digest("a token");
        let (first, second) = (masked(&token), masked(&token));
        assert_ne!(first, second);
        for half in [&first[..64], &first[64..]] {
            assert!(!second.contains(half), "neither half is the same on another page");
        }
        assert!(is_of(&token, &first) && is_of(&token, &second));
        assert!(is_of(&token, &with_pad(&token, &[0; 32])) && is_of(&token, &with_pad(&token, &[255; 32])));
    }

    #[test]
    fn what_is_no_token_or_that_of_another_session_is_none() {
        let token: Hash = [7; 32];
        let good = masked(&token);
        let other = masked(&[8; 32]);
        let crossed = format!("{}{}", &good[..64], &other[64..]);
        for bad in
            ["", "é", &good[..64], &good[..127], &format!("{good}0"), &other, &crossed, &"+f".repeat(64)]
        {
            assert!(!is_of(&token, bad), "{bad}");
        }
        assert!(!is_of(&token, &"\u{e9}".repeat(64)));
    }
}
