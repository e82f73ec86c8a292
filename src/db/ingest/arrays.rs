//! The values of many facts as arguments of a statement: an array for each column, in the order of the fact's table.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, postgres::PgArguments};
use uuid::Uuid;

use crate::facts::{
    Fact,
    table::{Column, Sql, Value},
};

/// The values of one column.
enum Array<'v> {
    Uuids(Vec<Option<Uuid>>),
    Texts(Vec<Option<Cow<'v, str>>>),
    Bools(Vec<bool>),
    Int8s(Vec<Option<i64>>),
    Timestamptzs(Vec<Option<DateTime<Utc>>>),
    Numerics(Vec<Option<Decimal>>),
}

/// The arguments of a statement whose arrays are those of `columns`; of an inet, and of a list of texts, they are texts.
pub(crate) fn arguments<F: Fact>(columns: &[Column], facts: &[&F]) -> sqlx::Result<PgArguments> {
    let mut arrays: Vec<_> = columns.iter().map(|column| Array::of(column.sql, facts.len())).collect();
    for fact in facts {
        let mut left = arrays.iter_mut();
        fact.see_values(&mut |column, value| {
            let array = left.next().expect("as many values as columns");
            assert!(array.push(value), "{}: the table of the fact says another type", column.name);
        });
    }
    let mut arguments = PgArguments::default();
    for array in arrays {
        let added = match array {
            Array::Uuids(values) => arguments.add(values),
            Array::Texts(values) => arguments.add(values),
            Array::Bools(values) => arguments.add(values),
            Array::Int8s(values) => arguments.add(values),
            Array::Timestamptzs(values) => arguments.add(values),
            Array::Numerics(values) => arguments.add(values),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

impl<'v> Array<'v> {
    fn of(sql: Sql, length: usize) -> Self {
        match sql {
            Sql::Uuid => Self::Uuids(Vec::with_capacity(length)),
            Sql::Text | Sql::Jsonb | Sql::Inet | Sql::Texts => Self::Texts(Vec::with_capacity(length)),
            Sql::Bool => Self::Bools(Vec::with_capacity(length)),
            Sql::Int8 => Self::Int8s(Vec::with_capacity(length)),
            Sql::Timestamptz => Self::Timestamptzs(Vec::with_capacity(length)),
            Sql::Numeric => Self::Numerics(Vec::with_capacity(length)),
        }
    }

    /// `false`: it is of another type.
    fn push(&mut self, value: Value<'v>) -> bool {
        match (self, value) {
            (Self::Uuids(values), Value::Uuid(value)) => values.push(value),
            (Self::Texts(values), Value::Text(value)) => values.push(value),
            (Self::Texts(values), Value::Inet(value)) => {
                values.push(value.map(|ip| Cow::Owned(ip.to_string())));
            }
            (Self::Texts(values), Value::Texts(value)) => {
                values.push(value.map(|texts| Cow::Owned(texts.join(","))));
            }
            (Self::Bools(values), Value::Bool(value)) => values.push(value),
            (Self::Int8s(values), Value::Int8(value)) => values.push(value),
            (Self::Timestamptzs(values), Value::Timestamptz(value)) => values.push(value),
            (Self::Numerics(values), Value::Numeric(value)) => values.push(value),
            _ => return false,
        }
        true
    }
}
