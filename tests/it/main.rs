//! In-process integration tests: one binary, so that everything is linked once.

// `cfg(test)` is what tells clippy that functions outside `#[test]` are test code too.
#[cfg(test)]
mod cli_check;
#[cfg(test)]
mod cli_commands;
#[cfg(test)]
mod cli_probe;
#[cfg(test)]
mod kafka_consume;
#[cfg(test)]
mod kafka_dead_letter;
#[cfg(test)]
mod kafka_input;
#[cfg(test)]
mod kafka_metadata;
#[cfg(test)]
mod kafka_mock;
#[cfg(test)]
mod kafka_real;
#[cfg(test)]
mod sim_contract;
#[cfg(test)]
mod sim_contract_avro;
#[cfg(test)]
mod sim_contract_fronts;
#[cfg(test)]
mod sim_contract_gcs;
#[cfg(test)]
mod sim_contract_jobs;
#[cfg(test)]
mod sim_contract_load;
#[cfg(test)]
mod sim_contract_registry;
#[cfg(test)]
mod sim_contract_storage;
#[cfg(test)]
mod slot_model;
