//! From payload bytes to row bytes by a compiled plan, without a value tree.

pub mod settings;
