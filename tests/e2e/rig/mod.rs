//! What every scenario stands on: real processes, clients, test records and an oracle for values.
//!
//! Nothing here uses the product's library: the rig knows its command line, its configuration file
//! and its HTTP surfaces, as a user does.

pub(crate) mod avro;
pub(crate) mod bigquery;
pub(crate) mod broker;
pub(crate) mod cell;
pub(crate) mod certificates;
pub(crate) mod clients;
pub(crate) mod connect;
pub(crate) mod http;
pub(crate) mod jvm;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod simulator;
pub(crate) mod sink;
pub(crate) mod storage;
pub(crate) mod workload;
