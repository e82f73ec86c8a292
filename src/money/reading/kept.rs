//! What of a postback goes into the ledger: everything but secrets and what stands for a person; and what stays there
//! when it is old: what something is read from.

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::{names, pairs};
use crate::model::network::PostbackRules;

/// What is kept of a postback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Names and values in their order, as `application/x-www-form-urlencoded`.
    pub params: String,
    /// Parameters that were left out because they are secrets or stand for a person.
    pub left_out: usize,
    /// Parameters for which there was no room.
    pub cut: usize,
}

/// Names of secrets, folded.
const SECRETS: [&str; 10] = [
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "pass",
    "accesstoken",
    "apikey",
    "authtoken",
    "postbacktoken",
];

/// Names of what stands for a person, folded; also behind other words: `customer_email`.
const PEOPLE: [&str; 12] = [
    "email",
    "emailaddress",
    "phone",
    "phonenumber",
    "telephone",
    "msisdn",
    "firstname",
    "lastname",
    "fullname",
    "surname",
    "birthday",
    "birthdate",
];

/// Names of what stands for a person where they are the whole name, or the last of an object's (`customer.name`): an
/// `offer_name` is nobody's.
const PEOPLE_ALONE: [&str; 18] = [
    "mail",
    "tel",
    "mobile",
    "cell",
    "name",
    "fname",
    "lname",
    "middlename",
    "address",
    "street",
    "zip",
    "zipcode",
    "postcode",
    "postalcode",
    "dob",
    "ip",
    "ipaddress",
    "userip",
];

/// What is kept of a postback, in at most `bytes_max` bytes. Left out are keys and tokens, names of people and how to reach
/// them, whatever looks like an e-mail address, and what looks like a phone number under a name that nobody knows.
pub fn keep(params: &str, rules: &PostbackRules, bytes_max: usize) -> Kept {
    let own = own_names(rules);
    let mut kept = Kept::default();
    for (name, value) in pairs(params).filter(|(name, value)| !name.is_empty() || !value.is_empty()) {
        if !may_be_kept(&name, &value, &own) {
            kept.left_out += 1;
            continue;
        }
        let separator = if kept.params.is_empty() { "" } else { "&" };
        let encoded = encoded(&name, &value);
        if kept.params.len() + separator.len() + encoded.len() > bytes_max {
            kept.cut += 1;
            continue;
        }
        kept.params.push_str(separator);
        kept.params.push_str(&encoded);
    }
    kept
}

/// What is left of kept parameters without those from which [`read`](super::read) takes nothing under these rules.
pub fn cut(params: &str, rules: &PostbackRules) -> String {
    let own = own_names(rules);
    let is_read = |name: &str| own.iter().any(|own| own == name) || names::is_known(name);
    let mut left = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs(params).filter(|(name, _)| is_read(&names::folded(name))) {
        left.append_pair(&name, &value);
    }
    left.finish()
}

fn own_names(rules: &PostbackRules) -> Vec<String> {
    rules.parameters.iter().map(|own| names::folded(own.name.as_str())).collect()
}

/// A name and a value as `application/x-www-form-urlencoded`.
pub fn encoded(name: &str, value: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
}

fn may_be_kept(name: &str, value: &str, own: &[String]) -> bool {
    let folded_name = names::folded(name);
    if SECRETS.contains(&last_name(&folded_name)) || is_email(name) || is_email(value) {
        return false;
    }
    if own.contains(&folded_name) {
        return true; // its network means something else by it
    }
    !is_of_a_person(&folded_name) && (names::is_known(&folded_name) || !is_phone(value))
}

fn is_of_a_person(name: &str) -> bool {
    PEOPLE.iter().any(|person| last_name(name).ends_with(person)) || PEOPLE_ALONE.contains(&last_name(name))
}

/// `email` of `customer.email` and of `customer[email]`.
fn last_name(name: &str) -> &str {
    let name = name.trim_end_matches([']', '[']);
    name.rsplit(['.', '[', ':']).next().unwrap_or(name)
}

/// Whether an e-mail address stands somewhere in a text, also encoded once more.
fn is_email(text: &str) -> bool {
    if text.contains('%') {
        let decoded = percent_decode_str(text).decode_utf8_lossy();
        if decoded.len() < text.len() && is_email(&decoded) {
            return true;
        }
    }
    let is_between =
        |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '<' | '>' | '"' | '\'' | '(' | ')' | ':');
    text.split(is_between).any(|word| {
        word.split_once('@').is_some_and(|(person, host)| {
            let is_host = host.split('.').filter(|label| !label.is_empty()).count() > 1;
            !person.is_empty() && is_host
        })
    })
}

/// Whether a text is a phone number as people write them: with a `+` (or the space it became) before 8 to 15 digits, or 10
/// to 15 digits with marks between them. Digits alone are more often an id or a time.
fn is_phone(text: &str) -> bool {
    let is_mark = |c: char| matches!(c, ' ' | '-' | '(' | ')' | '.' | '/');
    let is_international = text.starts_with(['+', ' ']);
    let number = text.trim_start_matches(['+', ' ']).trim_end();
    let digits = number.chars().filter(char::is_ascii_digit).count();
    if !number.chars().all(|c| c.is_ascii_digit() || is_mark(c)) {
        return false;
    }
    let has_marks = number.contains(is_mark);
    (is_international && (8..=15).contains(&digits))
        || (has_marks && (10..=15).contains(&digits) && !is_decimal(number))
}

/// Digits with one point are an amount.
fn is_decimal(number: &str) -> bool {
    number.chars().filter(|c| !c.is_ascii_digit()).eq(['.'])
}
