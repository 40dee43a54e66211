//! In-process integration tests: one binary, everything over the simulator.

// `cfg(test)` is what tells clippy that helpers outside `#[test]` functions are test code too.
#[cfg(test)]
mod sim_contract;
#[cfg(test)]
mod sim_contract_fronts;
#[cfg(test)]
mod sim_contract_registry;
