//! Taking over what somebody else stored meanwhile.

use super::{
    draft::Draft,
    steps::{Editor, Place},
};

/// Takes over what somebody else stored: a rule by its id, or the paths of the default rule.
pub(super) fn take(editor: &mut Editor, theirs: &Draft, part: &str) {
    editor.show(None);
    if part == "d" {
        editor.draft.paths.clone_from(&theirs.paths);
        return;
    }
    let Ok(id) = part.parse::<i64>() else { return };
    let find = |draft: &Draft| draft.rules.iter().position(|rule| rule.id == Some(id));
    let rules = &mut editor.draft.rules;
    let mine = rules.iter().position(|rule| rule.id == Some(id));
    let theirs = find(theirs).map(|nth| (nth, theirs.rules[nth].clone()));
    editor.at = match (mine, theirs) {
        (Some(mine), Some((_, rule))) => {
            rules[mine] = rule;
            Some(Place::Rule(mine))
        }
        (Some(mine), None) => {
            rules.remove(mine);
            None
        }
        (None, Some((nth, rule))) => {
            let nth = nth.min(rules.len());
            rules.insert(nth, rule);
            Some(Place::Rule(nth))
        }
        (None, None) => None,
    };
}

#[cfg(test)]
mod tests {
    use super::{super::draft, *};

    #[test]
    fn what_somebody_else_stored_is_taken_rule_by_rule() {
        let rule = |id, name: &str| draft::Rule { id, name: name.to_owned(), ..draft::Rule::default() };
        let mine = Draft {
            rules: vec![rule(Some(1), "mine"), rule(Some(3), "gone"), rule(None, "new")],
            ..Draft::default()
        };
        let theirs =
            Draft { rules: vec![rule(Some(2), "added"), rule(Some(1), "theirs")], ..Draft::default() };
        let mut editor = Editor { draft: mine, ..Editor::default() };
        for part in ["1", "2", "3", "9", "x", "d"] {
            take(&mut editor, &theirs, part);
        }
        let names: Vec<&str> = editor.draft.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["added", "theirs", "new"]);
    }
}
