//! The delivery core: what may be committed, and when. Sans-IO: events in, actions out.
