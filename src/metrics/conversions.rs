//! Postbacks that are stored, and the conversions derived from them.

families! {
    counter stored("octo_postbacks_stored_total", outcome) =
        "Postbacks stored in Postgres, by what became of them at first.",
        zeros Each(&["accepted", "ignored", "refused", "waiting"])
        => /// A postback was stored.
           postback_stored(outcome: &'static str): 1;
    counter changes("octo_conversions_total", status) =
        "Conversions that reached a state, by the state.",
        zeros Each(&["pending", "approved", "rejected", "refunded", "unmapped", "ignored"])
        => /// A conversion is in another state than before.
           conversion(status: &'static str): 1;
    gauge waiting("octo_conversions_waiting") = "Clicks that are not stored yet, and that postbacks wait for.",
        zeros Plain
        => /// Clicks that postbacks wait for.
           conversions_waiting(count: i64): count as f64;
    gauge unmapped("octo_conversions_unmapped") = "Postbacks whose word for the state nobody mapped.",
        zeros Plain
        => /// Postbacks with a word that is not known.
           conversions_unmapped(count: i64): count as f64;
    gauge networks("octo_postback_networks_troubled") =
        "Affiliate networks of whose postbacks of the last hour more than a fifth were refused or ignored.",
        zeros Plain
        => /// Networks whose postbacks are refused or ignored.
           troubled_networks(count: usize): count as f64;
    gauge offers("octo_offers_stopped_converting") =
        "Active offers with at least 20 conversions within the week before, and none in the last day.",
        zeros Plain
        => /// Offers that used to convert.
           stopped_offers(count: usize): count as f64;
}
