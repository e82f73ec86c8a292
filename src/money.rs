//! What money means: rates of currencies. Pure: no clock, no random numbers, no socket, and the same arguments give the same
//! answer, so that anything can be worked out again.

pub mod rates;
