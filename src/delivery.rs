//! The delivery core: what may be committed, and when. Sans-IO: events in, actions out, `now` is an
//! argument. The whole protocol lives here and can be simulated from one seed.
//!
//! The rules (each has a checker in the simulation):
//! 1. An offset is committed only when every record below it is stored, dead-lettered, or skipped by
//!    an explicit setting.
//! 2. A refusal blocks the watermark. Only an acknowledgement releases it.
//! 3. A write of unknown outcome is repeated with the same bytes (so with the same insertIds) and
//!    nothing else: it is never taken for refused.
//! 4. A lane that is gone is gone for good: whatever comes back for it is ignored.
//! 5. A load job takes in everything below its end, or there is none (`core::load`).

pub mod action;
pub mod backoff;
pub mod budget;
pub mod chain;
pub mod commit_book;
pub mod core;
pub mod disposition;
pub mod encoder;
pub mod lane;
pub mod tracker;

#[cfg(test)]
pub mod defect;
