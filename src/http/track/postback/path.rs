//! The paths under which postbacks come: ours, and those that rival trackers told networks.

use crate::model::link::pairs;

/// The path of a postback, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PostbackPath {
    /// Where its network's key stands, in bytes of the path.
    key: Option<(usize, usize)>,
}

/// What a path with a key begins with; Keitaro has the two the other way round.
const OURS: &str = "/postback";

impl PostbackPath {
    /// `None`: the path takes no postbacks. Of some the query says that they are.
    pub(crate) fn of(path: &str, query: &str) -> Option<Self> {
        let bare = path.trim_end_matches('/');
        let key = match bare {
            OURS
            | "/postback.php"
            | "/cf/cv"
            | "/cf/postback"
            | "/pb"
            | "/adclick.php"
            | "/tracking202/static/gpb.php" => None,
            // Binom; with a campaign it is the link of a click, which may say anything
            "/click" | "/click.php" => {
                let has = |name: &str| pairs(query).any(|pair| pair.starts_with(name));
                let is_postback = query.contains("cnv_id=") && has("cnv_id=") && !has("cid=");
                is_postback.then_some(None)?
            }
            _ => {
                let place = bare
                    .strip_prefix("/postback/")
                    .map(|key| (OURS.len() + 1, key))
                    .or_else(|| Some((1, bare.strip_suffix(OURS)?.strip_prefix('/')?)));
                let (start, key) = place.filter(|(_, key)| !key.is_empty() && !key.contains('/'))?;
                Some((start, start + key.len()))
            }
        };
        Some(Self { key })
    }

    /// The key in the path that it was read from.
    pub(super) fn key(self, path: &str) -> Option<&str> {
        self.key.and_then(|(start, end)| path.get(start..end))
    }

    /// Its route, for metrics.
    pub(crate) fn route(self) -> &'static str {
        if self.key.is_some() { "/postback/{key}" } else { OURS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_rival_trackers_take_postbacks_and_links_do_not() {
        for (path, query, wanted) in [
            ("/postback", "", Some(None)),
            ("/postback/", "", Some(None)),
            ("/postback/networkkey", "", Some(Some("networkkey"))),
            ("/postback/networkkey/", "", Some(Some("networkkey"))),
            ("/networkkey/postback", "", Some(Some("networkkey"))),
            ("/postback.php", "", Some(None)),
            ("/cf/cv", "", Some(None)),
            ("/cf/postback", "", Some(None)),
            ("/pb/", "", Some(None)),
            ("/pb", "", Some(None)),
            ("/adclick.php", "", Some(None)),
            ("/tracking202/static/gpb.php", "", Some(None)),
            ("/click", "cnv_id=a&payout=1", Some(None)),
            ("/click.php", "payout=1&amp;cnv_id=a", Some(None)),
            ("/click", "cid=demo&cnv_id=a", None),
            ("/click", "xcnv_id=a", None),
            ("/click", "", None),
            ("/click.php", "", None),
            ("/postback/a/b", "", None),
            ("/a/b/postback", "", None),
            ("/postbacks", "", None),
            ("/xpostback", "", None),
            ("//postback", "", None),
            ("/", "", None),
            ("", "", None),
        ] {
            let found = PostbackPath::of(path, query).map(|found| found.key(path));
            assert_eq!(found, wanted, "{path}?{query}");
        }
    }
}
