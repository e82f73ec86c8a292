//! `POST /admin_api/v1/campaigns/{id}/update_costs`: the form in which Keitaro's users' scripts say costs
//! (docs.keitaro.io, Admin API), with a token of ours. `end_date` is in, unlike ours: `23:59` is the end of its minute.

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::post};
use chrono::{NaiveDate, TimeDelta, Timelike as _};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::{author, input};
use crate::{
    app::App,
    db::store::costs,
    http::{
        api::{
            campaigns,
            manners::{
                answer::answer,
                auth::Admin,
                idempotency::Attempt,
                request::{Json, Name},
            },
        },
        error::{FieldError, Problem},
        fields::{Fields, Given},
    },
};

const FIELDS: &[&str] = &["start_date", "end_date", "timezone", "cost", "currency", "only_campaign_uniques"];

/// The route of this module.
pub(crate) fn router() -> Router<App> {
    Router::new().route("/admin_api/v1/campaigns/{id}/update_costs", post(update))
}

async fn update(
    Admin(token): Admin,
    State(app): State<App>,
    Name(id): Name,
    attempt: Attempt,
    Json(body): Json,
) -> Result<Response, Problem> {
    let campaign = campaigns::find(&app, &id).await?;
    let said = input::read(&translate(campaign.key.as_str(), &body)?, "")?;
    costs::insert(&app.db, attempt.id, said.of(campaign.id), author(&token)).await?;
    answer(StatusCode::OK, &json!({"success": true}))
}

/// The same as we say it.
fn translate(key: &str, body: &Value) -> Result<Value, Vec<FieldError>> {
    let mut f = Fields::new(body, "").map_err(|error| vec![error])?;
    let text = |f: &mut Fields<'_>, name: &str| f.text(name, 1..=64).unwrap_or_default().to_owned();
    let zone = match f.given("timezone") {
        Given::Absent => "UTC".to_owned(),
        _ => text(&mut f, "timezone"),
    };
    if zone.parse::<Tz>().is_err() {
        f.refuse("timezone", "choice", "must be an IANA time zone such as Europe/Berlin");
    }
    let (start, end) = (text(&mut f, "start_date"), text(&mut f, "end_date"));
    let end = after(&end, &zone).unwrap_or(end);
    let cost = match f.given("cost") {
        Given::Value(Value::Number(number)) => number.to_string(),
        _ => text(&mut f, "cost"),
    };
    let spread = if f.boolean("only_campaign_uniques", false) { "unique" } else { "valid" };
    let currency = f.text("currency", 3..=3).unwrap_or_default().to_owned();
    f.refuse_unknown(FIELDS, &[]);
    f.finish_with(Some(json!({
        "campaign": key, "from": start, "to": end, "time_zone": zone, "kind": "total", "amount": cost,
        "currency": currency, "spread": spread, "note": "update_costs",
    })))
}

/// What comes after the last day, minute or second that is in.
fn after(end: &str, zone: &str) -> Option<String> {
    if let Ok(day) = end.trim().parse::<NaiveDate>() {
        return Some(day.succ_opt()?.to_string());
    }
    let time = input::parse(end, zone.parse().ok()?)?;
    let last = match (time.minute() % 15, time.second()) {
        (14, 59) => TimeDelta::seconds(1),
        (14, 0) => TimeDelta::minutes(1),
        _ => TimeDelta::zero(),
    };
    Some((time + last).to_rfc3339())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_and_the_last_day_are_in() {
        for (start, end, from, to) in [
            ("2026-09-10 00:00", "2026-09-10 23:59", "2026-09-10", "2026-09-11T00:00:00+00:00"),
            ("2026-09-10", "2026-09-10 23:59:59", "2026-09-10", "2026-09-11T00:00:00+00:00"),
            ("2026-09-10", "2026-09-12", "2026-09-10", "2026-09-13"),
            ("2026-09-10 05:00", "2026-09-10 10:00", "2026-09-10 05:00", "2026-09-10T10:00:00+00:00"),
        ] {
            let body = json!({"start_date": start, "end_date": end, "cost": 19.22, "currency": "EUR"});
            let said = translate("demo", &body).unwrap();
            assert_eq!((said["to"].as_str(), said["amount"].as_str()), (Some(to), Some("19.22")), "{end}");
            assert!(said["from"].as_str().unwrap().starts_with(from));
            assert!(input::read(&said, "").is_ok(), "{end}");
        }
        assert!(translate("demo", &json!({"cost": 1})).is_err());
    }
}
