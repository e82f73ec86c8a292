//! `octo sign-in-link`: the way into the dashboard for whoever may use the command line, without a password to be chosen, sent
//! or forgotten.

use std::process::ExitCode;

use super::{print, with_db};
use crate::{config::Config, db::store::sessions, server};

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let lasts = config.dashboard.sign_in_link;
    let base = server::dashboard_url(&config.server, None);
    with_db(config, async move |db| {
        let code = sessions::make_link(&db, lasts).await?;
        db.close();
        eprintln!("good once, for {} minutes:", lasts.as_secs().div_ceil(60));
        print(&format!("{}\n", server::sign_in_link(&base, &code)))
    })
}
