//! What stands in the fields of the part that is open goes into the draft.

use super::{
    super::form::Fields,
    draft::{Cap, Criterion, Entry, Kind},
    steps::{Editor, Place},
    words::joined,
};

impl Editor {
    /// With what stands in the fields of the part that is open.
    pub(super) fn read(&mut self, fields: &Fields) {
        let text = |name: &str| fields.text(name).to_owned();
        match self.open {
            Some(Place::Rule(rule)) => {
                let Some(rule) = self.draft.rules.get_mut(rule) else { return };
                rule.name = text("name");
                rule.is_off = fields.text("active").is_empty();
                rule.time_zone = text("time_zone");
                read_criteria(&mut rule.when, fields);
            }
            Some(Place::Path(rule, path)) => {
                let Some(path) = self.draft.paths_mut(rule).and_then(|paths| paths.get_mut(path)) else {
                    return;
                };
                path.name = text("name");
                path.weight = text("weight");
                path.is_off = fields.text("active").is_empty();
                path.offer_choice = text("offer_choice");
                read_criteria(&mut path.when, fields);
                read_caps(&mut path.caps, "c", fields);
                read_entries(&mut path.landing_pages, "l", fields);
                read_entries(&mut path.offers, "o", fields);
            }
            None => {}
        }
    }
}

fn read_criteria(when: &mut [Criterion], fields: &Fields) {
    for (k, criterion) in when.iter_mut().enumerate() {
        let text = |name: &str| fields.text(&format!("w{k}-{name}")).to_owned();
        criterion.dimension = text("dimension");
        criterion.name = text("name");
        criterion.test = text("test");
        let values = text("values").replace("\r\n", "\n");
        // what nobody touched stays as it is stored, whatever it holds
        if values != joined(&criterion.values) {
            criterion.values = values_of(&values, &criterion.dimension);
        }
    }
}

/// The values that stand in a field: each in a line of its own, or behind commas where no value can have one.
fn values_of(text: &str, dimension: &str) -> Vec<String> {
    let has_commas = ["city", "isp", "referrer_host", "parameter"].contains(&dimension);
    let is_end = |c: char| c == '\n' || (c == ',' && !has_commas);
    text.split(is_end).map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

fn read_caps(caps: &mut [Cap], list: &str, fields: &Fields) {
    for (k, cap) in caps.iter_mut().enumerate() {
        let text = |name: &str| fields.text(&format!("{list}{k}-{name}")).to_owned();
        *cap = Cap { of: text("of"), limit: text("limit"), per: text("per"), time_zone: text("time_zone") };
    }
}

fn read_entries(entries: &mut [Entry], list: &str, fields: &Fields) {
    for (k, entry) in entries.iter_mut().enumerate() {
        let text = |name: &str| fields.text(&format!("{list}{k}-{name}")).to_owned();
        entry.weight = text("weight");
        entry.is_off = text("active").is_empty();
        match entry.kind {
            Kind::Direct => {}
            Kind::Library => {
                let id = text("id").parse().ok();
                if id != entry.id {
                    *entry = Entry {
                        id,
                        weight: text("weight"),
                        is_off: entry.is_off,
                        ..Entry::new(Kind::Library)
                    };
                }
            }
            Kind::Own => {
                entry.name = text("name");
                entry.url = text("url");
                entry.web_url = text("web_url");
                entry.payout = text("payout");
                entry.currency = text("currency");
                entry.overflow = text("overflow_offer_id");
                read_caps(&mut entry.caps, &format!("{list}{k}c"), fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_have_a_comma_where_commas_do_not_divide() {
        assert_eq!(values_of("Washington, D.C.\n Munich ", "city"), ["Washington, D.C.", "Munich"]);
        assert_eq!(values_of("DE,,AT", "country"), ["DE", "AT"]);
    }
}
