//! Where a line was lost on its way to a conversion, by what is stored of its click.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Entry, Finding, Line, Ours, Said, Twin, is_same_goal};
use crate::{
    model::{
        conversion::{Outcome, OutcomeReason, Status},
        network::PostbackRules,
    },
    money::{
        conversions::goal_of,
        reading::{self, NoClick},
    },
};

/// Where a line or a conversion was lost, or what says most about the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[schema(as = ReconciliationHop)]
pub enum Hop {
    /// The line names no click.
    NoClickId,
    /// What it names is no click id of ours.
    BadClickId,
    /// It is a click id of our form, and no such click is stored.
    UnknownClick,
    /// The click is ours, and no postback came that tells of it.
    NeverArrived,
    /// A postback came that was not let in: see `reason`.
    Refused,
    /// A postback came and is of no conversion: see `reason`.
    Ignored,
    /// A postback came, and its click is not stored yet.
    Waiting,
    /// A postback came, and its click did not in seven days.
    Orphan,
    /// The postback that came is of another network.
    OtherNetwork,
    /// The postback that came told of a conversion that is another line's.
    Merged,
    /// Ours is not decided.
    Pending,
    /// Ours is approved.
    Approved,
    /// Ours is rejected.
    Rejected,
    /// Ours is refunded.
    Refunded,
    /// The network's word is not known.
    Unmapped,
    /// What was heard last is in `last_change`.
    Changed,
    /// A line before says the same.
    TwiceThere,
    /// Another conversion of ours is the same.
    TwiceHere,
}

/// A postback of the ledger, as far as it tells which line it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its id.
    pub id: Uuid,
    /// The network whose words were read, as far as one is known.
    pub network_id: Option<i64>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<OutcomeReason>,
    /// The network's id of the conversion; empty where it sent none.
    pub txid: String,
    /// What was reached; empty where it named nothing.
    pub goal: String,
}

impl Told {
    /// As a postback says it that came at that time.
    pub fn new(
        id: Uuid,
        network_id: Option<i64>,
        outcome: Outcome,
        reason: Option<OutcomeReason>,
        params: &str,
        rules: &PostbackRules,
    ) -> Self {
        let reading = reading::read(params, rules, crate::model::id::time_of_uuid(id));
        let goal = goal_of(&reading).to_owned();
        Self { id, network_id, outcome, reason, goal, txid: reading.txid }
    }

    /// Whether it may tell of what a line says: 2 by the transaction id, 1 because nothing says otherwise.
    fn fits(&self, said: &Said) -> Option<u8> {
        let is_known = |theirs: &str, ours: &str| !theirs.is_empty() && !ours.is_empty();
        if is_known(&said.txid, &self.txid) {
            return (said.txid == self.txid).then_some(2);
        }
        let is_other = is_known(&said.goal, &self.goal) && !is_same_goal(&said.goal, &self.goal);
        (!is_other).then_some(1)
    }
}

/// What changed last of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ReconciliationChange)]
pub struct Change {
    /// The postback that caused it; null where several did, or a word was mapped anew.
    pub postback_id: Option<Uuid>,
    /// `postback`, or `derived_again`: by a replay, or because a postback was stored late.
    #[schema(example = "postback")]
    pub cause: String,
    /// The state before; null: it was new.
    #[schema(value_type = Option<Status>, example = "pending")]
    pub from_status: Option<String>,
    /// The state after.
    #[schema(value_type = Status, example = "approved")]
    pub to_status: String,
    /// When the postback came that caused it.
    pub changed_at: DateTime<Utc>,
}

/// What is stored around what differs.
#[derive(Debug, Default)]
pub struct Facts {
    /// The network of the report.
    pub network_id: i64,
    /// Clicks that are stored.
    pub clicks: HashSet<Uuid>,
    /// Postbacks by the click that they name, newest first.
    pub told: HashMap<Uuid, Vec<Told>>,
    /// Postbacks of the network that name no click, by their transaction id.
    pub lost: HashMap<String, Told>,
    /// By conversion.
    pub changes: HashMap<Uuid, Change>,
}

impl Facts {
    /// Says of each entry that is not matched at which hop it was lost, or what was heard last of it.
    pub fn explain(&self, entries: &mut [Entry], lines: &[Line], ours: &[Ours]) {
        for entry in entries {
            let said = entry.line.and_then(|i| lines[i].said.as_ref());
            let ours = entry.ours.map(|i| &ours[i]);
            match (entry.finding, said, ours) {
                (Finding::Matched | Finding::Unreadable, ..) => {}
                (Finding::Doubled, ..) => {
                    let is_theirs = matches!(entry.twin, Some(Twin::Line(_)));
                    entry.hop = Some(if is_theirs { Hop::TwiceThere } else { Hop::TwiceHere });
                }
                (Finding::MissingHere, Some(said), _) => {
                    let (hop, told) = self.lost(said);
                    entry.hop = Some(hop);
                    entry.reason = told.and_then(|told| told.reason);
                    entry.postback_id = told.map(|told| told.id);
                }
                (Finding::MissingThere, _, Some(ours)) => entry.hop = Some(of_status(ours.status)),
                (_, _, Some(ours)) => {
                    let is_unmapped = [said.and_then(|said| said.status), Some(ours.status)]
                        .contains(&Some(Status::Unmapped));
                    entry.hop = Some(if is_unmapped { Hop::Unmapped } else { Hop::Changed });
                    entry.last_change = self.changes.get(&ours.id).cloned();
                    entry.postback_id = entry.last_change.as_ref().and_then(|change| change.postback_id);
                }
                (_, _, None) => {}
            }
        }
    }

    /// Where a line was lost, and the postback that says so.
    fn lost(&self, said: &Said) -> (Hop, Option<&Told>) {
        let click_id = match said.leg {
            Err(NoClick::Missing) => return (Hop::NoClickId, None),
            Err(NoClick::Bad) => return (Hop::BadClickId, None),
            Ok(leg) => leg.click_id.uuid(),
        };
        let told = self.told.get(&click_id).map(Vec::as_slice).unwrap_or_default();
        let best = |rank: u8| told.iter().find(|told| told.fits(said) == Some(rank));
        if let Some(told) = best(2).or_else(|| best(1)) {
            return (self.hop_of(told), Some(told));
        }
        if let Some(told) = self.lost.get(&said.txid).filter(|_| !said.txid.is_empty()) {
            return (self.hop_of(told), Some(told));
        }
        (if self.clicks.contains(&click_id) { Hop::NeverArrived } else { Hop::UnknownClick }, None)
    }

    fn hop_of(&self, told: &Told) -> Hop {
        match told.outcome {
            _ if told.network_id.is_some_and(|id| id != self.network_id) => Hop::OtherNetwork,
            Outcome::Refused => Hop::Refused,
            Outcome::Ignored => Hop::Ignored,
            Outcome::Waiting => Hop::Waiting,
            Outcome::Orphan => Hop::Orphan,
            Outcome::Accepted => Hop::Merged,
        }
    }
}

fn of_status(status: Status) -> Hop {
    match status {
        Status::Pending => Hop::Pending,
        Status::Approved => Hop::Approved,
        Status::Rejected => Hop::Rejected,
        Status::Refunded => Hop::Refunded,
        // one that is ignored is none, and not missed
        Status::Unmapped | Status::Ignored => Hop::Unmapped,
    }
}

impl Entry {
    /// What came of it, in a sentence.
    pub fn in_words(&self, lines: &[Line], ours: &[Ours]) -> String {
        let word = |i: usize| lines[i].said.as_ref().and_then(|said| said.status_text.as_deref());
        let reason = self.reason.map_or(String::new(), |reason| format!(" ({reason})"));
        match self.hop {
            None if self.finding == Finding::Unreadable => {
                "It is no line of CSV, or no JSON object.".to_owned()
            }
            None => String::new(),
            Some(Hop::TwiceThere | Hop::TwiceHere) => self.twin_in_words(),
            Some(Hop::NoClickId) => "The line names no click.".to_owned(),
            Some(Hop::BadClickId) => "What the line names is no click id of ours.".to_owned(),
            Some(Hop::UnknownClick) => {
                "No click of this id is stored, and no postback came for it.".to_owned()
            }
            Some(Hop::NeverArrived) => {
                "The click is ours, and no postback came that tells of this.".to_owned()
            }
            Some(Hop::Refused) => format!("A postback came that was not let in{reason}."),
            Some(Hop::Ignored) => format!("A postback came, and is of no conversion{reason}."),
            Some(Hop::Waiting) => "A postback came, and waits for its click to be stored.".to_owned(),
            Some(Hop::Orphan) => "A postback came, and its click did not in seven days.".to_owned(),
            Some(Hop::OtherNetwork) => "The postback that came is of another network.".to_owned(),
            Some(Hop::Merged) => format!(
                "A postback came{reason}, and tells of a conversion that is another line's: see how the network reports \
                 repeats."
            ),
            Some(Hop::Pending | Hop::Approved | Hop::Rejected | Hop::Refunded) => {
                format!("No line is this conversion, which is {} here.", self.status_of(ours))
            }
            Some(Hop::Unmapped) => {
                let text = |i: usize| ours[i].status_text.as_deref();
                let is_ours = self.ours.is_some_and(|i| ours[i].status == Status::Unmapped);
                let word = if is_ours { self.ours.and_then(text) } else { self.line.and_then(word) };
                format!("The network's word {:?} is not known: map it, and replay.", word.unwrap_or_default())
            }
            Some(Hop::Changed) => self.change_in_words(ours),
        }
    }

    fn twin_in_words(&self) -> String {
        match self.twin {
            Some(Twin::Line(number)) => format!("Line {number} says the same."),
            Some(Twin::Conversion(id)) => format!("It is here twice, and once there: {id} is the other one."),
            None => String::new(),
        }
    }

    fn status_of(&self, ours: &[Ours]) -> String {
        self.ours.map_or(String::new(), |i| ours[i].status.to_string())
    }

    fn change_in_words(&self, ours: &[Ours]) -> String {
        let status = self.status_of(ours);
        let Some(change) = &self.last_change else { return format!("It is {status} here.") };
        let by = match (change.cause.as_str(), change.postback_id) {
            (_, Some(id)) => format!("by the postback {id}"),
            ("postback", None) => "by a postback".to_owned(),
            _ => "by postbacks that were read again".to_owned(),
        };
        format!("It is {status} here since {}, {by}.", change.changed_at.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}
