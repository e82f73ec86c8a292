//! What octo says of itself once it serves: what runs where, and how to go on.

use std::{
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::atomic::Ordering,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use socket2::SockRef;
use tokio::{net::TcpListener, time::timeout};

use super::first_run;
use crate::{
    app::{App, SetUp},
    campaigns::{Lookup, Source},
    config::{self, Config, LogFormat},
    db::store::sessions,
    embedded::{self, Supervisor},
};

/// How long the announcement waits for PostgreSQL, so that it can say more than that it is being asked. Clicks are
/// redirected meanwhile.
const WAIT: Duration = Duration::from_secs(1);

/// Says what is true once it is known whether PostgreSQL can be used, after [`WAIT`] at the latest. `took`: the start.
pub(super) async fn once_decided(app: &App, took: Duration) {
    let _ = timeout(WAIT, first_run::is_decided(app)).await; // what is true at the end of it is said
    announce(app, took).await;
}

/// The last lines at start: what runs where, and how to go on.
async fn announce(app: &App, took: Duration) {
    let postgres = postgres_line(app);
    let redis = redis_place(&app.config.redis);
    let (count, source) = app.campaigns.state();
    let campaigns = match source {
        Source::Disk => format!("{count}, saved by an earlier start"),
        _ => count.to_string(),
    };
    let demo = first_run::DEMO_KEY;
    let data_dir = &app.config.server.data_dir;
    let data = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.clone());
    let mut lines = vec![
        ("public URL", public_url_line(app)),
        ("PostgreSQL", postgres),
        ("Redis", redis),
        ("campaigns", campaigns),
        ("data", format!("{} (journal: {})", data.display(), app.config.journal_dir().display())),
    ];
    lines.splice(4..4, app.enricher.sources());
    let dashboard = dashboard_url(&app.config.server, Some(&app.public_url));
    if app.private_postgres.is_some() {
        let has_demo = match demo.parse() {
            Ok(key) => matches!(app.campaigns.get(&key).await, Lookup::Found(_)),
            Err(_) => false,
        };
        if has_demo {
            lines.push(("click link", format!("{}/click?cid={demo}", app.public_url)));
        }
        lines.push(("dashboard", dashboard_line(app, &dashboard).await));
        lines.push((
            "admin token",
            admin_token_line(data_dir, app.state.has_new_token.load(Ordering::Relaxed)),
        ));
    } else {
        lines.push(("dashboard", format!("{dashboard}/ui; sign in with `octo sign-in-link`")));
        lines.push(("admin token", "make one with `octo token create --scope admin`".to_owned()));
    }
    if std::io::stderr().is_terminal() || app.config.log.format == LogFormat::Text {
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("  {name:<12} {value}")).collect();
        let (version, lines) = (env!("CARGO_PKG_VERSION"), lines.join("\n"));
        let said = format!("\nocto {version} is ready after {:.1} s\n{lines}\n\n", took.as_secs_f64());
        let _ = std::io::stderr().write_all(said.as_bytes()); // a terminal that is gone is no reason to stop
    } else {
        tracing::info!(took_ms = took.as_millis(), postgres = lines[1].1, "ready");
    }
}

/// A way in where nothing is configured: whoever reads this line started octo. A log file is read by many, so there the line names
/// the command.
async fn dashboard_line(app: &App, base: &str) -> String {
    let dashboard = &app.config.dashboard;
    if !std::io::stderr().is_terminal() && app.config.log.format != LogFormat::Text {
        return format!("{base}/ui");
    }
    match sessions::make_link(&app.db, dashboard.sign_in_link).await {
        Ok(code) => {
            let minutes = dashboard.sign_in_link.as_secs().div_ceil(60);
            format!("{} (good once, for {minutes} minutes)", sign_in_link(base, &code))
        }
        Err(_) => format!("{base}/ui; sign in with `octo sign-in-link` once PostgreSQL answers"),
    }
}

/// What the dashboard's address begins with: the admin listener where there is one, else `public_url`, else what is configured of it.
pub fn dashboard_url(server: &config::Server, public_url: Option<&str>) -> String {
    match (server.admin_listen, public_url, &server.public_url) {
        (Some(admin), ..) => format!("http://{}", reachable(admin, false)),
        (None, Some(url), _) => url.to_owned(),
        (None, None, Some(url)) => url.as_str().trim_end_matches('/').to_owned(),
        (None, None, None) => format!("http://{}", reachable(server.listen, false)),
    }
}

/// The link that signs in by this code. It stands behind `#`: browsers do not send that, so no proxy logs it.
pub fn sign_in_link(base: &str, code: &str) -> String {
    format!("{base}/ui#t={code}")
}

/// What is true of PostgreSQL now; what becomes true later is in the log.
fn postgres_line(app: &App) -> String {
    const WAIT: &str = "clicks are redirected and wait in the journal";
    let set_up = app.state.set_up.borrow().clone();
    let line = match app.private_postgres.as_deref().map(Supervisor::state) {
        Some(embedded::State::Up { data }) => format!("private, only for octo; data in {}", data.display()),
        Some(embedded::State::Starting) => {
            return format!("private, only for octo; IS BEING STARTED, {WAIT}");
        }
        Some(embedded::State::Failing(reason)) => {
            return format!("private, only for octo; CANNOT BE STARTED: {reason}. It is tried again; {WAIT}");
        }
        None => format!("{}, {} replicas", app.db.primary().server(), app.db.replicas().len()),
    };
    match set_up {
        SetUp::Schema | SetUp::Complete => line,
        SetUp::Waiting => format!("{line}; HAS NOT ANSWERED YET; {WAIT}"),
        SetUp::Failing(reason) => {
            let reason = reason.replacen("does not answer", "DOES NOT ANSWER", 1);
            format!("{line}; {reason}; {WAIT}")
        }
    }
}

fn public_url_line(app: &App) -> String {
    let url = &app.public_url;
    if app.config.server.public_url.is_none() && app.config.server.listen.ip().to_canonical().is_unspecified()
    {
        return format!("{url} (on this machine; set server.public_url to what visitors see)");
    }
    url.clone()
}

/// A token is shown once: log files are read by many.
fn admin_token_line(data_dir: &Path, is_new: bool) -> String {
    let file = first_run::token_file(data_dir);
    match std::fs::read_to_string(&file) {
        Ok(token) if is_new => format!("{} (not shown again; kept in {})", token.trim(), file.display()),
        Ok(_) => format!("kept in {}", file.display()),
        Err(_) => "make one with `octo token create --scope admin`".to_owned(),
    }
}

fn redis_place(config: &config::Redis) -> String {
    let places = |urls: &[SecretString]| -> String {
        urls.iter().map(|u| place_of(u.expose_secret())).collect::<Vec<_>>().join(", ")
    };
    match (&config.url, &config.sentinel_master) {
        (Some(url), _) => place_of(url.expose_secret()),
        (None, Some(master)) => format!("{master}, named by Sentinel at {}", places(&config.sentinel_urls)),
        (None, None) if config.cluster_urls.is_empty() => "not configured, not needed".to_owned(),
        (None, None) => format!("Cluster at {}", places(&config.cluster_urls)),
    }
}

/// Host, port and database of a URL, without user and password.
fn place_of(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "configured".to_owned() };
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let host = url.query_pairs().find(|(k, _)| k == "host").map(|(_, v)| v.into_owned());
    let host = host.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    format!("{host}{port}{}", url.path())
}

/// What links are built from: as configured, else an address of this machine that a browser can open.
pub(super) fn public_url(config: &Config, listener: &TcpListener) -> anyhow::Result<String> {
    if let Some(url) = &config.server.public_url {
        return Ok(url.as_str().trim_end_matches('/').to_owned());
    }
    let is_only_v6 = SockRef::from(listener).only_v6().unwrap_or(false);
    Ok(format!("http://{}", reachable(listener.local_addr()?, is_only_v6)))
}

/// `0.0.0.0` and `[::]` are every address, and none that can be asked for. Which of its own a machine is known by
/// outside only its owner knows: this is the one that is always right on the machine itself.
fn reachable(listening: SocketAddr, is_only_v6: bool) -> SocketAddr {
    let ip = match listening.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() && is_only_v6 => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_link_can_be_opened() {
        for (listening, is_only_v6, wanted) in [
            ("0.0.0.0:8080", false, "127.0.0.1:8080"),
            ("0.0.0.0:80", false, "127.0.0.1:80"),
            ("[::]:8080", false, "127.0.0.1:8080"), // takes IPv4 too
            ("[::]:8080", true, "[::1]:8080"),
            ("[::ffff:0.0.0.0]:8080", false, "127.0.0.1:8080"),
            ("127.0.0.1:8080", false, "127.0.0.1:8080"),
            ("127.0.0.5:1", false, "127.0.0.5:1"),
            ("192.0.2.7:8080", false, "192.0.2.7:8080"),
            ("[::ffff:192.0.2.7]:8080", false, "192.0.2.7:8080"),
            ("[::1]:65535", true, "[::1]:65535"),
            ("[2001:db8::1]:8080", true, "[2001:db8::1]:8080"),
        ] {
            let address = reachable(listening.parse().unwrap(), is_only_v6);
            assert_eq!(address.to_string(), wanted, "{listening}");
        }
    }
}
