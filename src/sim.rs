//! The strict simulator of BigQuery, Cloud Storage and the Schema Registry (feature `sim`).
//!
//! ```text
//!                    ┌───────────── Core::step(request, now) → Step ─────────────┐
//! SimRest ─┐         │ fault script → BigQuery REST and Storage Write · GCS ·     │
//! HTTP  ───┼ Simulator (lock,      registry · control                            │
//! gRPC  ───┘  clock, waiting)      load jobs move on with each step              │
//!                    └────────────────────────────────────────────────────────────┘
//! ```
//!
//! One pure core ([`core::Core`]) serves every front: [`memory::SimRest`] for seeded simulation and
//! fast tests, [`http`] and [`grpc`] on loopback for wire-level tests, the demo, users' own CI, and, in
//! [`settings::StoreMode::Count`], the counting sink of benchmarks. [`control`] is the API of tests.
//!
//! It refuses what BigQuery refuses, in BigQuery's error shapes; where the real service is
//! uncertain, [`settings::SimSettings`] decides. The contract suite (`tests/it/sim_contract.rs`)
//! runs against both fronts, and against a public emulator where that is right.

pub mod bigquery;
pub mod control;
pub mod core;
pub mod counters;
pub mod faults;
pub mod gcs;
pub mod grpc;
pub mod http;
pub mod memory;
pub mod message;
pub mod registry;
pub mod serve;
pub mod settings;
pub mod simulator;
pub mod tls;
pub mod upload;

pub use self::{
    core::Core,
    faults::FaultScript,
    http::WireSettings,
    memory::SimRest,
    serve::{Running, SimOptions, serve},
    settings::{SimSettings, StoreMode},
    simulator::Simulator,
    tls::TlsSettings,
};
