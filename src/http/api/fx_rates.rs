//! `/api/v1/fx-rates`: what currencies are worth, and the owner's own rates.

mod input;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::fx_rates::{self, Filter, Key, Put, Restatement, StoredRate},
    http::{
        api::manners::{
            answer::answer,
            auth::{Admin, Read},
            page::{Page, Params, number_cursor, rows_for},
            problems::Problems,
            request::Json,
        },
        error::{FieldError, Problem},
    },
    model::money::Currency,
    money::rates::{Rate, RateSource},
};
use input::{Asked, FxRatesInput};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, put)).routes(routes!(restatements))
}

/// A rate as it is shown.
#[derive(Debug, Serialize, ToSchema)]
struct FxRate {
    /// Not the euro.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    currency: Currency,
    /// `ecb`: the day it was published on, from the next of which it holds; `manual`: the day from which on it holds.
    #[schema(example = "2026-10-30")]
    day: NaiveDate,
    /// Units of the currency for one euro.
    #[schema(pattern = r"^[0-9]{1,9}(\.[0-9]{1,12})?$", example = "1.1172")]
    rate: String,
    /// Who says so.
    source: RateSource,
    /// When it came here first.
    created_at: DateTime<Utc>,
}

impl From<StoredRate> for FxRate {
    fn from(stored: StoredRate) -> Self {
        let StoredRate { rate: Rate { currency, day, rate, source }, created_at } = stored;
        Self { currency, day, rate: rate.to_string(), source, created_at }
    }
}

/// A rate that was changed.
#[derive(Debug, Serialize, ToSchema)]
struct FxRestatement {
    /// Counts up.
    #[schema(minimum = 1, example = 7)]
    id: i64,
    /// Not the euro.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "UAH")]
    currency: Currency,
    /// The day of the rate.
    #[schema(example = "2026-10-01")]
    day: NaiveDate,
    /// Who said it.
    source: RateSource,
    /// Units of the currency for one euro, before.
    #[schema(example = "48.2")]
    old_rate: String,
    /// Units of the currency for one euro, after.
    #[schema(example = "48.35")]
    new_rate: String,
    /// When it was changed.
    restated_at: DateTime<Utc>,
    /// Who changed it, or what.
    #[schema(example = "token 019aaf3c-5f00-7abc-8def-0123456789ab")]
    restated_by: String,
}

impl From<Restatement> for FxRestatement {
    fn from(restatement: Restatement) -> Self {
        let Restatement { id, rate, old_rate, restated_at, restated_by } = restatement;
        let Rate { currency, day, rate, source } = rate;
        let (old_rate, new_rate) = (old_rate.to_string(), rate.to_string());
        Self { id, currency, day, source, old_rate, new_rate, restated_at, restated_by }
    }
}

/// What became of rates that were given.
#[derive(Debug, Serialize, ToSchema)]
struct FxRatesPut {
    /// Rates that were not there.
    #[schema(example = 1)]
    new: u64,
    /// Rates that were there as they are.
    #[schema(example = 0)]
    unchanged: u64,
    /// Those that were there otherwise, and are changed.
    restated: Vec<FxRestatement>,
}

/// List rates
///
/// Those of the European Central Bank and your own, newest first. The rate of a day is the last that the bank published
/// before it, unless that is older than `money.rate_age_days_max`; else your own, from its day on.
#[utoipa::path(
    get, path = "/fx-rates", tag = "rates", operation_id = "list_fx_rates",
    params(
        ("currency" = Option<String>, Query, description = "Of this currency.", pattern = "^(?:[A-Za-z]{3})?$", example = "USD"),
        ("from" = Option<String>, Query, description = "Of this day or later.", pattern = "^(?:(?:19[7-9][0-9]|[2-9][0-9]{3})-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31))?$", example = "2026-10-01"),
        ("to" = Option<String>, Query, description = "Of this day or before.", pattern = "^(?:(?:19[7-9][0-9]|[2-9][0-9]{3})-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31))?$", example = "2026-10-31"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:[0-2][0-9a-f]{5}[A-Z]{3}(?:ecb|manual))?$", example = "0b4b4bUSDecb"),
    ),
    responses((status = 200, description = "A page.", body = Page<FxRate>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["currency", "from", "to", "limit", "cursor"]);
    let filter = Filter {
        currency: params.parsed("currency", "pattern"),
        from: params.day("from"),
        to: params.day("to"),
    };
    let (limit, after) = (params.limit(), params.any_cursor(parse_cursor));
    params.finish()?;
    let rows = fx_rates::list(&app.db, filter, after, rows_for(limit)).await?;
    let page = Page::new(rows, limit, |row| cursor(&row.rate));
    answer(StatusCode::OK, &page.shown::<FxRate>())
}

/// Give rates of your own
///
/// For currencies, or days, of which the European Central Bank has none. Each holds from its day on, until your next. All are
/// taken or none. Giving another rate for the same day changes it: a restatement, which is listed.
#[utoipa::path(
    put, path = "/fx-rates", tag = "rates", operation_id = "put_fx_rates",
    request_body = FxRatesInput,
    responses((status = 200, description = "What changed.", body = FxRatesPut), Problems),
)]
async fn put(Admin(token): Admin, State(app): State<App>, Json(body): Json) -> Result<Response, Problem> {
    let put = stored(&app, &body, token.id).await?;
    let restated = fx_rates::restatements_of(&app.db, put.restated).await?;
    let restated = restated.into_iter().map(FxRestatement::from).collect();
    answer(StatusCode::OK, &FxRatesPut { new: put.new, unchanged: put.unchanged, restated })
}

/// Stores the rates of a body, as those of the owner of this token.
pub(crate) async fn stored(app: &Parts, body: &Value, token: Uuid) -> Result<Put, Problem> {
    let rates = against_euro(app, input::read(body)?).await?;
    Ok(fx_rates::put(&app.db, rates, format!("token {token}"), |_| {}).await?)
}

/// List rates that were changed
///
/// Newest first. What was reported of days on which such a rate held is another figure since.
#[utoipa::path(
    get, path = "/fx-rates/restatements", tag = "rates", operation_id = "list_fx_restatements",
    params(
        ("currency" = Option<String>, Query, description = "Of this currency.", pattern = "^(?:[A-Za-z]{3})?$", example = "UAH"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<FxRestatement>), Problems),
)]
async fn restatements(
    _: Read,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["currency", "limit", "cursor"]);
    let currency = params.parsed("currency", "pattern");
    let (limit, after) = (params.limit(), params.number_cursor());
    params.finish()?;
    let rows = fx_rates::restatements(&app.db, currency, after, rows_for(limit)).await?;
    let page = Page::new(rows, limit, |row| number_cursor(row.id));
    answer(StatusCode::OK, &page.shown::<FxRestatement>())
}

/// The rates as they are kept; refused where the base of one has no rate on its day.
async fn against_euro(app: &Parts, asked: Vec<Asked>) -> Result<Vec<Rate>, Problem> {
    let days = || asked.iter().map(|asked| asked.rate.day);
    let (Some(first), Some(last)) = (days().min(), days().max()) else { return Ok(Vec::new()) };
    let known = fx_rates::load(&app.db, first, last, app.config.money.rate_age_days_max).await?;
    let (mut rates, mut errors) = (Vec::with_capacity(asked.len()), Vec::new());
    for (i, Asked { rate, base }) in asked.iter().enumerate() {
        let per_euro = known.against_euro(rate.rate, *base, rate.day).ok_or_else(|| {
            let detail = format!(
                "{base} has no rate on {}, or what comes out is out of bounds; give the rate against EUR",
                rate.day
            );
            FieldError::new(format!("/rates/{i}/base"), "no_rate", detail)
        });
        match per_euro {
            Ok(per_euro) => rates.push(Rate { rate: per_euro, ..*rate }),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(rates) } else { Err(errors.into()) }
}

/// Its day, counted from the year 1 on, its currency and its source.
pub(crate) fn cursor(rate: &Rate) -> String {
    format!("{:06x}{}{}", rate.day.num_days_from_ce(), rate.currency, rate.source)
}

pub(crate) fn parse_cursor(text: &str) -> Option<Key> {
    let ((day, rest), is_hex) = (text.split_at_checked(6)?, |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let day = i32::from_str_radix(day, 16).ok().filter(|_| day.bytes().all(is_hex))?;
    let (currency, source) = rest.split_at_checked(3)?;
    let currency = currency.parse().ok().filter(|parsed: &Currency| parsed.as_str() == currency)?;
    let day = NaiveDate::from_num_days_from_ce_opt(day).filter(|day| day.year() <= 9999)?;
    Some((day, currency, source.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_parse_to_what_they_were_made_of() {
        for source in [RateSource::Ecb, RateSource::Manual] {
            let day = "2026-10-30".parse().unwrap();
            let rate = Rate { currency: Currency::USD, day, rate: 1.into(), source };
            assert_eq!(parse_cursor(&cursor(&rate)), Some((day, Currency::USD, source)));
        }
        for bad in [
            "",
            "x",
            "0b4b4b",
            "0b4b4busdecb",
            "0B4b4bUSDecb",
            "+b4b4bUSDecb",
            "0b4b4bUSDme",
            "ffffffUSDecb",
            "0b4b4\u{e9}USDecb",
        ] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }
}
