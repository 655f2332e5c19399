//! gdrd.
fn main() {}
