//! Every metric: its name, help, labels, buckets and first series, each in one entry of one file, and one recording
//! function. Nothing else in the crate names a metric. Labels are enums, route patterns or query names, never ids, keys,
//! addresses or raw paths.
//!
//! A metric more is an entry in the file of its family:
//!
//! ```text
//! families! {
//!     counter events("octo_events_total", outcome) = "Events, by outcome.",
//!         zeros Each(&["accepted", "invalid"])
//!         => /// What became of an event: one of those outcomes.
//!            event(outcome: &'static str): 1;
//! }
//! ```
//! becomes the [`Family`] that `/metrics` describes and begins at zero, and
//! ```text
//! fn events(outcome: impl Into<SharedString>) -> Counter {
//!     counter!("octo_events_total", "outcome" => outcome)
//! }
//!
//! /// What became of an event: one of those outcomes.
//! pub fn event(outcome: &'static str) {
//!     events(outcome).increment(1);
//! }
//! ```
//! What records several metrics at once, or one metric in several ways, is a function below the entries instead of the
//! part after `=>`.

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// The series of a metric that are there before anything has happened. A counter that begins at 0 shows its first
/// increase; one that begins to exist with it does not.
#[derive(Debug, Clone, Copy)]
enum Zeros {
    /// None.
    Absent,
    /// The one without labels.
    Plain,
    /// One for each value of the one label.
    Each(&'static [&'static str]),
    /// One for each row of values, of all labels in their order.
    Rows(&'static [&'static [&'static str]]),
}

/// What `/metrics` knows of a metric before it has a series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name; its unit is the end of it.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Upper bounds of the buckets of a histogram, in its unit; without any it has those of all times. A histogram has
    /// a series for each bucket, and of some there is one for each route or query: their buckets are few
    /// (`/api/v1/system/queries` has the percentiles).
    pub buckets: &'static [f64],
    labels: &'static [&'static str],
    zeros: Zeros,
}

/// The entries of a file: see the module's documentation.
macro_rules! families {
    ($(
        $kind:ident $handle:ident $series:tt = $help:expr
        $(, buckets $buckets:expr)?
        $(, zeros $zeros:expr)?
        $(=> $(#[$meta:meta])* $record:ident $arguments:tt: $value:expr)?;
    )+) => {
        /// Every metric of this module.
        pub(super) const FAMILIES: &[$crate::metrics::Family] = &[$({
            #[allow(unused_imports, reason = "most metrics begin in one of these ways")]
            use $crate::metrics::Zeros::{Absent, Each, Plain, Rows};

            $crate::metrics::Family {
                name: entry!(name $series),
                kind: stringify!($kind),
                help: $help,
                buckets: entry!(or &[], $($buckets)?),
                labels: entry!(labels $series),
                zeros: entry!(or Absent, $($zeros)?),
            }
        }),+];

        $(
            entry!(handle $kind $handle $series);
            $(entry!(function $(#[$meta])* $record $arguments, $kind $handle $series, $value);)?
        )+
    };
}

/// What becomes of the parts of an entry of [`families!`].
macro_rules! entry {
    (name ($name:literal $(, $label:ident)*)) => {
        $name
    };
    (labels ($name:literal $(, $label:ident)*)) => {
        &[$(stringify!($label)),*]
    };
    (or $default:expr,) => {
        $default
    };
    (or $default:expr, $given:expr) => {
        $given
    };
    (handle $kind:ident $handle:ident ($name:literal $(, $label:ident)*)) => {
        fn $handle($($label: impl Into<::metrics::SharedString>),*) -> entry!(type $kind) {
            ::metrics::$kind!($name $(, stringify!($label) => $label)*)
        }
    };
    (type counter) => {
        ::metrics::Counter
    };
    (type gauge) => {
        ::metrics::Gauge
    };
    (type histogram) => {
        ::metrics::Histogram
    };
    (
        function $(#[$meta:meta])* $record:ident ($($argument:ident: $type:ty),*),
        $kind:ident $handle:ident ($name:literal $(, $label:ident)*), $value:expr
    ) => {
        $(#[$meta])*
        pub fn $record($($argument: $type),*) {
            entry!(record $kind $handle($($label),*), $value);
        }
    };
    (record counter $series:expr, $value:expr) => {
        $series.increment($value)
    };
    (record gauge $series:expr, $value:expr) => {
        $series.set($value)
    };
    (record histogram $series:expr, $value:expr) => {
        $series.record($value)
    };
}

mod budgets;
mod campaigns;
mod caps;
mod clicks;
mod conversions;
mod db;
mod deliveries;
mod drain;
mod fx;
mod http;
mod journal;
mod process;
mod redis;
mod reports;

pub use {
    budgets::*, campaigns::*, caps::*, clicks::*, conversions::*, db::*, deliveries::*, drain::*, fx::*,
    http::*, journal::*, process::*, redis::*, reports::*,
};

/// Every metric of octo; `process_*` describe themselves.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let files = [
        http::FAMILIES,
        clicks::FAMILIES,
        conversions::FAMILIES,
        journal::FAMILIES,
        drain::FAMILIES,
        db::FAMILIES,
        budgets::FAMILIES,
        reports::FAMILIES,
        campaigns::FAMILIES,
        caps::FAMILIES,
        deliveries::FAMILIES,
        fx::FAMILIES,
        redis::FAMILIES,
        process::FAMILIES,
    ];
    files.into_iter().flatten()
}

/// Registers help texts and units, and the series that begin at zero; call once, after the recorder is installed.
pub fn describe() {
    families().for_each(Family::describe);
    observe_cache();
    build_info();
}

impl Family {
    fn describe(&self) {
        let Self { name, kind, help, .. } = *self;
        match kind {
            "counter" => describe_counter!(name, self.unit(), help),
            "gauge" => describe_gauge!(name, self.unit(), help),
            _ => describe_histogram!(name, self.unit(), help),
        }
        match self.zeros {
            Zeros::Absent => {}
            Zeros::Plain => self.begin(&[]),
            Zeros::Each(values) => values.iter().for_each(|value| self.begin(&[value])),
            Zeros::Rows(rows) => rows.iter().for_each(|values| self.begin(values)),
        }
    }

    /// Makes the series with these values of the labels.
    fn begin(&self, values: &[&'static str]) {
        let labels: Vec<Label> =
            self.labels.iter().zip(values).map(|(label, value)| Label::new(*label, *value)).collect();
        match self.kind {
            "counter" => counter!(self.name, labels).increment(0),
            _ => gauge!(self.name, labels).set(0.0),
        }
    }

    /// The unit is the end of the name.
    fn unit(&self) -> Unit {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        match name.rsplit('_').next() {
            Some("seconds") => Unit::Seconds,
            Some("bytes") => Unit::Bytes,
            _ => Unit::Count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_metric_is_declared_once_and_begins_with_all_its_labels() {
        let mut names = HashSet::new();
        for family in families() {
            assert!(names.insert(family.name), "{} is declared twice", family.name);
            let labels = family.labels.len();
            let is_whole = match family.zeros {
                Zeros::Absent => true,
                Zeros::Plain => labels == 0,
                Zeros::Each(values) => labels == 1 && !values.is_empty(),
                Zeros::Rows(rows) => rows.iter().all(|row| row.len() == labels),
            };
            assert!(is_whole, "{}: {:?} of {:?}", family.name, family.zeros, family.labels);
            let is_histogram = family.kind == "histogram";
            assert!(is_histogram || family.buckets.is_empty(), "{} has no buckets", family.name);
            assert!(!is_histogram || matches!(family.zeros, Zeros::Absent), "{} has no zero", family.name);
            assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
        }
        assert!(names.len() > 80, "only {}", names.len());
    }
}
