//! Who is calling: the peer, or whom a trusted proxy names in the one configured header, walked from the right.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::config::{ClientIpHeader, Server};

/// The socket's other end, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The client's address, IPv4-mapped ones as IPv4.
///
/// Nothing is believed unless the peer is in `server.trusted_proxies`. Then the header's entries are walked
/// from the right past trusted proxies; the first other address is the client. An entry that is no address
/// stops the walk at the last proxy known.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, server: &Server) -> IpAddr {
    let is_trusted = |ip: IpAddr| server.trusted_proxies.iter().any(|net: &IpNet| net.contains(&ip));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let (name, parse): (_, fn(&str) -> Option<IpAddr>) = match server.client_ip_header {
        ClientIpHeader::XForwardedFor => ("x-forwarded-for", parse_address),
        ClientIpHeader::Forwarded => ("forwarded", parse_forwarded),
        ClientIpHeader::CfConnectingIp => ("cf-connecting-ip", parse_address),
    };
    // several lines of one header are one list, in order
    let lines: Vec<&str> = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or_default()).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        match parse(entry.trim()) {
            Some(ip) => client = ip.to_canonical(),
            None => return client,
        }
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}

/// The `for` of one element of RFC 7239: `for="[2001:db8::1]:80";proto=https`
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("for").then(|| parse_address(value)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Loaded};

    fn client(header: &str, lines: &[&str], peer: &str) -> String {
        let env = [
            ("OCTO_SERVER__TRUSTED_PROXIES".to_owned(), "127.0.0.0/8,10.0.0.0/8".to_owned()),
            ("OCTO_SERVER__CLIENT_IP_HEADER".to_owned(), header.to_owned()),
        ];
        let server = Loaded::load(None, env, &Flags::default()).unwrap().config.server;
        let mut headers = HeaderMap::new();
        let name: axum::http::HeaderName = header.to_ascii_lowercase().parse().unwrap();
        for line in lines {
            headers.append(name.clone(), line.parse().unwrap());
        }
        address(peer.parse().unwrap(), &headers, &server).to_string()
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        let xff = "X-Forwarded-For";
        for (lines, peer, wanted) in [
            (&["1.2.3.4"][..], "192.0.2.9", "192.0.2.9"),
            (&["6.6.6.6, 1.2.3.4, 10.1.1.1"], "127.0.0.1", "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4"], "127.0.0.1", "1.2.3.4"),
            (&["1.2.3.4:80"], "127.0.0.1", "1.2.3.4"),
            (&["[2001:db8::1]:80"], "127.0.0.1", "2001:db8::1"),
            (&["::ffff:1.2.3.4"], "::ffff:127.0.0.1", "1.2.3.4"),
            (&["1.2.3.4, unknown"], "127.0.0.1", "127.0.0.1"),
            (&["unknown, 10.0.0.7"], "127.0.0.1", "10.0.0.7"),
            (&["fe80::1%eth0"], "127.0.0.1", "127.0.0.1"),
            (&["10.2.2.2"], "127.0.0.1", "10.2.2.2"),
            (&[], "127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(client(xff, lines, peer), wanted, "{lines:?} from {peer}");
        }
    }

    #[test]
    fn the_other_headers_work_alike() {
        assert_eq!(
            client("Forwarded", &["for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=https"], "127.0.0.1"),
            "2001:db8::1"
        );
        assert_eq!(client("Forwarded", &["for=_hidden"], "127.0.0.1"), "127.0.0.1");
        assert_eq!(client("CF-Connecting-IP", &["1.2.3.4"], "10.0.0.1"), "1.2.3.4");
    }
}
