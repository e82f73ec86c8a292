//! An operation of the OpenAPI document, for those who describe what surrounds many of them: each says its own part.

use serde_json::Value;
use utoipa::openapi::{
    RefOr, Response, ResponseBuilder,
    header::HeaderBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::{Object, ObjectBuilder, Type},
};

/// An operation, and where it is.
pub(crate) struct Described<'a> {
    /// In capitals.
    pub(crate) method: &'static str,
    /// With names in braces.
    pub(crate) path: &'a str,
    /// As its annotation has it, and those who were asked before.
    pub(crate) operation: &'a mut Operation,
}

impl Described<'_> {
    /// Whether it is for those with a token only.
    pub(crate) fn needs_token(&self) -> bool {
        let first = self.operation.security.as_ref().and_then(|security| security.first());
        first.is_some_and(|first| {
            serde_json::to_value(first).is_ok_and(|value| value != serde_json::json!({}))
        })
    }

    /// Whether it is one of the admin API that needs a token.
    pub(crate) fn is_guarded(&self) -> bool {
        self.path.starts_with("/api/") && self.needs_token()
    }

    /// Whether its annotation names this header of a request.
    pub(crate) fn reads(&self, header: &str) -> bool {
        let mut parameters = self.operation.parameters.iter().flatten();
        parameters.any(|parameter| matches!(parameter, RefOr::T(it) if it.name == header))
    }

    /// Adds an answer.
    pub(crate) fn may_answer(&mut self, status: &str, description: &str) {
        let response = ResponseBuilder::new().description(description).build();
        self.operation.responses.responses.insert(status.to_owned(), response.into());
    }

    /// Adds a header that a request may bring.
    pub(crate) fn takes(&mut self, name: &str, description: &str, schema: Object, example: &str) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .description(Some(description))
            .schema(Some(schema))
            .example(Some(Value::from(example)));
        self.operation.parameters.get_or_insert_default().push(RefOr::T(parameter.build()));
    }

    /// Adds a header that answers with such a status have, unless the annotation has it.
    pub(crate) fn answers(
        &mut self,
        has: impl Fn(&str) -> bool,
        name: &str,
        description: &str,
        example: &str,
    ) {
        for (_, response) in self.responses().filter(|(status, _)| has(status)) {
            let header = HeaderBuilder::new()
                .schema(Some(Object::with_type(Type::String)))
                .description(Some(description))
                .example(Some(Value::from(example)));
            response.headers.entry(name.to_owned()).or_insert_with(|| RefOr::T(header.build()));
        }
    }

    /// What it answers, by status.
    pub(crate) fn responses(&mut self) -> impl Iterator<Item = (&String, &mut Response)> {
        self.operation.responses.responses.iter_mut().filter_map(|(status, response)| match response {
            RefOr::T(response) => Some((status, response)),
            RefOr::Ref(_) => None,
        })
    }
}

/// A text of this form.
pub(crate) fn text(pattern: Option<&str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(pattern).build()
}

/// Whether a status says that it went well.
pub(crate) fn is_success(status: &str) -> bool {
    status.starts_with('2')
}
