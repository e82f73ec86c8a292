//! What money means: postbacks read, conversions derived from them, rates, and costs spread. Pure: no clock, no random
//! numbers, no socket, and the same arguments give the same answer, so that anything can be worked out again.

pub mod conversions;
pub mod reading;
