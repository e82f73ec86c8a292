//! `GET /api/v1/campaigns/{id}/budget`: how far the budgets of a campaign are spent.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    budgets::{self, State as BudgetState, Use},
    http::{
        api::{
            campaigns::find,
            manners::{answer::answer, auth::Read, problems::Problems, request::Name},
        },
        error::Problem,
    },
    model::money::{Currency, Money},
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// How far the budgets of a campaign are spent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CampaignBudget)]
struct Shown {
    /// Whose budgets.
    campaign_id: Uuid,
    /// Of this day of the campaign's time zone; null: there is no such budget.
    daily: Option<Spent>,
    /// Of all time, likewise.
    total: Option<Spent>,
    /// Whether clicks go to the fallback for it, on the node that answers.
    is_exhausted: bool,
    /// Currencies of costs that are not those of a budget: they are not added.
    #[schema(value_type = Vec<String>, example = json!(["GBP"]))]
    not_added: Vec<Currency>,
}

/// How far a budget is spent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BudgetUse)]
struct Spent {
    /// The budget.
    budget: Money,
    /// What clicks cost, and what no click bears of totals.
    spent: Money,
    /// The part of it that is spent.
    #[schema(minimum = 0, example = 0.83)]
    ratio: f64,
    /// What it does.
    state: Acts,
    /// From when; null: from ever.
    from: Option<DateTime<Utc>>,
    /// Until before this time; null: for ever.
    until: Option<DateTime<Utc>>,
}

/// What a budget does.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BudgetState)]
enum Acts {
    /// Nothing.
    Open,
    /// 80 % are spent.
    Warned,
    /// All of it is spent: clicks go to the fallback.
    Exhausted,
}

/// Show how far budgets are spent
///
/// Worked out for this answer. Nodes look every `budgets.check_interval_ms`.
#[utoipa::path(
    get, path = "/campaigns/{id}/budget", tag = "costs", operation_id = "get_campaign_budget",
    params(("id" = String, Path, description = "Its id or key.", example = "summer-sale")),
    responses((status = 200, description = "Its budgets.", body = Shown), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let campaign = find(&app, &id).await?;
    let now = Utc::now();
    let spent = budgets::spent(&app.db, &app.config, &campaign, now).await?;
    let shown = Shown {
        campaign_id: campaign.id,
        daily: spent.daily.map(Into::into),
        total: spent.total.map(Into::into),
        is_exhausted: app.budgets.is_exhausted(campaign.id, now),
        not_added: spent.others.into_iter().collect(),
    };
    answer(StatusCode::OK, &shown)
}

impl From<Use> for Spent {
    fn from(used: Use) -> Self {
        let Use { budget, spent, from, until } = used;
        Self {
            budget,
            spent: Money { amount: spent, currency: budget.currency },
            ratio: used.ratio(),
            state: match used.state() {
                BudgetState::Open => Acts::Open,
                BudgetState::Warned => Acts::Warned,
                BudgetState::Exhausted => Acts::Exhausted,
            },
            from,
            until,
        }
    }
}
