//! streamgate
fn main() {}
