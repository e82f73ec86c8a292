//! The OpenAPI document: the list of routes that tests go by.

use reqwest::Method;
use serde_json::Value;

use super::Octo;

/// An operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// With names in braces: `/api/v1/campaigns/{id}`.
    pub(crate) template: String,
    /// `operationId`.
    pub(crate) id: String,
    /// The scope it says it needs; `None`: no token.
    pub(crate) scope: Option<String>,
}

impl Octo {
    /// Every operation that octo describes.
    pub(crate) async fn operations(&self) -> Vec<Operation> {
        operations(&self.get("/api/v1/openapi.json").await.json().await.expect("JSON"))
    }
}

impl Operation {
    /// The path, with something of the right shape in place of each name.
    pub(crate) fn path(&self) -> String {
        let segment = |segment: &str| match segment {
            "{seq}" => "0".to_owned(),
            s if s.starts_with('{') => "018f0000-0000-7000-8000-000000000000".to_owned(),
            s => s.to_owned(),
        };
        self.template.split('/').map(segment).collect::<Vec<_>>().join("/")
    }
}

/// Every operation of a document.
pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let place = format!("{method} {path}");
            let security = operation["security"][0].as_object().unwrap_or_else(|| panic!("{place}"));
            let scope = security.get("token").map(|roles| {
                assert_eq!(roles.as_array().expect("roles").len(), 1, "{place} names one scope: {roles}");
                roles[0].as_str().expect("a scope").to_owned()
            });
            operations.push(Operation {
                method: method.to_uppercase().parse().expect("a method"),
                template: path.clone(),
                id: operation["operationId"].as_str().unwrap_or_else(|| panic!("{place}")).to_owned(),
                scope,
            });
        }
    }
    assert!(operations.len() >= 35, "the document has shrunk: {operations:?}");
    operations
}
