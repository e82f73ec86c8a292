//! A form of the library as it is shown, with what the API says of it.

use super::{
    fields::{Control, Field, Spec},
    texts::Texts,
};
use crate::http::{dashboard::inputs::Input, error::Problem};

/// Empty rows below a table.
const BLANK_ROWS: usize = 2;

/// As many where more are asked for.
const MORE_ROWS: usize = 8;

/// What can be chosen from what is stored: id and name.
#[derive(Debug, Clone, Default)]
pub(super) struct Choices {
    pub(super) networks: Vec<(String, String)>,
    pub(super) offers: Vec<(String, String)>,
}

/// A field as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    /// `line`, `code`, `lines`, `choice` or `check`.
    pub(super) kind: &'static str,
    pub(super) max: u32,
    /// Value, label, whether it is the one.
    pub(super) options: Vec<(String, String, bool)>,
    pub(super) input: Input,
}

/// A table as it is shown.
#[derive(Debug, Clone)]
pub(super) struct ShownTable {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Shown>>,
    pub(super) fault: Option<String>,
    /// The rows that are stored, where those are others and somebody else did it.
    pub(super) stored: Option<String>,
}

/// A form as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) fields: Vec<Shown>,
    pub(super) tables: Vec<ShownTable>,
    /// What is wrong, and of no field.
    pub(super) faults: Vec<String>,
}

impl Form {
    /// With these texts; `has_more`: with more empty rows.
    pub(super) fn of(spec: &Spec, texts: &Texts, choices: &Choices, has_more: bool) -> Self {
        let blank = if has_more { MORE_ROWS } else { BLANK_ROWS };
        let shown = |field: &Field| {
            let text = texts.field(field.name);
            Shown::of(field, field.name.to_owned(), field.name.to_owned(), text, choices)
        };
        Self {
            fields: spec.fields.iter().map(shown).collect(),
            tables: spec
                .tables
                .iter()
                .map(|table| {
                    let rows = texts.rows(table.name);
                    let cell = |row: usize, column: usize| {
                        let field = &table.columns[column];
                        let id = format!("{}-{row}-{}", table.name, field.name);
                        let name = format!("{}.{}", table.name, field.name);
                        let text = rows.get(row).and_then(|row| row.get(column)).map_or("", String::as_str);
                        Shown::of(field, id, name, text, choices)
                    };
                    let row = |row| (0..table.columns.len()).map(|column| cell(row, column)).collect();
                    ShownTable {
                        name: table.name,
                        label: table.label,
                        hint: table.hint,
                        columns: table.columns.iter().map(|column| column.label).collect(),
                        rows: (0..rows.len() + blank).map(row).collect(),
                        fault: None,
                        stored: None,
                    }
                })
                .collect(),
            faults: Vec::new(),
        }
    }

    /// Says what the API says is wrong, each beside its field.
    pub(super) fn refuse(&mut self, problem: &Problem) {
        for error in problem.errors() {
            let said = format!("It {}.", error.detail.trim_end_matches('.'));
            let parts: Vec<&str> = error.pointer.trim_start_matches('/').split('/').collect();
            if !self.note(&parts, &said) {
                self.faults.push(format!("{}: {}", error.pointer, error.detail));
            }
        }
        if problem.errors().is_empty() {
            self.faults.push(problem.detail().to_owned());
        }
    }

    /// Notes what is said of the field at this place; whether there is one.
    fn note(&mut self, place: &[&str], said: &str) -> bool {
        let place: &[&str] = match place {
            ["payout", "currency"] => &["payout_currency"],
            ["payout", ..] => &["payout"],
            other => other,
        };
        if let [name, row, column, ..] = place
            && let Some(table) = self.tables.iter_mut().find(|table| table.name == *name)
            && let Ok(row) = row.parse::<usize>()
        {
            let name = format!("{name}.{column}");
            let mut cells = table.rows.get_mut(row).into_iter().flatten();
            let Some(cell) = cells.find(|cell| cell.name == name) else {
                table.fault = Some(format!("Row {}: {said}", row + 1));
                return true;
            };
            cell.input.fault = Some(said.to_owned());
            return true;
        }
        let [name, below @ ..] = place else { return false };
        if let Some(table) = self.tables.iter_mut().find(|table| table.name == *name) {
            table.fault = Some(said.to_owned());
            return true;
        }
        let Some(field) = self.fields.iter_mut().find(|field| field.name == *name) else { return false };
        let line = below.first().and_then(|line| line.parse::<usize>().ok());
        let said = line.map_or_else(|| said.to_owned(), |line| format!("Line {}: {said}", line + 1));
        field.input.fault = Some(said);
        true
    }

    /// Says what is stored beside each field that is not as it is stored.
    pub(super) fn compare(&mut self, typed: &Texts, stored: &Texts) {
        for field in &mut self.fields {
            let (mine, theirs) = (typed.field(&field.name), stored.field(&field.name));
            field.input.stored = (mine != theirs).then(|| theirs.to_owned());
        }
        for table in &mut self.tables {
            let (mine, theirs) = (typed.rows(table.name), stored.rows(table.name));
            let row = |row: &Vec<String>| {
                row.iter().filter(|t| !t.is_empty()).cloned().collect::<Vec<_>>().join(" ")
            };
            table.stored = (mine != theirs).then(|| theirs.iter().map(row).collect::<Vec<_>>().join("; "));
        }
    }
}

impl Shown {
    fn of(field: &Field, id: String, name: String, text: &str, choices: &Choices) -> Self {
        let fixed = |choices: &[(&str, &str)]| {
            choices
                .iter()
                .map(|(value, label)| ((*value).to_owned(), (*label).to_owned()))
                .collect::<Vec<_>>()
        };
        let optional = |choices: &[(String, String)]| {
            let mut all = fixed(&[("", "none")]);
            all.extend_from_slice(choices);
            all
        };
        let (kind, max, mut options) = match field.control {
            Control::Line(max) => ("line", max, Vec::new()),
            Control::Code(max) => ("code", max, Vec::new()),
            Control::Number => ("code", 12, Vec::new()),
            Control::Amount => ("code", 24, Vec::new()),
            Control::Currency => ("code", 3, Vec::new()),
            Control::Lines => ("lines", 8192, Vec::new()),
            Control::Check => ("check", 0, Vec::new()),
            Control::Choice(choices) => ("choice", 0, fixed(choices)),
            Control::Network => ("choice", 0, optional(&choices.networks)),
            Control::Offer => ("choice", 0, optional(&choices.offers)),
        };
        if kind == "choice" && !options.iter().any(|(value, _)| value == text) {
            // one that is put away, or that somebody made up
            options.push((text.to_owned(), format!("#{text}")));
        }
        Self {
            id,
            name,
            label: field.label,
            hint: field.hint,
            kind,
            max,
            options: options
                .into_iter()
                .map(|(value, label)| {
                    let is_it = value == text;
                    (value, label, is_it)
                })
                .collect(),
            input: Input { value: text.to_owned(), ..Input::default() },
        }
    }

    /// What describes it: the ids of its hint and its fault.
    pub(super) fn described_by(&self) -> String {
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.id));
        let fault = self.input.fault.is_some().then(|| format!("{}-fault", self.id));
        hint.into_iter().chain(fault).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::{
        dashboard::{form::Fields, library::Shelf},
        error::FieldError,
    };

    #[test]
    fn a_fault_stands_beside_its_field_its_cell_or_above_the_form() {
        let spec = Shelf::Offers.spec();
        let texts = Texts::typed(spec, &Fields::parse("name=o&caps.limit=x&caps.of=clicks"));
        let mut form = Form::of(spec, &texts, &Choices::default(), false);
        let faults = ["/name", "/payout/currency", "/caps/0/limit", "/caps", "/version"];
        form.refuse(&Problem::unprocessable(faults.map(|at| FieldError::new(at, "x", "is odd")).into()));
        let fault =
            |name: &str| form.fields.iter().find(|field| field.name == name).unwrap().input.fault.clone();
        assert_eq!(fault("name").as_deref(), Some("It is odd."));
        assert_eq!((fault("payout_currency").is_some(), fault("payout")), (true, None));
        assert_eq!(form.tables[0].rows[0][0].input.fault.as_deref(), Some("It is odd."));
        assert_eq!(form.tables[0].rows[0][0].described_by(), "caps-0-limit-fault");
        assert_eq!(form.tables[0].fault.as_deref(), Some("It is odd."));
        assert_eq!(form.faults, ["/version: is odd"]);
        assert_eq!(form.tables[0].rows.len(), 3, "what was typed, and two empty ones");
    }

    #[test]
    fn what_somebody_else_stored_stands_beside_what_differs() {
        let spec = Shelf::Offers.spec();
        let mine = Texts::typed(spec, &Fields::parse("name=mine&caps.limit=5&caps.of=clicks&caps.per=day"));
        let theirs = json!({ "name": "theirs", "caps": [{ "limit": 9, "of": "clicks", "per": "day", "time_zone": null }] });
        let theirs = Texts::stored(spec, &theirs);
        let mut form = Form::of(spec, &mine, &Choices::default(), false);
        form.compare(&mine, &theirs);
        assert_eq!(form.fields[0].input.stored.as_deref(), Some("theirs"));
        assert_eq!(form.fields.iter().filter(|field| field.input.stored.is_some()).count(), 1);
        assert_eq!(form.tables[0].stored.as_deref(), Some("9 clicks day"));
    }
}
