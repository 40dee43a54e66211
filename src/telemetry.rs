//! Counters and states that every layer reports and `ops` shows.
