//! Records as a test wants them, written into a journal before octo starts: past the edge, which would clean them.

use std::{path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use octo::{
    facts::{click::Click, event::Event},
    journal::{Journal, Options, disk::RealDisk},
    model::id::ClickId,
};
use uuid::Uuid;

/// A click of this moment that holds nothing but its campaign.
pub(crate) fn click(campaign_id: Uuid) -> Click<'static> {
    Click::new(ClickId::now(), campaign_id)
}

/// An event of this moment that holds nothing but its campaign.
pub(crate) fn event(campaign_id: Uuid) -> Event<'static> {
    let bare = Event::new(Uuid::now_v7(), "view", milliseconds(Utc::now()));
    Event { campaign_id: Some(campaign_id), ..bare }
}

/// As a record keeps it.
pub(crate) fn milliseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.timestamp_millis()).expect("a time it already is")
}

pub(crate) fn encode_click(click: &Click<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    click.encode(&mut bytes);
    bytes
}

pub(crate) fn encode_event(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    bytes
}

/// Writes a stream into the journal of a data directory that no octo uses at the moment; gives its id.
pub(crate) async fn write_journal(data_dir: &Path, records: &[Vec<u8>]) -> Uuid {
    let root = data_dir.join("journal");
    std::fs::create_dir_all(&root).expect("a directory");
    let options = Options {
        root,
        segment_bytes: 64 << 20,
        bytes_max: 1 << 30,
        queue_records_max: records.len(),
        queue_bytes_max: 256 << 20,
        keep_drained: Duration::from_hours(1),
        retry_interval: Duration::from_secs(1),
    };
    let journal = Journal::open(Arc::new(RealDisk), options).expect("a journal");
    let mut pending: Vec<_> = records.iter().map(|record| journal.append(record)).collect();
    for (seq, pending) in (0..).zip(&mut pending) {
        assert_eq!(pending.durable().await.expect("on disk"), seq);
    }
    let stream = journal.stream();
    tokio::task::spawn_blocking(move || journal.close()).await.expect("no panic");
    stream
}
