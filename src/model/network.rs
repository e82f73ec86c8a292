//! An affiliate network: under which name its links take our click id, and what its words mean.

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::{
    money::Currency,
    source::{Macro, ParameterName},
    text::must_be_one_of,
};

/// Words of a status map at most.
pub const STATUSES_MAX: usize = 64;

/// What the owner says of an affiliate network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Whether it is put away: it is not offered to new offers, and those that have it go on.
    pub is_archived: bool,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
