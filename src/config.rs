//! The configuration file: parsed, validated, documented.
