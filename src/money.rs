//! What money means: rates of currencies, and the file they come in. Pure: no clock, no random numbers, no socket, and the same arguments give the same
//! answer, so that anything can be worked out again.

pub mod ecb;
pub mod rates;
