//! What may be kept of a visitor, and for how long somebody can be told apart.

pub mod keys;

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{config::IpMode, facts::click::Click, model::id::ClickId, privacy::keys::Keys};

/// Decides what a click keeps of its sender.
#[derive(Debug)]
pub struct Privacy {
    ip_mode: IpMode,
    keys: Arc<Keys>,
}

/// Who sent a request, as it says.
#[derive(Debug, Clone)]
pub struct Sender<'a> {
    /// The whole address.
    pub ip: IpAddr,
    /// Cleaned and cut.
    pub user_agent: Option<Cow<'a, str>>,
    /// Cleaned and cut.
    pub referrer: Option<Cow<'a, str>>,
    /// By Global Privacy Control, where that is respected.
    pub asks_for_privacy: bool,
}

impl Privacy {
    /// `keys` are what addresses are hashed under, where they are.
    pub fn new(ip_mode: IpMode, keys: Arc<Keys>) -> Self {
        Self { ip_mode, keys }
    }

    /// Puts into a click what is kept of its sender, in the journal and in the destination. Of one who asks for privacy
    /// that is the site that led here, and of the visitor what was kept before there was more to know: country, device,
    /// system and browser, without versions, languages and places.
    pub fn describe<'a>(&self, sender: Sender<'a>, click: &mut Click<'a>) {
        let Sender { ip, user_agent, referrer, asks_for_privacy } = sender;
        if asks_for_privacy {
            click.referrer = referrer.map(|referrer| Cow::Owned(site(&referrer).to_owned()));
            (click.os_version, click.browser_version, click.language) = (None, None, None);
            (click.region, click.city, click.isp, click.connection) = (None, None, None, None);
        } else {
            click.ip = self.kept_address(ip, click.id.timestamp_ms() / 1000);
            click.user_agent = user_agent;
            click.referrer = referrer;
        }
    }

    /// What `privacy.ip_mode` leaves of an address that is seen now.
    pub fn address_of_now(&self, ip: IpAddr) -> Option<IpAddr> {
        self.kept_address(ip, ClickId::now().timestamp_ms() / 1000)
    }

    /// What `privacy.ip_mode` leaves of an address.
    fn kept_address(&self, ip: IpAddr, now_s: u64) -> Option<IpAddr> {
        match self.ip_mode {
            IpMode::Full => Some(ip),
            IpMode::Truncate => Some(truncate(ip)),
            IpMode::Hash => Some(self.keys.hash_address(ip, now_s)),
            IpMode::None => None,
        }
    }
}

/// The network an address is in, without the rest: /24 of IPv4, /48 of IPv6.
fn truncate(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 80)).into(),
    }
}

/// The site of a referrer: its scheme and host. Empty where it is no URL.
fn site(referrer: &str) -> &str {
    let Some(start) = referrer.find("://").map(|i| i + 3) else { return "" };
    let end = referrer[start..].find(['/', '?', '#']).map_or(referrer.len(), |i| start + i);
    // a user part is a person's
    if referrer[start..end].contains('@') { "" } else { &referrer[..end] }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::id::ClickId;

    fn kept(ip_mode: IpMode, asks_for_privacy: bool) -> Click<'static> {
        let mut click = Click {
            country: Some("DE".into()),
            browser: Some("Brave".into()),
            browser_version: Some("131.0".into()),
            os_version: Some("11.0".into()),
            language: Some("de".into()),
            region: Some("BY".into()),
            city: Some("Munich".into()),
            isp: Some("Example Net".into()),
            connection: Some("cellular".into()),
            ..Click::new(ClickId::now(), Uuid::nil())
        };
        let sender = Sender {
            ip: "203.0.113.77".parse().unwrap(),
            user_agent: Some("Mozilla/5.0".into()),
            referrer: Some("https://ads.example/page?user=alice".into()),
            asks_for_privacy,
        };
        Privacy::new(ip_mode, Arc::new(Keys::new([7; 16]))).describe(sender, &mut click);
        click
    }

    #[test]
    fn an_address_is_kept_as_the_owner_says_and_of_who_asks_for_privacy_only_the_site() {
        let ip = |mode| kept(mode, false).ip.map(|ip| ip.to_string());
        assert_eq!(ip(IpMode::Full).as_deref(), Some("203.0.113.77"));
        assert_eq!(ip(IpMode::Truncate).as_deref(), Some("203.0.113.0"));
        assert!(ip(IpMode::Hash).is_some_and(|hash| hash.starts_with("fd")));
        assert_eq!(ip(IpMode::None), None);
        let click = kept(IpMode::Full, false);
        assert_eq!(click.user_agent.as_deref(), Some("Mozilla/5.0"));
        assert_eq!(click.referrer.as_deref(), Some("https://ads.example/page?user=alice"));
        let click = kept(IpMode::Full, true);
        assert_eq!((click.ip, click.user_agent), (None, None));
        assert_eq!(click.referrer.as_deref(), Some("https://ads.example"));
        assert_eq!((click.country.as_deref(), click.browser.as_deref()), (Some("DE"), Some("Brave")));
        let left_out = [click.os_version, click.browser_version, click.language, click.region];
        assert!(left_out.iter().chain(&[click.city, click.isp, click.connection]).all(Option::is_none));
        let click = kept(IpMode::None, false);
        assert!(click.city.is_some() && click.language.is_some() && click.os_version.is_some());
    }

    #[test]
    fn an_address_is_cut_to_its_network() {
        for (whole, cut) in
            [("203.0.113.77", "203.0.113.0"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"), ("::1", "::")]
        {
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!(truncate(ip(whole)), ip(cut));
        }
    }

    #[test]
    fn a_site_is_what_comes_before_the_path() {
        for (referrer, wanted) in [
            ("https://ads.example/page?user=alice", "https://ads.example"),
            ("https://ads.example?user=alice", "https://ads.example"),
            ("http://ads.example:81", "http://ads.example:81"),
            ("https://alice@ads.example/", ""),
            ("alice", ""),
            ("", ""),
        ] {
            assert_eq!(site(referrer), wanted);
        }
    }
}
