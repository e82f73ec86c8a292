//! Clicks, visits and events, before the journal.

use std::sync::LazyLock;

use ::metrics::Counter;

use crate::model::{
    click::{Adjusted, Adjustment},
    link::{self, Unexpanded},
};

families! {
    counter clicks("octo_clicks_total", outcome) = "Clicks, by outcome.",
        zeros Each(&[
            "redirected",
            "visited",
            "invalid",
            "head",
            "fallback",
            "unknown_campaign",
            "unavailable",
            "no_destination",
            "bad_request",
            "unrecorded",
            "shed",
            "no_room",
        ]);
    counter clicks_unrecorded("octo_clicks_unrecorded_total") =
        "Clicks redirected but not recorded: the journal could not take them.",
        zeros Plain
        => /// A click was answered but is not on disk.
           click_unrecorded(): 1;
    counter out_clicks("octo_out_clicks_total", outcome) =
        "Out-clicks, from landing pages to offers, by outcome; `unrecorded` ones are in another outcome too.",
        zeros Each(&[
            "redirected",
            "without_click",
            "fallback",
            "unknown_campaign",
            "nowhere",
            "head",
            "unrecorded",
        ])
        => /// What became of an out-click: one of those outcomes.
           out_click(outcome: &'static str): 1;
    counter postbacks("octo_postbacks_total", outcome) =
        "Postbacks, by outcome; those that are `ignored` name no click of ours.",
        zeros Each(&["accepted", "ignored", "refused", "unavailable"])
        => /// What became of a postback: one of those outcomes.
           postback(outcome: &'static str): 1;
    counter postback_parameters_left_out("octo_postback_parameters_left_out_total", reason) =
        "Parameters of postbacks that were not kept: because they stand for a person or are a secret, or for want of room.",
        zeros Each(&["private", "no_room"])
        => /// Parameters of a postback were not kept.
           postback_parameters_lost(reason: &'static str, parameters: u64): parameters;
    counter values_adjusted("octo_click_values_adjusted_total", reason) =
        "Clicks with a value in their link that could not be kept as it was sent, by reason.",
        zeros Each(<Adjustment as strum::VariantNames>::VARIANTS);
    counter unexpanded_macros("octo_unexpanded_macros_total", slot) =
        "Clicks with a value in their link that was a macro the source had not filled in, by where it would have gone.",
        zeros Each(&link::PLACES);
    counter visits_forgotten("octo_visits_forgotten_total") =
        "Visits forgotten within the duplicate window, because tracking.duplicate_visits_max was reached.",
        zeros Plain
        => /// A visit was forgotten before its window was over: its next click will count.
           visit_forgotten(): 1;
    counter first_clicks_untold("octo_visits_untold_total") =
        "First clicks of visits that the other nodes were not told about.",
        zeros Plain
        => /// Visits that other nodes will count once more.
           visits_untold(visits: u64): visits;
    counter events("octo_events_total", outcome) = "Events, by outcome.",
        zeros Each(&[
            "accepted",
            "invalid",
            "unknown_campaign",
            "unrecorded",
            "rate_limited",
            "shed",
            "no_room",
            "forbidden",
        ])
        => /// What became of an event: one of those outcomes.
           event(outcome: &'static str): 1;
    gauge events_shedding("octo_events_shedding") = "1 while events are refused because octo is overloaded.",
        zeros Plain
        => /// Whether events are refused.
           shedding(is_shedding: bool): f64::from(is_shedding);
    gauge events_without_room("octo_events_no_room") =
        "1 while events are refused because the journal or its disk is nearly full: the rest is for clicks.",
        zeros Plain
        => /// Whether events are refused for want of room.
           events_no_room(has_none: bool): f64::from(has_none);
}

/// Looked up once, as what a redirect counts among the requests.
static REDIRECTED: LazyLock<Counter> = LazyLock::new(|| clicks("redirected"));

/// What became of a click: one of the outcomes above.
pub fn click(outcome: &'static str) {
    match outcome {
        "redirected" => REDIRECTED.increment(1),
        _ => clicks(outcome).increment(1),
    }
}

/// What of a click's link could not be kept as it was sent, and which of its values were macros.
pub fn click_adjusted(adjusted: Adjusted, unexpanded: Unexpanded) {
    for adjustment in adjusted.iter() {
        values_adjusted(<&str>::from(adjustment)).increment(1);
    }
    for slot in unexpanded.iter() {
        unexpanded_macros(slot).increment(1);
    }
}
