//! The fields of a form as they are shown: what stands in each, what the API says is wrong with it, and what somebody else stored
//! there meanwhile.

use std::collections::BTreeMap;

use serde_json::Value;

use super::form::Fields;
use crate::http::error::Problem;

/// A field of a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// What stands in it.
    pub(super) value: String,
    /// What is wrong with it.
    pub(super) fault: Option<String>,
    /// What is stored, where that is something else and somebody else did it.
    pub(super) stored: Option<String>,
}

/// The fields of a form, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs(BTreeMap<&'static str, Input>);

impl Inputs {
    /// With the value that `of` has for each name.
    pub(super) fn of(names: &[&'static str], of: impl Fn(&str) -> String) -> Self {
        Self(names.iter().map(|name| (*name, Input { value: of(name), ..Input::default() })).collect())
    }

    /// As they were typed.
    pub(super) fn typed(names: &[&'static str], fields: &Fields) -> Self {
        Self::of(names, |name| fields.text(name).to_owned())
    }

    /// What a template asks for.
    pub(super) fn get(&self, name: &str) -> Input {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// Says what usually stands in a field that is empty.
    pub(super) fn fill(&mut self, name: &str, value: &str) {
        if let Some(input) = self.0.get_mut(name).filter(|input| input.value.is_empty()) {
            value.clone_into(&mut input.value);
        }
    }

    /// Says what is wrong with a field.
    pub(super) fn fault(&mut self, name: &str, fault: impl Into<String>) {
        if let Some(input) = self.0.get_mut(name) {
            input.fault = Some(fault.into());
        }
    }

    /// What is wrong, each beside its field, which `field_of` knows by the pointer of the API; what is of no field of the form comes
    /// back.
    pub(super) fn refuse(
        &mut self,
        problem: &Problem,
        field_of: impl Fn(&str) -> Option<&'static str>,
    ) -> Vec<String> {
        let mut others = Vec::new();
        for error in problem.errors() {
            match field_of(&error.pointer).filter(|name| self.0.contains_key(name)) {
                Some(name) => self.fault(name, format!("It {}.", error.detail.trim_end_matches('.'))),
                None => others.push(format!("{}: {}", error.pointer, error.detail)),
            }
        }
        if problem.errors().is_empty() {
            others.push(problem.detail().to_owned());
        }
        others
    }

    /// Beside each field that is not as it is stored: what is stored, which `stored` knows by the name.
    pub(super) fn compare(&mut self, stored: impl Fn(&str) -> String) {
        for (name, input) in &mut self.0 {
            let stored = stored(name);
            input.stored = (stored != input.value).then_some(stored);
        }
    }
}

/// An optional text: null clears it.
pub(super) fn optional(fields: &Fields, name: &str) -> Value {
    match fields.text(name) {
        "" => Value::Null,
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::FieldError;

    const FIELDS: [&str; 2] = ["name", "payout"];

    #[test]
    fn a_fault_stands_beside_its_field_and_any_other_above_the_form() {
        let mut inputs = Inputs::typed(&FIELDS, &Fields::parse("name=+&payout=x"));
        let problem = Problem::unprocessable(vec![
            FieldError::new("/name", "required", "is required"),
            FieldError::new("/payout/amount", "range", "must be a number"),
            FieldError::new("/caps/0", "range", "is odd"),
        ]);
        let field_of = |pointer: &str| match pointer {
            "/name" => Some("name"),
            "/payout/amount" => Some("payout"),
            _ => None,
        };
        assert_eq!(inputs.refuse(&problem, field_of), ["/caps/0: is odd"]);
        assert_eq!(inputs.get("name").fault.as_deref(), Some("It is required."));
        assert_eq!((inputs.get("payout").value.as_str(), inputs.get("payout").fault.is_some()), ("x", true));
        assert_eq!(inputs.refuse(&Problem::conflict("No."), field_of), ["No."]);
    }

    #[test]
    fn what_somebody_else_stored_meanwhile_stands_beside_what_was_typed() {
        let mut inputs = Inputs::typed(&FIELDS, &Fields::parse("name=mine&payout=1"));
        inputs.fill("payout", "2");
        inputs.compare(|name| if name == "name" { "theirs" } else { "1" }.to_owned());
        assert_eq!(inputs.get("name").stored.as_deref(), Some("theirs"));
        assert_eq!(inputs.get("payout").stored, None);
    }
}
