//! Files of conversions, as networks and other trackers give them: each line becomes a postback, read as any other.
//!
//! CSV with a header whose names are those of postbacks, separated by commas, semicolons or tabs; without a header
//! Keitaro's `subid,payout,tid,status` (<https://docs.keitaro.io/>) and FunnelFlux's `hit:tx,payout`; or a JSON object a
//! line.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    facts::postback::Postback,
    model::{
        conversion::{Channel, Flag},
        id::{time_of_uuid, uuids_in_order},
        network::PostbackRules,
    },
    money::reading::{
        self, Meaning, NoClick,
        kept::{encoded, keep},
    },
};

/// Bytes that are kept of a line.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The columns of a file without a header, where its lines have more than two.
const KEITARO: [&str; 4] = ["subid", "payout", "tid", "status"];

/// The columns of a file without a header, where its lines have two.
const FUNNEL_FLUX: [&str; 2] = ["hit", "payout"];

/// A line of a file.
#[derive(Debug)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// What is stored of it, or why nothing is.
    pub postback: Result<Postback<'static>, LineFault>,
    /// What of it could not be used.
    pub flags: Vec<Flag>,
    /// Whether its word for the state is known.
    pub is_mapped: bool,
}

/// Why a line is no postback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum LineFault {
    /// It is no line of CSV, or no JSON object.
    Unreadable,
    /// It names no click.
    NoClickId,
    /// What it names is no click id of ours.
    BadClickId,
}

/// Why a file is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// There is nothing in it.
    #[error("the file has no line")]
    Empty,
    /// It has more lines than may be.
    #[error("the file has more than {0} lines; split it")]
    TooLong(usize),
}

/// Reads a file, whose lines are of a network with these rules. They come in their order, whatever comes at the same time.
pub fn read(
    bytes: &[u8],
    network_id: Option<i64>,
    rules: &PostbackRules,
    lines_max: usize,
) -> Result<Vec<Line>, FileFault> {
    let lines = read_params(bytes, lines_max)?;
    let line = |((number, params), id)| line_of(number, params, id, network_id, rules);
    Ok(lines.into_iter().zip(uuids_in_order()).map(line).collect())
}

/// The lines of a file by their numbers, from 1, each as the parameters of a postback; `None`: it cannot be read.
pub fn read_params(bytes: &[u8], lines_max: usize) -> Result<Vec<(u64, Option<String>)>, FileFault> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}');
    let is_json = text.trim_start().starts_with('{');
    let lines = if is_json { of_json(text, lines_max) } else { of_csv(text, lines_max) };
    if lines.is_empty() {
        return Err(FileFault::Empty);
    }
    if lines.len() > lines_max {
        return Err(FileFault::TooLong(lines_max));
    }
    Ok(lines)
}

fn line_of(
    number: u64,
    params: Option<String>,
    id: Uuid,
    network_id: Option<i64>,
    rules: &PostbackRules,
) -> Line {
    let nothing = |fault| Line { number, postback: Err(fault), flags: Vec::new(), is_mapped: true };
    let Some(params) = params else { return nothing(LineFault::Unreadable) };
    let params = keep(&params, rules, LINE_BYTES_MAX).params;
    let reading = reading::read(&params, rules, time_of_uuid(id));
    let leg = match reading.leg {
        Ok(leg) => leg,
        Err(NoClick::Missing) => return nothing(LineFault::NoClickId),
        Err(NoClick::Bad) => return nothing(LineFault::BadClickId),
    };
    let postback = Postback {
        network_id,
        channel: Channel::Import,
        click_id: Some(leg.click_id),
        offer_id: leg.offer_id,
        ..Postback::new(id, params)
    };
    let is_mapped = reading.status != Meaning::Unmapped;
    Line { number, postback: Ok(postback), flags: reading.flags, is_mapped }
}

/// Lines by their numbers, each as the parameters of a postback; `None`: it cannot be read. One more than may be at most.
fn of_json(text: &str, lines_max: usize) -> Vec<(u64, Option<String>)> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.take(lines_max + 1).map(|(number, line)| (number, params_of_json(line))).collect()
}

/// The texts, numbers as they are written, and truths of an object.
fn params_of_json(line: &str) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(line).ok()?;
    let value = |raw: &&RawValue| match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw.get()).ok(),
        Some(b'{' | b'[' | b'n') | None => None,
        Some(_) => Some(raw.get().to_owned()),
    };
    let pairs = members.iter().filter_map(|(name, raw)| Some(encoded(name, &value(raw)?)));
    Some(pairs.collect::<Vec<_>>().join("&"))
}

fn of_csv(text: &str, lines_max: usize) -> Vec<(u64, Option<String>)> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let delimiter = delimiter_of(first);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut records = reader.records().peekable();
    let header: Vec<String> = match records.peek() {
        Some(Ok(record)) if is_header(record) => record.iter().map(name_of).collect(),
        Some(Ok(record)) if record.len() <= 2 => FUNNEL_FLUX.map(str::to_owned).into(),
        _ => KEITARO.map(str::to_owned).into(),
    };
    let skipped = usize::from(matches!(records.peek(), Some(Ok(record)) if is_header(record)));
    let line = |record: Result<csv::StringRecord, csv::Error>| match record {
        Ok(record) => {
            let number = number_of(text, record.position());
            let filled = header.iter().zip(&record).filter(|(_, value)| !value.is_empty());
            let pairs: Vec<String> = filled.map(|(name, value)| encoded(name, value)).collect();
            (number, Some(pairs.join("&")))
        }
        Err(error) => (number_of(text, error.position()), None),
    };
    records.skip(skipped).take(lines_max + 1).map(line).collect()
}

/// The number of a line, whose position is that of empty lines before it.
fn number_of(text: &str, position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 0 };
    let begin = usize::try_from(position.byte()).unwrap_or(usize::MAX).min(text.len());
    let empty = text.as_bytes()[begin..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

/// The one of comma, semicolon and tab that stands there most: a comma may also be a decimal one.
fn delimiter_of(line: &str) -> u8 {
    let count = |delimiter: u8| line.bytes().filter(|byte| *byte == delimiter).count();
    let most =
        [b';', b'\t', b','].into_iter().max_by_key(|delimiter| (count(*delimiter), *delimiter != b','));
    most.filter(|delimiter| count(*delimiter) > 0).unwrap_or(b',')
}

/// `Click ID` is `Click_ID`: no name of a parameter has a space.
fn name_of(column: &str) -> String {
    column.replace(' ', "_")
}

/// Whether a line names columns: then none of its values is a click id.
fn is_header(record: &csv::StringRecord) -> bool {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ' | b'.'))
            && text.parse::<crate::model::id::Leg>().is_err()
    };
    record.iter().all(|text| text.is_empty() || is_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ClickId;

    /// `line: params` of each, or why there are none.
    fn read_all(text: &str) -> Vec<String> {
        let lines = read(text.as_bytes(), None, &PostbackRules::default(), 100).unwrap();
        let in_words = |line: Line| match line.postback {
            Ok(postback) => format!("{}: {}", line.number, postback.params),
            Err(fault) => format!("{}: {}", line.number, <&str>::from(fault)),
        };
        lines.into_iter().map(in_words).collect()
    }

    #[test]
    fn every_format_becomes_the_parameters_of_postbacks() {
        let id = ClickId::now();
        for (text, wanted) in [
            (
                format!("click_id,payout,txid,status\n{id},1.5,T1,sale\n\n{id},2,T2,\n"),
                vec![
                    format!("2: click_id={id}&payout=1.5&txid=T1&status=sale"),
                    format!("4: click_id={id}&payout=2&txid=T2"),
                ],
            ),
            (
                format!("\u{feff}SubID;Payout;TID\r\n{id};\"1.234,56\";x\r\n"),
                vec![format!("2: SubID={id}&Payout=1.234%2C56&TID=x")],
            ),
            (
                format!("{id},1.5,T1,lead\n{id},2,T2\n"),
                vec![
                    format!("1: subid={id}&payout=1.5&tid=T1&status=lead"),
                    format!("2: subid={id}&payout=2&tid=T2"),
                ],
            ),
            (format!("{id}:T9,3.2\n"), vec![format!("1: hit={id}%3AT9&payout=3.2")]),
            (format!("cid\tpayout\n{id}\t0,05\n"), vec![format!("2: cid={id}&payout=0%2C05")]),
            (
                format!(
                    "{{\"click_id\":\"{id}\",\"payout\":12345678901.500000,\"x\":null}}\n{{nonsense\n[]\n"
                ),
                vec![
                    format!("1: click_id={id}&payout=12345678901.500000"),
                    "2: unreadable".to_owned(),
                    "3: unreadable".to_owned(),
                ],
            ),
            (
                "click_id,payout\n,1\nnone,2\n".to_owned(),
                vec!["2: no_click_id".to_owned(), "3: bad_click_id".to_owned()],
            ),
            (format!("Click ID,Payout\n{id},1\n"), vec![format!("2: Click_ID={id}&Payout=1")]),
            (
                format!("click_id,email,payout\n{id},a@b.example,1\n"),
                vec![format!("2: click_id={id}&payout=1")],
            ),
        ] {
            assert_eq!(read_all(&text), wanted, "{text}");
        }
    }

    #[test]
    fn lines_come_in_their_order_and_not_too_many() {
        let id = ClickId::now();
        let text = format!("click_id\n{}", format!("{id}\n").repeat(50));
        let rules = PostbackRules::default();
        let lines = read(text.as_bytes(), Some(3), &rules, 50).unwrap();
        let ids: Vec<Uuid> = lines.iter().map(|line| line.postback.as_ref().unwrap().id).collect();
        assert!(ids.is_sorted_by(|one, next| one < next) && ids.len() == 50);
        assert_eq!(lines[0].postback.as_ref().unwrap().network_id, Some(3));
        assert_eq!(read(text.as_bytes(), None, &rules, 49).unwrap_err(), FileFault::TooLong(49));
        assert_eq!(read(b" \n", None, &rules, 49).unwrap_err(), FileFault::Empty);
    }
}
