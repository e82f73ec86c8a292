//! An affiliate network: under which name its links take our click id, and what its words mean.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::{
    money::Currency,
    postback::{PostbackKey, PostbackToken},
    source::{Macro, ParameterName},
    text::must_be_one_of,
};

/// Words of a status map at most.
pub const STATUSES_MAX: usize = 64;

/// Networks of addresses of a network at most.
pub const ADDRESSES_MAX: usize = 64;

/// Names of its own of a network at most.
pub const PARAMETERS_MAX: usize = 16;

/// Longest time in which the same once more is a retry: seven days.
pub const RETRY_WINDOW_S_MAX: u32 = 7 * 86_400;

/// How long that is where nothing else is said.
pub const RETRY_WINDOW_S: u32 = 3600;

/// What the owner says of an affiliate network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AffiliateNetworkTerms)]
pub struct NetworkTerms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "Everflow")]
    pub name: String,
    /// The template it was made from.
    #[schema(example = "everflow")]
    pub template: Option<String>,
    /// The parameter of its links that takes our click id; an offer of the network whose URL does not carry the id is
    /// given it there.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._~:-]{1,64}$", example = "sub1")]
    pub click_id_parameter: Option<ParameterName>,
    /// What stands for our click id in the address that it calls on a conversion.
    #[schema(value_type = Option<String>, pattern = "^[!#-%'-;=?-\\[\\]-_a-~]{1,128}$", example = "{sub1}")]
    pub click_id_macro: Option<Macro>,
    /// What its words for the state of a conversion mean; at most 64.
    #[schema(max_items = 64)]
    pub status_map: Vec<StatusWord>,
    /// The currency of its money, where it says none.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z]{3}$", example = "USD")]
    pub currency: Option<Currency>,
    /// What another report of the same click and goal is.
    pub repeats: Repeats,
    /// The key in the address to which it sends postbacks; `null` makes a new one.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{8,64}$", example = "0f4b7c1a9d3e4f60")]
    pub postback_key: Option<PostbackKey>,
    /// A secret that its postbacks must carry as `token`. It is kept as a hash only, and shown as `***`, which leaves it
    /// as it is.
    #[schema(value_type = Option<String>, pattern = "^(?:[!-~]{8,128}|\\*\\*\\*)$", example = "***")]
    pub postback_token: Option<PostbackToken>,
    /// Where its postbacks must come from: networks (CIDR) or addresses; at most 64, and from anywhere where there is none.
    #[schema(value_type = Vec<String>, max_items = 64, example = json!(["198.51.100.0/24"]))]
    pub postback_addresses: Vec<IpNet>,
    /// Names under which it sends what, beside those that everybody knows; at most 16.
    #[schema(max_items = 16)]
    pub postback_parameters: Vec<PostbackParameter>,
    /// What a postback without a word for the state means; approved where it is not said.
    pub default_status: Option<MappedStatus>,
    /// Seconds in which the same once more is a retry and nothing new, where `repeats` is `new` or `add`; at most 604800.
    #[schema(minimum = 0, maximum = 604_800, example = 3600)]
    pub retry_window_s: u32,
    /// Whether it sends lists of amounts (`12.5,3`), of which those that are filled are added up.
    pub sums_lists: bool,
    /// Whether it is put away: it is not offered to new offers, and those that have it go on.
    pub is_archived: bool,
}

impl Default for NetworkTerms {
    fn default() -> Self {
        Self {
            name: String::new(),
            template: None,
            click_id_parameter: None,
            click_id_macro: None,
            status_map: Vec::new(),
            currency: None,
            repeats: Repeats::default(),
            postback_key: None,
            postback_token: None,
            postback_addresses: Vec::new(),
            postback_parameters: Vec::new(),
            default_status: None,
            retry_window_s: RETRY_WINDOW_S,
            sums_lists: false,
            is_archived: false,
        }
    }
}

impl NetworkTerms {
    /// How its postbacks are read, and what becomes of them.
    pub fn rules(&self) -> PostbackRules {
        PostbackRules {
            parameters: self.postback_parameters.clone(),
            status_map: self.status_map.clone(),
            default_status: self.default_status,
            currency: self.currency,
            repeats: self.repeats,
            retry_window_s: self.retry_window_s,
            sums_lists: self.sums_lists,
            needs_key: self.postback_token.is_some() || !self.postback_addresses.is_empty(),
        }
    }
}

/// What a word of a network means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusWord {
    /// As the network sends it, in any case: 1 to 64 characters, not only spaces.
    #[schema(min_length = 1, max_length = 64, pattern = "[^\\s]", example = "lead")]
    pub word: String,
    /// What it means.
    pub status: MappedStatus,
    /// The goal that was reached, where the word names one (`dep`): 1 to 64 characters, not only spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "[^\\s]", example = "deposit")]
    pub goal: Option<String>,
}

/// The state of a conversion that a network's word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum MappedStatus {
    /// Not decided yet.
    Pending,
    /// It will be paid.
    Approved,
    /// It will not be paid.
    Rejected,
    /// It was paid, and is taken back.
    Refunded,
    /// A further payment of a conversion that was approved.
    Rebill,
    /// It is no conversion.
    Ignored,
}

/// What another report of the same click and goal, with no other transaction id, is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Repeats {
    /// News of the same conversion: status and money are those of the last report.
    #[default]
    Update,
    /// Nothing.
    Ignore,
    /// Another conversion.
    New,
    /// More money for the same conversion.
    Add,
}

/// How the postbacks of a network are read, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)] // nodes keep it in a file, which an earlier release may have written
pub struct PostbackRules {
    /// Under which names it sends what; before the names that everybody knows.
    pub parameters: Vec<PostbackParameter>,
    /// What its words for the state of a conversion mean; before those that everybody knows.
    pub status_map: Vec<StatusWord>,
    /// What a postback without a word means; approved where it is not said.
    pub default_status: Option<MappedStatus>,
    /// The currency of its money, where it says none.
    pub currency: Option<Currency>,
    /// What another report of the same click and goal is.
    pub repeats: Repeats,
    /// Seconds in which the same once more is a retry, and nothing new.
    pub retry_window_s: u32,
    /// Whether two filled amounts of a list (`12.5,3`) are added up.
    pub sums_lists: bool,
    /// Whether a postback without its key is not believed: the network asks for a token or for its addresses.
    pub needs_key: bool,
}

/// Of a network of which nothing is said.
impl Default for PostbackRules {
    fn default() -> Self {
        NetworkTerms::default().rules()
    }
}

/// Under which name a network sends a field of its postbacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PostbackParameter {
    /// What it is.
    pub field: PostbackField,
    /// Its name; letters' case, `-` and `_` make no difference.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._~:-]{1,64}$", example = "aff_sub")]
    pub name: ParameterName,
}

/// What a postback says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumIter, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum PostbackField {
    /// Our click id, or `<click id>.<offer id>`.
    ClickId,
    /// The network's id of the conversion.
    Txid,
    /// What we are paid.
    Payout,
    /// What the visitor paid: never our revenue.
    SaleAmount,
    /// The currency of the payout.
    Currency,
    /// The network's word for the state.
    Status,
    /// More about the state, for people.
    StatusDetail,
    /// What was reached.
    Goal,
    /// When it happened.
    Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables hold them.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        assert_eq!(MappedStatus::VARIANTS.join(" "), "pending approved rejected refunded rebill ignored");
        assert_eq!(Repeats::VARIANTS.join(" "), "update ignore new add");
    }
}
