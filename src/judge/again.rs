//! Clicks that are stored, judged once more: by the lists of today, and by what was kept of who clicked.
//!
//! Only what lists say is judged again. What stands before it in the order of [`InvalidReason`] stays, and so do reasons that
//! earlier clicks gave, words that a correction gave, and `test`: such a link is judged by nobody. So under the same lists
//! every click keeps what it has.

use std::net::IpAddr;

use crate::{judge::networks::Networks, model::click::InvalidReason};

/// What is stored of a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// As it was sent; `None`: it was not, or was not kept.
    pub user_agent: Option<&'a str>,
    /// What was kept of the address.
    pub ip: Option<IpAddr>,
    /// Whether it has the label of a known robot.
    pub is_bot: bool,
    /// Why it does not count: an [`InvalidReason`], or what a correction says.
    pub reason: Option<&'a str>,
}

/// What becomes of a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged<'a> {
    /// It has what the lists say.
    Same,
    /// It gets these labels.
    Changed {
        /// Whether it is a known robot's.
        is_bot: bool,
        /// Why it does not count.
        reason: Option<&'a str>,
    },
    /// Too little was kept of who clicked: it stays as it is.
    Unknown,
}

/// Judges a click once more.
pub fn judge_again<'a>(
    stored: Stored<'a>,
    is_bot: impl FnOnce(&str) -> bool,
    datacenters: &Networks,
) -> Judged<'a> {
    use InvalidReason as R;
    let known: Option<InvalidReason> = stored.reason.and_then(|reason| reason.parse().ok());
    // with an address the agent was kept too, if there was one
    let agent =
        stored.user_agent.or_else(|| (known == Some(R::NoUserAgent) || stored.ip.is_some()).then_some(""));
    let Some(agent) = agent else { return Judged::Unknown };
    let is_bot = is_bot(agent);
    let judged = |reason: Option<&'a str>| {
        if (is_bot, reason) == (stored.is_bot, stored.reason) {
            Judged::Same
        } else {
            Judged::Changed { is_bot, reason }
        }
    };
    let is_of_lists = match known {
        None => stored.reason.is_none(),
        Some(R::Draft | R::Paused | R::Ended | R::NotStarted | R::NoDestination | R::Prefetch | R::Test) => {
            false
        }
        Some(R::Bot | R::NoUserAgent | R::Datacenter | R::Duplicate | R::RateLimited) => true,
    };
    if !is_of_lists {
        return judged(stored.reason);
    }
    if is_bot {
        return judged(Some(R::Bot.into()));
    }
    if agent.trim().is_empty() {
        return judged(Some(R::NoUserAgent.into()));
    }
    match datacenters.contains_kept(stored.ip) {
        None => Judged::Unknown,
        Some(true) => judged(Some(R::Datacenter.into())),
        Some(false) => judged(stored.reason.filter(|_| matches!(known, Some(R::Duplicate | R::RateLimited)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0) Firefox/141.0";
    const ROBOT: &str = "robot/1.0";
    const HOME: &str = "203.0.113.7";
    const HOSTED: &str = "198.51.100.200";

    fn judged(agent: Option<&str>, ip: Option<&str>, label: (bool, Option<&'static str>)) -> Judged<'static> {
        let (is_bot, reason) = label;
        let ip = ip.map(|ip| ip.parse().unwrap());
        let agent: Option<&'static str> = agent.map(|agent| &*agent.to_owned().leak());
        let networks =
            Networks::parse("198.51.100.0/25\n198.51.100.128/25\n192.0.2.7\n2001:db8:77::/48").unwrap();
        let stored = Stored { user_agent: agent, ip, is_bot, reason };
        judge_again(stored, |agent| agent.contains("robot"), &networks)
    }

    #[test]
    fn what_lists_say_is_judged_again_and_everything_else_stays() {
        let changed = |is_bot, reason| Judged::Changed { is_bot, reason };
        for (agent, ip, label, wanted) in [
            // as the lists say already
            (PERSON, HOME, (false, None), Judged::Same),
            (ROBOT, HOME, (true, Some("bot")), Judged::Same),
            (" ", HOME, (false, Some("no_user_agent")), Judged::Same),
            (PERSON, HOSTED, (false, Some("datacenter")), Judged::Same),
            (PERSON, HOME, (false, Some("duplicate")), Judged::Same),
            // newly on a list, and not any more
            (ROBOT, HOME, (false, None), changed(true, Some("bot"))),
            (ROBOT, HOME, (false, Some("duplicate")), changed(true, Some("bot"))),
            (ROBOT, HOSTED, (false, Some("datacenter")), changed(true, Some("bot"))),
            (PERSON, HOSTED, (false, None), changed(false, Some("datacenter"))),
            (PERSON, HOSTED, (false, Some("rate_limited")), changed(false, Some("datacenter"))),
            (PERSON, HOSTED, (true, Some("bot")), changed(false, Some("datacenter"))),
            (PERSON, HOME, (true, Some("bot")), changed(false, None)),
            (PERSON, HOME, (false, Some("datacenter")), changed(false, None)),
            (" ", HOSTED, (true, Some("bot")), changed(false, Some("no_user_agent"))),
            // what comes before, words of a correction, and links to try with keep their reason
            (ROBOT, HOME, (true, Some("prefetch")), Judged::Same),
            (ROBOT, HOSTED, (false, Some("paused")), changed(true, Some("paused"))),
            (ROBOT, HOSTED, (true, Some("test")), Judged::Same),
            (PERSON, HOSTED, (false, Some("fraud")), Judged::Same),
            (PERSON, HOME, (true, Some("fraud")), changed(false, Some("fraud"))),
        ] {
            assert_eq!(judged(Some(agent), Some(ip), label), wanted, "{agent} {ip} {label:?}");
        }
    }

    #[test]
    fn what_was_not_kept_is_not_guessed() {
        let changed = |is_bot, reason| Judged::Changed { is_bot, reason };
        let hash = Some("fd12:3456:789a::1");
        for (agent, ip, label, wanted) in [
            // nothing was kept
            (None, None, (false, None), Judged::Unknown),
            (None, None, (true, Some("bot")), Judged::Unknown),
            (None, None, (false, Some("paused")), Judged::Unknown),
            // that there was no agent says the reason, or the address that was kept
            (None, None, (false, Some("no_user_agent")), Judged::Same),
            (None, Some(HOME), (false, None), changed(false, Some("no_user_agent"))),
            // an agent is enough for a robot, and for nothing behind it
            (Some(ROBOT), None, (false, None), changed(true, Some("bot"))),
            (Some(PERSON), None, (true, Some("bot")), Judged::Unknown),
            (Some(PERSON), hash, (false, Some("datacenter")), Judged::Unknown),
            // of a network all addresses are on the list, or none, or some
            (Some(PERSON), Some("198.51.100.0"), (false, None), changed(false, Some("datacenter"))),
            (Some(PERSON), Some("203.0.113.0"), (false, Some("datacenter")), changed(false, None)),
            (Some(PERSON), Some("192.0.2.0"), (false, Some("datacenter")), Judged::Unknown),
            (Some(PERSON), Some("2001:db8:77::"), (false, None), changed(false, Some("datacenter"))),
            (Some(PERSON), Some("2001:db8:78::"), (false, Some("datacenter")), changed(false, None)),
        ] {
            assert_eq!(judged(agent, ip, label), wanted, "{agent:?} {ip:?} {label:?}");
        }
        let nowhere = Stored { user_agent: Some(PERSON), ip: None, is_bot: true, reason: Some("bot") };
        let judged = judge_again(nowhere, |_| false, &Networks::default());
        assert_eq!(judged, changed(false, None), "no list, so nobody is on it");
    }

    #[test]
    fn a_second_judgement_changes_nothing() {
        for label in [
            (false, None),
            (true, Some("bot")),
            (false, Some("datacenter")),
            (false, Some("duplicate")),
            (true, Some("paused")),
            (true, Some("fraud")),
        ] {
            for agent in [Some(PERSON), Some(ROBOT), Some(""), None] {
                for ip in [Some(HOME), Some(HOSTED), Some("192.0.2.0"), None] {
                    if let Judged::Changed { is_bot, reason } = judged(agent, ip, label) {
                        assert_eq!(
                            judged(agent, ip, (is_bot, reason)),
                            Judged::Same,
                            "{agent:?} {ip:?} {label:?}"
                        );
                    }
                }
            }
        }
    }
}
