//! What is sent for one delivery: the request that a target's templates make, or a webhook.

use chrono::{DateTime, SecondsFormat, Utc};
use regex::Regex;
use rust_decimal::Decimal;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::{
    signature,
    template::{Error, Expanded, Macro, Place, Template, Values},
};
use crate::{
    db::store::{outbox::Click, postback_targets::Target},
    model::{
        conversion::Status,
        postback_target::{Method, TargetKind},
    },
    templates,
};

/// Everything that a target can be told of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The delivery.
    pub delivery_id: Uuid,
    /// The conversion.
    pub conversion_id: Uuid,
    /// Its campaign.
    pub campaign_id: Uuid,
    /// Its click.
    pub click_id: Uuid,
    /// When the click was made.
    pub click_at: DateTime<Utc>,
    /// The status it has now.
    pub status: Status,
    /// `""` where none was named.
    pub goal: String,
    /// What it is.
    pub kind: String,
    /// As the target is told it; `None`: not at all.
    pub payout: Option<Decimal>,
    /// The currency of that.
    pub currency: String,
    /// The network's transaction id.
    pub txid: String,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// What the click says.
    pub click: Click,
}

impl Values for Story {
    fn value(&self, name: Macro) -> String {
        let click = &self.click;
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        match name {
            Macro::ClickId => self.click_id.to_string(),
            Macro::ExternalClickId => of(&click.click_id_param),
            Macro::CampaignId => self.campaign_id.to_string(),
            Macro::ConversionId => self.conversion_id.to_string(),
            Macro::DeliveryId => self.delivery_id.to_string(),
            Macro::Payout => self.payout.map(plain).unwrap_or_default(),
            Macro::Currency => self.currency.clone(),
            Macro::Goal => self.goal.clone(),
            Macro::Txid => self.txid.clone(),
            Macro::Sub1 => of(&click.sub1),
            Macro::Sub2 => of(&click.sub2),
            Macro::Sub3 => of(&click.sub3),
            Macro::Sub4 => of(&click.sub4),
            Macro::Sub5 => of(&click.sub5),
            Macro::Keyword => of(&click.keyword),
            Macro::Creative => of(&click.creative),
            Macro::Placement => of(&click.placement),
            Macro::Country => of(&click.country),
            Macro::Device => of(&click.device),
            Macro::Os => of(&click.os),
            Macro::Browser => of(&click.browser),
            Macro::Ip => of(&click.ip_address),
            Macro::UserAgent => of(&click.user_agent),
            Macro::Referrer => of(&click.referrer),
            Macro::Timestamp => self.changed_at.timestamp().to_string(),
            Macro::TimestampMs => self.changed_at.timestamp_millis().to_string(),
            Macro::Date => self.changed_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            Macro::ClickTimestamp => self.click_at.timestamp().to_string(),
            Macro::ClickTimestampMs => self.click_at.timestamp_millis().to_string(),
            Macro::Random => format!("{:08x}", fastrand::u32(..)),
            Macro::Status => self.status.to_string(),
            Macro::Signature => String::new(), // made where it stands
        }
    }

    fn status(&self) -> Status {
        self.status
    }
}

/// A target that is ready to be called.
#[derive(Debug)]
pub struct Ready {
    /// As it is stored.
    pub target: Target,
    /// What limits are counted by.
    pub host: String,
    address: Template,
    headers: Vec<(String, Template)>,
    body: Option<Template>,
    success: Option<Regex>,
    failure: Option<Regex>,
}

/// A request, ready to be sent, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How.
    pub method: Method,
    /// Where to.
    pub url: Expanded,
    /// Names and values.
    pub headers: Vec<(String, Expanded)>,
    /// What with.
    pub body: Option<Expanded>,
}

impl Ready {
    /// Reads the templates of a target.
    pub fn new(target: Target) -> Result<Self, Error> {
        let terms = &target.terms;
        let address = Template::parse(&terms.url, Place::Address)?;
        let headers = terms
            .headers
            .iter()
            .map(|header| Ok((header.name.clone(), Template::parse(&header.value, Place::Header)?)));
        let headers = headers.collect::<Result<_, Error>>()?;
        let body = terms.body.as_deref().map(|body| Template::parse(body, Place::Body)).transpose()?;
        let template =
            terms.template.as_deref().and_then(templates::source).and_then(|t| t.postback.as_ref());
        let pattern = |own: &Option<String>, of: Option<&String>| {
            own.as_ref().or(of).and_then(|pattern| Regex::new(pattern).ok()) // both were checked
        };
        let success = pattern(&terms.success_pattern, template.and_then(|t| t.success_pattern.as_ref()));
        let failure = pattern(&terms.failure_pattern, template.and_then(|t| t.failure_pattern.as_ref()));
        Ok(Self { host: address.host(), address, headers, body, success, failure, target })
    }

    /// The request that tells this, at this time.
    pub fn message(&self, story: &Story, now: DateTime<Utc>) -> Message {
        let target = &self.target;
        let url = self.address.expand(story, &target.secret);
        if target.terms.kind == TargetKind::Webhook {
            return self.webhook(url, story, now);
        }
        let mut headers: Vec<(String, Expanded)> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.expand(story, ""))).collect();
        let body = self.body.as_ref().filter(|_| target.terms.method == Method::Post);
        let body = body.map(|body| body.expand(story, ""));
        if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type".to_owned(), shown("application/json")));
        }
        Message { method: target.terms.method, url, headers, body }
    }

    fn webhook(&self, url: Expanded, story: &Story, now: DateTime<Utc>) -> Message {
        let (id, body) = (story.delivery_id.to_string(), webhook_body(story));
        let secrets: Vec<&str> = [Some(&self.target.secret), self.target.previous_secret.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let signature = signature::of_message(&secrets, &id, now.timestamp(), &body);
        let headers = vec![
            ("Content-Type".to_owned(), shown("application/json")),
            ("webhook-id".to_owned(), shown(&id)),
            ("webhook-timestamp".to_owned(), shown(&now.timestamp().to_string())),
            ("webhook-signature".to_owned(), shown(&signature)),
        ];
        Message { method: Method::Post, url, headers, body: Some(shown(&body)) }
    }

    /// Whether an answer is a success; else why not.
    pub fn judge(&self, status: u16, answer: &str) -> Result<(), &'static str> {
        let terms = &self.target.terms;
        if !(terms.success_status_min..=terms.success_status_max).contains(&i32::from(status)) {
            return Err(if (300..400).contains(&status) { "a redirect" } else { "the status" });
        }
        if self.failure.as_ref().is_some_and(|failure| failure.is_match(answer)) {
            return Err("the answer says that it failed");
        }
        if self.success.as_ref().is_some_and(|success| !success.is_match(answer)) {
            return Err("the answer does not say that it succeeded");
        }
        Ok(())
    }
}

impl Message {
    /// The address, if it is one.
    pub fn address(&self) -> Option<Url> {
        Url::parse(&self.url.sent).ok()
    }
}

fn shown(text: &str) -> Expanded {
    Expanded { sent: text.to_owned(), shown: text.to_owned() }
}

/// `{type, timestamp, data}`
fn webhook_body(story: &Story) -> String {
    let Story { click, .. } = story;
    let payout = story.payout.map(|amount| json!({ "amount": plain(amount), "currency": story.currency }));
    json!({
        "type": format!("conversion.{}", story.status),
        "timestamp": story.changed_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "data": {
            "delivery_id": story.delivery_id,
            "conversion_id": story.conversion_id,
            "click_id": story.click_id,
            "campaign_id": story.campaign_id,
            "external_click_id": click.click_id_param,
            "status": story.status,
            "kind": story.kind,
            "goal": story.goal,
            "txid": story.txid,
            "payout": payout,
            "clicked_at": story.click_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "sub1": click.sub1,
            "sub2": click.sub2,
            "sub3": click.sub3,
            "sub4": click.sub4,
            "sub5": click.sub5,
            "country": click.country,
        },
    })
    .to_string()
}

/// Without zeros that say nothing.
fn plain(amount: Decimal) -> String {
    amount.normalize().to_string()
}
