//! The integration tests: one binary, real PostgreSQL, real Redis, a real Prometheus and the real `octo`.
//!
//! Each test stands in the room of what it tests, in a file of that name; what they share is in `harness`. The rooms
//! are also what `.config/nextest.toml` goes by.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "a test that cannot go on fails, starts what it likes, and reads rows as tuples"
)]

mod harness;
#[path = "harness/tests.rs"]
mod harness_test; // the benches have the harness too, and no tests

use harness::{load, nodes, records, tools, tracker, traffic, verify, visitors, wire};

/// Links and events: what visitors and pages send, and what becomes of it.
mod tracking {
    mod budgets;
    mod cache;
    mod cache_hints;
    mod caps;
    mod click;
    mod conversions;
    mod destinations;
    mod event;
    mod event_inputs;
    mod event_sources;
    mod out;
    mod postback;
    mod postback_shapes;
    mod privacy;
    mod rules;
    mod script;
    mod sources;
    mod sticky;
    mod valid_traffic;
    mod visit;
    mod visitor;
}

/// `/api/v1`, and what its questions cost.
mod api {
    mod campaigns;
    mod corrections;
    mod costs;
    mod database_statistics;
    mod dead_letters;
    mod documented;
    mod erasure;
    mod fx_rates;
    mod idempotency;
    mod libraries;
    mod manners;
    mod python_client;
    mod queries;
    mod reconciliation;
    mod recounts;
    mod relabel;
    mod report_costs;
    mod report_exports;
    mod report_proof;
    mod report_rows;
    mod report_scale;
    mod reports;
    mod schemathesis;
    mod scopes;
    mod sources;
    mod statements;
    mod top_values;
}

/// The dashboard: who is signed in, what pages show, journeys in a browser.
mod dashboard {
    mod conversions;
    mod costs;
    mod flow;
    mod journeys;
    mod library;
    mod live;
    mod pages;
    mod quality;
    mod sessions;
    mod settings;
}

/// What is killed, filled, frozen, set back or started wrong.
mod breaks {
    mod clocks;
    mod deliveries;
    mod embedded;
    mod partitions;
    mod poison;
    mod start;
    mod upgrade;

    /// That no click is lost or stored twice: one try each, one at a time.
    mod proof {
        mod crash;
        mod drain;
        mod exactly_once;
        mod histories;
        mod postbacks;
        mod replay;
        mod restarts;
        mod restore;
    }

    /// Servers of one's own that stop, freeze and fail over: one at a time.
    mod servers {
        mod cache_outage;
        mod caps;
        mod outage;
        mod postbacks;
        mod replicas;
    }

    /// Load on the whole machine: with nothing beside it.
    mod alone {
        mod overload;
        mod slow_attacks;
    }
}

/// What stands between octo and the world: bytes on a socket, proxies, pools, scrapes, the command line.
mod edge {
    mod bad_inputs;
    mod caller;
    mod canary;
    mod cli;
    mod demo;
    mod first_steps;
    mod fx;
    mod limits;
    mod media_buyer;
    mod ops;
    mod permissions;
    mod pgbouncer;
    mod pool;
    mod prometheus;
    mod slow_clients;
    mod smuggling;
}

/// What the files of the repository say to each other: no server is started, so `./test --fast` runs them.
mod files {
    pub(crate) mod alerts;
    pub(crate) mod documentation;
    mod image;
    mod statements;
}
