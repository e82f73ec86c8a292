//! What is said of an out-click in few words: what carried its click, and what was wrong with that.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::text::must_be_one_of;

/// What told which click an out-click belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Carrier {
    /// The token of the link.
    Token,
    /// The cookie that the click set.
    Cookie,
    /// Nothing: a visitor without a click.
    #[default]
    None,
}

/// Why an out-click has no click, or not the one that its link named. The visitor reaches an offer all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Problem {
    /// The link has no token, and no cookie came.
    NoToken,
    /// The token is cut off, changed, or none at all.
    BadToken,
    /// The token is older than `tracking.token_days`.
    OldToken,
    /// The token was sealed with a key that is not known here.
    Foreign,
    /// The token is of a campaign that is not known (any more).
    UnknownCampaign,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Journals and tables hold them; the name of a variant may change, its text may not.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        assert_eq!(Carrier::VARIANTS.join(" "), "token cookie none");
        let problems = "no_token bad_token old_token foreign unknown_campaign";
        assert_eq!(Problem::VARIANTS.join(" "), problems);
        for problem in Problem::VARIANTS {
            assert_eq!(problem.parse::<Problem>().unwrap().to_string(), *problem);
        }
    }
}
