//! What of the library can be chosen.

use super::{
    draft::Kind,
    steps::{Editor, Place},
};
use crate::{
    app::App,
    db::store::{landing_pages, library::Filter, offers},
    http::error::Problem,
};

/// Things of the library to choose from.
const SHELF_MAX: i64 = 500;

/// Its landing pages and offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Id and name.
    pub(super) landing_pages: Vec<(i64, String)>,
    pub(super) offers: Vec<(i64, String)>,
}

/// With the names of what was chosen of the library.
pub(super) fn named(mut editor: Editor, shelf: &Shelf) -> Editor {
    let Some(Place::Path(rule, path)) = editor.open else { return editor };
    if let Some(path) = editor.draft.paths_mut(rule).and_then(|paths| paths.get_mut(path)) {
        for (entries, known) in
            [(&mut path.landing_pages, &shelf.landing_pages), (&mut path.offers, &shelf.offers)]
        {
            for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::Library) {
                if let Some((_, name)) = known.iter().find(|(id, _)| Some(*id) == entry.id) {
                    entry.name.clone_from(name);
                }
            }
        }
    }
    editor
}

/// What of the library can be chosen.
pub(super) async fn shelf(app: &App) -> Result<Shelf, Problem> {
    let filter = || Filter { is_archived: Some(false), ..Filter::default() };
    let pages = landing_pages::list(&app.db, filter(), None, SHELF_MAX).await?;
    let offers = offers::list(&app.db, filter(), None, None, SHELF_MAX).await?;
    Ok(Shelf {
        landing_pages: pages.into_iter().map(|page| (page.id, page.terms.name)).collect(),
        offers: offers.into_iter().map(|offer| (offer.id, offer.terms.name)).collect(),
    })
}
