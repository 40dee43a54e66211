//! The rows of a batch as a load job reads them.

use std::sync::Arc;

use bytes::Bytes;

use crate::write::load::{chain, container::Block};

/// Rows of one format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Lines, one after the other.
    Lines(Bytes),
    /// Datums of a schema, as an Avro container.
    Datums {
        /// The schema.
        schema: Arc<str>,
        /// The datums.
        blocks: Vec<Block>,
    },
}

impl Content {
    /// How many bytes the rows have, without what goes around them.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Lines(body) => body.len(),
            Self::Datums { blocks, .. } => blocks.iter().map(|block| block.data.len()).sum(),
        }
    }

    /// What an object's name ends in that holds them.
    pub fn extension(&self) -> &'static str {
        match self {
            Self::Lines(_) => chain::EXTENSIONS[0],
            Self::Datums { .. } => chain::EXTENSIONS[1],
        }
    }
}
