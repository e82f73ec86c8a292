//! Tells cargo that the embedded migrations changed when a file of this directory did.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
