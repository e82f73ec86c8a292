//! A postback as the API shows it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    db::store::postbacks,
    model::conversion::{Channel, Outcome, OutcomeReason},
};

/// A postback as it came, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Postback {
    /// Ours; a UUIDv7, so also when it came.
    pub(crate) id: Uuid,
    /// The affiliate network whose words were read; none where neither a key nor the offer tells.
    #[schema(example = 3)]
    pub(crate) network_id: Option<i64>,
    /// How it came: by a request, as a line of a file, or from somebody with a token of the API.
    #[schema(value_type = Channel, example = "http")]
    pub(crate) channel: String,
    /// Where it came from, as far as `privacy.ip_mode` keeps it.
    #[schema(example = "192.0.2.0")]
    pub(crate) ip_address: Option<String>,
    /// The click it tells of.
    pub(crate) click_id: Option<Uuid>,
    /// The offer that the click id named.
    #[schema(example = 6)]
    pub(crate) offer_id: Option<i64>,
    /// What it said, without keys, tokens and what stands for a person. Of a name that came twice the first is shown.
    #[schema(example = json!({"cid": "019aaf3c-5f00-7abc-8def-0123456789ab", "payout": "1.50", "status": "approved"}))]
    pub(crate) params: BTreeMap<String, String>,
    /// What became of it.
    #[schema(value_type = Outcome, example = "accepted")]
    pub(crate) outcome: String,
    /// What is particular about that.
    #[schema(value_type = Option<OutcomeReason>, example = "repeat")]
    pub(crate) reason: Option<String>,
    /// The conversion that it tells of.
    pub(crate) conversion_id: Option<Uuid>,
    /// When it came: the time in its id.
    pub(crate) created_at: DateTime<Utc>,
}

impl From<postbacks::Postback> for Postback {
    fn from(row: postbacks::Postback) -> Self {
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(row.params.as_bytes()) {
            params.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self {
            id: row.id,
            network_id: row.network_id,
            channel: row.channel,
            ip_address: row.ip_address,
            click_id: row.click_id,
            offer_id: row.leg_offer_id,
            params,
            outcome: row.outcome,
            reason: row.reason,
            conversion_id: row.conversion_id,
            created_at: row.created_at,
        }
    }
}
