//! Targets that were read already: an offer of the library stands in many campaigns, and one target is enough for all of
//! them. No more than so many are kept, so that a start with as many URLs as offers does not hold all of them twice.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::destination::{Error, Target};

/// Targets that are kept; one more, and they are forgotten.
const KEPT_MAX: usize = 4096;

/// What was read while campaigns are made ready, by its URL.
#[derive(Debug, Default)]
pub struct Targets {
    known: HashMap<Box<str>, Arc<Target>, foldhash::fast::RandomState>,
}

impl Targets {
    /// Where a destination leads that was checked once; equal ones lead to one target.
    pub(super) fn read(&mut self, url: &str, web_url: Option<&str>) -> Result<Arc<Target>, Error> {
        // a valid URL holds no line break
        let key = web_url.map_or(Cow::Borrowed(url), |web| Cow::Owned(format!("{url}\n{web}")));
        if let Some(known) = self.known.get(&*key) {
            return Ok(known.clone());
        }
        let target = Arc::new(Target::parse_stored(url, web_url)?);
        if self.known.len() >= KEPT_MAX {
            self.known.clear();
        }
        self.known.insert(key.into(), target.clone());
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_urls_have_one_target_and_no_more_than_some_are_kept() {
        let mut targets = Targets::default();
        let mut read = |url: &str, web: Option<&str>| targets.read(url, web);
        let one = read("https://a.example/?s={sub1}", None).unwrap();
        assert!(Arc::ptr_eq(&one, &read("https://a.example/?s={sub1}", None).unwrap()));
        let web = Some("https://a.example/");
        let app = read("intent://a.example/#Intent;end", web).unwrap();
        assert!(Arc::ptr_eq(&app, &read("intent://a.example/#Intent;end", web).unwrap()));
        let alone = read("intent://a.example/#Intent;end", None).unwrap();
        assert_ne!(alone, app);
        assert!(read("https://a.example/\nhttps://b.example/", None).is_err());
        for i in 0..KEPT_MAX {
            assert_eq!(read(&format!("https://b.example/{i}"), None).unwrap().link().host(), "b.example");
        }
        assert_eq!(read("https://a.example/?s={sub1}", None).unwrap(), one, "read again");
        assert!(targets.known.len() <= KEPT_MAX);
    }
}
