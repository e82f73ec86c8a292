//! Written in the bench branch.
fn main() {}
