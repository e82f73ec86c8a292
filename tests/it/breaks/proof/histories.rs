//! Random histories of clicks, out-clicks and postbacks, stored by two nodes at once in batches that come late, come
//! twice and are cut off: the conversions are those of a plain model, and the book adds up to them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use octo::{
    config::{Config, Flags, Loaded},
    db::{
        Db,
        ingest::{Ingest, Rows, StoreError, settle_waiting_conversions},
        pool::Pool,
        store::figures,
    },
    facts::{out_click::OutClick, postback::Postback, record::Record},
    model::{conversion::Channel, id::ClickId, out_click::Carrier},
};
use rust_decimal::Decimal;
use secrecy::SecretString;
use serde_json::json;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, is_long},
    records::{click, encode_click},
    tracker::{SOON, assert_book_agrees, assert_sums_agree},
};

/// What the two offers pay.
const OFFERS_PAY: [&str; 2] = ["3", "4.5"];

/// A click with what followed it.
struct History {
    click_id: ClickId,
    /// By when it came: each as it stands in a journal.
    records: Vec<Vec<u8>>,
    /// What the conversions must be, by goal and transaction id.
    wanted: BTreeMap<(String, String), Model>,
    postbacks: usize,
}

/// A conversion as a plain reader of the rules keeps it.
#[derive(Debug, Clone)]
struct Model {
    status: &'static str,
    /// What it pays, or would.
    amount: Option<Decimal>,
    /// What it paid before a part was taken back.
    full: Option<Decimal>,
    offer_id: i64,
    /// Parts that were taken back: the same once more is a retry.
    parts: Vec<Decimal>,
}

impl Model {
    fn counts(&self) -> bool {
        matches!(self.status, "pending" | "approved")
    }

    fn payout(&self) -> Decimal {
        self.amount.filter(|_| self.counts()).unwrap_or_default()
    }

    fn hear(&mut self, status: &'static str, paid: Option<Decimal>) {
        if status == "pending" && self.status != "pending" {
            return; // decided
        }
        let part = paid.filter(|paid| status == "refunded" && !paid.is_zero());
        if let Some(part) = part {
            if self.parts.contains(&part) {
                return;
            }
            self.parts.push(part);
            if self.counts() && self.amount.unwrap_or_default() > part {
                self.full = self.full.or(self.amount);
                self.amount = self.amount.map(|amount| amount - part);
                return;
            }
        }
        if matches!(status, "pending" | "approved") {
            self.amount = paid.or(self.amount);
            self.full = None;
        } else {
            self.amount = self.full.take().or(self.amount).or(paid.filter(|_| part.is_none()));
        }
        self.status = status;
    }
}

/// The id of something at a time.
fn id_at(ms: u64, random: &mut fastrand::Rng) -> Uuid {
    let bytes: [u8; 10] = std::array::from_fn(|_| random.u8(..));
    uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid()
}

impl History {
    fn random(campaign_id: Uuid, page: i64, offers: [i64; 2], random: &mut fastrand::Rng) -> Self {
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap();
        let mut ms = now - random.u64(0..60_000) - 60_000;
        let click_id = ClickId::from_uuid(id_at(ms, random)).unwrap();
        let has_page = random.bool();
        let mut clicked = click(campaign_id);
        clicked.id = click_id;
        clicked.landing_page_id = has_page.then_some(page);
        clicked.campaign_offer_id = (!has_page).then_some(offers[0]);
        let mut history =
            Self { click_id, records: vec![encode_click(&clicked)], wanted: BTreeMap::new(), postbacks: 0 };
        let mut offer = if has_page { None } else { Some(0) };
        for _ in 0..random.usize(0..8) {
            ms += random.u64(1..4000);
            if has_page && random.u8(..4) == 0 {
                let nth = random.usize(..2);
                offer = Some(nth);
                let mut out = OutClick::new(id_at(ms, random));
                (out.click_id, out.campaign_id) = (Some(click_id), Some(campaign_id));
                (out.landing_page_id, out.offer_id) = (Some(page), Some(offers[nth]));
                out.carrier = Carrier::Token;
                let mut bytes = Vec::new();
                out.encode(&mut bytes);
                history.records.push(bytes);
            } else {
                history.postback(ms, offer, offers, random);
            }
        }
        history
    }

    /// A postback, and what it makes of the model: news of the conversion of its goal and transaction id.
    fn postback(&mut self, ms: u64, offer: Option<usize>, offers: [i64; 2], random: &mut fastrand::Rng) {
        let word = random.choice(["lead", "sale", "sale", "reject", "chargeback"]).unwrap();
        let payout = random.choice(["", "", "1", "2.50", "0"]).unwrap();
        let (txid, goal) =
            (random.choice(["", "", "t1", "t2"]).unwrap(), random.choice(["", "dep"]).unwrap());
        let params = format!("cid={}&status={word}&payout={payout}&txid={txid}&goal={goal}", self.click_id);
        let mut postback = Postback::new(id_at(ms, random), params);
        (postback.channel, postback.click_id) = (Channel::Http, Some(self.click_id));
        let mut bytes = Vec::new();
        postback.encode(&mut bytes);
        self.records.push(bytes);
        self.postbacks += 1;

        let paid: Option<Decimal> = payout.parse().ok();
        let status = match word {
            "lead" => "pending",
            "sale" => "approved",
            "reject" => "rejected",
            _ => "refunded",
        };
        let key = (goal.to_owned(), txid.to_owned());
        if let Some(model) = self.wanted.get_mut(&key) {
            return model.hear(status, paid);
        }
        let of_offer = offer.map(|nth| OFFERS_PAY[nth].parse().unwrap());
        let parts = paid.filter(|paid| status == "refunded" && !paid.is_zero()).into_iter().collect();
        let offer_id = offer.map_or(0, |nth| offers[nth]);
        let model = Model { status, amount: paid.or(of_offer), full: None, offer_id, parts };
        self.wanted.insert(key, model);
    }
}

/// A campaign with a landing page and two offers; their ids.
async fn campaign(database: &Database) -> (Uuid, i64, [i64; 2]) {
    let octo = Octo::builder().database_url(database.url()).start().await;
    let token = octo.admin_token().await;
    let offer = |nth: usize| {
        json!({ "name": format!("o{nth}"), "url": "https://offer.example/",
                "payout": { "amount": OFFERS_PAY[nth], "currency": "USD" } })
    };
    let body = json!({
        "key": "demo", "name": "demo", "landing_pages": [{ "name": "page", "url": "https://page.example/" }],
        "offers": [offer(0), offer(1)],
    });
    let campaign = octo.api(&token).create(&body).await;
    let id = |list: &str, nth: usize| campaign[list][nth]["id"].as_i64().unwrap();
    let campaign_id = campaign["id"].as_str().unwrap().parse().unwrap();
    (campaign_id, id("landing_pages", 0), [id("offers", 0), id("offers", 1)])
}

/// Stores a node's records in batches; some are cut off, and then whether they were stored is asked of the watermark.
/// Gives how many were cut off.
async fn drain(primary: &Pool, stream: Uuid, records: &[Vec<u8>], seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut lo, mut cut_off) = (0, 0);
    while lo < records.len() {
        let mut ingest = Ingest::connect(primary, Duration::from_secs(30)).await.expect("a connection");
        lo = usize::try_from(ingest.watermarks(&[(stream, 0)]).await.expect("watermarks")[&stream]).unwrap();
        while lo < records.len() {
            let hi = (lo + random.usize(1..400)).min(records.len());
            let batch: Vec<Record<'_>> = records[lo..hi].iter().map(|r| Record::decode(r).unwrap()).collect();
            let mut rows = Rows::default();
            for record in &batch {
                rows.push(record);
            }
            let storing = ingest.store(stream, lo as u64, hi as u64, &mut rows);
            let limit = if random.u8(..6) == 0 { random.u64(0..60) } else { 60_000 };
            match tokio::time::timeout(Duration::from_millis(limit), storing).await {
                Ok(Ok(())) => lo = hi,
                Ok(Err(StoreError::Moved)) => break,
                Ok(Err(error)) => panic!("{error:?}"),
                Err(_) => {
                    cut_off += 1;
                    break; // with the connection in the middle of something
                }
            }
        }
    }
    cut_off
}

#[tokio::test]
async fn conversions_are_those_of_the_postbacks_whatever_node_stores_them_when() {
    let count = if is_long() { 10_000 } else { 1500 };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create("histories").await;
    let (campaign_id, page, offers) = campaign(&database).await;
    let histories: Vec<History> =
        (0..count).map(|_| History::random(campaign_id, page, offers, &mut random)).collect();

    // each record comes to one of two nodes; what it has it stores in its own order
    let mut of_nodes: [Vec<Vec<u8>>; 2] = Default::default();
    for record in histories.iter().flat_map(|history| &history.records) {
        of_nodes[random.usize(..2)].push(record.clone());
    }
    for records in &mut of_nodes {
        random.shuffle(records);
    }
    let config: Config = Loaded::load(None, [], &Flags::default()).unwrap().config;
    let url: SecretString = database.url().into();
    let primary = Pool::new("primary", &url, &config.database).unwrap();
    let [one, two] = &of_nodes;
    let started = std::time::Instant::now();
    let db = Db::new(&url, &config.database).unwrap();
    let (seed_one, seed_two) = (random.u64(..), random.u64(..));
    let draining = async {
        tokio::join!(
            drain(&primary, Uuid::now_v7(), one, seed_one),
            drain(&primary, Uuid::now_v7(), two, seed_two),
        )
    };
    let cut_off = tokio::select! {
        cut_off = draining => cut_off,
        () = fold_and_recount(&db) => unreachable!("it goes on for ever"),
    };
    let took = started.elapsed();
    // a click and its postback may have been stored at the same moment
    settle_waiting_conversions(&db, 1000).await.unwrap();

    let pool = database.pool().await;
    let postbacks: usize = histories.iter().map(|history| history.postbacks).sum();
    let conversions: usize = histories.iter().map(|history| history.wanted.len()).sum();
    println!(
        "{count} histories, {postbacks} postbacks, {conversions} conversions; cut off {cut_off:?}; {took:?}"
    );
    assert!(cut_off.0 + cut_off.1 > 0, "some were cut off");
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM postbacks").fetch_one(&pool).await.unwrap();
    assert_eq!(usize::try_from(stored).unwrap(), postbacks);
    assert_conversions(&pool, &histories).await;
    assert_book_agrees(&pool).await;
    assert_nothing_waits(&pool).await;
    assert_sums_agree(&pool).await;
    while figures::fold(&db, 1000, SOON).await.unwrap() != Some(0) {}
    assert_sums_agree(&pool).await;
}

/// Adds to the sums of reports what is stored meanwhile, a few rows at a time, and now and then counts the day anew.
async fn fold_and_recount(db: &Db) {
    for round in 0u32.. {
        figures::fold(db, 100, SOON).await.unwrap();
        if round % 10 == 9 {
            figures::recount(db, Utc::now().date_naive(), SOON).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn assert_conversions(pool: &PgPool, histories: &[History]) {
    let rows = sqlx::query("SELECT click_id, goal, txid, status, payout, offer_id FROM conversions");
    let rows = rows.fetch_all(pool).await.unwrap();
    let mut found: HashMap<Uuid, BTreeMap<(String, String), (String, Decimal, Option<i64>)>> = HashMap::new();
    for row in rows {
        let (goal, txid): (String, String) = (row.get("goal"), row.get("txid"));
        let payout: Decimal = row.get("payout");
        let conversion = (row.get("status"), payout.normalize(), row.get("offer_id"));
        let is_twice =
            found.entry(row.get("click_id")).or_default().insert((goal, txid), conversion).is_some();
        assert!(!is_twice);
    }
    for history in histories {
        let of_model = |model: &Model| {
            let offer_id = (model.offer_id != 0).then_some(model.offer_id);
            (model.status.to_owned(), model.payout().normalize(), offer_id)
        };
        let wanted: BTreeMap<_, _> =
            history.wanted.iter().map(|(key, model)| (key.clone(), of_model(model))).collect();
        let found = found.remove(&history.click_id.uuid()).unwrap_or_default();
        if found != wanted {
            let ledger = "SELECT format('%s %s %s %s', created_at, params, outcome, reason) FROM postbacks
                          WHERE click_id = $1 ORDER BY created_at, id";
            let ledger = sqlx::query_scalar(ledger).bind(history.click_id.uuid());
            let ledger: Vec<String> = ledger.fetch_all(pool).await.unwrap();
            panic!("click {}: {found:?}, and not {wanted:?}: {ledger:#?}", history.click_id);
        }
    }
    assert!(found.is_empty(), "conversions of nothing");
    let rows =
        sqlx::query("SELECT id, conversion_type, converted_at FROM clicks").fetch_all(pool).await.unwrap();
    let of_clicks: HashMap<Uuid, (Option<String>, Option<DateTime<Utc>>)> = rows
        .into_iter()
        .map(|row| (row.get("id"), (row.get("conversion_type"), row.get("converted_at"))))
        .collect();
    for history in histories {
        let (kind, at) = &of_clicks[&history.click_id.uuid()];
        let counts = history.wanted.values().any(Model::counts);
        assert_eq!((kind.is_some(), at.is_some()), (counts, counts), "click {}", history.click_id);
    }
}

async fn assert_nothing_waits(pool: &PgPool) {
    let open = "SELECT count(*) FROM postbacks WHERE outcome <> 'accepted' OR conversion_id IS NULL";
    let open: i64 = sqlx::query_scalar(open).fetch_one(pool).await.unwrap();
    assert_eq!(open, 0, "postbacks that are not accepted");
}
