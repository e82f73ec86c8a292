//! `GET /api/v1/campaigns/{id}/stats`: figures of a campaign by hour or day.

use std::time::Duration;

use axum::{
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::Response,
};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::store::stats::{self, Bucket, GroupBy},
    http::{
        api::{
            campaigns,
            manners::{answer::answer, auth::Read, page::Params, problems::Problems, request::Name},
            views::stats::{Stats, Totals},
        },
        error::{FieldError, Problem},
        fields::ZONE_WANTED,
    },
    model::{campaign::Campaign, hour::hour_of},
};

/// Most hours or days of an answer.
const BUCKETS_MAX: i32 = 2400;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// Figures of a campaign
///
/// From hourly roll-ups, which are counted when a click is stored, usually within a second.
#[utoipa::path(
    get, path = "/campaigns/{id}/stats", tag = "stats", operation_id = "get_campaign_stats",
    params(
        ("id" = String, Path, description = "The campaign's id or key.", example = "summer-sale"),
        ("from" = Option<String>, Query, description = "From the hour of this time (RFC 3339); by default 30 days, by hour one day, before `to`.", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Before this time (RFC 3339); by default now.", example = "2026-02-01T00:00:00Z"),
        ("group_by" = Option<GroupBy>, Query, description = "`day` by default."),
        ("tz" = Option<String>, Query, description = "IANA time zone whose days count; `UTC` by default.", example = "Europe/Berlin"),
    ),
    responses(
        (status = 200, description = "The figures.", body = Stats, headers(
            ("Age" = Option<u64>, description = "Seconds since they were read from the database: they were kept (`cache.stats_ttl_s`). Absent: read just now."),
        )),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = read(query.as_deref(), Utc::now())?;
    let campaign = campaigns::find(&app, &id).await?;
    let (age, data) = figures(&app, &campaign, &asked).await?;
    let Asked { group_by, from, to, tz } = asked;
    let totals = Totals::of(&data);
    let data = data.into_iter().map(Into::into).collect();
    let stats = Stats { campaign_id: campaign.id, group_by, tz, from, to, data, totals };
    let mut answer = answer(StatusCode::OK, &stats)?;
    if let Some(age) = age {
        answer.headers_mut().insert(header::AGE, age.as_secs().into());
    }
    Ok(answer)
}

/// The figures and their age, if they were kept.
async fn figures(
    app: &App,
    campaign: &Campaign,
    asked: &Asked,
) -> Result<(Option<Duration>, Vec<Bucket>), Problem> {
    let question = asked.question(campaign.id);
    if let Some((age, data)) = app.report_cache.get(&campaign.key, &question).await {
        return Ok((Some(age), data));
    }
    let Asked { group_by, from, to, ref tz } = *asked;
    let found = stats::by(&app.db, campaign.id, group_by, from, to, tz).await?;
    let data = found.ok_or_else(unknown_zone)?;
    app.report_cache.keep(&campaign.key, &question, &data).await;
    Ok((None, data))
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    group_by: GroupBy,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    tz: String,
}

impl Asked {
    /// What makes a question another one: the hours from the first until the last, which `to` may lie in. So what
    /// is asked until now is the same question for an hour.
    fn question(&self, campaign_id: Uuid) -> String {
        let Self { group_by, from, to, tz } = self;
        let end = hour_of(*to + TimeDelta::nanoseconds(3_599_999_999_999));
        format!("{campaign_id} {group_by} {} {} {tz}", from.timestamp(), end.timestamp())
    }
}

fn read(query: Option<&str>, now: DateTime<Utc>) -> Result<Asked, Problem> {
    let mut params = Params::parse(query, &["from", "to", "group_by", "tz"]);
    let group_by = params.parsed("group_by", "choice").unwrap_or(GroupBy::Day);
    let (step, default_steps) = match group_by {
        GroupBy::Hour => (TimeDelta::hours(1), 24),
        GroupBy::Day => (TimeDelta::days(1), 30),
    };
    let to = params.time("to").unwrap_or(now.trunc_subsecs(0));
    let from = hour_of(params.time("from").unwrap_or(to - step * default_steps));
    let tz = params.text("tz").unwrap_or("UTC").to_owned();
    if !is_zone_name(&tz) {
        params.refuse("tz", "time_zone", ZONE_WANTED);
    }
    if to <= from {
        params.refuse("to", "range", "must be after from");
    } else if to - from > step * BUCKETS_MAX {
        params.refuse("from", "range", format!("must be at most {BUCKETS_MAX} {group_by}s before to"));
    }
    params.finish()?;
    Ok(Asked { group_by, from, to, tz })
}

/// Whether it has the shape of an IANA name. Postgres also takes POSIX rules such as `X+3`, which are not
/// ours to offer; whether there is such a zone is for Postgres to say.
fn is_zone_name(tz: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b));
    let is_place = tz.contains('/');
    tz.len() <= 64 && tz.split('/').all(part) && (is_place || tz.bytes().all(|b| b.is_ascii_alphabetic()))
}

fn unknown_zone() -> Problem {
    FieldError::new("?tz", "time_zone", ZONE_WANTED).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_is_the_last_thirty_days() {
        let now = time("2026-03-31T10:20:30Z");
        let asked = read(None, now).unwrap();
        let wanted = Asked {
            group_by: GroupBy::Day,
            from: time("2026-03-01T10:00:00Z"),
            to: now,
            tz: "UTC".to_owned(),
        };
        assert_eq!(asked, wanted);
    }

    #[test]
    fn a_question_is_the_same_for_every_end_within_an_hour() {
        let question = |query: &str, now: &str| read(Some(query), time(now)).unwrap().question(Uuid::nil());
        let asked = question("", "2026-03-31T10:20:30Z");
        assert_eq!(asked, question("", "2026-03-31T10:59:59Z"));
        assert_eq!(
            asked,
            question("to=2026-03-31T11:00:00Z&from=2026-03-01T10:30:00Z", "2026-04-01T00:00:00Z")
        );
        assert_ne!(asked, question("", "2026-03-31T11:00:01Z"));
        for other in ["group_by=hour", "tz=Europe/Berlin", "from=2026-03-02T00:00:00Z"] {
            assert_ne!(asked, question(other, "2026-03-31T10:20:30Z"), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused_by_name() {
        let now = time("2026-03-31T10:20:30Z");
        for (query, pointer) in [
            ("group_by=country", "?group_by"),
            ("tz=X%2B3", "?tz"),
            ("tz=../etc", "?tz"),
            ("from=2026-04-01T00:00:00Z", "?to"),
            ("group_by=hour&from=2020-01-01T00:00:00Z", "?from"),
        ] {
            let problem = read(Some(query), now).unwrap_err();
            assert_eq!(problem.errors()[0].pointer, pointer, "{query}");
        }
        let problem = read(Some("group_by=country"), now).unwrap_err();
        assert_eq!(problem.errors()[0].detail, "must be one of hour, day");
    }
}
