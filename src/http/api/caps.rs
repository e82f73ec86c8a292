//! `/api/v1/campaigns/{id}/caps`: how far the caps of a campaign are used up.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, Parts},
    caps::Usage,
    http::{
        api::{
            campaigns::find,
            manners::{answer::answer, auth::Read, problems::Problems, request::Name},
        },
        error::Problem,
    },
    model::{
        campaign::Campaign,
        rule::{CapOf, CapPer},
    },
    routing::{CapTarget, Routes},
};

/// How long a counter that nobody asked for of late is waited for.
const WAIT_MAX: Duration = Duration::from_secs(1);
const WAIT_STEP: Duration = Duration::from_millis(10);

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list))
}

/// All caps of a campaign.
#[derive(Debug, Serialize, ToSchema)]
struct CapUses {
    /// Paths first, each in the order of their ids.
    data: Vec<CapUse>,
}

/// How far a cap is used up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CapUse {
    /// What it is on.
    pub(crate) on: CapOn,
    /// The id of the path or offer; path 0 is the campaign's only path.
    #[schema(minimum = 0, example = 42)]
    pub(crate) id: i64,
    /// The name of the path or offer.
    #[schema(example = "Long page")]
    name: String,
    /// What is counted.
    pub(crate) of: CapOf,
    /// How many at most.
    #[schema(minimum = 1, example = 100)]
    pub(crate) limit: u32,
    /// In which time.
    pub(crate) per: CapPer,
    /// Where that time begins.
    #[schema(value_type = String, format = "time-zone", example = "Europe/Berlin")]
    time_zone: Tz,
    /// How many were counted.
    #[schema(example = 37)]
    pub(crate) used: u64,
    /// From when; null: from ever.
    from: Option<DateTime<Utc>>,
    /// Until before this time; null: for ever.
    until: Option<DateTime<Utc>>,
    /// Whether it takes no more.
    pub(crate) is_full: bool,
    /// Whether `used` has what other nodes counted; false while neither Redis nor PostgreSQL answers.
    is_shared: bool,
}

/// What a cap is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CapOn {
    /// A path.
    Path,
    /// An offer.
    Offer,
}

/// Show how far caps are used up
///
/// Of the paths and offers of a campaign, those of the library among them, in the window of now: as far as this node has
/// heard, which is less than a second behind while Redis or PostgreSQL answers.
#[utoipa::path(
    get, path = "/campaigns/{id}/caps", tag = "campaigns", operation_id = "list_campaign_caps",
    params(("id" = String, Path, description = "Its id or key.", example = "summer-sale")),
    responses((status = 200, description = "Its caps.", body = CapUses), Problems),
)]
async fn list(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let campaign = find(&app, &id).await?;
    answer(StatusCode::OK, &CapUses { data: uses(&app, campaign).await? })
}

/// How far each cap of a campaign is used up: of its paths first, each in the order of their ids.
pub(crate) async fn uses(app: &Parts, campaign: Campaign) -> Result<Vec<CapUse>, Problem> {
    let routes = Routes::new(campaign).map_err(|broken| Problem::conflict(broken.to_string()))?;
    let usage = |target| app.caps.usage(&routes, target, Utc::now());
    let deadline = Instant::now() + WAIT_MAX;
    let targets = routes.capped();
    loop {
        let all_heard = targets.iter().flat_map(|target| usage(*target)).all(|usage| usage.is_heard);
        if all_heard || Instant::now() >= deadline {
            break;
        }
        sleep(WAIT_STEP).await;
    }
    let shown = |target: CapTarget| {
        let routes = &routes;
        usage(target).into_iter().map(move |usage| shown(routes, target, &usage))
    };
    Ok(targets.iter().flat_map(|target| shown(*target)).collect())
}

fn shown(routes: &Routes, target: CapTarget, usage: &Usage) -> CapUse {
    let (on, id) = match target {
        CapTarget::Path(id) => (CapOn::Path, id),
        CapTarget::Offer(id) => (CapOn::Offer, id),
    };
    let Usage { cap, used, window, is_heard } = *usage;
    let (from, until) = window.times();
    CapUse {
        on,
        id,
        name: routes.name_of(target).unwrap_or_default().to_owned(),
        of: cap.of,
        limit: cap.limit,
        per: cap.per,
        time_zone: cap.time_zone.unwrap_or_default(),
        used,
        from,
        until,
        is_full: used >= cap.limit.into(),
        is_shared: is_heard,
    }
}
