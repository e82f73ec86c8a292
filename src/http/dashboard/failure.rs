//! What is answered where a page cannot be: the way to sign in, or a page that says why.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use super::{assets, html, session};
use crate::{
    db,
    http::{error::Problem, request_id},
};

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is signed in; afterwards the browser goes on to this address.
    SignIn {
        /// The page that was asked for.
        to: String,
        /// Whether the cookie that came is to be forgotten.
        is_stale: bool,
    },
    /// A problem.
    Problem(Box<Problem>),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Problem::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    style: &'static str,
    title: String,
    detail: String,
    request_id: Option<String>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { to, is_stale } => {
                let query = super::query::Query::new("/ui/sign-in").with("to", &to);
                let mut response = Redirect::to(&query.to_string()).into_response();
                if is_stale {
                    session::forget(response.headers_mut());
                }
                response
            }
            Self::Problem(problem) => page(&problem),
        }
    }
}

fn page(problem: &Problem) -> Response {
    problem.log();
    let status = problem.status();
    let title = match status {
        StatusCode::NOT_FOUND => "Not found".to_owned(),
        StatusCode::FORBIDDEN => "Not allowed".to_owned(),
        status => status.canonical_reason().unwrap_or("Error").to_owned(),
    };
    let page = FailurePage {
        style: assets::style(),
        title,
        detail: problem.detail().to_owned(),
        request_id: request_id::current().map(|id| id.to_string()),
    };
    let mut response = match html(&page) {
        Ok(response) => response,
        Err(_) => status.into_response(), // a template of texts
    };
    *response.status_mut() = status;
    if let Some(seconds) = problem.header(&header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::clone(seconds));
    }
    response
}
