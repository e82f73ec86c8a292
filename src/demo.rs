//! `octo demo seed|clear`: sample campaigns with 30 days of believable traffic, to look around in, and away with them.
//!
//! Their traffic goes the way of all: clicks, out-clicks and postbacks as facts, stored and derived by the drain's own
//! transaction, at the times at which they would have come. Only journal and network are left out.

mod terms;
mod traffic;

use anyhow::{Context, ensure};
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    config::Config,
    db::{
        Db,
        ingest::{Ingest, Rows},
        partitions,
        store::{campaigns, demo as store},
    },
    facts::{Kind, click::Click, out_click::OutClick, postback::Postback},
};

/// Days with traffic, today among them.
pub(crate) const DAYS: u32 = 30;

/// Days in which the network says what became of a sale.
const LATER_DAYS: u64 = 5;

/// What the demo is made of is found by ids of its own: these are no times, and no others are made like them.
const fn id(part: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_6465_6d6f_0000 + part)
}

/// The stream of its facts; campaigns and what is in the library come behind it.
const STREAM: Uuid = id(0);

/// What was stored, or taken away.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Days that are done.
    pub(crate) days: u32,
    pub(crate) clicks: u64,
    pub(crate) out_clicks: u64,
    pub(crate) postbacks: u64,
}

/// Facts of one day.
#[derive(Debug, Default)]
struct Day {
    clicks: Vec<Click<'static>>,
    out_clicks: Vec<OutClick<'static>>,
    postbacks: Vec<Postback<'static>>,
}

/// Makes the campaigns and stores the traffic up to `now`; `progress` hears of each day.
pub(crate) async fn seed(
    db: &Db,
    config: &Config,
    now: DateTime<Utc>,
    mut progress: impl FnMut(Count),
) -> anyhow::Result<Count> {
    let there = store::since(db, campaign_ids()).await?;
    ensure!(there.is_none(), "the demo is there already; `octo demo clear` takes it away");
    let first = now.date_naive() - Days::new(u64::from(DAYS) - 1);
    let options = partitions::Options::from(&config.database);
    for day in first.iter_days().take_while(|day| *day <= now.date_naive()) {
        for kind in Kind::PARTITIONED {
            partitions::make_day(db, kind, day, options).await?;
        }
    }
    let lanes = terms::make(db).await?;
    let mut ingest = Ingest::connect(db.primary(), config.database.maintenance_timeout).await?;
    let mut seq = *ingest.watermarks(&[(STREAM, 0)]).await?.get(&STREAM).context("the demo's stream")?;
    let mut traffic = traffic::Traffic::new(lanes, now);
    let mut count = Count::default();
    for date in first.iter_days().take_while(|day| *day <= now.date_naive()) {
        let day = traffic.day(date);
        let mut rows = Rows {
            clicks: day.clicks.iter().collect(),
            out_clicks: day.out_clicks.iter().collect(),
            postbacks: day.postbacks.iter().collect(),
            ..Rows::default()
        };
        let stored = rows.facts().count() as u64;
        ingest.store(STREAM, seq, seq + stored, &mut rows).await?;
        seq += stored;
        count.days += 1;
        count.clicks += day.clicks.len() as u64;
        count.out_clicks += day.out_clicks.len() as u64;
        count.postbacks += day.postbacks.len() as u64;
        progress(count);
    }
    Ok(count)
}

/// Deletes the campaigns and everything of them; `None`: there are none. The figures of the days that it gives are to be
/// counted from their facts again.
pub(crate) async fn clear(
    db: &Db,
    now: DateTime<Utc>,
    mut progress: impl FnMut(Count),
) -> anyhow::Result<Option<(NaiveDate, NaiveDate, Count)>> {
    let Some(since) = store::since(db, campaign_ids()).await? else { return Ok(None) };
    for campaign in campaign_ids() {
        campaigns::delete(db, campaign, None).await?; // nodes hear of it, and send no more clicks there
    }
    let first = since.date_naive() - Days::new(u64::from(DAYS));
    let behind = now.date_naive() + Days::new(LATER_DAYS);
    let mut count = Count::default();
    for day in first.iter_days().take_while(|day| *day < behind) {
        count.clicks += store::delete_day(db, campaign_ids(), day).await?;
        count.days += 1;
        progress(count);
    }
    store::delete_rest(db, campaign_ids(), made_by()).await?;
    Ok(Some((first, now.date_naive() + TimeDelta::days(1), count)))
}

fn campaign_ids() -> Vec<Uuid> {
    (0..terms::CAMPAIGNS.len()).map(terms::campaign_id).collect()
}

/// The requests that made what is in the library, and the stream.
fn made_by() -> Vec<Uuid> {
    (0..=terms::LIBRARY_MAX).map(id).collect()
}
