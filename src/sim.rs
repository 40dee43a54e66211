//! The strict BigQuery and Schema Registry simulator (feature `sim`).
//!
//! ```text
//!                    ┌──────────── Core::step(request, now) → Step ────────────┐
//! SimRest ─┐         │ fault script → BigQuery REST · registry · control API   │
//! HTTP  ───┴ Simulator (lock, clock, waiting)                                  │
//!                    └──────────────────────────────────────────────────────────┘
//! ```
//!
//! One pure core ([`core::Core`]) serves every front: [`memory::SimRest`] for seeded simulation and
//! fast tests, [`http`] on loopback for wire-level tests, the demo, users' own CI, and, in
//! [`settings::StoreMode::Count`], the counting sink of benchmarks. [`control`] is the API of tests.
//!
//! It refuses what BigQuery refuses, in BigQuery's error shapes; where the real service is
//! uncertain, [`settings::SimSettings`] decides. The contract suite (`tests/it/sim_contract.rs`)
//! runs against both fronts, and against a public emulator where that is right.
//!
//! Not here yet: load jobs and GCS objects (they join `Core` beside [`bigquery`], with the same
//! REST front), and the Storage Write API (a gRPC front over the same core).

pub mod bigquery;
pub mod control;
pub mod core;
pub mod counters;
pub mod faults;
pub mod http;
pub mod memory;
pub mod message;
pub mod registry;
pub mod serve;
pub mod settings;
pub mod simulator;

pub use self::{
    core::Core,
    faults::FaultScript,
    http::WireSettings,
    memory::SimRest,
    serve::{Running, SimOptions, serve},
    settings::{SimSettings, StoreMode},
    simulator::Simulator,
};
