//! The table of a fact: each field once, with its type, its tag in the journal and its columns in Postgres. What writes
//! and reads a fact, in either place, follows from it.

use std::{borrow::Cow, net::IpAddr};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

/// A column that a fact fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name in Postgres.
    pub name: &'static str,
    /// Its type in Postgres.
    pub sql: Sql,
    /// Whether the fact's table has it; one that it has not is only sent along, for the statement that stores the fact.
    pub is_stored: bool,
}

/// Types in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sql {
    /// `uuid`
    Uuid,
    /// `text`, or `varchar` of some length
    Text,
    /// `boolean`
    Bool,
    /// `bigint`
    Int8,
    /// `timestamp with time zone`
    Timestamptz,
    /// `inet`
    Inet,
    /// `numeric`
    Numeric,
    /// `jsonb`; its value is a text
    Jsonb,
    /// `text[]`
    Texts,
}

/// What one column of one fact holds; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the type of the same name in Postgres")]
pub enum Value<'v> {
    Uuid(Option<Uuid>),
    Text(Option<Cow<'v, str>>),
    Bool(bool),
    Int8(Option<i64>),
    Timestamptz(Option<DateTime<Utc>>),
    Inet(Option<IpAddr>),
    Numeric(Option<Decimal>),
    Texts(Option<Vec<&'static str>>),
}

impl Value<'_> {
    /// Whether a column of this type takes it.
    #[cfg(test)]
    pub(super) fn fits(&self, sql: Sql) -> bool {
        matches!(
            (self, sql),
            (Self::Uuid(_), Sql::Uuid)
                | (Self::Text(_), Sql::Text | Sql::Jsonb)
                | (Self::Bool(_), Sql::Bool)
                | (Self::Int8(_), Sql::Int8)
                | (Self::Timestamptz(_), Sql::Timestamptz)
                | (Self::Inet(_), Sql::Inet)
                | (Self::Numeric(_), Sql::Numeric)
                | (Self::Texts(_), Sql::Texts)
        )
    }
}

/// A fact's struct and its table. Of
///
/// ```text
/// fact! {
///     /// One accepted visit.
///     Click<'a>, kind 1 {
///         /// Ours.
///         id: ClickId = 1 required => Uuid "id";
///         /// `sub1` and `sub2`.
///         subs: [Option<Cow<'a, str>>; 2] = 12 => Text "sub1" "sub2";
///     }
///     derived {
///         Bool "is_valid" = |click| Value::Bool(click.is_valid());
///     }
///     staged {
///         Uuid "key" = |click| Value::Uuid(click.key());
///     }
/// }
/// ```
/// it makes
/// ```text
/// pub struct Click<'a> { pub id: ClickId, pub subs: [Option<Cow<'a, str>>; 2] }
///
/// impl<'a> Click<'a> {
///     pub const KIND_BYTE: u8 = 1;
///     pub const COLUMNS: &'static [Column] = /* id, sub1, sub2, is_valid, and key, which is not stored */;
///     fn nothing() -> Self { Self { id: Kept::nothing(), subs: Kept::nothing() } }
///     pub fn encode(&self, out) { out.push(1); self.id.put(1, out); self.subs.put(12, out); }
///     fn read(fields) -> Result<Self, Malformed> {
///         /* each field goes to the one whose tags hold its tag, 1 or 12 to 13; others are passed over;
///            Malformed::Missing(1) where there was no id */
///     }
///     fn see_values(&self, see) { /* see(column, value) in the order of COLUMNS */ }
/// }
/// ```
/// A field without `=>` has no column of its own. `derived` columns are worked out of the fields; `staged` ones are sent
/// along for the statement that stores the fact. A tag is never used again for something else.
macro_rules! fact {
    (
        $(#[$meta:meta])*
        $name:ident<$life:lifetime>, kind $kind:literal {$(
            $(#[$doc:meta])*
            $field:ident: $type:ty = $tag:literal $($required:ident)? $(=> $sql:ident $($column:literal)+)?;
        )+}
        derived { $($derived_sql:ident $derived:literal = $derive:expr;)* }
        staged { $($staged_sql:ident $staged:literal = $stage:expr;)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name<$life> {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl<$life> $name<$life> {
            /// The first byte of its records.
            pub(crate) const KIND_BYTE: u8 = $kind;

            /// The columns that it fills, in the order of its values.
            pub const COLUMNS: &'static [$crate::facts::table::Column] = {
                use $crate::facts::table::{Column, Sql};
                &[
                    $($($(Column { name: $column, sql: Sql::$sql, is_stored: true },)+)?)+
                    $(Column { name: $derived, sql: Sql::$derived_sql, is_stored: true },)*
                    $(Column { name: $staged, sql: Sql::$staged_sql, is_stored: false },)*
                ]
            };

            /// One of which nothing is known.
            fn nothing() -> Self {
                use $crate::facts::wire::Kept;
                Self { $($field: <$type as Kept<$life>>::nothing(),)+ }
            }

            /// Appends its record to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                use $crate::facts::wire::Kept;
                out.push($kind);
                $(Kept::put(&self.$field, $tag, out);)+
            }

            /// Reads what `encode` wrote behind the kind; texts are borrowed.
            fn read(fields: &$life [u8]) -> Result<Self, $crate::facts::wire::Malformed> {
                use $crate::facts::wire::{Fields, Kept, Malformed};
                let mut fact = Self::nothing();
                let mut seen = 0u64;
                for field in (Fields { rest: fields }) {
                    let field = field?;
                    seen |= 1u64.checked_shl(field.tag.into()).unwrap_or(0);
                    match field.tag {
                        $(
                            tag if ($tag..$tag + <$type as Kept<$life>>::TAGS).contains(&tag) => {
                                Kept::take(&mut fact.$field, tag - $tag, &field)?;
                            }
                        )+
                        _ => {}
                    }
                }
                $($(
                    let $required = (seen >> $tag) & 1 == 1;
                    if !$required {
                        return Err(Malformed::Missing($tag));
                    }
                )?)+
                Ok(fact)
            }

            /// Shows each value with its column, in the order of the columns.
            fn see_values<'v>(
                &'v self,
                see: &mut dyn FnMut($crate::facts::table::Column, $crate::facts::table::Value<'v>),
            ) {
                use $crate::facts::{
                    table::{Column, Sql, Value},
                    wire::Kept,
                };
                $($(
                    let columns = [$(Column { name: $column, sql: Sql::$sql, is_stored: true }),+];
                    for (column, value) in columns.into_iter().zip(Kept::values(&self.$field)) {
                        see(column, value);
                    }
                )?)+
                $(
                    let value: for<'f> fn(&'f $name<$life>) -> Value<'f> = $derive;
                    see(Column { name: $derived, sql: Sql::$derived_sql, is_stored: true }, value(self));
                )*
                $(
                    let value: for<'f> fn(&'f $name<$life>) -> Value<'f> = $stage;
                    see(Column { name: $staged, sql: Sql::$staged_sql, is_stored: false }, value(self));
                )*
            }

            /// Any such fact.
            #[cfg(test)]
            pub(in crate::facts) fn sample(random: &mut fastrand::Rng) -> Self {
                use $crate::facts::wire::Kept;
                Self { $($field: <$type as Kept<$life>>::sample(random),)+ }
            }
        }
    };
}
pub(super) use fact;
