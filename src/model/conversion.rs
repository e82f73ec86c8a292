//! What is said of a conversion, and of the postback that tells of it, in few words.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::text::must_be_one_of;

/// A closed choice that tables and journals hold by its name.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        $(#[$meta])*
        #[serde(rename_all = "snake_case")]
        #[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
        #[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
        pub enum $name { $($(#[$doc])* $variant,)+ }
    };
}

choice! {
    /// The state of a conversion.
    #[schema(as = ConversionStatus)]
    Status {
        /// Not decided yet.
        Pending,
        /// It is paid, or will be.
        Approved,
        /// It will not be paid.
        Rejected,
        /// It was paid, and is taken back.
        Refunded,
        /// The network's word is not known: it counts, without money, until somebody maps the word.
        Unmapped,
        /// It is no conversion any more, because its word was mapped to that.
        Ignored,
    }
}

impl Status {
    /// Whether somebody decided: a late `pending` does not undo it.
    pub fn is_decided(self) -> bool {
        matches!(self, Self::Approved | Self::Rejected | Self::Refunded)
    }

    /// Whether its payout counts: of the others nothing is left, or nothing is known.
    pub fn has_money(self) -> bool {
        matches!(self, Self::Pending | Self::Approved)
    }
}

choice! {
    /// What a conversion is.
    ConversionKind {
        /// Something that a visitor did.
        Conversion,
        /// A further payment of one: it is in the revenue, and in no rate of conversions.
        Rebill,
        /// Money that moves without a conversion: a negative payout of its own.
        Correction,
    }
}

choice! {
    /// How a postback came.
    #[schema(as = PostbackChannel)]
    Channel {
        /// A request.
        Http,
        /// A line of a file.
        Import,
        /// Somebody with a token of the API.
        Api,
    }
}

choice! {
    /// Why a postback was not let in.
    #[schema(as = PostbackRefusal)]
    Refusal {
        /// The key in its path is nobody's.
        WrongKey,
        /// The network asks for a token, and this is another one or none.
        WrongToken,
        /// The network asks for its own addresses, and this is none of them.
        WrongAddress,
    }
}

choice! {
    /// What became of a postback.
    #[schema(as = PostbackOutcome)]
    Outcome {
        /// It made a conversion or tells of one.
        Accepted,
        /// It is kept, and of no conversion.
        Ignored,
        /// It was not let in.
        Refused,
        /// Its click is not stored yet.
        Waiting,
        /// Its click did not come in seven days.
        Orphan,
    }
}

choice! {
    /// What is particular about the outcome of a postback.
    #[schema(as = PostbackOutcomeReason)]
    OutcomeReason {
        /// It names no click.
        NoClickId,
        /// What it names is no click id of ours: perhaps another tracker's, or an unexpanded macro.
        BadClickId,
        /// Its word means that it is no conversion.
        IgnoredStatus,
        /// Its click has too many postbacks.
        TooMany,
        /// The key in its path is nobody's.
        WrongKey,
        /// Its token is another one.
        WrongToken,
        /// It came from an address that is not its network's.
        WrongAddress,
        /// The same once more: nothing changed.
        Repeat,
        /// `pending` behind a decision: nothing changed.
        LatePending,
        /// Its word is not known: nothing is paid until it is mapped.
        Unmapped,
    }
}

impl From<Refusal> for OutcomeReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WrongKey => Self::WrongKey,
            Refusal::WrongToken => Self::WrongToken,
            Refusal::WrongAddress => Self::WrongAddress,
        }
    }
}

choice! {
    /// What of a postback could not be used as it was sent, or had to be made up.
    #[schema(as = ConversionFlag)]
    Flag {
        /// Its payout is no amount: as if it were not there.
        PayoutUnreadable,
        /// Its currency is none that is known: the amount is kept, and added to nothing.
        CurrencyUnknown,
        /// A macro that the network did not fill.
        UnexpandedMacro,
        /// The transaction id is the click's own, or too long: as if it were not there.
        TxidUnusable,
        /// Its time is no time, lies ahead, or before the click.
        TimeUnusable,
        /// Neither the postback nor the offer says what it pays: 0.
        NoPayout,
        /// A repeat that counts as another one, without a transaction id to tell them apart.
        NoTxid,
        /// A part of it was refunded.
        PartlyRefunded,
    }
}

choice! {
    /// Which day the lines of a network's report have.
    #[derive(Default)]
    ReportDate {
        /// That of the conversion.
        #[default]
        Conversion,
        /// That of its click.
        Click,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Journals and tables hold them; the name of a variant may change, its text may not.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        assert_eq!(Status::VARIANTS.join(" "), "pending approved rejected refunded unmapped ignored");
        assert_eq!(ConversionKind::VARIANTS.join(" "), "conversion rebill correction");
        assert_eq!(Channel::VARIANTS.join(" "), "http import api");
        assert_eq!(Refusal::VARIANTS.join(" "), "wrong_key wrong_token wrong_address");
        assert_eq!(Outcome::VARIANTS.join(" "), "accepted ignored refused waiting orphan");
        let reasons = "no_click_id bad_click_id ignored_status too_many wrong_key wrong_token wrong_address repeat \
                       late_pending unmapped";
        assert_eq!(OutcomeReason::VARIANTS.join(" "), reasons);
        let flags = "payout_unreadable currency_unknown unexpanded_macro txid_unusable time_unusable no_payout no_txid \
                     partly_refunded";
        assert_eq!(Flag::VARIANTS.join(" "), flags);
    }
}
