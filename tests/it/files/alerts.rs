//! The alert rules: each is tried both ways, and leads to the runbook. `edge::prometheus` runs the trials.

use std::{collections::HashSet, fs, path::Path};

use regex::Regex;

use crate::harness::prometheus_config;

fn yaml(name: &str) -> serde_norway::Value {
    serde_norway::from_str(&fs::read_to_string(prometheus_config().join(name)).unwrap()).unwrap()
}

/// The rules that alert, without those that record.
pub(crate) fn alerts() -> Vec<serde_norway::Value> {
    let rules = yaml("alerts.yml");
    let groups = rules["groups"].as_sequence().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap().clone());
    rules.filter(|rule| rule["alert"].is_string()).collect()
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let firing = Regex::new(r#"^count\(ALERTS\{alertname="(\w+)",alertstate="firing"\}\)$"#).unwrap();
    let (mut fires, mut is_quiet) = (HashSet::new(), HashSet::new());
    for file in ["alerts_test.yml", "alerts_long_test.yml"] {
        for test in yaml(file)["tests"].as_sequence().unwrap() {
            for expected in test["promql_expr_test"].as_sequence().into_iter().flatten() {
                let expression = expected["expr"].as_str().unwrap();
                let name =
                    firing.captures(expression).unwrap_or_else(|| panic!("{expression}"))[1].to_owned();
                assert_eq!(expected["exp_samples"][0]["value"].as_u64(), Some(1), "{name}");
                fires.insert(name);
            }
            for expected in test["alert_rule_test"].as_sequence().into_iter().flatten() {
                assert!(expected["exp_alerts"].is_null(), "{expected:?}");
                is_quiet.insert(expected["alertname"].as_str().unwrap().to_owned());
            }
        }
    }
    let names: HashSet<String> = alerts().iter().map(|a| a["alert"].as_str().unwrap().to_owned()).collect();
    assert!(names.len() > 20, "{names:?}");
    assert_eq!((&fires, &is_quiet), (&names, &names));
}

#[test]
fn every_alert_says_what_it_means_and_leads_to_a_heading_of_the_runbook() {
    let runbook = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let headings: Vec<String> =
        runbook.lines().filter_map(|l| l.strip_prefix("## ")).map(str::to_lowercase).collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let annotation =
            |key| alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
        assert!(annotation("summary").len() > 10, "{name}");
        assert!(annotation("description").contains("First: "), "{name} names no first command");
        let anchor = annotation("runbook").strip_prefix("docs/runbook.md#").unwrap();
        assert_eq!(anchor, name.to_lowercase());
        assert!(headings.iter().any(|heading| heading == anchor), "the runbook has no heading {anchor}");
    }
    let names: HashSet<String> =
        alerts().iter().map(|a| a["alert"].as_str().unwrap().to_lowercase()).collect();
    for heading in headings.iter().filter(|heading| heading.starts_with("octo")) {
        assert!(names.contains(heading), "the runbook has {heading}, which is no alert");
    }
}
