//! The `kcbq` binary.

fn main() {}
