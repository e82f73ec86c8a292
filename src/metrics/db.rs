//! Postgres: pools, queries, replicas, and what the server says of itself.

use std::time::Duration;

families! {
    gauge pool_connections("octo_db_pool_connections", pool, state) = "Connections of a pool by state.";
    gauge pool_max_connections("octo_db_pool_max_connections", pool) = "Connections a pool may open.";
    gauge pool_pending_acquires("octo_db_pool_pending_acquires", pool) = "Callers waiting for a connection.";
    histogram pool_acquire_duration("octo_db_pool_acquire_duration_seconds", pool) = "Wait for a connection.",
        buckets &[0.000_1, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0];
    counter pool_timeouts("octo_db_pool_timeouts_total", pool) = "Waits for a connection that ran out.";
    counter connections_created("octo_db_connections_created_total", pool) = "Connections opened.";
    counter connections_failed("octo_db_connections_failed_total", pool) =
        "Connections that could not be opened.";
    counter connections_returned("octo_db_connections_returned_total", pool) =
        "Connections that came back to their pool after use.";
    counter connections_closed("octo_db_connections_closed_total", pool) =
        "Connections of a pool that were closed.";
    histogram query_duration("octo_db_query_duration_seconds", query) = "Time of a query.",
        buckets &[0.000_5, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];
    counter query_errors("octo_db_query_errors_total", query, class) =
        "Queries that failed, by SQLSTATE class."
        => /// A query failed.
           query_error(query: &'static str, class: &'static str): 1;
    counter slow_queries("octo_db_slow_queries_total", query) = "Queries slower than database.slow_query_ms.";
    gauge primary_is_up("octo_db_primary_up") = "1 while the primary takes writes."
        => /// Whether the primary takes writes.
           primary_up(is_up: bool): f64::from(is_up);
    counter primary_reads("octo_db_primary_reads_total", reason) =
        "Reads that the primary answered although there are replicas, by reason.",
        zeros Each(&["position", "no_replica"])
        => /// A read went to the primary although there are replicas: `position` (none has replayed what it must
           /// see) or `no_replica` (none can answer).
           primary_read(reason: &'static str): 1;
    gauge replica_up("octo_db_replica_up", replica) =
        "1 while reads go to this replica, 0 while it is ejected.";
    gauge replica_lag_bytes("octo_db_replica_lag_bytes", replica) =
        "Bytes of the primary's log that this replica has not replayed.";
    gauge replica_lag_seconds("octo_db_replica_lag_seconds", replica) =
        "How far this replica is behind the primary; 0 when it has everything.";
    counter replica_reads("octo_db_replica_reads_total", replica) = "Reads sent to this replica.";
    gauge statistics_timestamp("octo_db_statistics_timestamp_seconds") =
        "Unix time of the last complete reading of the database's statistics; 0: none yet. The gauges read with \
         them are NaN when it is too long ago.",
        zeros Plain
        => /// The database's statistics were read in full.
           statistics_read(unix_seconds: f64): unix_seconds;
    gauge cache_hits("octo_db_cache_hit_ratio", kind) =
        "Share of blocks found in PostgreSQL's own cache recently, 0 to 1."
        => /// Part of the blocks found in the database's cache, of tables (`heap`) or indexes (`index`).
           cache_hit_ratio(kind: &'static str, ratio: f64): ratio;
    gauge active_connections("octo_db_active_connections") =
        "Connections to this database that are running a statement.";
    gauge server_connections("octo_db_server_connections") = "Connections of clients to the whole server.";
    gauge server_max_connections("octo_db_server_max_connections") =
        "Connections the server takes (max_connections).";
    gauge longest_transaction("octo_db_longest_transaction_seconds") =
        "Age of the oldest transaction of this database that octo's user may see.";
    gauge table_bytes("octo_db_table_bytes", table) = "Size of a table with its partitions, indexes and TOAST.";
    gauge table_dead_rows("octo_db_table_dead_rows", table) =
        "Dead rows of a table with its partitions, as the server estimates them.";
    gauge standbys_by_state("octo_db_standbys", state) =
        "Standbys connected to the primary, by state; `hidden` without pg_monitor."
        => /// Standbys in a state that `pg_stat_replication` knows, or `hidden`.
           standbys(state: &'static str, count: f64): count;
    gauge standby_lag_bytes("octo_db_standby_lag_bytes") =
        "Log that the standby furthest behind has not replayed; NaN if hidden."
        => /// What the standby furthest behind has not replayed.
           standby_lag(bytes: f64): bytes;
    gauge embedded_up("octo_embedded_postgres_up") =
        "1 while the private PostgreSQL takes connections; absent without one.";
    counter embedded_restarts("octo_embedded_postgres_restarts_total") =
        "Times the private PostgreSQL ended by itself and was started again."
        => /// The private PostgreSQL has ended, and is started again.
           embedded_postgres_restarted(): 1;
}

/// State of a pool; its counters are there from now on.
pub fn pool_state(pool: &str, idle: usize, used: usize, max: usize, pending: usize) {
    pool_connections(pool.to_owned(), "idle").set(idle as f64);
    pool_connections(pool.to_owned(), "used").set(used as f64);
    pool_max_connections(pool.to_owned()).set(max as f64);
    pool_pending_acquires(pool.to_owned()).set(pending as f64);
    for counter in [
        pool_timeouts(pool.to_owned()),
        connections_created(pool.to_owned()),
        connections_failed(pool.to_owned()),
        connections_returned(pool.to_owned()),
        connections_closed(pool.to_owned()),
    ] {
        counter.increment(0);
    }
}

/// A connection was handed out, or the wait ran out.
pub fn pool_acquire(pool: &str, took: Duration, timed_out: bool) {
    pool_acquire_duration(pool.to_owned()).record(took);
    if timed_out {
        pool_timeouts(pool.to_owned()).increment(1);
    }
}

/// A connection was opened.
pub fn connection_created(pool: &str) {
    connections_created(pool.to_owned()).increment(1);
}

/// A connection could not be opened.
pub fn connection_failed(pool: &str) {
    connections_failed(pool.to_owned()).increment(1);
}

/// A connection came back to its pool in order.
pub fn connection_returned(pool: &str) {
    connections_returned(pool.to_owned()).increment(1);
}

/// A pooled connection was closed.
pub fn connection_closed(pool: &str) {
    connections_closed(pool.to_owned()).increment(1);
}

/// What the last probe says of a replica. `replica` is its place in the configuration.
pub fn replica(replica: &str, is_up: bool, lag_bytes: u64, lag: Duration) {
    replica_up(replica.to_owned()).set(f64::from(is_up));
    replica_lag_bytes(replica.to_owned()).set(lag_bytes as f64);
    replica_lag_seconds(replica.to_owned()).set(lag.as_secs_f64());
}

/// A read was given to a replica.
pub fn replica_read(replica: &str) {
    replica_reads(replica.to_owned()).increment(1);
}

/// A query ran.
pub fn query(name: &'static str, took: Duration, is_slow: bool) {
    query_duration(name).record(took);
    if is_slow {
        slow_queries(name).increment(1);
    }
}

/// What the server's connections do.
pub fn database_activity(active: f64, server: f64, server_max: f64, longest_transaction_s: f64) {
    active_connections().set(active);
    server_connections().set(server);
    server_max_connections().set(server_max);
    longest_transaction().set(longest_transaction_s);
}

/// A table of ours with all its partitions; the number of tables is bounded by the migrations.
pub fn table(name: &str, bytes: f64, dead_rows: f64) {
    table_bytes(name.to_owned()).set(bytes);
    table_dead_rows(name.to_owned()).set(dead_rows);
}

/// There is a private PostgreSQL, and whether it takes connections.
pub fn embedded_postgres_up(is_up: bool) {
    embedded_up().set(f64::from(is_up));
    embedded_restarts().increment(0);
}
