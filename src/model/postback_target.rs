//! Whom conversions are told to: a traffic source by its postback, or whoever wants a webhook.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{conversion::Status, money::Money, text::must_be_one_of};

/// Most headers of a target.
pub const HEADERS_MAX: usize = 16;

/// Most goals of a target.
pub const GOALS_MAX: usize = 64;

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident $casing:tt { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        $(#[$meta])*
        #[serde(rename_all = $casing)]
        #[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
        #[strum(serialize_all = $casing, parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
        pub enum $name { $($(#[$doc])* $variant,)+ }
    };
}

choice! {
    /// What is sent.
    TargetKind "snake_case" {
        /// A request made of a template.
        #[default]
        Postback,
        /// A signed message by Standard Webhooks 1.0.
        Webhook,
    }
}

choice! {
    /// How a postback is sent.
    #[schema(as = PostbackMethod)]
    Method "UPPERCASE" {
        /// Everything in the address.
        #[default]
        Get,
        /// With a body.
        Post,
    }
}

choice! {
    /// Which changes of a conversion are told.
    #[schema(as = PostbackMode)]
    Mode "snake_case" {
        /// The first one that fits: each conversion is told once, and once more where it is taken back.
        #[default]
        First,
        /// Every one that fits.
        All,
    }
}

choice! {
    /// What is told of the payout.
    PayoutRule "snake_case" {
        /// What we get.
        #[default]
        AsIs,
        /// That times `payout_factor`.
        Factor,
        /// `payout_amount`.
        Fixed,
        /// Nothing.
        None,
    }
}

choice! {
    /// Why a target is paused.
    PauseReason "snake_case" {
        /// Somebody paused it.
        #[default]
        Owner,
        /// Too many attempts failed in a row.
        Failures,
        /// It answered 410 Gone.
        Gone,
    }
}

choice! {
    /// How far a delivery is.
    DeliveryState "snake_case" {
        /// It waits for its time, for an earlier one of its conversion, or for its target to be resumed.
        #[default]
        Pending,
        /// A node is sending it.
        Leased,
        /// The target took it.
        Delivered,
        /// It is given up; `reason` says why.
        Dead,
        /// The target cannot be told that something was taken back.
        NotSupported,
        /// Its target was deleted.
        Cancelled,
    }
}

choice! {
    /// Why a delivery was not made.
    DeliveryReason "snake_case" {
        /// The schedule came to its end.
        #[default]
        Attempts,
        /// The target answered 400, 401, 403 or 404 three times.
        Refused,
        /// It is older than the target takes.
        Expired,
        /// Its click was deleted.
        NoClick,
        /// The template of the target makes no request.
        Template,
        /// The target cannot be told that something was taken back.
        TakesNoRefunds,
        /// Its target was deleted.
        TargetDeleted,
    }
}

/// A header of the requests to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PostbackHeader)]
pub struct Header {
    /// Its name.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]{1,64}$", example = "Access-Token")]
    pub name: String,
    /// Its value, with macros.
    #[schema(min_length = 1, max_length = 1024, example = "{secret:abc123}")]
    pub value: String,
}

/// What the owner says of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PostbackTargetTerms)]
pub struct TargetTerms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "PropellerAds")]
    pub name: String,
    /// The template it was made from. What decides whether an answer is a success is as that says, where it is null here.
    #[schema(example = "propellerads")]
    pub template: Option<String>,
    /// It is told of the clicks of this traffic source; null: of every source.
    #[schema(minimum = 1, example = 3)]
    pub traffic_source_id: Option<i64>,
    /// It is told of the clicks of this campaign; null: of every campaign.
    #[schema(example = "019aaf3c-5f00-7abc-8def-0123456789ab")]
    pub campaign_id: Option<Uuid>,
    /// What is sent.
    pub kind: TargetKind,
    /// How a postback is sent; a webhook is always a POST.
    pub method: Method,
    /// Where to, with macros behind the host. What is secret in it is shown as `***`; an address that is given back like
    /// that stays as it was.
    #[schema(
        min_length = 1,
        max_length = 4096,
        format = "url-template",
        example = "https://ads.example/postback?id={external_click_id}&payout={payout}"
    )]
    pub url: String,
    /// Headers of a postback, at most 16.
    #[schema(max_items = 16)]
    pub headers: Vec<Header>,
    /// Body of a postback by POST, with macros. Values are escaped as in JSON.
    #[schema(max_length = 16384, example = "{\"click\": \"{external_click_id}\", \"value\": {payout|0}}")]
    pub body: Option<String>,
    /// Of `pending` and `approved`, those it is told of.
    #[schema(min_items = 1, max_items = 2, example = json!(["approved"]))]
    pub statuses: Vec<Status>,
    /// The goals it is told of, at most 64; none: all.
    #[schema(max_items = 64, example = json!(["deposit"]))]
    pub goals: Vec<String>,
    /// Which changes of a conversion are told.
    pub mode: Mode,
    /// What is told of the payout.
    pub payout_rule: PayoutRule,
    /// Of `factor`: from 0 to 1000.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = Option<String>, example = "0.8")]
    pub payout_factor: Option<Decimal>,
    /// Of `fixed`.
    pub payout_amount: Option<Money>,
    /// The lowest status of a success.
    #[schema(minimum = 200, maximum = 599, example = 200)]
    pub success_status_min: i32,
    /// The highest status of a success.
    #[schema(minimum = 200, maximum = 599, example = 299)]
    pub success_status_max: i32,
    /// What the answer to a success matches (a regular expression).
    #[schema(min_length = 1, max_length = 256, example = "^OK")]
    pub success_pattern: Option<String>,
    /// What the answer to a success does not match (a regular expression).
    #[schema(min_length = 1, max_length = 256, example = "ERROR")]
    pub failure_pattern: Option<String>,
    /// Redirects that are followed; a redirect more is a failure.
    #[schema(minimum = 0, maximum = 3, example = 0)]
    pub follow_redirects: i32,
    /// Days that the target takes a conversion afterwards; null: always.
    #[schema(minimum = 1, maximum = 365, example = 7)]
    pub window_days: Option<i32>,
    /// Whether it is told that a conversion was rejected or refunded, of which it was told.
    pub takes_refunds: bool,
    /// Whether anything is queued for it.
    pub is_active: bool,
}

impl Default for TargetTerms {
    fn default() -> Self {
        Self {
            name: String::new(),
            template: None,
            traffic_source_id: None,
            campaign_id: None,
            kind: TargetKind::default(),
            method: Method::default(),
            url: String::new(),
            headers: Vec::new(),
            body: None,
            statuses: vec![Status::Approved],
            goals: Vec::new(),
            mode: Mode::default(),
            payout_rule: PayoutRule::default(),
            payout_factor: None,
            payout_amount: None,
            success_status_min: 200,
            success_status_max: 299,
            success_pattern: None,
            failure_pattern: None,
            follow_redirects: 0,
            window_days: None,
            takes_refunds: false,
            is_active: true,
        }
    }
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn as_text<S: Serializer>(factor: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    factor.map(|factor| factor.normalize().to_string()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables hold them.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        assert_eq!(
            DeliveryState::VARIANTS.join(" "),
            "pending leased delivered dead not_supported cancelled"
        );
        let reasons = "attempts refused expired no_click template takes_no_refunds target_deleted";
        assert_eq!(DeliveryReason::VARIANTS.join(" "), reasons);
        assert_eq!(PauseReason::VARIANTS.join(" "), "owner failures gone");
        assert_eq!(TargetKind::VARIANTS.join(" "), "postback webhook");
        assert_eq!(Method::VARIANTS.join(" "), "GET POST");
        assert_eq!(Mode::VARIANTS.join(" "), "first all");
        assert_eq!(PayoutRule::VARIANTS.join(" "), "as_is factor fixed none");
    }
}
