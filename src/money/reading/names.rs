//! Under which names trackers and networks send what, as everybody knows them. Folded: in small letters, without `-` and
//! `_`; so `clickid` is also `click_id` and `Click-ID`. In order of precedence.

use strum::IntoEnumIterator;

use super::words;
use crate::model::{conversion::ReportDate, network::PostbackField};

/// Our click id, under names that mean nothing else: what is no id of ours there is a bad one.
pub(super) const CLICK_ID: [&str; 9] =
    ["clickid", "cfclickid", "subid", "sid", "cid", "cnvid", "uclick", "hit", "c"];

/// Our click id, under names that mean something else as often.
const CLICK_ID_OR_OTHER: [&str; 21] = [
    "clickid",
    "cfclickid",
    "subid",
    "sid",
    "cid",
    "cnvid",
    "uclick",
    "hit",
    "c",
    "tid",
    "transactionid",
    "affsub",
    "affclickid",
    "sub1",
    "s2",
    "p1",
    "subacc4",
    "subid1",
    "pubclickid",
    "ymid",
    "externalid",
];

const TXID: [&str; 12] = [
    "txid",
    "tid",
    "tx",
    "txnid",
    "transid",
    "rdtkeventid",
    "xid",
    "transactionid",
    "orderid",
    "conversionid",
    "actionid",
    "leadid",
];

const PAYOUT: [&str; 9] =
    ["payout", "revenue", "sum", "rev", "amount", "profit", "commission", "payoutamount", "p"];

const SALE_AMOUNT: [&str; 5] = ["saleamount", "sale", "ordersum", "orderamount", "basket"];

const CURRENCY: [&str; 4] = ["currency", "cnvcurrency", "payoutcurrency", "cur"];

const STATUS: [&str; 4] = ["status", "cnvstatus", "convstatus", "conversionstatus"];

const STATUS_DETAIL: [&str; 4] = ["cnvstatus2", "statusdetail", "reason", "rejectreason"];

const GOAL: [&str; 10] =
    ["eventtype", "goal", "goalvalue", "goalid", "goalalias", "event", "eventname", "et", "type", "ct"];

const TIME: [&str; 4] = ["time", "timestamp", "convtime", "eventtime"];

/// Columns of reports that postbacks do not have: the day of the conversion,
const CONVERSION_DATE: [&str; 5] =
    ["conversiontime", "conversiondate", "conversiondatetime", "convdate", "convertedat"];

/// that of the click,
const CLICK_DATE: [&str; 3] = ["clicktime", "clickdate", "clickdatetime"];

/// and a day of which only the reader knows whose it is.
const DATE: [&str; 6] = ["datetime", "date", "day", "createdat", "createdtime", "created"];

/// Under which names a line of a report says when it happened, in order of precedence.
pub(super) fn of_report(date: ReportDate) -> impl Iterator<Item = &'static str> {
    let (first, then): (&[_], &[_]) = match date {
        ReportDate::Conversion => (&TIME, &CONVERSION_DATE),
        ReportDate::Click => (&CLICK_DATE, &TIME),
    };
    first.iter().chain(then).chain(&DATE).copied()
}

/// Names of a goal whose value may as well be a word for the state.
pub(super) const GOAL_OR_STATUS: [&str; 2] = ["et", "type"];

/// Whether a conversion was approved: `1` or `0`.
pub(super) const APPROVE: &str = "approve";

/// What the sender wants to be answered.
pub(super) const RETURN: &str = "return";

/// The names of a field.
pub(super) fn of(field: PostbackField) -> &'static [&'static str] {
    match field {
        PostbackField::ClickId => &CLICK_ID_OR_OTHER,
        PostbackField::Txid => &TXID,
        PostbackField::Payout => &PAYOUT,
        PostbackField::SaleAmount => &SALE_AMOUNT,
        PostbackField::Currency => &CURRENCY,
        PostbackField::Status => &STATUS,
        PostbackField::StatusDetail => &STATUS_DETAIL,
        PostbackField::Goal => &GOAL,
        PostbackField::Time => &TIME,
    }
}

/// A name as it is compared.
pub(super) fn folded(name: &str) -> String {
    let name = name.trim().chars().filter(|c| !matches!(c, '-' | '_'));
    name.map(|c| c.to_ascii_lowercase()).collect()
}

/// Which number a name is of, and whether the value is added: `event7`, `addevent7`.
pub(super) fn number(name: &str, max: u8) -> Option<(u8, bool)> {
    let (rest, adds) = name.strip_prefix("add").map_or((name, false), |rest| (rest, true));
    let digits = rest.strip_prefix("event")?;
    let nth = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (1..=max).contains(&nth).then_some((nth, adds))
}

/// Whether a folded name says something that is read.
pub(super) fn is_known(name: &str) -> bool {
    PostbackField::iter().any(|field| of(field).contains(&name))
        || [APPROVE, RETURN].contains(&name)
        || words::is_list(name)
        || number(name, u8::MAX).is_some()
}
