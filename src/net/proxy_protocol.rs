//! The PROXY protocol, versions 1 and 2: what a proxy that does not read HTTP writes before the first byte of the
//! client's, to say whose connection it is (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Read exactly to its end, byte for byte, so that the HTTP behind it is still in the socket. What it says of the
//! connection beyond the client's address (TLVs) is skipped; a checksum is verified where one is sent.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{config::Server, metrics::Refused};

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CR and LF.
const V1_BYTES_MAX: usize = 107;
/// `PP2_TYPE_CRC32C`
const CRC32C: u8 = 0x03;
/// Between two looks at a stranger's connection whose first bytes could still become a header.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a connection is closed unanswered. What is told to `octo_http_refused_total` is its [`Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A header from somebody who is no trusted proxy.
    Untrusted,
    /// A trusted proxy without a header.
    Missing,
    /// A header that is none, or too long, or that does not fit its checksum.
    Malformed,
    /// A header that does not come.
    TimedOut,
    /// The connection ended; nobody is refused.
    Gone,
}

impl Refusal {
    pub(crate) fn reason(self) -> Option<Refused> {
        match self {
            Self::Untrusted => Some(Refused::ProxyUntrusted),
            Self::Missing => Some(Refused::ProxyMissing),
            Self::Malformed => Some(Refused::ProxyMalformed),
            Self::TimedOut => Some(Refused::Timeout),
            Self::Gone => None,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Whose connection this is: of the client that a trusted proxy names, or of the peer itself.
pub(crate) async fn caller(
    stream: &mut TcpStream,
    peer: SocketAddr,
    server: &Server,
) -> Result<SocketAddr, Refusal> {
    let ask = async {
        if server.is_trusted_proxy(peer.ip().to_canonical()) {
            // LOCAL, UNKNOWN: the proxy itself is calling
            Ok(read(stream, server.proxy_header_bytes_max).await?.unwrap_or(peer))
        } else {
            refuse_header(stream).await.map(|()| peer)
        }
    };
    timeout(server.header_timeout, ask).await.unwrap_or(Err(Refusal::TimedOut))
}

/// `None` when the header names nobody.
async fn read(stream: &mut TcpStream, bytes_max: usize) -> Result<Option<SocketAddr>, Refusal> {
    let mut start = [0; V2.len()]; // every header is longer
    let mut length = 0;
    while length < start.len() {
        let read = stream.read(&mut start[length..]).await?;
        if read == 0 {
            return Err(Refusal::Gone);
        }
        length += read;
        // whoever speaks HTTP says so by the first bytes, and may send no more before there is an answer
        let said = &start[..length];
        if !V2.starts_with(said) && !said.starts_with(V1) && !V1.starts_with(said) {
            return Err(Refusal::Missing);
        }
    }
    if start == *V2 { read_v2(stream, bytes_max).await } else { read_v1(stream, &start).await }
}

async fn read_v1(stream: &mut TcpStream, start: &[u8]) -> Result<Option<SocketAddr>, Refusal> {
    let mut line = [0; V1_BYTES_MAX];
    line[..start.len()].copy_from_slice(start);
    let mut length = start.len();
    while length < line.len() {
        // not a byte more than the line has: the rest is HTTP
        let seen = stream.peek(&mut line[length..]).await?;
        if seen == 0 {
            return Err(Refusal::Gone);
        }
        let end = line[..length + seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1 - length);
        stream.read_exact(&mut line[length..length + taken]).await?;
        length += taken;
        if end.is_some() {
            return parse_v1(&line[..length]).ok_or(Refusal::Malformed);
        }
    }
    Err(Refusal::Malformed)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`; the outer `None` for what is none of it.
#[expect(clippy::option_option, reason = "no header, and a header that names nobody")]
fn parse_v1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?.strip_prefix("PROXY ")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(None); // what follows is to be ignored
    }
    let mut words = line.split(' ');
    let (family, source, destination) = (words.next()?, words.next()?, words.next()?);
    let (source_port, destination_port) = (words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let source = match family {
        "TCP4" => (destination.parse::<Ipv4Addr>().ok()?, IpAddr::V4(source.parse().ok()?)).1,
        "TCP6" => (destination.parse::<Ipv6Addr>().ok()?, IpAddr::V6(source.parse().ok()?)).1,
        _ => return None,
    };
    port(destination_port)?;
    Some(Some(SocketAddr::new(source, port(source_port)?)))
}

/// Without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

async fn read_v2(stream: &mut TcpStream, bytes_max: usize) -> Result<Option<SocketAddr>, Refusal> {
    let mut header = V2.to_vec();
    header.resize(16, 0);
    stream.read_exact(&mut header[V2.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if header[12] >> 4 != 2 || header.len() + length > bytes_max {
        return Err(Refusal::Malformed);
    }
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await?;
    parse_v2(&mut header).ok_or(Refusal::Malformed)
}

/// A whole header; the outer `None` for what is none. Zeroes the checksum in it.
#[expect(clippy::option_option, reason = "no header, and a header that names nobody")]
fn parse_v2(header: &mut [u8]) -> Option<Option<SocketAddr>> {
    let (command, family, transport) = (header[12] & 0x0F, header[13] >> 4, header[13] & 0x0F);
    if command > 1 || family > 3 || transport > 2 {
        return None;
    }
    let addresses = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let is_local = command == 0;
    // UNSPEC and LOCAL: whatever follows is to be skipped, and need not make sense
    if is_local || family == 0 || transport == 0 {
        return Some(None);
    }
    check_tlvs(header, 16 + addresses)?;
    let body = &header[16..];
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match (family, transport) {
        (1, 1) => {
            let ip: [u8; 4] = body[..4].try_into().ok()?;
            Some(Some(SocketAddr::new(ip.into(), port(8))))
        }
        (2, 1) => {
            let ip: [u8; 16] = body[..16].try_into().ok()?;
            Some(Some(SocketAddr::new(ip.into(), port(32))))
        }
        // UDP carries no HTTP/1; a Unix socket has no address
        _ => Some(None),
    }
}

/// TLVs must fill what the addresses leave, and the CRC32c, if there is one, must be right.
fn check_tlvs(header: &mut [u8], from: usize) -> Option<()> {
    let mut at = from;
    let mut checksum = None;
    while at != header.len() {
        let (kind, high, low) = (*header.get(at)?, *header.get(at + 1)?, *header.get(at + 2)?);
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = header.get_mut(value.clone())?;
        if kind == CRC32C {
            checksum = Some(u32::from_be_bytes((&*bytes).try_into().ok()?));
            bytes.fill(0); // it is computed over itself as zero
        }
        at = value.end;
    }
    checksum.is_none_or(|sum| sum == crc32c::crc32c(header)).then_some(())
}

/// Somebody who is no trusted proxy must not pretend to be one. Nothing is read: it belongs to HTTP.
async fn refuse_header(stream: &TcpStream) -> Result<(), Refusal> {
    let mut said = [0; V2.len()];
    loop {
        let length = stream.peek(&mut said).await?;
        let said = &said[..length];
        if said.starts_with(V1) || said == V2 {
            return Err(Refusal::Untrusted);
        }
        if length == 0 || !(V1.starts_with(said) || V2.starts_with(said)) {
            return Ok(());
        }
        // "PRO" may become PROXY or PROPFIND; the socket stays readable, so there is nothing to wait for
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A version 2 header with these addresses and TLVs.
    fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[version_and_command, family][..], &length, body].concat()
    }

    #[expect(clippy::option_option, reason = "as what it calls")]
    fn named(header: &[u8]) -> Option<Option<String>> {
        parse_v2(&mut header.to_vec()).map(|named| named.map(|address| address.to_string()))
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xBB];

    #[test]
    fn version_1_names_the_client() {
        let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        for (line, wanted) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some("192.0.2.1:56324")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n", Some("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some("[::ffff:192.0.2.1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            (longest, None),
        ] {
            let named = parse_v1(line.as_bytes()).unwrap_or_else(|| panic!("{line:?} is a header"));
            assert_eq!(named.map(|a| a.to_string()).as_deref(), wanted, "{line:?}");
        }
    }

    #[test]
    fn version_1_is_strict() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5632 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 x 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        ] {
            assert_eq!(parse_v1(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let ipv6: Vec<u8> = [&[0x20, 1, 0x0D, 0xB8][..], &[0; 11], &[1], &[9; 16], &[0, 80, 0, 81]].concat();
        let tlvs = [&IPV4[..], &[0x04, 0, 2, 7, 7], &[0xEA, 0, 0]].concat();
        for (header, wanted) in [
            (v2(0x21, 0x11, &IPV4), Some("192.0.2.1:4660")),
            (v2(0x21, 0x11, &tlvs), Some("192.0.2.1:4660")),
            (v2(0x21, 0x21, &ipv6), Some("[2001:db8::1]:80")),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
            (v2(0x21, 0x12, &IPV4), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x00, b"anything"), None),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &IPV4), None),
            (v2(0x20, 0x11, b"no"), None),
        ] {
            assert_eq!(named(&header), Some(wanted.map(str::to_owned)), "{header:02x?}");
        }
    }

    #[test]
    fn version_2_is_strict() {
        for header in [
            v2(0x22, 0x11, &IPV4),
            v2(0x21, 0x41, &IPV4),
            v2(0x21, 0x13, &IPV4),
            v2(0x21, 0x11, &IPV4[..11]),
            v2(0x21, 0x11, b""),
            v2(0x21, 0x21, &IPV4),
            v2(0x21, 0x31, &IPV4),
            v2(0x21, 0x11, &[&IPV4[..], &[4]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 3, 1]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[CRC32C, 0, 3, 1, 2, 3]].concat()),
        ] {
            assert_eq!(named(&header), None, "{header:02x?}");
        }
    }

    #[test]
    fn a_checksum_is_verified() {
        let mut header = v2(0x21, 0x11, &[&IPV4[..], &[CRC32C, 0, 4, 0, 0, 0, 0, 4, 0, 1, 9]].concat());
        let sum = crc32c::crc32c(&header).to_be_bytes();
        header[31..35].copy_from_slice(&sum);
        assert_eq!(named(&header), Some(Some("192.0.2.1:4660".to_owned())));
        // the byte that makes it a checksum can turn it into something else
        for bit in (0..header.len() * 8).filter(|bit| bit / 8 != 28) {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let named = named(&flipped);
            assert_ne!(named, Some(Some("192.0.2.1:4660".to_owned())), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(body in proptest::collection::vec(any::<u8>(), 0..300), first: u8, family: u8) {
            let _ = parse_v1(&body);
            let _ = parse_v2(&mut v2(first, family, &body));
        }
    }
}
