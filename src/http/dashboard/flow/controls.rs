//! The fields of the part of the flow that is open.

use strum::VariantNames as _;

use super::{
    draft::{Cap, Criterion, Draft, Entry, Kind, Path},
    faults::Fault,
    shelf::Shelf,
    steps::Place,
    words::{joined, subject},
};
use crate::model::rule::{CapOf, CapPer, Dimension};

/// How a field is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Lines,
    Choice,
    Check,
}

/// A field.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) id: String,
    pub(super) label: &'static str,
    pub(super) shape: Shape,
    pub(super) value: String,
    pub(super) hint: &'static str,
    /// `narrow`, `wide` or neither.
    pub(super) width: &'static str,
    /// Value, name, whether it is chosen.
    pub(super) choices: Vec<(String, String, bool)>,
    pub(super) fault: Option<String>,
}

/// Something that a button does to a list.
#[derive(Debug, Clone)]
pub(super) struct Button {
    pub(super) what: String,
    pub(super) text: &'static str,
    /// Of what, for those who do not see where it stands.
    pub(super) of: String,
}

/// Fields that belong together.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) legend: String,
    pub(super) controls: Vec<Control>,
    pub(super) buttons: Vec<Button>,
    pub(super) hint: &'static str,
}

impl Group {
    /// What it is on the page: without a name it is no set of fields.
    pub(super) fn tag(&self) -> &'static str {
        if self.legend.is_empty() { "div" } else { "fieldset" }
    }
}

/// Makes fields, each with what is wrong with it.
struct Maker<'a> {
    place: Place,
    faults: &'a [Fault],
    draft: &'a Draft,
    shelf: &'a Shelf,
}

/// The fields of a part; `None`: there is none.
pub(super) fn groups(draft: &Draft, place: Place, faults: &[Fault], shelf: &Shelf) -> Option<Vec<Group>> {
    let maker = Maker { place, faults, draft, shelf };
    match place {
        Place::Rule(rule) => {
            let rule = draft.rules.get(rule)?;
            let zone = Control {
                hint: "Such as Europe/Berlin; empty: the campaign's.",
                ..maker.text("time_zone", "Time zone of its times", &rule.time_zone, "")
            };
            let head = Group {
                controls: vec![
                    maker.text("name", "Name of the rule", &rule.name, "wide"),
                    zone,
                    maker.check(rule.is_off),
                ],
                ..Group::default()
            };
            let mut groups = vec![head];
            groups.extend(maker.criteria(&rule.when));
            let mut more = maker.add("more.w", "Add a condition");
            more.hint = "All conditions must hold; of the values of one, one is enough.";
            groups.push(more);
            Some(groups)
        }
        Place::Path(rule, nth) => Some(maker.path(draft.path(rule, nth)?)),
    }
}

impl Maker<'_> {
    fn control(&self, id: &str, label: &'static str, value: &str, shape: Shape) -> Control {
        let is_here = |fault: &&Fault| fault.place == Some(self.place) && fault.field == id;
        Control {
            id: id.to_owned(),
            label,
            shape,
            value: value.to_owned(),
            hint: "",
            width: "",
            choices: Vec::new(),
            fault: self.faults.iter().find(is_here).map(|fault| fault.text.clone()),
        }
    }

    fn text(&self, id: &str, label: &'static str, value: &str, width: &'static str) -> Control {
        Control { width, ..self.control(id, label, value, Shape::Text) }
    }

    /// Whether it takes visitors.
    fn check(&self, is_off: bool) -> Control {
        self.check_of("active", is_off)
    }

    fn check_of(&self, id: &str, is_off: bool) -> Control {
        self.control(id, "Active", if is_off { "" } else { "1" }, Shape::Check)
    }

    fn choice(&self, id: &str, label: &'static str, value: &str, choices: Vec<(String, String)>) -> Control {
        let mut choices: Vec<(String, String, bool)> = choices
            .into_iter()
            .map(|(choice, name)| {
                let is_it = choice == value;
                (choice, name, is_it)
            })
            .collect();
        if !choices.iter().any(|(.., is_it)| *is_it) {
            choices.push((value.to_owned(), value.to_owned(), true)); // what stands there is not lost
        }
        Control { choices, ..self.control(id, label, value, Shape::Choice) }
    }

    #[expect(clippy::unused_self, reason = "it stands among the makers")]
    fn add(&self, what: &str, text: &'static str) -> Group {
        Group { buttons: vec![Button { what: what.to_owned(), text, of: String::new() }], ..Group::default() }
    }

    fn criteria(&self, when: &[Criterion]) -> Vec<Group> {
        when.iter().enumerate().map(|(k, criterion)| self.criterion(k, criterion)).collect()
    }

    fn criterion(&self, k: usize, criterion: &Criterion) -> Group {
        let id = |name: &str| format!("w{k}-{name}");
        let named = |dimension: &&'static str| {
            let shown = Criterion { dimension: (*dimension).to_owned(), ..Criterion::default() };
            ((*dimension).to_owned(), subject(&shown).trim().to_owned())
        };
        let dimensions = Dimension::VARIANTS.iter().map(named).collect();
        let tests = pairs(&[
            ("is", "is"),
            ("is_not", "is not"),
            ("starts", "starts with"),
            ("contains", "contains"),
            ("known", "is known"),
            ("not_known", "is not known"),
        ]);
        let mut controls = vec![
            self.choice(&id("dimension"), "What", &criterion.dimension, dimensions),
            Control {
                hint: "For a parameter only, such as utm_source.",
                ..self.text(&id("name"), "Parameter", &criterion.name, "")
            },
            self.choice(&id("test"), "Test", &criterion.test, tests),
        ];
        controls.push(Control {
            hint: "One a line, or with commas: DE, AT. unknown is one, too.",
            width: "wide",
            ..self.control(&id("values"), "Values", &joined(&criterion.values), Shape::Lines)
        });
        Group {
            legend: format!("Condition {}", k + 1),
            controls,
            buttons: vec![button(format!("less.w.{k}"), "Remove condition", k)],
            ..Group::default()
        }
    }

    fn caps(&self, list: &str, caps: &[Cap], of: &str) -> Vec<Group> {
        let group = |(k, cap): (usize, &Cap)| {
            let id = |name: &str| format!("{list}{k}-{name}");
            let same =
                |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
            Group {
                legend: format!("Cap {} of {of}", k + 1),
                controls: vec![
                    self.text(&id("limit"), "At most", &cap.limit, "narrow"),
                    self.choice(&id("of"), "Of", &cap.of, same(CapOf::VARIANTS)),
                    self.choice(&id("per"), "Per", &cap.per, same(CapPer::VARIANTS)),
                    self.text(&id("time_zone"), "Time zone", &cap.time_zone, ""),
                ],
                buttons: vec![button(format!("less.{list}.{k}"), "Remove cap", k)],
                ..Group::default()
            }
        };
        caps.iter().enumerate().map(group).collect()
    }

    fn path(&self, path: &Path) -> Vec<Group> {
        let choices = pairs(&[("out", "when the visitor leaves the page"), ("lander", "with the page")]);
        let weight =
            Control { hint: "3 gets 3 times 1.", ..self.text("weight", "Weight", &path.weight, "narrow") };
        let mut groups = vec![Group {
            controls: vec![
                self.text("name", "Name of the path", &path.name, "wide"),
                weight,
                self.choice("offer_choice", "The offer is chosen", &path.offer_choice, choices),
                self.check(path.is_off),
            ],
            ..Group::default()
        }];
        groups.extend(self.criteria(&path.when));
        let mut more = self.add("more.w", "Add a condition of the path");
        more.buttons.extend(self.add("more.c", "Add a cap of the path").buttons);
        groups.extend(self.caps("c", &path.caps, "the path"));
        groups.push(more);
        for (k, page) in path.landing_pages.iter().enumerate() {
            groups.extend(self.entry("l", k, page));
        }
        let mut more = self.add("more.l", "Add a landing page");
        if !self.shelf.landing_pages.is_empty() {
            more.buttons.extend(self.add("more.l.library", "Add one of the library").buttons);
        }
        if !path.landing_pages.is_empty() && path.landing_pages.iter().all(|page| page.kind != Kind::Direct) {
            more.buttons.extend(self.add("more.l.direct", "Send a share past the pages").buttons);
        }
        groups.push(more);
        for (k, offer) in path.offers.iter().enumerate() {
            groups.extend(self.entry("o", k, offer));
        }
        let mut more = self.add("more.o", "Add an offer");
        if !self.shelf.offers.is_empty() {
            more.buttons.extend(self.add("more.o.library", "Add an offer of the library").buttons);
        }
        groups.push(more);
        groups
    }

    fn entry(&self, list: &str, k: usize, entry: &Entry) -> Vec<Group> {
        let is_offer = list == "o";
        let what = if is_offer { "Offer" } else { "Landing page" };
        let id = |name: &str| format!("{list}{k}-{name}");
        let weight = self.text(&id("weight"), "Weight", &entry.weight, "narrow");
        let active = self.check_of(&id("active"), entry.is_off);
        let mut buttons = vec![button(format!("less.{list}.{k}"), "Remove", k)];
        buttons[0].of = format!("{} {}", what.to_lowercase(), k + 1);
        for (step, text) in [("before", "Up"), ("after", "Down")] {
            let of = buttons[0].of.clone();
            buttons.push(Button { what: format!("{step}.{list}.{k}"), text, of });
        }
        let (legend, controls) = match entry.kind {
            Kind::Direct => ("No page: straight to the offers".to_owned(), vec![weight, active]),
            Kind::Library => {
                let known = if is_offer { &self.shelf.offers } else { &self.shelf.landing_pages };
                let chosen = entry.id.map(|id| id.to_string()).unwrap_or_default();
                let mut choices = vec![(String::new(), "choose one".to_owned())];
                choices.extend(known.iter().map(|(id, name)| (id.to_string(), name.clone())));
                if let Some(id) = entry.id.filter(|id| known.iter().all(|(known, _)| known != id)) {
                    choices.push((id.to_string(), entry.name.clone()));
                }
                let choice =
                    Control { width: "wide", ..self.choice(&id("id"), "Of the library", &chosen, choices) };
                (format!("{what} {} (of the library)", k + 1), vec![choice, weight, active])
            }
            Kind::Own => {
                let web = Control {
                    hint: "Where the address leads into an app, and the device has none.",
                    ..self.text(&id("web_url"), "Address on the web", &entry.web_url, "wide")
                };
                let url = Control {
                    hint: if is_offer {
                        "{click_id} becomes the id of the click."
                    } else {
                        "{out_url} becomes the way to the offer."
                    },
                    ..self.text(&id("url"), "Address", &entry.url, "wide")
                };
                let mut controls = vec![self.text(&id("name"), "Name", &entry.name, ""), url, weight, active];
                if is_offer {
                    controls.push(self.text(&id("payout"), "Payout", &entry.payout, "narrow"));
                    controls.push(self.text(&id("currency"), "Currency", &entry.currency, "narrow"));
                    controls.push(self.overflow(&id("overflow_offer_id"), entry));
                    buttons.push(Button {
                        what: format!("more.o{k}c"),
                        text: "Add a cap",
                        of: buttons[0].of.clone(),
                    });
                }
                controls.push(web);
                (format!("{what} {}", k + 1), controls)
            }
        };
        let mut groups = vec![Group { legend, controls, buttons, ..Group::default() }];
        if is_offer && entry.kind == Kind::Own {
            groups.extend(self.caps(&format!("o{k}c"), &entry.caps, &format!("offer {}", k + 1)));
        }
        groups
    }

    /// Which offer takes what is over.
    fn overflow(&self, id: &str, entry: &Entry) -> Control {
        let mut choices = vec![(String::new(), "none".to_owned())];
        let own = self.draft.offers_with_ids().filter(|(id, _)| Some(*id) != entry.id);
        let own = own.map(|(id, name)| (id.to_string(), name.to_owned()));
        let of_library =
            self.shelf.offers.iter().map(|(id, name)| (id.to_string(), format!("{name} (library)")));
        for (id, name) in own.chain(of_library) {
            if choices.iter().all(|(known, _)| *known != id) {
                choices.push((id, name));
            }
        }
        self.choice(id, "Once it is full, to", &entry.overflow, choices)
    }
}

fn button(what: String, text: &'static str, k: usize) -> Button {
    Button { what, text, of: (k + 1).to_string() }
}

fn pairs(choices: &[(&str, &str)]) -> Vec<(String, String)> {
    choices.iter().map(|(value, name)| ((*value).to_owned(), (*name).to_owned())).collect()
}
