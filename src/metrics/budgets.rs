//! Budgets of campaigns.

families! {
    gauge spent("octo_budgets", state) =
        "Active campaigns by how far a budget is spent: warned from 80 %, exhausted from 100 %.",
        zeros Each(&["warned", "exhausted"]);
}

/// How many campaigns have a budget that is nearly spent, and that is.
pub fn budgets(warned: usize, exhausted: usize) {
    spent("warned").set(warned as f64);
    spent("exhausted").set(exhausted as f64);
}
