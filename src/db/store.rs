//! What is stored, one file a noun: the statements that read and change it.

pub mod affiliate_networks;
pub mod campaigns;
pub mod caps;
pub mod clicks;
pub mod conversions;
pub mod costs;
pub mod dead_letters;
pub mod deliveries;
pub mod erasures;
pub mod events;
pub mod fx_rates;
pub mod idempotency;
pub mod installation;
pub mod landing_pages;
pub mod library;
pub mod offers;
pub mod out_clicks;
pub mod outbox;
pub mod postback_targets;
pub mod postbacks;
pub mod seal_keys;
pub mod stats;
pub mod tokens;
pub mod traffic_sources;
pub mod uses;
pub mod visitor_keys;
