//! `POST /api/v1/conversions/import`: a file of conversions, each line read as a postback.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::{
        ingest::{self, Imported},
        store::{affiliate_networks::AffiliateNetwork, library},
    },
    facts::postback::Postback,
    housekeeping::conversions::count_stored,
    http::{
        api::manners::{answer::answer, auth::Admin, page::Params, problems::Problems},
        body,
        error::{FieldError, Problem},
        head::require_identity,
    },
    imports::{self, Line},
    model::{
        conversion::{Flag, Outcome, OutcomeReason},
        network::PostbackRules,
    },
};

/// Lines in one transaction.
const CHUNK: usize = 1000;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(import))
}

/// What became of a file.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ImportedConversions)]
struct Results {
    /// Lines that are in the ledger now.
    #[schema(minimum = 0, example = 1200)]
    stored: usize,
    /// Those that are not: they cannot be read, or name no click.
    #[schema(minimum = 0, example = 3)]
    rejected: usize,
    /// One for each line, in their order.
    results: Vec<LineResult>,
}

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImportedConversion)]
struct LineResult {
    /// Its number in the file, from 1.
    #[schema(minimum = 0, example = 2)]
    line: u64,
    /// `rejected`, or what became of its postback.
    #[schema(value_type = String, example = "accepted")]
    outcome: &'static str,
    /// Why, or what is particular: `unreadable`, `no_click_id`, `bad_click_id`, or a reason as of a postback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false, example = "repeat")]
    reason: Option<&'static str>,
    /// The postback in the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    postback_id: Option<Uuid>,
    /// The conversion that it tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    conversion_id: Option<Uuid>,
    /// What of it could not be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Flag>, required = false, example = json!(["payout_unreadable"]))]
    flags: Vec<&'static str>,
}

/// Import conversions
///
/// A file of lines, each read like a postback and kept in the same ledger: CSV with a header of the names that postbacks
/// have, separated by commas, semicolons or tabs; without a header Keitaro's `subid,payout,tid,status` or FunnelFlux's
/// `hit:tx,payout`; or a JSON object a line. Amounts are read as networks and people write them, `0,05` too. At most
/// `postbacks.import_lines_max` lines in `postbacks.import_bytes_max` bytes. The same file once more is the same
/// conversions.
#[utoipa::path(
    post, path = "/conversions/import", tag = "conversions", operation_id = "import_conversions",
    params(
        ("network" = Option<i64>, Query, description = "The affiliate network whose words and names the lines have; else those of each click's offer.", minimum = 1, example = 3),
    ),
    request_body(content = String, content_type = "text/csv",
        description = "The file: `text/csv`, or a JSON object a line as `application/x-ndjson`.",
        example = "click_id,payout,txid,status\n019aaf3c-5f00-7abc-8def-0123456789ab,1.50,T-1001,approved\n"),
    responses((status = 200, description = "What became of each line.", body = Results), Problems),
)]
async fn import(
    _: Admin,
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["network"]);
    let network_id = params.id("network");
    params.finish()?;
    require_identity(&headers)?;
    require_file(&headers)?;
    let rules = rules_of(&app, network_id).await?;
    let config = &app.config.postbacks;
    let bytes = body::read(sent, config.import_bytes_max).await?;
    let lines = imports::read(&bytes, network_id, &rules, config.import_lines_max);
    let lines = lines.map_err(|fault| vec![FieldError::new("", "file", fault.to_string())])?;
    let mut results = Results::default();
    let mut lines = lines.into_iter();
    loop {
        let chunk: Vec<Line> = lines.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return answer(StatusCode::OK, &results);
        }
        let postbacks = chunk.iter().filter_map(|line| line.postback.as_ref().ok()).cloned().collect();
        let (imported, changed) = ingest::import_postbacks(&app.db, postbacks).await?;
        count_stored(&app, &changed);
        results.add(&chunk, &imported);
    }
}

/// How lines of the network are read.
async fn rules_of(app: &App, network_id: Option<i64>) -> Result<PostbackRules, Problem> {
    let Some(id) = network_id else { return Ok(PostbackRules::default()) };
    let network = library::get::<AffiliateNetwork>(&app.db, id).await?;
    let not_found = || vec![FieldError::new("?network", "not_found", "is no affiliate network")];
    Ok(network.ok_or_else(not_found)?.terms.rules())
}

pub(in crate::http::api) fn require_file(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let known = ["text/csv", "application/x-ndjson", "application/ndjson", "text/plain"];
    if known.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("text/csv or application/x-ndjson"))
}

impl Results {
    fn add(&mut self, lines: &[Line], imported: &[Imported]) {
        let mut imported = imported.iter();
        for line in lines {
            let result = match &line.postback {
                Err(fault) => {
                    self.rejected += 1;
                    LineResult::rejected(line.number, fault.into())
                }
                Ok(postback) => {
                    self.stored += 1;
                    LineResult::stored(line, postback, imported.next())
                }
            };
            self.results.push(result);
        }
    }
}

impl LineResult {
    fn rejected(line: u64, reason: &'static str) -> Self {
        let (postback_id, conversion_id) = (None, None);
        Self {
            line,
            outcome: "rejected",
            reason: Some(reason),
            postback_id,
            conversion_id,
            flags: Vec::new(),
        }
    }

    fn stored(line: &Line, postback: &Postback<'_>, imported: Option<&Imported>) -> Self {
        Self {
            line: line.number,
            outcome: imported.map_or(Outcome::Accepted, |it| it.outcome).into(),
            reason: imported.and_then(|it| it.reason).map(<&str>::from).or(line.note()),
            postback_id: Some(postback.id),
            conversion_id: imported.and_then(|it| it.conversion_id),
            flags: line.flags.iter().map(|flag| <&str>::from(*flag)).collect(),
        }
    }
}

impl Line {
    fn note(&self) -> Option<&'static str> {
        (!self.is_mapped).then(|| OutcomeReason::Unmapped.into())
    }
}
