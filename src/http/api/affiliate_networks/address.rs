//! The address to which a network sends its postbacks, ready to be entered there.

use crate::{
    model::{
        network::{NetworkTerms, PostbackField},
        source::Macro,
    },
    templates,
};

/// Fields in the order in which they stand in the address, and what they are called where the network calls them nothing
/// else.
const FIELDS: [(PostbackField, &str); 7] = [
    (PostbackField::ClickId, "click_id"),
    (PostbackField::Payout, "payout"),
    (PostbackField::Currency, "currency"),
    (PostbackField::SaleAmount, "sale_amount"),
    (PostbackField::Txid, "txid"),
    (PostbackField::Status, "status"),
    (PostbackField::Goal, "goal"),
];

/// What its owner puts in.
const REPLACE: &str = "REPLACE";

/// The address, with the network's macros. Where nobody knows them, `REPLACE` stands for what is needed most.
pub(super) fn of(terms: &NetworkTerms, public_url: &str) -> String {
    let template = terms.template.as_deref().and_then(templates::network);
    let text = |r#macro: &Option<Macro>| r#macro.as_ref().map(|m| m.as_str().to_owned());
    let value = |field| match (field, template) {
        (PostbackField::ClickId, _) => text(&terms.click_id_macro).or_else(|| Some(REPLACE.to_owned())),
        (PostbackField::Payout, None) => Some(REPLACE.to_owned()),
        (_, None) => own_name(terms, field).map(|_| REPLACE.to_owned()),
        (PostbackField::Payout, Some(template)) => text(&template.payout_macro),
        (PostbackField::Currency, Some(template)) => text(&template.currency_macro),
        (PostbackField::SaleAmount, Some(template)) => text(&template.sale_amount_macro),
        (PostbackField::Txid, Some(template)) => text(&template.transaction_id_macro),
        (PostbackField::Status, Some(template)) => text(&template.status_macro),
        (PostbackField::Goal, Some(template)) => text(&template.goal_macro),
        (PostbackField::StatusDetail | PostbackField::Time, Some(_)) => None,
    };
    let pairs = FIELDS.into_iter().filter_map(|(field, name)| {
        Some(format!("{}={}", own_name(terms, field).unwrap_or(name), value(field)?))
    });
    let token = terms.postback_token.map(|_| format!("token={REPLACE}"));
    let key = terms.postback_key.as_ref().map_or("", |key| key.as_str());
    format!("{public_url}/postback/{key}?{}", pairs.chain(token).collect::<Vec<_>>().join("&"))
}

fn own_name(terms: &NetworkTerms, field: PostbackField) -> Option<&str> {
    let own = terms.postback_parameters.iter().find(|parameter| parameter.field == field);
    own.map(|parameter| parameter.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::PostbackParameter;

    #[test]
    fn an_address_has_the_networks_macros_or_says_what_to_replace() {
        let key = || "networkkey".parse().ok();
        let of_template = |name: &str| {
            let template = templates::network(name).unwrap();
            NetworkTerms {
                template: Some(name.to_owned()),
                click_id_macro: Some(template.click_id_macro.clone()),
                postback_key: key(),
                ..NetworkTerms::default()
            }
        };
        let base = "https://t.example/postback/networkkey";
        for (terms, wanted) in [
            (of_template("cake"), "click_id=#s2#&payout=#price#&txid=#leadid#"),
            (of_template("adcombo"), "click_id={subacc4}&payout={revenue}&txid={trans_id}&status={status}"),
            (
                NetworkTerms { postback_key: key(), ..NetworkTerms::default() },
                "click_id=REPLACE&payout=REPLACE",
            ),
            (
                NetworkTerms {
                    postback_key: key(),
                    postback_token: "s3cret-token".parse().ok(),
                    postback_parameters: vec![PostbackParameter {
                        field: PostbackField::Goal,
                        name: "level".parse().unwrap(),
                    }],
                    ..NetworkTerms::default()
                },
                "click_id=REPLACE&payout=REPLACE&level=REPLACE&token=REPLACE",
            ),
        ] {
            assert_eq!(of(&terms, "https://t.example"), format!("{base}?{wanted}"));
        }
    }
}
