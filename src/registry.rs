//! The port to the Schema Registry.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::fault::Fault;

/// A schema as the registry stores it, with everything it refers to.
#[derive(Clone, Debug)]
pub struct RegisteredSchema {
    /// The registry's id, as it stands in the wire format.
    pub id: u32,
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub format: String,
    /// The schema's text.
    pub text: Arc<str>,
    /// The texts of all referenced schemas, each after those it refers to itself.
    pub references: Vec<Arc<str>>,
}

/// Why a schema could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry does not know the id (40403). May pass: registries replicate with a delay.
    #[error(
        "the schema registry does not know schema id {id}; check that the producer and this service use the same registry"
    )]
    UnknownId {
        /// The id.
        id: u32,
    },
    /// Anything else: network, credentials, a malformed answer.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A Schema Registry (Confluent's API).
///
/// One call resolves a schema and its references (depth at most 16). Implementations do not cache
/// and do not retry: the caller caches for ever (ids are immutable) and retries with a visible
/// reason.
pub trait Registry: Send + Sync + 'static {
    /// The schema with this id.
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<RegisteredSchema, RegistryError>>;
}
