//! Rates of currencies.

use chrono::{NaiveDate, NaiveTime};

families! {
    gauge newest("octo_fx_newest_rate_timestamp_seconds") =
        "Unix time of the newest day for which there are rates of the European Central Bank; 0: there are none.",
        zeros Plain
        => /// The newest day with rates of the bank.
           newest_rate(day: Option<NaiveDate>):
           day.map_or(0.0, |day| day.and_time(NaiveTime::MIN).and_utc().timestamp() as f64);
}
