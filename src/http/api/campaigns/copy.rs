//! A campaign like another.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    CampaignBody, allowed_with, find,
    input::{self, Asked, CampaignPatch},
    show,
};
use crate::{
    app::{App, Parts},
    db::store::campaigns,
    http::{
        api::manners::{
            answer::{ROOT, located},
            auth::Admin,
            idempotency::Attempt,
            problems::Problems,
            request::{Name, OptionalJson},
        },
        error::Problem,
    },
    model::campaign::{Campaign, Status, Terms},
};

/// Characters of a name at most.
const NAME_CHARS_MAX: usize = 255;

/// Copy a campaign
///
/// Another one on the same terms, with what the body changes of them: a draft with a key of its own, unless it says
/// otherwise. Rules, paths, landing pages and offers of its own get ids of their own; those of the library stay.
#[utoipa::path(
    post, path = "/campaigns/{id}/clone", tag = "campaigns", operation_id = "clone_campaign",
    params(("id" = String, Path, description = "Its id (a UUID with hyphens) or key.", example = "summer-sale")),
    request_body(content = Option<CampaignPatch>, example = json!({"name": "Autumn sale"})),
    responses(
        (status = 201, description = "The copy is made.", body = CampaignBody, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "Its version."),
        )),
        (status = 409, description = "Another campaign has this key."),
        Problems,
    ),
)]
pub(super) async fn copy(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    attempt: Attempt,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let campaign = copied(&app, &id, &body, &headers, attempt.id, attempt.is_again).await?;
    let location = format!("{ROOT}/campaigns/{}", campaign.id);
    located(show(&app, StatusCode::CREATED, campaign)?, &location)
}

/// Another campaign on the terms of one, with what a body changes of them, made with the id `made_as`; `is_again`: unless
/// there is one.
pub(crate) async fn copied(
    app: &Parts,
    id_or_key: &str,
    body: &Value,
    headers: &HeaderMap,
    made_as: Uuid,
    is_again: bool,
) -> Result<Campaign, Problem> {
    let original = find(app, id_or_key).await?;
    let copy = Campaign { terms: terms_of_copy(&original.terms), ..original };
    let allowed = allowed_with(app, headers, body, Some(&copy.terms)).await?;
    let Asked { key, terms } = input::read(body, Some(&copy), &allowed)?;
    let campaign = campaigns::insert_as(&app.db, made_as, is_again, key, terms).await?;
    app.campaigns.invalidate_campaign(&campaign.key).await;
    Ok(campaign)
}

/// The terms of a copy; they are stored with ids of their own.
pub(crate) fn terms_of_copy(terms: &Terms) -> Terms {
    let end = " (copy)";
    let begin: String = terms.name.chars().take(NAME_CHARS_MAX - end.len()).collect();
    Terms { name: format!("{begin}{end}"), status: Status::Draft, epoch: 0, ..terms.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_draft_whose_name_says_so_and_fits() {
        let terms = Terms { name: "\u{e9}".repeat(255), epoch: 3, ..Terms::demo("https://a.example/") };
        let copy = terms_of_copy(&terms);
        assert_eq!((copy.name.chars().count(), copy.status, copy.epoch), (255, Status::Draft, 0));
        assert!(copy.name.ends_with("\u{e9} (copy)"));
        assert_eq!(copy.landing_pages, terms.landing_pages);
    }
}
