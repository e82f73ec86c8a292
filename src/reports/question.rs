//! What a report is asked: dimensions, measures and filters, each of a closed list.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};
use utoipa::ToSchema;

use crate::model::{money::Currency, text::must_be_one_of};

/// Dimensions that a report is grouped by at most.
pub const GROUPS_MAX: usize = 4;

/// Filters of a report at most.
pub const FILTERS_MAX: usize = 8;

/// Values of a filter at most.
pub const VALUES_MAX: usize = 256;

/// What stands for a value that is not known.
pub const UNKNOWN: &str = "unknown";

/// What stands for all values of a dimension that are not kept one by one. No value is this: none has such a character.
pub const OTHER: &str = "\0";

/// A closed choice of the API.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        $(#[$meta])*
        #[serde(rename_all = "snake_case")]
        #[derive(strum::Display, EnumString, IntoStaticStr, VariantNames, VariantArray)]
        #[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
        pub enum $name { $($(#[$doc])* $variant,)+ }
    };
}

choice! {
    /// What figures are told apart by.
    #[schema(as = ReportDimension)]
    Dimension {
        /// The campaign, by its id.
        Campaign,
        /// The traffic source of the library, by its id.
        Source,
        /// The rule that took the click, by its id; 0 is the default rule.
        Rule,
        /// The path it took, by its id; 0 is the only path of the default rule.
        Path,
        /// The landing page, by its id.
        LandingPage,
        /// The offer, by its id.
        Offer,
        /// ISO 3166-1 alpha-2.
        Country,
        /// The part of ISO 3166-2 behind the country.
        Region,
        /// Its English name.
        City,
        /// The language the browser asks for most.
        Language,
        /// `desktop`, `mobile`, ...
        Device,
        /// Operating system.
        Os,
        /// Version of the operating system.
        OsVersion,
        /// Browser.
        Browser,
        /// Version of the browser.
        BrowserVersion,
        /// Who provides the connection.
        Isp,
        /// The kind of connection.
        Connection,
        /// The host of the referrer.
        ReferrerHost,
        /// `sub1` of the link.
        Sub1,
        /// `sub2` of the link.
        Sub2,
        /// `sub3` of the link.
        Sub3,
        /// `sub4` of the link.
        Sub4,
        /// `sub5` of the link.
        Sub5,
        /// `aff_sub` of the link.
        AffSub,
        /// `aff_sub2` of the link.
        AffSub2,
        /// `aff_sub3` of the link.
        AffSub3,
        /// `aff_sub4` of the link.
        AffSub4,
        /// `aff_sub5` of the link.
        AffSub5,
        /// The keyword the source says.
        Keyword,
        /// The creative the source says.
        Creative,
        /// The placement the source says.
        Placement,
        /// Why the click does not count; `unknown`: it does.
        Reason,
        /// The goal of the conversion; `unknown` is what has none: clicks.
        Goal,
        /// The state of the conversion; `unknown` is what has none: clicks.
        Status,
        /// The currency of the amount, as it came.
        Currency,
        /// The hour, by when it begins (RFC 3339, UTC).
        Hour,
        /// The hour of the day in the time zone, 0 to 23.
        HourOfDay,
        /// The day in the time zone.
        Day,
        /// The day of the week in the time zone: 1 is Monday.
        Weekday,
        /// The week in the time zone, by its Monday.
        Week,
        /// The month in the time zone, such as `2026-11`.
        Month,
    }
}

impl Dimension {
    /// Whether the sums of hours and days are told apart by it.
    pub fn is_summed(self) -> bool {
        self.is_alone() || self.is_time() || self.is_of_conversions()
    }

    /// Whether it is a campaign or a part of one.
    pub fn is_of_campaign(self) -> bool {
        matches!(self, Self::Campaign | Self::Rule | Self::Path | Self::LandingPage | Self::Offer)
    }

    /// Whether there are sums of it alone, by campaign and day.
    pub fn is_alone(self) -> bool {
        matches!(
            self,
            Self::Campaign
                | Self::Source
                | Self::Rule
                | Self::Path
                | Self::LandingPage
                | Self::Offer
                | Self::Country
                | Self::Device
                | Self::Os
                | Self::Browser
                | Self::Reason
        )
    }

    /// Whether the values of it that were clicked most are kept, by campaign and day.
    pub fn has_top_values(self) -> bool {
        matches!(
            self,
            Self::Sub1
                | Self::Sub2
                | Self::Sub3
                | Self::Sub4
                | Self::Sub5
                | Self::Keyword
                | Self::Creative
                | Self::Placement
        )
    }

    /// Whether every sum is told apart by it.
    pub fn is_of_conversions(self) -> bool {
        matches!(self, Self::Goal | Self::Status | Self::Currency)
    }

    /// Whether it is a time.
    pub fn is_time(self) -> bool {
        self.is_within_days() || matches!(self, Self::Day | Self::Weekday | Self::Week | Self::Month)
    }

    /// Whether it tells apart what is of one day.
    pub fn is_within_days(self) -> bool {
        matches!(self, Self::Hour | Self::HourOfDay)
    }
}

choice! {
    /// A figure. Ratios are null where there is nothing to divide by.
    #[schema(as = ReportMeasure)]
    Measure {
        /// All clicks.
        Clicks,
        /// Clicks that count.
        ValidClicks,
        /// Clicks of known robots.
        BotClicks,
        /// First valid clicks of a visitor in a campaign on a day (UTC); of several days the sum of their days.
        UniqueClicks,
        /// Clicks that count and were sent to a landing page.
        LanderViews,
        /// Those of them that went on to an offer.
        LanderClicks,
        /// `lander_clicks / lander_views`
        LpCtr,
        /// Clicks that came to an offer: those that were sent there, and from landing pages the first to each offer.
        OfferClicks,
        /// Conversions that are pending or approved, without further payments (rebills).
        Conversions,
        /// Conversions that nobody decided yet.
        Pending,
        /// Conversions that are approved.
        Approved,
        /// Conversions that are rejected.
        Rejected,
        /// Conversions that were approved and taken back.
        Refunded,
        /// Conversions with a word for their state that nobody mapped.
        Unmapped,
        /// `conversions / clicks`, of the clicks that `validity` says.
        Cr,
        /// `conversions / offer_clicks`
        OfferCr,
        /// `approved / (approved + rejected)`
        ApproveRate,
        /// `approved / (pending + approved + rejected + refunded + unmapped)`
        ApproveRateOfAll,
        /// What approved conversions pay.
        Revenue,
        /// What pending ones would pay.
        RevenuePending,
        /// What rejected ones would have paid.
        RevenueRejected,
        /// What was paid and taken back.
        RevenueRefunded,
        /// What the clicks cost.
        Cost,
        /// `revenue - cost`
        Profit,
        /// `revenue + revenue_pending - cost`
        ProfitExpected,
        /// `profit / cost`
        Roi,
        /// `revenue / clicks`, of the clicks that `validity` says.
        Epc,
        /// `revenue / offer_clicks`
        EpcOffer,
        /// `cost / clicks`, of the clicks that `validity` says.
        Cpc,
        /// `cost / approved`
        Cpa,
        /// `1000 * revenue / clicks`, of the clicks that `validity` says.
        Ecpm,
    }
}

impl Measure {
    /// Whether it is an amount of money.
    pub fn is_money(self) -> bool {
        use Measure as M;
        matches!(
            self,
            M::Revenue
                | M::RevenuePending
                | M::RevenueRejected
                | M::RevenueRefunded
                | M::Cost
                | M::Profit
                | M::ProfitExpected
                | M::Epc
                | M::EpcOffer
                | M::Cpc
                | M::Cpa
                | M::Ecpm
        )
    }

    /// Whether it is a whole number.
    pub fn is_count(self) -> bool {
        use Measure as M;
        matches!(
            self,
            M::Clicks
                | M::ValidClicks
                | M::BotClicks
                | M::UniqueClicks
                | M::LanderViews
                | M::LanderClicks
                | M::OfferClicks
                | M::Conversions
                | M::Pending
                | M::Approved
                | M::Rejected
                | M::Refunded
                | M::Unmapped
        )
    }

    /// Whether costs are needed for it.
    pub fn needs_cost(self) -> bool {
        use Measure as M;
        matches!(self, M::Cost | M::Profit | M::ProfitExpected | M::Roi | M::Cpc | M::Cpa)
    }

    /// Whether conversions are needed for it.
    pub fn needs_conversions(self) -> bool {
        use Measure as M;
        !matches!(
            self,
            M::Clicks
                | M::ValidClicks
                | M::BotClicks
                | M::UniqueClicks
                | M::LanderViews
                | M::LanderClicks
                | M::LpCtr
                | M::OfferClicks
                | M::Cost
                | M::Cpc
        )
    }
}

choice! {
    /// Which time a conversion stands at. Clicks and what they cost always stand at the time of the click.
    #[schema(as = ReportTime)]
    TimeKind {
        /// The time of its click: what the traffic of a day was worth.
        Click,
        /// When it happened.
        Conversion,
        /// When it changed: what is said of a day that is over stays as it is.
        Change,
    }
}

choice! {
    /// Which clicks ratios are divided by.
    #[schema(as = ReportValidity)]
    Validity {
        /// Clicks that count.
        Valid,
        /// All clicks.
        All,
    }
}

choice! {
    /// What a report is compared with.
    #[schema(as = ReportComparison)]
    Comparison {
        /// Nothing.
        None,
        /// As long a time just before.
        Previous,
    }
}

choice! {
    /// How values of a filter are compared.
    #[schema(as = ReportMatch)]
    Match {
        /// It is one of them; `unknown` is what is not known.
        Is,
        /// It is none of them.
        IsNot,
        /// One of them is in it, in whatever case.
        Contains,
        /// It begins with one of them, in whatever case.
        Starts,
    }
}

/// Facts that are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What is looked at.
    pub dimension: Dimension,
    /// How.
    pub matching: Match,
    /// One of these.
    pub values: Vec<String>,
}

impl Filter {
    /// Whether it leaves a value in.
    pub fn takes(&self, value: &str) -> bool {
        let small = value.to_lowercase();
        let mut values = self.values.iter();
        match self.matching {
            Match::Is => values.any(|wanted| wanted == value),
            Match::IsNot => !values.any(|wanted| wanted == value),
            Match::Contains => values.any(|wanted| small.contains(&wanted.to_lowercase())),
            Match::Starts => values.any(|wanted| small.starts_with(&wanted.to_lowercase())),
        }
    }
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A dimension that the report is grouped by.
    Dimension(Dimension),
    /// A measure; nothing to divide by comes last.
    Measure(Measure),
}

/// The order of rows; equal ones follow in the order of their dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What is looked at.
    pub by: By,
    /// The greatest first.
    pub is_descending: bool,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What rows are told apart by: at most [`GROUPS_MAX`], each once.
    pub group_by: Vec<Dimension>,
    /// What is shown of each row.
    pub measures: Vec<Measure>,
    /// All of them hold.
    pub filters: Vec<Filter>,
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The moment after the last.
    pub to: DateTime<Utc>,
    /// Whose days, weeks and months count.
    pub tz: Tz,
    /// Where conversions stand.
    pub time: TimeKind,
    /// What amounts are converted to.
    pub currency: Currency,
    /// Which clicks ratios are divided by.
    pub validity: Validity,
    /// The order of rows.
    pub order: Order,
}

impl Question {
    /// Whether costs are needed.
    pub fn needs_cost(&self) -> bool {
        self.measures.iter().any(|measure| measure.needs_cost())
    }

    /// Whether conversions are needed.
    pub fn needs_conversions(&self) -> bool {
        self.measures.iter().any(|measure| measure.needs_conversions())
            || self.group_by.iter().any(|dimension| dimension.is_of_conversions())
    }

    /// Whether amounts are needed.
    pub fn needs_money(&self) -> bool {
        self.measures.iter().any(|measure| measure.is_money() || measure.needs_cost())
    }

    /// The dimensions that are grouped by or looked at.
    pub fn dimensions(&self) -> impl Iterator<Item = Dimension> {
        self.group_by.iter().copied().chain(self.filters.iter().map(|filter| filter.dimension))
    }

    /// Whether figures of a campaign are asked for, whatever else is.
    pub fn has_campaign(&self, id: &str) -> bool {
        let of_campaigns = self.filters.iter().filter(|filter| filter.dimension == Dimension::Campaign);
        of_campaigns.into_iter().all(|filter| filter.takes(id))
    }

    /// The same of all rows together.
    #[must_use]
    pub fn in_total(&self) -> Self {
        Self { group_by: Vec::new(), ..self.clone() }
    }

    /// The same of as long a time just before.
    #[must_use]
    pub fn before(&self) -> Self {
        Self { from: self.from - (self.to - self.from), to: self.from, ..self.clone() }
    }
}
