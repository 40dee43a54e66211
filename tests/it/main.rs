//! In-process integration tests: one binary, everything over the simulator.

mod sim_contract;
mod sim_contract_fronts;
mod sim_contract_registry;
