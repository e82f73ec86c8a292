//! The page with the day of a media buyer: its commands run, and the sums that it ends with are those of this test.

use std::{fmt::Write as _, net::TcpListener, path::Path};

use anyhow::ensure;
use serde_json::Value;

use super::first_steps::shell;
use crate::{
    files::documentation::{commands, pages},
    harness::{Octo, eventually},
    tracker::SOON,
};

/// Where the page has the receiver of its source.
const RECEIVER: &str = "9009";

/// Deliveries of the page: twelve sales and leads, a rebill, two of the replay, five of the file.
const TOLD: usize = 20;

/// In hundredths of the currency.
#[derive(Clone, Copy)]
struct Sums {
    eur: i64,
    usd: i64,
}

impl Sums {
    /// At 1.25 dollars for a euro, which makes whole cents of all of the page's sums.
    fn in_usd(self) -> i64 {
        assert_eq!(self.eur % 4, 0);
        self.usd + self.eur * 5 / 4
    }

    fn in_eur(self) -> i64 {
        assert_eq!(self.usd % 5, 0);
        self.eur + self.usd * 4 / 5
    }
}

/// What the story's postbacks and lines earn.
fn revenue() -> Sums {
    let leads = 10 * 800; // approved; the other ten are pending or rejected
    let refunded = 800;
    let rebill = 400;
    let mapped_later = 2 * 1_500;
    let sales = 4_990 + (12_000 - 2_000);
    let file = 5 * 1_058;
    Sums { eur: sales + file, usd: leads - refunded + rebill + mapped_later }
}

/// What its clicks cost: the invoice for blue ones; of the others what the link says, else the campaign's price.
fn cost() -> Sums {
    let mut cost = Sums { eur: 1_248, usd: 0 };
    for n in (1..=1000).filter(|n| n % 3 != 0) {
        if n % 10 == 0 {
            cost.usd += 5;
        } else {
            cost.eur += n % 5 + 1;
        }
    }
    cost
}

/// A row of the report.
fn row(currency: &str, revenue: i64, cost: i64) -> String {
    let money = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
    [currency, &money(revenue), &money(cost), &money(revenue - cost), "0"].join("|")
}

/// The rows of tables of psql, without the spaces.
fn rows(said: &str) -> Vec<String> {
    let is_row = |line: &&str| line.starts_with(" EUR ") || line.starts_with(" USD ");
    said.lines().filter(is_row).map(|line| line.replace(' ', "")).collect()
}

/// The commands of the page, which wait where a reader takes longer than the drain.
fn script(page: &str, port: &str) -> String {
    let unmapped = "ask \"$OCTO/api/v1/postbacks?network=$NETWORK&reason=unmapped\" | grep -q lead-24";
    let delivered = format!(
        "[ \"$(ask \"$OCTO/api/v1/deliveries?state=delivered\" | grep -o '\"state\":\"delivered\"' | grep -c .)\" = {TOLD} ]"
    );
    let mut script = String::new();
    for block in commands(page) {
        for (sign, wait) in [("reason=unmapped", unmapped), ("/api/v1/deliveries", delivered.as_str())] {
            if block.contains(sign) {
                writeln!(script, "until {wait}; do sleep 0.1; done").unwrap();
            }
        }
        script.push_str(block);
        script.push_str("\necho\n");
    }
    // a receiver ends, whatever ends the test
    script.replace(RECEIVER, port).replace("python3 -m", "timeout 100 python3 -m")
}

#[tokio::test]
async fn the_day_of_a_media_buyer_ends_with_the_right_profit_in_two_currencies() {
    let octo = Octo::builder().env("OCTO_DELIVERIES__ALLOWED_NETWORKS", "127.0.0.0/8").start().await;
    eventually(SOON, async || {
        ensure!(octo.data_dir().join("admin-token").exists(), "no token yet");
        Ok(())
    })
    .await;
    let pages = pages();
    let page = &pages[Path::new("docs/a-day-of-a-media-buyer.md")];
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let said = shell(&octo, &script(page, &free)).await;

    let (revenue, cost) = (revenue(), cost());
    let wanted = [row("EUR", revenue.in_eur(), cost.in_eur()), row("USD", revenue.in_usd(), cost.in_usd())];
    assert_eq!(rows(&said), wanted, "{said}");
    assert_eq!(rows(page), wanted, "the page shows them");

    let answers: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let accepted = answers.iter().filter(|answer| answer["status"] == "accepted").count();
    assert_eq!(accepted, 41, "postbacks");
    let [_, unmapped, approved, dry, replayed, deliveries] =
        &answers.iter().filter(|answer| answer["status"] != "accepted").collect::<Vec<_>>()[..]
    else {
        panic!("an offer and five answers: {said}")
    };
    assert_eq!(unmapped["data"].as_array().unwrap().len(), 2);
    assert_eq!(approved["data"].as_array().unwrap().len(), 12, "nine leads, two sales, a rebill");
    assert_eq!((&dry["judged_anew"], &dry["totals"]), (&replayed["judged_anew"], &replayed["totals"]));
    assert_eq!(replayed["totals"][0]["revenue"], "30.00");

    let states: Vec<&str> =
        deliveries["data"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
    let count = |state: &str| states.iter().filter(|it| **it == state).count();
    assert_eq!((states.len(), count("delivered"), count("not_supported")), (TOLD + 2, TOLD, 2));
    let mut told: Vec<&str> = said.lines().filter(|line| line.starts_with("GET /?c=m")).collect();
    assert_eq!(told.len(), TOLD, "{told:?}");
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), TOLD, "once each");
    assert!(told.contains(&"GET /?c=m2&e=sale&r=4") && told.contains(&"GET /?c=m24&e=sale&r=15"), "{told:?}");
}
