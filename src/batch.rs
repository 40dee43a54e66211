//! Open batches: encoded rows of many lanes on their way to one table.
