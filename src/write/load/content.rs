//! The rows of a batch as a load job reads them, or a PENDING stream takes them.

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
    /// The rows of one `AppendRows` request, framed.
    Messages {
        /// An encoded `ProtoSchema`.
        schema: Bytes,
        /// The rows.
        body: Bytes,
    },
}

impl Content {
    /// How many bytes the rows have, without what goes around them.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Lines(body) | Self::Messages { body, .. } => body.len(),
            Self::Datums { blocks, .. } => blocks.iter().map(|block| block.data.len()).sum(),
        }
    }

    /// What an object's name ends in that holds them; `None` for rows that never go into an object.
    pub fn extension(&self) -> Option<&'static str> {
        match self {
            Self::Lines(_) => Some(chain::EXTENSIONS[0]),
            Self::Datums { .. } => Some(chain::EXTENSIONS[1]),
            Self::Messages { .. } => None,
        }
    }
}
