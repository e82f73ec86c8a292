//! What several benchmarks share: a typical click, the baseline "one INSERT a click", CPU time, figures.
#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::{collections::HashMap, fs, time::Duration};

use octo::{
    facts::click::Click,
    model::{id::ClickId, money::Currency},
};
use rust_decimal::Decimal;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

/// What a phone sends.
pub(crate) const USER_AGENT: &str = "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36";

/// Where it comes from.
pub(crate) const REFERRER: &str = "https://news.example/article/2026/11/a-headline-of-usual-length?ref=home";

/// Connections of the baseline's pool: the same as octo's own `database.max_connections`.
pub(crate) const POOL_CONNECTIONS: u32 = 32;

// The columns of `octo::db::ingest`, one row at a time. No roll-up and no watermark: the baseline does less.
const INSERT_CLICK: &str = "
INSERT INTO clicks (
    id, campaign_id, ip_address, user_agent, referrer, is_valid, invalid_reason, is_bot,
    country, device, os, browser,
    sub1, sub2, sub3, sub4, sub5,
    affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4, affiliate_sub5,
    click_id_param, landing_page_id, campaign_offer_id, traffic_source_id, cost, currency, created_at, updated_at
)
VALUES (
    $1, $2, $3::text::inet, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
    $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $29
)";

/// `$1` campaigns `demo-0`, `demo-1`, .. with an offer each.
pub(crate) const INSERT_CAMPAIGNS: &str = "
WITH made AS (
    INSERT INTO campaigns (id, key, name, status, cost_model)
    SELECT gen_random_uuid(), 'demo-' || i, 'demo', 'active', 'cpa' FROM generate_series(0, $1 - 1) AS i
    RETURNING id
)
INSERT INTO offers (campaign_id, position, name, url, weight, is_active)
SELECT id, 0, 'offer', 'https://offer.example/lp?cid={click_id}&s={sub1}#top', 1, true FROM made";

/// Clicks `$2` to `$3` of `$1`, evenly over the 30 days before `$4`; half of them of campaign `$5`, one in 100,000 of `$6`;
/// user agent `$7`, referrer `$8`.
pub(crate) const FILL_CLICKS: &str = "
INSERT INTO clicks (
    id, campaign_id, ip_address, user_agent, referrer, is_valid, invalid_reason, is_bot, country, device, os, browser,
    sub1, sub2, click_id_param, campaign_offer_id, traffic_source_id, cost, currency, created_at, updated_at
)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid,
    CASE WHEN i % 100000 = 7 THEN $6 WHEN i % 2 = 0 THEN $5
         ELSE ('00000000-0000-7000-8000-' || lpad(to_hex(i * 7919 % 998), 12, '0'))::uuid END,
    '10.0.0.1'::inet + i % 1000000, $7, $8, i % 50 <> 3, CASE WHEN i % 50 = 3 THEN 'bot' END, i % 50 = 3,
    'DE', 'mobile', 'Android', 'Chrome Mobile', 'ad-' || i, 'creative-7', 'src-' || i, 1, 'network-3', 0.0125, 'USD',
    at, at
FROM generate_series($2, $3) AS i
CROSS JOIN LATERAL (
    SELECT date_trunc('milliseconds', $4 - interval '30 days' * ((($1 - i)::float8 + 0.5) / $1)) AS at
) t";

/// A click as a link with some parameters makes it: about 400 bytes in the journal.
pub(crate) fn typical_click(campaign_id: Uuid, number: u32) -> Click<'static> {
    let [_, b, c, d] = number.to_be_bytes();
    Click {
        ip: Some([10, b, c, d].into()),
        user_agent: Some(USER_AGENT.into()),
        referrer: Some(REFERRER.into()),
        country: Some("DE".into()),
        device: Some("mobile".into()),
        os: Some("Android".into()),
        browser: Some("Chrome Mobile".into()),
        subs: [Some(format!("ad-{number}").into()), Some("creative-7".into()), None, None, None],
        click_id_param: Some(format!("src-{number:012}").into()),
        campaign_offer_id: Some(1),
        traffic_source_id: Some("network-3".into()),
        cost: Some(Decimal::new(125, 4)),
        currency: Some(Currency::USD),
        ..Click::new(ClickId::now(), campaign_id)
    }
}

/// The baseline's pool, all connections open.
pub(crate) async fn baseline_pool(url: &str) -> sqlx::Result<PgPool> {
    let options = PgPoolOptions::new().min_connections(POOL_CONNECTIONS).max_connections(POOL_CONNECTIONS);
    options.acquire_timeout(Duration::from_secs(30)).test_before_acquire(false).connect(url).await
}

/// The baseline: one INSERT, committed when this returns.
pub(crate) async fn insert_click(pool: &PgPool, click: &Click<'_>) -> sqlx::Result<()> {
    let mut query = sqlx::query(INSERT_CLICK)
        .bind(click.id.uuid())
        .bind(click.campaign_id)
        .bind(click.ip.map(|ip| ip.to_string()))
        .bind(click.user_agent.as_deref())
        .bind(click.referrer.as_deref())
        .bind(click.is_valid())
        .bind(click.invalid_reason.map(<&str>::from))
        .bind(click.is_bot)
        .bind(click.country.as_deref())
        .bind(click.device.as_deref())
        .bind(click.os.as_deref())
        .bind(click.browser.as_deref());
    for text in click.subs.iter().chain(&click.aff_subs) {
        query = query.bind(text.as_deref());
    }
    query
        .bind(click.click_id_param.as_deref())
        .bind(click.landing_page_id)
        .bind(click.campaign_offer_id)
        .bind(click.traffic_source_id.as_deref())
        .bind(click.cost)
        .bind(click.currency.map(|currency| currency.to_string()))
        .bind(click.id.created_at())
        .execute(pool)
        .await
        .map(drop)
}

/// CPU time of one process so far, and of its children that have ended.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| ticks(stat.own + stat.reaped))
}

/// CPU time of a process and all its descendants so far, the ended ones too: a postmaster and its backends.
pub(crate) fn cpu_of_tree(root: u32) -> Duration {
    ticks(tree(root).values().map(|stat| stat.own + stat.reaped).sum())
}

/// Peak resident memory of a process and its descendants since [`forget_peak`], in MB.
pub(crate) fn peak_mb(root: u32) -> f64 {
    tree(root).keys().filter_map(|pid| status_mb(*pid, "VmHWM:")).sum()
}

/// Resident memory of one process, in MB.
pub(crate) fn resident_mb(pid: u32) -> f64 {
    status_mb(pid, "VmRSS:").unwrap_or_default()
}

/// A figure in kB of `/proc/PID/status`, see proc(5).
fn status_mb(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(name))?.trim().trim_end_matches(" kB");
    Some(kilobytes.parse::<f64>().ok()? / 1024.0)
}

/// Lets [`peak_mb`] count from now on (5 in `clear_refs` of proc(5)).
pub(crate) fn forget_peak(root: u32) {
    for pid in tree(root).keys() {
        // a process that has just ended has no peak
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// A process and all its descendants.
fn tree(root: u32) -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: HashMap<u32, Stat> = names.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let is_below = |mut pid: u32| {
        while pid != root {
            match all.get(&pid) {
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        true
    };
    let below: Vec<u32> = all.keys().copied().filter(|pid| is_below(*pid)).collect();
    all.into_iter().filter(|(pid, _)| below.contains(pid)).collect()
}

struct Stat {
    parent: u32,
    own: u64,
    reaped: u64,
}

/// The fields `ppid`, `utime` + `stime` and `cutime` + `cstime` of proc(5).
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        reaped: number(13)? + number(14)?,
    })
}

/// `USER_HZ` is 100 on every Linux we run on.
fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The `percent`th percentile of sorted microseconds, in milliseconds.
pub(crate) fn percentile_ms(sorted: &[u32], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).map_or(0.0, |&us| f64::from(us) / 1e3)
}

/// Microseconds that fit: an hour is more than any benchmark waits.
pub(crate) fn micros(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)
}

/// The machine's load, which a reader needs to judge the figures.
pub(crate) fn print_load() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("load averages before: {}; {cores} cores", load.trim());
}
