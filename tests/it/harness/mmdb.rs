//! Writes small databases in MaxMind's format (<https://maxmind.github.io/MaxMind-DB/>), as an operator has them: maps,
//! arrays, texts, truth values, and numbers as unsigned ones of 32 bits. The unit tests of `visitor` use it too.

use std::{fs, net::IpAddr, path::Path};

use ipnet::IpNet;
use serde_json::{Value, json};

/// A left and a right half of a network: what is known of it.
#[derive(Clone, Copy)]
enum Half {
    Empty,
    Node(usize),
    Record(usize),
}

/// Writes a database of a kind, such as `GeoLite2-City`: networks of either family, none inside another, each with its
/// record. It was built on 2026-01-01.
pub(crate) fn write(path: &Path, kind: &str, records: &[(&str, Value)]) {
    let mut nodes = vec![[Half::Empty; 2]];
    let mut data = Vec::new();
    for (network, record) in records {
        let offset = data.len();
        put(record, &mut data);
        insert(&mut nodes, network.parse().expect("a network"), offset);
    }
    let mut file = Vec::new();
    for half in nodes.iter().flatten() {
        let value = match half {
            Half::Empty => nodes.len(),
            Half::Node(node) => *node,
            Half::Record(offset) => nodes.len() + 16 + offset,
        };
        file.extend(u32::try_from(value).expect("a small file").to_be_bytes());
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xAB\xCD\xEFMaxMind.com");
    put_metadata(kind, nodes.len(), &mut file);
    fs::write(path, file).expect("a file");
}

/// IPv4 stands where `::/96` does.
fn insert(nodes: &mut Vec<[Half; 2]>, network: IpNet, offset: usize) {
    let (bits, length) = match network.network() {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 96 + u32::from(network.prefix_len())),
        IpAddr::V6(ip) => (ip.to_bits(), u32::from(network.prefix_len())),
    };
    let side = |depth: u32| usize::from((bits >> (127 - depth)) & 1 == 1);
    let mut at = 0;
    for depth in 0..length - 1 {
        at = match nodes[at][side(depth)] {
            Half::Node(node) => node,
            Half::Empty => {
                nodes.push([Half::Empty; 2]);
                let node = nodes.len() - 1;
                nodes[at][side(depth)] = Half::Node(node);
                node
            }
            Half::Record(_) => panic!("{network} is inside another network"),
        };
    }
    nodes[at][side(length - 1)] = Half::Record(offset);
}

fn put_metadata(kind: &str, nodes: usize, out: &mut Vec<u8>) {
    let fields = [
        ("binary_format_major_version", number(5, 2)),
        ("binary_format_minor_version", number(5, 0)),
        ("build_epoch", number(9, 1_767_225_600)),
        ("database_type", encoded(&json!(kind))),
        ("description", encoded(&json!({ "en": "Made by a test" }))),
        ("ip_version", number(5, 6)),
        ("languages", encoded(&json!(["en"]))),
        ("node_count", number(6, nodes as u64)),
        ("record_size", number(5, 32)),
    ];
    head(7, fields.len(), out);
    for (name, value) in fields {
        put(&json!(name), out);
        out.extend(value);
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(value, &mut out);
    out
}

fn number(kind: u8, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = value.to_be_bytes();
    let bytes = &bytes[value.leading_zeros() as usize / 8..];
    head(kind, bytes.len(), &mut out);
    out.extend(bytes);
    out
}

fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            head(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Number(value) => out.extend(number(6, value.as_u64().expect("a whole number"))),
        Value::Bool(value) => head(14, usize::from(*value), out),
        Value::Object(map) => {
            head(7, map.len(), out);
            for (key, value) in map {
                put(&json!(key), out);
                put(value, out);
            }
        }
        Value::Array(values) => {
            head(11, values.len(), out);
            for value in values {
                put(value, out);
            }
        }
        Value::Null => panic!("the format has no null"),
    }
}

/// The kind and the size of a field: of those above 7 the kind stands in a second byte; of a size above 28 the rest
/// stands behind, in one byte below 285, in two from there.
fn head(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (short, rest) = match size {
        0..29 => (size, vec![]),
        29..285 => (29, vec![size - 29]),
        _ => (30, vec![(size - 285) >> 8, (size - 285) & 0xFF]),
    };
    let byte = |value: usize| u8::try_from(value).expect("a size below 65,821");
    out.push(if kind > 7 { 0 } else { kind << 5 } | byte(short));
    out.extend((kind > 7).then(|| kind - 7));
    out.extend(rest.into_iter().map(byte));
}
