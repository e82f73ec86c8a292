//! Who is calling: the peer, or whom a trusted proxy names in the one configured header, walked from the right.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue};

use crate::config::{ClientIpHeader, Server};

/// The socket's other end, or whom a PROXY header names in its place; a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What proxies add to a request beside `X-Forwarded-*`.
const FORWARDING: [&str; 10] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "cf-connecting-ip",
    "true-client-ip",
    "fastly-client-ip",
    "cdn-loop",
];

/// Whether a request comes from the machine itself: from a loopback address, and no proxy passed it on.
///
/// Nobody's word counts here, a trusted proxy's neither: one that passes on what it was sent (as nginx does with each
/// header that it is not told to set) would let strangers write `X-Forwarded-For: 127.0.0.1`. And a proxy on this
/// machine that is not configured as trusted must not make strangers local.
pub(super) fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    let is_forwarding = |name: &str| name.starts_with("x-forwarded") || FORWARDING.contains(&name);
    normalize(peer).is_loopback() && !headers.keys().any(|name| is_forwarding(name.as_str()))
}

/// The client's address.
///
/// Nothing is believed unless the peer is in `server.trusted_proxies`. Then the entries of the one configured
/// header are walked from the right past trusted proxies: each was written by the proxy to its right, so the first
/// address that is no trusted proxy is the last one that somebody trusted has seen. What stands further left is
/// the client's own invention. An entry that is no address (`unknown`, `_hidden`) ends the walk at the last proxy
/// known, and so does the end of the header. Empty elements are none (RFC 9110, section 5.6.1.2).
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, server: &Server) -> IpAddr {
    let peer = normalize(peer);
    if !server.is_trusted_proxy(peer) {
        return peer;
    }
    // several lines of one header are one list, in order
    let lines = |name| headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
    match server.client_ip_header {
        ClientIpHeader::XForwardedFor => {
            let entries = lines("x-forwarded-for").flat_map(|line| line.rsplit(|byte| *byte == b','));
            walk(peer, entries.filter(is_element).map(parse_address), server)
        }
        ClientIpHeader::Forwarded => {
            let elements = lines("forwarded").flat_map(|line| Pieces::of(line, b','));
            walk(peer, elements.filter(is_element).map(parse_forwarded), server)
        }
        // not a list: Cloudflare replaces what the client sent, so two values mean that it was not Cloudflare
        ClientIpHeader::CfConnectingIp => {
            let mut values = lines("cf-connecting-ip");
            match (values.next(), values.next()) {
                (Some(value), None) => parse_address(value).unwrap_or(peer),
                _ => peer,
            }
        }
    }
}

/// Whether there is anything between two commas.
fn is_element(element: &&[u8]) -> bool {
    element.iter().any(|byte| !matches!(byte, b' ' | b'\t'))
}

fn walk(peer: IpAddr, entries: impl Iterator<Item = Option<IpAddr>>, server: &Server) -> IpAddr {
    let mut client = peer;
    for entry in entries.take(server.forwarded_hops_max) {
        let Some(ip) = entry else { return client };
        client = ip;
        if !server.is_trusted_proxy(client) {
            return client;
        }
    }
    client
}

/// One address has one form: IPv4 in IPv6's clothes, mapped (`::ffff:192.0.2.1`) or compatible (`::192.0.2.1`, long
/// obsolete), is IPv4. `::` and `::1` are themselves.
pub(super) fn normalize(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => v6.to_canonical(),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`; a port may be an obfuscated one
/// (RFC 7239, section 6.2). `None` for what can be nobody's address, and for one with a zone, which means something
/// on one machine only.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let (ip, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (IpAddr::V6(host.parse().ok()?), port)
    } else if let Ok(ip) = text.parse() {
        (ip, "")
    } else {
        let (host, port) = text.split_at(text.find(':')?);
        (IpAddr::V4(host.parse().ok()?), port)
    };
    let ip = normalize(ip);
    let is_somebody = match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    };
    (is_somebody && (port.is_empty() || is_port(port.strip_prefix(':')?))).then_some(ip)
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// The one `for` of an element of RFC 7239: `for="[2001:db8::1]:80";proto=https`
fn parse_forwarded(element: &[u8]) -> Option<IpAddr> {
    let mut nodes = Pieces::of(element, b';').filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| value.trim_ascii())
    });
    let node = nodes.next()?;
    if nodes.next().is_some() {
        return None; // a parameter occurs once: somebody is playing
    }
    match node.strip_prefix(b"\"").and_then(|n| n.strip_suffix(b"\"")) {
        Some(quoted) if quoted.contains(&b'\\') => parse_address(&unescape(quoted)),
        Some(quoted) => parse_address(quoted),
        None => parse_address(node),
    }
}

/// The inside of a quoted string without its backslashes (RFC 9110, section 5.6.4).
fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let is_kept = |byte: &u8| {
        is_escaped = !is_escaped && *byte == b'\\';
        !is_escaped
    };
    quoted.iter().copied().filter(is_kept).collect()
}

/// The pieces of a line between separators outside quotes, the last one first. From the right, because a trusted
/// proxy writes well-formed pieces there, and no quote that the client left open further left can swallow them.
struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Pieces<'a> {
    fn of(line: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(line), separator }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for at in (0..rest.len()).rev() {
            if rest[at] == b'"' {
                let escapes = rest[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                is_quoted ^= escapes % 2 == 0;
            } else if rest[at] == self.separator && !is_quoted {
                self.rest = Some(&rest[..at]);
                return Some(&rest[at + 1..]);
            }
        }
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Loaded};

    const XFF: &str = "X-Forwarded-For";

    fn client(header: &str, lines: &[&str], peer: &str) -> String {
        let env = [
            (
                "OCTO_SERVER__TRUSTED_PROXIES".to_owned(),
                "127.0.0.0/8,10.0.0.0/8,::ffff:172.16.0.0/108,192.168.7.7,fd00::/8".to_owned(),
            ),
            ("OCTO_SERVER__CLIENT_IP_HEADER".to_owned(), header.to_owned()),
        ];
        let server = Loaded::load(None, env, &Flags::default()).unwrap().config.server;
        let mut headers = HeaderMap::new();
        let name: axum::http::HeaderName = header.to_ascii_lowercase().parse().unwrap();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        address(peer.parse().unwrap(), &headers, &server).to_string()
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        for (lines, peer, wanted) in [
            (&["1.2.3.4"][..], "192.0.2.9", "192.0.2.9"),
            (&["6.6.6.6, 1.2.3.4, 10.1.1.1"], "127.0.0.1", "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4"], "127.0.0.1", "1.2.3.4"),
            (&["6.6.6.6, 1.2.3.4", "10.1.1.1", "10.1.1.2"], "127.0.0.1", "1.2.3.4"),
            (&["1.2.3.4:80"], "127.0.0.1", "1.2.3.4"),
            (&["\t1.2.3.4 "], "127.0.0.1", "1.2.3.4"),
            (&["[2001:db8::1]:80"], "127.0.0.1", "2001:db8::1"),
            (&["[2001:db8::1]"], "127.0.0.1", "2001:db8::1"),
            (&["2001:DB8:0::1"], "127.0.0.1", "2001:db8::1"),
            (&["2001:db8::1, fd00::9"], "fd00::1", "2001:db8::1"),
            (&["6.6.6.6, 2001:db8::1, 10.0.0.3, fd00::9"], "10.0.0.4", "2001:db8::1"),
            (&["10.2.2.2"], "127.0.0.1", "10.2.2.2"),
            (&[], "127.0.0.1", "127.0.0.1"),
            // bytes that are no text, further left than what the proxy wrote
            (&["\u{fc}, 1.2.3.4"], "127.0.0.1", "1.2.3.4"),
            // one network was written as IPv4-mapped, one as an address
            (&["1.2.3.4, 172.31.0.9"], "172.16.0.1", "1.2.3.4"),
            (&["1.2.3.4, 172.32.0.9"], "172.16.0.1", "172.32.0.9"),
            (&["1.2.3.4"], "192.168.7.7", "1.2.3.4"),
            (&["1.2.3.4"], "192.168.7.8", "192.168.7.8"),
        ] {
            assert_eq!(client(XFF, lines, peer), wanted, "{lines:?} from {peer}");
        }
    }

    #[test]
    fn ipv4_has_one_form() {
        for (line, peer, wanted) in [
            ("::ffff:1.2.3.4", "::ffff:127.0.0.1", "1.2.3.4"),
            ("[::ffff:102:304]:80", "127.0.0.1", "1.2.3.4"),
            ("::1.2.3.4", "127.0.0.1", "1.2.3.4"),
            ("1.2.3.4", "::10.0.0.9", "1.2.3.4"),
            ("9.9.9.9, ::ffff:1.2.3.4, ::ffff:10.0.0.1", "::ffff:10.0.0.9", "1.2.3.4"),
            ("::1", "127.0.0.1", "::1"),
        ] {
            assert_eq!(client(XFF, &[line], peer), wanted, "{line} from {peer}");
        }
    }

    #[test]
    fn what_is_nobodys_address_ends_the_walk() {
        for entry in [
            "unknown",
            "_hidden",
            "fe80::1%eth0",
            "[fe80::1%25eth0]:80",
            "[fe80::1%1]:80",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "0x1.2.3.4",
            "16909060",
            "[1.2.3.4]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "1.2.3.4:",
            "1.2.3.4:http",
            "1.2.3.4:123456",
            "1.2.3.4:_",
            "unix:",
            "1.2.3.4 5.6.7.8",
            "\"1.2.3.4\"",
            "localhost",
        ] {
            assert_eq!(client(XFF, &[&format!("6.6.6.6, {entry}")], "127.0.0.1"), "127.0.0.1", "{entry}");
            let further = format!("6.6.6.6, {entry}, 10.0.0.7");
            assert_eq!(client(XFF, &[&further], "127.0.0.1"), "10.0.0.7", "{entry}");
        }
    }

    #[test]
    fn empty_elements_of_a_list_are_none() {
        for (header, lines, wanted) in [
            (XFF, &["203.0.113.7, "][..], "203.0.113.7"),
            (XFF, &["203.0.113.7,"], "203.0.113.7"),
            (XFF, &["6.6.6.6,,203.0.113.7"], "203.0.113.7"),
            (XFF, &[" , \t,203.0.113.7 ,,, 10.0.0.1 ,"], "203.0.113.7"),
            (XFF, &["203.0.113.7", ""], "203.0.113.7"),
            (XFF, &["", "6.6.6.6, 203.0.113.7", " , "], "203.0.113.7"),
            (XFF, &[",2001:db8::1,"], "2001:db8::1"),
            (XFF, &[",", ", ,"], "127.0.0.1"),
            (XFF, &[""], "127.0.0.1"),
            (XFF, &["203.0.113.7,unknown,"], "127.0.0.1"),
            ("Forwarded", &["for=203.0.113.7, "], "203.0.113.7"),
            ("Forwarded", &["for=6.6.6.6,,for=203.0.113.7;proto=https,"], "203.0.113.7"),
            ("Forwarded", &["for=203.0.113.7", ",, "], "203.0.113.7"),
            ("Forwarded", &[",for=\"[2001:db8::1]:80\" ,\t"], "2001:db8::1"),
            ("Forwarded", &[", ,"], "127.0.0.1"),
            ("Forwarded", &["for=203.0.113.7, for=unknown, "], "127.0.0.1"),
            // parameters are no elements: an element of them that names nobody stands for somebody unknown
            ("Forwarded", &["for=6.6.6.6, ;"], "127.0.0.1"),
        ] {
            assert_eq!(client(header, lines, "127.0.0.1"), wanted, "{header}: {lines:?}");
        }
        let commas = ",".repeat(100_000);
        assert_eq!(client(XFF, &[&format!("6.6.6.6,203.0.113.7{commas}")], "127.0.0.1"), "203.0.113.7");
    }

    #[test]
    fn local_is_who_comes_from_loopback_and_was_passed_on_by_nobody() {
        for (peer, header, wanted) in [
            ("127.0.0.1", None, true),
            ("127.9.9.9", None, true),
            ("::1", None, true),
            ("::ffff:127.0.0.1", None, true),
            ("127.0.0.1", Some("authorization"), true),
            ("127.0.0.1", Some("x-forwarded-for"), false),
            ("127.0.0.1", Some("x-forwarded-proto"), false),
            ("127.0.0.1", Some("forwarded"), false),
            ("127.0.0.1", Some("x-real-ip"), false),
            ("127.0.0.1", Some("via"), false),
            ("::1", Some("cf-connecting-ip"), false),
            ("192.0.2.1", None, false),
            ("10.0.0.1", Some("x-forwarded-for"), false),
            ("::ffff:192.0.2.1", None, false),
            ("0.0.0.0", None, false),
            ("fd00::1", None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(name) = header {
                headers.insert(name, HeaderValue::from_static("127.0.0.1"));
            }
            assert_eq!(is_local(peer.parse().unwrap(), &headers), wanted, "{peer} with {header:?}");
        }
    }

    #[test]
    fn ten_thousand_entries_are_not_walked() {
        let forged = vec!["10.0.0.1"; 10_000].join(",");
        assert_eq!(client(XFF, &[&format!("6.6.6.6,{forged}")], "127.0.0.1"), "10.0.0.1");
        assert_eq!(client(XFF, &[&format!("{forged},1.2.3.4")], "127.0.0.1"), "1.2.3.4");
        let quotes = "\\\"".repeat(10_000);
        assert_eq!(client("Forwarded", &[&format!("{quotes}, for=1.2.3.4")], "127.0.0.1"), "1.2.3.4");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (lines, wanted) in [
            (&["for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=https"][..], "2001:db8::1"),
            (&["for=6.6.6.6", "by=10.0.0.1; FOR = 1.2.3.4 ;host=\"a,b;for=7.7.7.7\""], "1.2.3.4"),
            (&["for=1.2.3.4;host=\"a\\\",for=7.7.7.7\", for=10.0.0.1"], "1.2.3.4"),
            (&["for=\"1\\.2.3.4\""], "1.2.3.4"),
            (&["for=\"1.2.3.4:_gazonk\""], "1.2.3.4"),
            (&["for=\"1.2.3.4:4711\", for=\"[fd00::9]\""], "1.2.3.4"),
            // what a client left open swallows nothing that a proxy wrote
            (&["for=\"6.6.6.6, for=1.2.3.4"], "1.2.3.4"),
            (&["for=\"6.6.6.6\\, for=1.2.3.4"], "1.2.3.4"),
            (&["for=\"6.6.6.6\\\", for=1.2.3.4"], "1.2.3.4"),
            (&["for=\"", "for=1.2.3.4"], "1.2.3.4"),
            // and these name nobody
            (&["for=_hidden"], "127.0.0.1"),
            (&["for=6.6.6.6, for=unknown"], "127.0.0.1"),
            (&["for=6.6.6.6, for=\"_SEVKISEK:80\""], "127.0.0.1"),
            (&["for=6.6.6.6, proto=https"], "127.0.0.1"),
            (&["for=6.6.6.6, for=1.2.3.4;for=5.6.7.8"], "127.0.0.1"),
            (&["for=\"1.2.3.4"], "127.0.0.1"),
            (&["1.2.3.4"], "127.0.0.1"),
        ] {
            assert_eq!(client("Forwarded", lines, "127.0.0.1"), wanted, "{lines:?}");
        }
    }

    #[test]
    fn cf_connecting_ip_has_one_value() {
        let name = "CF-Connecting-IP";
        for (lines, peer, wanted) in [
            (&["1.2.3.4"][..], "10.0.0.1", "1.2.3.4"),
            (&["2001:db8::1"], "10.0.0.1", "2001:db8::1"),
            (&["10.0.0.9"], "10.0.0.1", "10.0.0.9"),
            (&["1.2.3.4"], "192.0.2.1", "192.0.2.1"),
            (&["1.2.3.4, 5.6.7.8"], "10.0.0.1", "10.0.0.1"),
            (&["1.2.3.4", "5.6.7.8"], "10.0.0.1", "10.0.0.1"),
            (&[""], "10.0.0.1", "10.0.0.1"),
            (&[], "10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(client(name, lines, peer), wanted, "{lines:?} from {peer}");
        }
    }
}
