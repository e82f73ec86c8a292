//! What stands around every page of somebody who is signed in.

use chrono::Utc;

use super::{
    assets,
    query::Query,
    session::Opened,
    view::{PresetLink, View},
};
use crate::app::App;

/// A place of the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Campaigns,
    Report,
    Clicks,
    Conversions,
    Costs,
    Library,
    Live,
    Health,
    Settings,
}

/// The frame of a page.
pub(super) struct Frame {
    /// Its title.
    pub(super) title: String,
    /// Where the menu is.
    pub(super) section: Section,
    /// Range, zone and currency.
    pub(super) view: View,
    /// The address of the page with all it was asked, for links that change one thing.
    pub(super) query: Query,
    /// What forms hold.
    pub(super) csrf: String,
    /// Whether changes are offered.
    pub(super) may_change: bool,
    /// The scope of who is signed in.
    pub(super) scope: &'static str,
    /// What was just done, in a sentence.
    pub(super) notice: Option<String>,
    /// The address of the style.
    pub(super) style: &'static str,
    /// The address of the module.
    pub(super) script: &'static str,
}

impl Frame {
    /// Around the page at `path`, whose address has parameters of the names `own` beside those that all pages have in common.
    pub(super) fn of(app: &App, opened: &Opened, section: Section, path: &str, own: &[&str]) -> Self {
        let Opened { viewer, fields } = opened;
        let view = View::of(path, fields, &app.config.dashboard, Utc::now());
        Self {
            title: String::new(),
            section,
            query: view.query.clone().keeping(fields, own),
            view,
            csrf: viewer.csrf(),
            may_change: viewer.may_change(),
            scope: viewer.scope(),
            notice: None,
            style: assets::style(),
            script: assets::script(),
        }
    }

    /// The menu: address, name, whether it is here.
    pub(super) fn menu(&self) -> Vec<(String, &'static str, bool)> {
        let entry = |section, path, name| (self.view.link(path), name, section == self.section);
        vec![
            entry(Section::Overview, "/ui", "Overview"),
            entry(Section::Campaigns, "/ui/campaigns", "Campaigns"),
            entry(Section::Report, "/ui/report", "Report"),
            entry(Section::Clicks, "/ui/clicks", "Clicks"),
            entry(Section::Conversions, "/ui/conversions", "Conversions"),
            entry(Section::Costs, "/ui/costs", "Costs"),
            entry(Section::Library, "/ui/library", "Library"),
            entry(Section::Live, "/ui/live", "Live"),
            entry(Section::Health, "/ui/health", "Health"),
            entry(Section::Settings, "/ui/settings", "Settings"),
        ]
    }

    /// With this title.
    pub(super) fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    pub(super) fn presets(&self) -> Vec<PresetLink> {
        self.view.presets(&self.query)
    }

    /// The days before and those after: address, name, key.
    pub(super) fn steps(&self) -> Vec<(String, &'static str, &'static str)> {
        let earlier = self.view.earlier(&self.query).map(|it| (it, "Earlier", "ArrowLeft"));
        let later = self.view.later(&self.query).map(|it| (it, "Later", "ArrowRight"));
        earlier.into_iter().chain(later).collect()
    }

    /// What a form of this page sends along: all that it was asked.
    pub(super) fn kept(&self) -> Vec<(String, String)> {
        self.query.hidden(&[])
    }

    /// What the form of days sends along.
    pub(super) fn kept_by_days(&self) -> Vec<(String, String)> {
        self.query.hidden(&["range", "from", "to", "tz", "currency"])
    }
}
