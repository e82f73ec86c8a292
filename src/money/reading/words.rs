//! What the words for the state of a conversion mean: by the lists of the postback itself, by its network's map, and by
//! what everybody means.

use super::Param;
use crate::model::network::{MappedStatus, StatusWord};

/// Words that mean the same with every network that has them, or are English beyond doubt. Not among them: digits, and
/// `hold`, `reg`, `dep`, `accept`, `success`, `valid` and the like, by which networks mean different things.
const PENDING: [&str; 8] =
    ["pending", "new", "lead", "wait", "waiting", "created", "processing", "in_progress"];
const APPROVED: [&str; 15] = [
    "sale",
    "approve",
    "approved",
    "confirm",
    "confirmed",
    "paid",
    "payed",
    "billed",
    "buyout",
    "sell",
    "autosell",
    "onetime",
    "ftd",
    "first_dep",
    "purchase",
];
const REJECTED: [&str; 18] = [
    "reject",
    "rejected",
    "decline",
    "declined",
    "cancel",
    "canceled",
    "cancelled",
    "fail",
    "failure",
    "denied",
    "refused",
    "invalid",
    "spam",
    "duplicate",
    "double",
    "trash",
    "trashed",
    "fake",
];
const REFUNDED: [&str; 8] =
    ["refund", "refunded", "chargeback", "reversed", "reversal", "reverse", "return", "returned"];
const REBILL: [&str; 3] = ["rebill", "upsell", "recurring"];

/// The names of lists of words in a postback (`lead_status=new,hold`), folded, and what the words in them mean.
const LISTS: [(&str, MappedStatus); 10] = [
    ("leadstatus", MappedStatus::Pending),
    ("pendingstatus", MappedStatus::Pending),
    ("salestatus", MappedStatus::Approved),
    ("approvedstatus", MappedStatus::Approved),
    ("rejectedstatus", MappedStatus::Rejected),
    ("trashstatus", MappedStatus::Rejected),
    ("refundedstatus", MappedStatus::Refunded),
    ("rebillstatus", MappedStatus::Rebill),
    ("ignorestatus", MappedStatus::Ignored),
    ("ignore", MappedStatus::Ignored),
];

/// What a word means: by a list in the postback (the one that has the name of the word before others), else by the
/// network's map, which may name a goal, else by what everybody means; `None` where nobody knows it.
pub(super) fn meaning<'r>(
    word: &str,
    params: &[Param<'_>],
    map: &'r [StatusWord],
) -> Option<(MappedStatus, Option<&'r str>)> {
    let word = word.trim().to_lowercase();
    if let Some(status) = by_list(&word, params) {
        return Some((status, None));
    }
    if let Some(entry) = map.iter().find(|entry| entry.word.trim().to_lowercase() == word) {
        return Some((entry.status, entry.goal.as_deref()));
    }
    Some((by_everybody(&word)?, None))
}

/// Whether a folded name is one of a list of words.
pub(super) fn is_list(name: &str) -> bool {
    LISTS.iter().any(|(list, _)| *list == name)
}

fn by_list(word: &str, params: &[Param<'_>]) -> Option<MappedStatus> {
    let mut found = None;
    for param in params {
        let Some((list, status)) = LISTS.iter().find(|(list, _)| *list == param.name) else { continue };
        if !param.value.split(',').any(|listed| listed.trim().to_lowercase() == word) {
            continue;
        }
        if list.strip_suffix("status") == Some(word) {
            return Some(*status);
        }
        found = found.or(Some(*status));
    }
    found
}

fn by_everybody(word: &str) -> Option<MappedStatus> {
    [
        (&PENDING[..], MappedStatus::Pending),
        (&APPROVED, MappedStatus::Approved),
        (&REJECTED, MappedStatus::Rejected),
        (&REFUNDED, MappedStatus::Refunded),
        (&REBILL, MappedStatus::Rebill),
    ]
    .into_iter()
    .find_map(|(words, status)| words.contains(&word).then_some(status))
}
