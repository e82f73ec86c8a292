//! What money means: postbacks read, conversions derived from them, reports of networks compared with these, what clicks
//! cost, rates of currencies and the file they come in. Pure: no clock, no random numbers, no socket, and the same arguments
//! give the same answer, so that anything can be worked out again.

pub mod conversions;
pub mod costs;
pub mod ecb;
pub mod rates;
pub mod reading;
pub mod reconcile;
