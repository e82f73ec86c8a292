//! Postbacks as networks and trackers send them are in `tests/it/tracking/postback_shapes.rs`; here is what is particular.

use proptest::prelude::*;

use super::{
    kept::{Kept, cut, keep},
    *,
};
use crate::model::network::{PostbackParameter, StatusWord};

const CLICK: &str = "019aaf3c-5f00-7abc-8def-0123456789ab";

/// Two hours after the click.
fn received_at() -> DateTime<Utc> {
    click().created_at() + TimeDelta::hours(2)
}

fn click() -> crate::model::id::ClickId {
    CLICK.parse().unwrap()
}

fn read_of_click(rest: &str) -> Reading {
    read_by(rest, &PostbackRules::default())
}

fn read_by(rest: &str, rules: &PostbackRules) -> Reading {
    read(&format!("clickid={CLICK}&{rest}"), rules, received_at())
}

fn own(field: PostbackField, name: &str) -> PostbackParameter {
    PostbackParameter { field, name: name.parse().unwrap() }
}

fn word(word: &str, status: MappedStatus, goal: Option<&str>) -> StatusWord {
    StatusWord { word: word.to_owned(), status, goal: goal.map(str::to_owned) }
}

fn amount(text: &str) -> Option<Decimal> {
    text.parse().ok()
}

#[test]
fn the_first_name_whose_value_is_an_id_of_ours_names_the_click() {
    let short = click().short();
    for (params, offer_id) in [
        (format!("cid=partner-7&click_id=&subid={CLICK}"), None),
        (format!("cid=12&Sub-ID={CLICK}.7"), Some(7)),
        (format!("tid={short}.9"), Some(9)),
        (format!("click_id=%7Bclickid%7D&transaction_id={CLICK}"), None),
        (format!("?cid={CLICK}?payout=3"), None),
        (format!("cnv_id=x&amp;aff_sub={short}"), None),
        (format!("hit={CLICK}:order-1"), None),
    ] {
        let reading = read(&params, &PostbackRules::default(), received_at());
        assert_eq!(reading.leg, Ok(Leg { click_id: click(), offer_id }), "{params}");
    }
    for (params, wanted) in [
        ("", NoClick::Missing),
        ("payout=1&tid=5&sub1=abc", NoClick::Missing),
        ("cid=&subid=%7Bsubid%7D", NoClick::Missing),
        ("cid=REPLACE", NoClick::Missing),
        ("cid=w3FOREIGN", NoClick::Bad),
        ("clickid=00000000-0000-0000-0000-000000000000", NoClick::Bad),
    ] {
        assert_eq!(read(params, &PostbackRules::default(), received_at()).leg, Err(wanted), "{params}");
    }
}

#[test]
fn what_a_network_calls_its_own_comes_first_and_is_nothing_else() {
    let rules = PostbackRules {
        parameters: vec![
            own(PostbackField::ClickId, "tid"),
            own(PostbackField::Payout, "sale"),
            own(PostbackField::Goal, "type"),
        ],
        ..PostbackRules::default()
    };
    let other = "019aaf3c-5f00-7abc-8def-000000000000";
    let params = format!("click_id={other}&TID={CLICK}&sale=12.50&payout=1&type=lead");
    let reading = read(&params, &rules, received_at());
    assert_eq!(reading.leg.unwrap().click_id, click());
    assert_eq!((reading.payout, reading.sale_amount), (amount("12.50"), None));
    assert_eq!((reading.goal.as_str(), reading.txid.as_str()), ("lead", ""));
    assert_eq!(reading.status, Meaning::Known(MappedStatus::Approved));
    let reading = read("tid=7&payout=1", &rules, received_at());
    assert_eq!((reading.leg, reading.txid), (Err(NoClick::Bad), String::new()));
}

#[test]
fn a_transaction_id_is_neither_a_macro_nor_the_click_itself() {
    let long = "x".repeat(256);
    for (params, wanted, flag) in [
        ("txid=A-1&tid=B".to_owned(), "A-1", None),
        ("txid=%7Btransaction_id%7D&tid=B".to_owned(), "B", Some(Flag::UnexpandedMacro)),
        (format!("transaction_id={CLICK}&order_id=9"), "9", None),
        (format!("transaction_id={CLICK}"), "", Some(Flag::TxidUnusable)),
        (format!("transaction_id={}.4", click().short()), "", Some(Flag::TxidUnusable)),
        (format!("tx={long}"), "", Some(Flag::TxidUnusable)),
        (format!("tx={}", &long[1..]), &long[1..], None),
        ("txid=OPTIONAL".to_owned(), "", Some(Flag::UnexpandedMacro)),
        ("txid=a%00b%0Ac".to_owned(), "abc", None),
        (String::new(), "", None),
    ] {
        let reading = read_of_click(&params);
        assert_eq!((reading.txid.as_str(), reading.flags), (wanted, Vec::from_iter(flag)), "{params}");
    }
    // the parameter that named the click is not there twice
    let reading = read(&format!("tid={CLICK}"), &PostbackRules::default(), received_at());
    assert_eq!((reading.txid, reading.flags), (String::new(), Vec::new()));
    let reading = read(&format!("hit={CLICK}:order-1"), &PostbackRules::default(), received_at());
    assert_eq!(reading.txid, "order-1");
}

#[test]
fn amounts_are_read_and_never_made_up() {
    let sums = PostbackRules { sums_lists: true, ..PostbackRules::default() };
    for (params, wanted, wanted_of_sums, flag) in [
        ("payout=12.5", amount("12.5"), amount("12.5"), None),
        ("payout=-3", amount("-3"), amount("-3"), None),
        ("payout=0", amount("0"), amount("0"), None),
        ("payout=&sum=7", amount("7"), amount("7"), None),
        ("payout=free&revenue=5", amount("5"), amount("5"), None),
        ("payout=free", None, None, Some(Flag::PayoutUnreadable)),
        ("payout=%7Bpayout%7D", None, None, Some(Flag::UnexpandedMacro)),
        ("payout=12.5,", amount("12.5"), amount("12.5"), None),
        ("payout=,3.2", amount("3.2"), amount("3.2"), None),
        ("payout=,", None, None, None),
        ("payout=%23%23CPA_AMOUNT%23%23,%23%23RS_AMOUNT%23%23", None, None, Some(Flag::UnexpandedMacro)),
        ("payout=%23%23CPA_AMOUNT%23%23,4", amount("4"), amount("4"), Some(Flag::UnexpandedMacro)),
    ] {
        assert_eq!(read_of_click(params).payout, wanted, "{params}");
        let reading = read_by(params, &sums);
        assert_eq!((reading.payout, reading.flags), (wanted_of_sums, Vec::from_iter(flag)), "{params}");
    }
    let both = read_of_click("payout=12.5,3.2");
    assert_eq!((both.payout, both.flags), (None, vec![Flag::PayoutUnreadable]));
    assert_eq!(read_by("payout=12.5,3.2", &sums).payout, amount("15.7"));
    assert_eq!(read_by("payout=12,3", &sums).payout, amount("15"), "with a list, commas are its own");
    assert_eq!(read_of_click("payout=12,3").payout, amount("12.3"));
    let beyond = read_by("payout=999999999999,1", &sums);
    assert_eq!((beyond.payout, beyond.flags), (None, vec![Flag::PayoutUnreadable]));
}

#[test]
fn a_currency_is_known_or_said_to_be_unknown() {
    let eur = money::read_currency("EUR");
    for (params, wanted, flag) in [
        ("payout=1&currency=eur", eur, None),
        ("payout=1&cnv_currency=EUR", eur, None),
        ("payout=1%20EUR", eur, None),
        ("payout=1%20USD&currency=EUR", eur, None),
        ("payout=1%20EUR&currency=%7Bcurrency%7D", eur, Some(Flag::UnexpandedMacro)),
        ("payout=1&currency=rub,usd,eur", None, Some(Flag::UnexpandedMacro)),
        ("payout=1&currency=USDT", Some(Currency::UNKNOWN), Some(Flag::CurrencyUnknown)),
        ("payout=1%20USDT", Some(Currency::UNKNOWN), Some(Flag::CurrencyUnknown)),
        ("payout=1", None, None),
    ] {
        let reading = read_of_click(params);
        assert_eq!((reading.currency, reading.flags), (wanted, Vec::from_iter(flag)), "{params}");
    }
}

#[test]
fn a_word_is_read_by_the_postback_then_by_its_network_then_by_everybody() {
    let rules = PostbackRules {
        status_map: vec![
            word("lead", MappedStatus::Approved, None),
            word(" Hold", MappedStatus::Pending, None),
            word("dep", MappedStatus::Approved, Some("deposit")),
        ],
        default_status: Some(MappedStatus::Pending),
        ..PostbackRules::default()
    };
    let known = Meaning::Known;
    for (params, wanted, goal) in [
        ("", known(MappedStatus::Pending), ""),
        ("status=%7Bstatus%7D", known(MappedStatus::Pending), ""),
        ("status=lead", known(MappedStatus::Approved), ""),
        ("status=%20HOLD%20", known(MappedStatus::Pending), ""),
        ("status=dep&goal=x", known(MappedStatus::Approved), "deposit"),
        ("status=Rejected&goal=x", known(MappedStatus::Rejected), "x"),
        ("status=1", Meaning::Unmapped, ""),
        ("status=lead&lead_status=lead,reg", known(MappedStatus::Pending), ""),
        ("status=5&sale_status=1,5&rejected_status=7", known(MappedStatus::Approved), ""),
        // a status's own list wins over one that stands before it
        ("status=trash&ignore_status=trash&trash_status=trash", known(MappedStatus::Rejected), ""),
        ("status=trash&ignore_status=trash&sale_status=trash", known(MappedStatus::Ignored), ""),
        ("status=upsell", known(MappedStatus::Rebill), ""),
        ("approve=1", known(MappedStatus::Approved), ""),
        ("approve=0", known(MappedStatus::Rejected), ""),
        ("approve=2", known(MappedStatus::Pending), ""),
        ("type=dep", known(MappedStatus::Approved), "deposit"),
        ("type=ftd", known(MappedStatus::Approved), ""),
        ("type=level-2", known(MappedStatus::Pending), "level-2"),
        ("et=ftd&type=level-2", known(MappedStatus::Approved), "level-2"),
        ("status=approved&type=lead", known(MappedStatus::Approved), "lead"),
        ("status=approved&event=Signup%0A", known(MappedStatus::Approved), "Signup"),
    ] {
        let reading = read_by(params, &rules);
        assert_eq!((reading.status, reading.goal.as_str()), (wanted, goal), "{params}");
    }
    let plain = read_of_click("");
    assert_eq!((plain.status, plain.status_text), (known(MappedStatus::Approved), None));
    let long = read_of_click(&format!("status={}&goal={0}", "w".repeat(100)));
    assert_eq!(long.status, Meaning::Unmapped);
    assert_eq!((long.status_text.unwrap().len(), long.goal.len()), (64, 64));
}

/// Of each of these networks mean different things: none may ever be global.
#[test]
fn no_word_means_something_to_everybody_that_networks_disagree_on() {
    for word in "1 2 5 hold reg registration install dep deposit subscribe accept accepted success valid sms on a p d cpa"
        .split(' ')
    {
        assert_eq!(read_of_click(&format!("status={word}")).status, Meaning::Unmapped, "{word}");
    }
}

#[test]
fn a_time_lies_between_the_click_and_now() {
    let clicked_at = click().created_at();
    let at = |minutes: i64| clicked_at + TimeDelta::minutes(minutes);
    for (text, wanted) in [
        (at(60).timestamp().to_string(), Some(at(60))),
        (at(60).timestamp_millis().to_string(), Some(at(60))),
        (at(60).to_rfc3339().replace('+', "%2B"), Some(at(60))),
        (at(60).to_rfc3339(), Some(at(60))), // `+` is a space
        (at(-4).timestamp().to_string(), Some(clicked_at)),
        (at(124).timestamp().to_string(), Some(received_at())),
        (at(-6).timestamp().to_string(), None),
        (at(126).timestamp().to_string(), None),
        ("yesterday".to_owned(), None),
        ("99999999999999999999".to_owned(), None),
        ("\u{e9}\u{e9}\u{e9}\u{e9}".to_owned(), None),
    ] {
        let reading = read_of_click(&format!("time={text}"));
        let ms = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp());
        assert_eq!(ms(reading.time), ms(wanted), "{text}");
        assert_eq!(reading.flags.contains(&Flag::TimeUnusable), wanted.is_none(), "{text}");
    }
}

#[test]
fn numbers_details_and_what_is_to_be_answered_are_read() {
    let reading = read_of_click(
        "event3=7&add_event1=1,5&event3=8&event31=1&event0=1&event2=x&cnv_status2=late&return=OK%20then&return=x",
    );
    let decimal = |text: &str| amount(text).unwrap();
    assert_eq!(reading.numbers, [(1, Number::Add(decimal("1.5"))), (3, Number::Set(decimal("7")))]);
    assert_eq!(
        (reading.status_detail.as_deref(), reading.return_text.as_deref()),
        (Some("late"), Some("OK then"))
    );
    for bad in ["%3Cscript%3E", "", "a%2Fb", "123456789012345678901234567890123"] {
        assert_eq!(read_of_click(&format!("return={bad}")).return_text, None, "{bad}");
    }
}

#[test]
fn what_is_kept_has_no_secrets_and_no_people() {
    let left_out = [
        "key=s3cret",
        "TOKEN=s3cret",
        "api-key=s3cret",
        "access_token=s3cret",
        "e-mail=x",
        "customer_email=x",
        "user%5Bphone%5D=1",
        "customer.name=Ann",
        "first_name=Ann",
        "name=Ann",
        "zip=10115",
        "ip=192.0.2.7",
        "sub9=ann%40example.org",
        "sub9=ann%2540example.org",
        "txid=ann%40example.org",
        "note=%7B%22m%22%3A%22ann%40example.org%22%7D",
        "ann%40example.org=1",
        "x=%2B49%2030%201234567",
        "x=+49301234567",
        "x=(030)%201234-5678",
    ];
    let kept = [
        "offer_name=Spring",
        "event_name=signup",
        "x=2026-11-30",
        "x=1764466983",
        "x=12345678.123456",
        "txid=2026-1130-123456",
        "x=%40home",
        "payout=1.50",
        "flag",
    ];
    let rules =
        PostbackRules { parameters: vec![own(PostbackField::Txid, "tel")], ..PostbackRules::default() };
    for one in left_out {
        assert_eq!(keep(one, &rules, 4096), Kept { left_out: 1, ..Kept::default() }, "{one}");
    }
    for one in kept.into_iter().chain(["tel=4711"]) {
        let wanted = if one == "flag" { "flag=" } else { one };
        assert_eq!(keep(one, &rules, 4096).params, wanted.replace("%20", "+"), "{one}");
    }
    let all = left_out.iter().chain(&kept).copied().collect::<Vec<_>>().join("&");
    let found = keep(&all, &rules, 4096);
    assert_eq!((found.left_out, found.cut), (left_out.len(), 0));
    // what does not fit is left out, and not what comes behind it
    let found = keep(&format!("a={}&b=2", "x".repeat(50)), &rules, 20);
    assert_eq!((found.params.as_str(), found.cut), ("b=2", 1));
}

/// Names that are read, values that are, and anything.
#[test]
fn of_an_old_postback_only_what_is_read_is_left() {
    let rules =
        PostbackRules { parameters: vec![own(PostbackField::Txid, "Order-Ref")], ..PostbackRules::default() };
    for (params, wanted) in [
        ("clickid=1&utm=x&payout=1.5&order_ref=a%20b&who=z", "clickid=1&payout=1.5&order_ref=a+b"),
        ("geo=DE&event7=2&add_event3=1&lead_status=a,b", "event7=2&add_event3=1&lead_status=a%2Cb"),
        ("geo=DE", ""),
        ("", ""),
    ] {
        assert_eq!(cut(params, &rules), wanted, "{params}");
    }
}

#[test]
fn a_line_of_a_report_says_when_in_many_ways_and_days_are_of_its_zone() {
    let zone = chrono_tz::Europe::Berlin;
    let mut rules = PostbackRules::default();
    let said = |params: &str, rules: &PostbackRules, date| {
        let read = read_moment(params, rules, zone, date);
        read.map_or_else(String::new, |read| format!("{} {:?}", read.day, read.at))
    };
    let at = "2026-11-20 Some(2026-11-19T23:30:00Z)";
    for (params, wanted) in [
        ("date=2026-11-20", "2026-11-20 None"),
        ("date=20.11.2026", "2026-11-20 None"),
        ("Date=2026/11/20", "2026-11-20 None"),
        ("date=2026-11-20+00:30:00", at),
        ("date=2026-11-20T00:30", at),
        ("conversion_date=20.11.2026+00:30:00", at),
        ("time=2026-11-19T23:30:00Z", at),
        ("timestamp=1795131000", at),
        ("date=2026-03-29+02:30:00", "2026-03-29 None"), // a time that no clock showed
        ("date=2026-11-01&conversion_time=2026-11-20", "2026-11-20 None"),
        ("click_date=2026-11-20", ""),
        ("date=yesterday", ""),
        ("date=0001-01-01", ""),
        ("time={time}&date=2026-11-20", "2026-11-20 None"),
        ("payout=5", ""),
    ] {
        assert_eq!(said(params, &rules, ReportDate::Conversion), wanted, "{params}");
    }
    let both = "date=2026-11-01&conversion_date=2026-11-20&click_date=2026-11-19";
    assert_eq!(said(both, &rules, ReportDate::Click), "2026-11-19 None");
    rules.parameters = vec![own(PostbackField::Time, "when"), own(PostbackField::Goal, "date")];
    assert_eq!(said("date=2026-11-01&when=2026-11-20", &rules, ReportDate::Conversion), "2026-11-20 None");
    assert_eq!(said("date=2026-11-01", &rules, ReportDate::Conversion), "");
}

fn any_params() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "clickid",
            "cid",
            "tid",
            "txid",
            "payout",
            "sum",
            "currency",
            "status",
            "type",
            "goal",
            "time",
            "event1",
            "add_event2",
            "return",
            "lead_status",
            "sale",
            "cnv_status2",
            "approve",
            "?cid",
            "amp;sum",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9_.%?@-]{0,8}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec![
            CLICK,
            "AZqvPF8AeryN7wEjRWeJqw.7",
            "12.5,",
            "##A##,##B##",
            "%campaign%",
            "%7Bx%7D",
            "%257Bx%257D",
            "lead",
            "a,b",
            "1764466983",
            "-1e5",
            "x?payout=3",
            "https://x/?a=b",
            "%ff%fe",
            "null",
            "019aaf3c5f007abc8def0123456789ab:t",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,24}",
        ".{0,16}",
    ];
    prop::collection::vec((name, value), 0..8).prop_map(|pairs| {
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    })
}

proptest! {
    #[test]
    fn any_text_is_read_and_reads_the_same_when_it_is_encoded_again(params in any_params(), sums_lists: bool) {
        let rules = PostbackRules { sums_lists, ..PostbackRules::default() };
        let reading = read(&params, &rules, received_at());
        let again: Vec<String> = pairs(&params).map(|(name, value)| kept::encoded(&name, &value)).collect();
        prop_assert_eq!(&reading, &read(&again.join("&"), &rules, received_at()));
        prop_assert!(reading.goal.chars().count() <= WORD_CHARS_MAX && reading.txid.chars().count() <= TXID_CHARS_MAX);
        prop_assert!(!reading.goal.contains(char::is_control) && !reading.txid.contains(char::is_control));
    }

    #[test]
    fn what_is_kept_is_bounded_and_is_kept_whole_once_more(params in any_params(), bytes_max in 0usize..200) {
        let first = keep(&params, &PostbackRules::default(), bytes_max);
        prop_assert!(first.params.len() <= bytes_max && first.params.is_ascii());
        let again = keep(&first.params, &PostbackRules::default(), bytes_max);
        prop_assert_eq!(again, Kept { params: first.params, ..Kept::default() });
    }
    #[test]
    fn what_is_cut_of_an_old_postback_says_nothing(params in any_params(), sums_lists: bool) {
        let parameters = vec![own(PostbackField::Goal, "sub1"), own(PostbackField::Payout, "x")];
        let rules = PostbackRules { parameters, sums_lists, ..PostbackRules::default() };
        let left = cut(&params, &rules);
        prop_assert_eq!(read(&params, &rules, received_at()), read(&left, &rules, received_at()));
        prop_assert_eq!(&cut(&left, &rules), &left);
    }
}
