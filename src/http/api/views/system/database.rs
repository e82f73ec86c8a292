//! What the primary said of itself, as the API shows it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::db::server_status;

/// What the primary said of itself at one time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// When.
    pub(crate) read_at: DateTime<Utc>,
    /// Whether our user sees what other users do; `GRANT pg_monitor` to it if not.
    pub(crate) sees_all: bool,
    /// Parts that could not be read this time: `cache`, `tables`, `standbys`. Their figures are missing below.
    #[schema(value_type = Vec<String>)]
    pub(crate) missing: Vec<&'static str>,
    /// Part of the table blocks that were in the database's cache of late, 0 to 1; null when too few were read.
    pub(crate) heap_hit_ratio: Option<f64>,
    /// The same of index blocks.
    pub(crate) index_hit_ratio: Option<f64>,
    /// Connections.
    pub(crate) connections: Connections,
    /// Age of the oldest transaction of this database that we may see, 0 if there is none.
    pub(crate) longest_transaction_s: f64,
    /// Tables of our schema with their partitions, the largest first.
    pub(crate) tables: Vec<Table>,
    /// Single partitions, the largest first.
    pub(crate) partitions: Vec<Partition>,
    /// Partitions that are not listed (`database.statistics_partitions_max`).
    pub(crate) partitions_left_out: usize,
    /// Whether there are more tables than `database.statistics_tables_max`: then sizes are of a part only.
    pub(crate) is_cut_off: bool,
    /// Standbys that stream from the primary, as it sees them.
    pub(crate) standbys: Vec<Standby>,
}

impl From<server_status::Snapshot> for Snapshot {
    fn from(it: server_status::Snapshot) -> Self {
        let server_status::Snapshot {
            read_at,
            sees_all,
            missing,
            heap_hit_ratio,
            index_hit_ratio,
            connections,
            longest_transaction_s,
            tables,
            partitions,
            partitions_left_out,
            is_cut_off,
            standbys,
        } = it;
        Self {
            read_at,
            sees_all,
            missing,
            heap_hit_ratio,
            index_hit_ratio,
            connections: connections.into(),
            longest_transaction_s,
            tables: tables.into_iter().map(Into::into).collect(),
            partitions: partitions.into_iter().map(Into::into).collect(),
            partitions_left_out,
            is_cut_off,
            standbys: standbys.into_iter().map(Into::into).collect(),
        }
    }
}

/// Connections of clients.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Connections {
    /// To this database, running a statement, as far as we may see.
    pub(crate) active: i64,
    /// To this database, without the one that asks.
    pub(crate) of_database: i64,
    /// To the whole server.
    pub(crate) of_server: i64,
    /// `max_connections` of the server.
    pub(crate) server_max: i64,
}

impl From<server_status::Connections> for Connections {
    fn from(it: server_status::Connections) -> Self {
        let server_status::Connections { active, of_database, of_server, server_max } = it;
        Self { active, of_database, of_server, server_max }
    }
}

/// A table with all its partitions, indexes and TOAST.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Table {
    /// Its name.
    #[schema(example = "clicks")]
    pub(crate) name: String,
    /// How many partitions it has.
    pub(crate) partitions: usize,
    /// Its size.
    pub(crate) bytes: i64,
    /// Rows, as the server estimates them.
    pub(crate) live_rows: i64,
    /// Rows that are deleted and not yet vacuumed, as the server estimates them.
    pub(crate) dead_rows: i64,
}

impl From<server_status::Table> for Table {
    fn from(it: server_status::Table) -> Self {
        let server_status::Table { name, partitions, bytes, live_rows, dead_rows } = it;
        Self { name, partitions, bytes, live_rows, dead_rows }
    }
}

/// One partition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Partition {
    /// Its name.
    #[schema(example = "clicks_2026_01_31")]
    pub(crate) name: String,
    /// The table it is a part of.
    #[schema(example = "clicks")]
    pub(crate) table: String,
    /// Its size with indexes and TOAST.
    pub(crate) bytes: i64,
    /// Rows, as the server estimates them.
    pub(crate) live_rows: i64,
    /// Rows that are deleted and not yet vacuumed, as the server estimates them.
    pub(crate) dead_rows: i64,
}

impl From<server_status::Partition> for Partition {
    fn from(it: server_status::Partition) -> Self {
        let server_status::Partition { name, table, bytes, live_rows, dead_rows } = it;
        Self { name, table, bytes, live_rows, dead_rows }
    }
}

/// A standby. Without `pg_monitor` the primary tells only that it is there: its state is `hidden`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Standby {
    /// What it calls itself.
    #[schema(example = "replica1")]
    pub(crate) application_name: Option<String>,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`; or `hidden`.
    #[schema(example = "streaming")]
    pub(crate) state: String,
    /// `async`, `potential`, `sync` or `quorum`.
    #[schema(example = "async")]
    pub(crate) sync_state: Option<String>,
    /// What it has not replayed.
    pub(crate) lag_bytes: Option<i64>,
    /// How long the last replayed commit took to get there; null when it is idle.
    pub(crate) lag_s: Option<f64>,
}

impl From<server_status::Standby> for Standby {
    fn from(it: server_status::Standby) -> Self {
        let server_status::Standby { application_name, state, sync_state, lag_bytes, lag_s } = it;
        Self { application_name, state, sync_state, lag_bytes, lag_s }
    }
}
