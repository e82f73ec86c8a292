//! What the forms of the library ask for, in the words of the API: each field has the name that the API gives it.

use super::Shelf;

/// How a field is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// A line of at most so many characters, for people.
    Line(u32),
    /// A line that machines read.
    Code(u32),
    /// A list, one entry a line.
    Lines,
    /// A whole number.
    Number,
    /// The amount of the payout.
    Amount,
    /// The currency of the payout.
    Currency,
    /// One of these: value and label. Where the first value is empty, none is a choice too.
    Choice(&'static [(&'static str, &'static str)]),
    /// One of the networks, or none.
    Network,
    /// One of the offers, or none.
    Offer,
    /// Yes or no.
    Check,
}

/// A field of a form, or a column of a table in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// Its name in the form and in the API.
    pub(super) name: &'static str,
    /// For people.
    pub(super) label: &'static str,
    /// What stands below it.
    pub(super) hint: &'static str,
    /// How it is filled in.
    pub(super) control: Control,
}

/// A list of objects, of which each is a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// Its name in the form and in the API.
    pub(super) name: &'static str,
    /// For people.
    pub(super) label: &'static str,
    /// What stands below it.
    pub(super) hint: &'static str,
    /// What a row has.
    pub(super) columns: &'static [Field],
}

/// What a form asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    /// Before the tables.
    pub(super) fields: &'static [Field],
    /// The lists.
    pub(super) tables: &'static [Table],
}

const fn field(name: &'static str, label: &'static str, control: Control, hint: &'static str) -> Field {
    Field { name, label, hint, control }
}

const NAME: Field = field("name", "Name", Control::Line(255), "");

const WEB_URL: Field = field(
    "web_url",
    "Address for other devices",
    Control::Code(8192),
    "Where a visitor goes whose device cannot open the app that the address leads to. Empty for web pages.",
);

const SOURCE: Spec = Spec {
    fields: &[
        NAME,
        field(
            "postback_url",
            "Postback to the source",
            Control::Code(4096),
            "Where the source is told of a conversion. {external_click_id} becomes its own id of the click, {payout} what we are \
             paid. While REPLACE stands in it, nothing is sent.",
        ),
    ],
    tables: &[Table {
        name: "parameters",
        label: "Parameters",
        hint: "What the links of the source carry. The source puts a value in the place of the macro; a click keeps it where the \
               third column says. Leave the macro empty where the source adds the parameter by itself.",
        columns: &[
            field("name", "Parameter", Control::Code(64), ""),
            field("macro", "Macro", Control::Code(128), ""),
            field("slot", "Kept as", Control::Choice(SLOTS), ""),
            field("unit", "Cost of", Control::Choice(UNITS), ""),
            field("currency", "Currency of a cost", Control::Code(3), ""),
        ],
    }],
};

const SLOTS: &[(&str, &str)] = &[
    ("", "\u{2013}"),
    ("click_id", "their click id"),
    ("cost", "cost"),
    ("sub1", "sub1"),
    ("sub2", "sub2"),
    ("sub3", "sub3"),
    ("sub4", "sub4"),
    ("sub5", "sub5"),
    ("keyword", "keyword"),
    ("creative", "creative"),
    ("placement", "placement"),
];

const UNITS: &[(&str, &str)] = &[("", "\u{2013}"), ("click", "a click"), ("mille", "a thousand")];

const STATUSES: &[(&str, &str)] = &[
    ("", "\u{2013}"),
    ("pending", "pending"),
    ("approved", "approved"),
    ("rejected", "rejected"),
    ("refunded", "refunded"),
    ("rebill", "rebill"),
    ("ignored", "ignored"),
];

const NETWORK: Spec = Spec {
    fields: &[
        NAME,
        field(
            "click_id_parameter",
            "Parameter for our click id",
            Control::Code(64),
            "The parameter of its links that takes our click id; offers of the network get it in their address.",
        ),
        field(
            "click_id_macro",
            "Its macro for our click id",
            Control::Code(128),
            "What stands for our click id in the address that the network calls, such as {sub1}.",
        ),
        field("currency", "Currency", Control::Code(3), "Of its money, where its postbacks name none."),
        field(
            "default_status",
            "Without a status",
            Control::Choice(STATUSES),
            "What a postback without a status means; approved where nothing is chosen.",
        ),
        field(
            "repeats",
            "The same once more",
            Control::Choice(&[
                ("update", "is news of the same conversion"),
                ("ignore", "is ignored"),
                ("new", "is another conversion"),
                ("add", "is more money for the same conversion"),
            ]),
            "What another postback of the same click and goal is.",
        ),
        field(
            "retry_window_s",
            "Seconds of a retry",
            Control::Number,
            "In which the same once more is a retry and nothing new, where it would be a conversion or money else.",
        ),
        field("sums_lists", "It sends lists of amounts (12.5,3), which are added up", Control::Check, ""),
        field(
            "postback_key",
            "Key in its postback address",
            Control::Code(64),
            "8 to 64 of A-Z a-z 0-9 _ -. Empty makes a new one; with the old one it is refused from then on.",
        ),
        field(
            "postback_token",
            "Secret of its postbacks",
            Control::Code(128),
            "What they must carry as token, if anything. It is shown as ***, which leaves it as it is.",
        ),
        field(
            "postback_addresses",
            "Addresses it sends from",
            Control::Lines,
            "One address or network a line, such as 198.51.100.0/24. Empty takes postbacks from anywhere.",
        ),
    ],
    tables: &[
        Table {
            name: "status_map",
            label: "Words for the state of a conversion",
            hint: "What each of its words means, and the goal where the word names one.",
            columns: &[
                field("word", "Its word", Control::Code(64), ""),
                field("status", "Means", Control::Choice(STATUSES), ""),
                field("goal", "Goal", Control::Code(64), ""),
            ],
        },
        Table {
            name: "postback_parameters",
            label: "Names of its own",
            hint: "Under which it sends what, beside the names that everybody knows.",
            columns: &[
                field(
                    "field",
                    "What",
                    Control::Choice(&[
                        ("", "\u{2013}"),
                        ("click_id", "our click id"),
                        ("txid", "transaction id"),
                        ("payout", "payout"),
                        ("sale_amount", "what the buyer paid"),
                        ("currency", "currency"),
                        ("status", "status"),
                        ("status_detail", "more about the status"),
                        ("goal", "goal"),
                        ("time", "time"),
                    ]),
                    "",
                ),
                field("name", "Its name", Control::Code(64), ""),
            ],
        },
    ],
};

const LANDER: Spec = Spec {
    fields: &[
        NAME,
        field(
            "url",
            "Address",
            Control::Code(8192),
            "Clicks go there. {out_url} becomes the link to the offer, {click_id} the id of the click.",
        ),
        WEB_URL,
    ],
    tables: &[],
};

const OFFER: Spec = Spec {
    fields: &[
        NAME,
        field(
            "url",
            "Address",
            Control::Code(8192),
            "{click_id} becomes the id of the click, which the network sends back with a conversion. With a network that takes it \
             under a name, it is added when you save.",
        ),
        WEB_URL,
        field("affiliate_network_id", "Network", Control::Network, ""),
        field(
            "payout",
            "Payout of a conversion",
            Control::Amount,
            "Counts where a postback names no amount.",
        ),
        field("payout_currency", "Currency of the payout", Control::Currency, ""),
        field(
            "overflow_offer_id",
            "When it is full",
            Control::Offer,
            "The offer that gets what this one may not take any more, where no other of the path does.",
        ),
    ],
    tables: &[Table {
        name: "caps",
        label: "Caps",
        hint: "How much it takes. Days begin in the time zone, in UTC where none is named.",
        columns: &[
            field("limit", "At most", Control::Number, ""),
            field(
                "of",
                "Of",
                Control::Choice(&[
                    ("", "\u{2013}"),
                    ("clicks", "clicks"),
                    ("conversions", "conversions"),
                    ("visitors", "visitors"),
                ]),
                "",
            ),
            field(
                "per",
                "Each",
                Control::Choice(&[
                    ("", "\u{2013}"),
                    ("hour", "hour"),
                    ("day", "day"),
                    ("week", "week"),
                    ("month", "month"),
                    ("total", "in all"),
                ]),
                "",
            ),
            field("time_zone", "Time zone", Control::Line(64), ""),
        ],
    }],
};

impl Shelf {
    /// What its form asks for.
    pub(super) fn spec(self) -> &'static Spec {
        match self {
            Self::Sources => &SOURCE,
            Self::Networks => &NETWORK,
            Self::Landers => &LANDER,
            Self::Offers => &OFFER,
        }
    }
}
