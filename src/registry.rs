//! The port to the Schema Registry.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::fault::Fault;

/// Most bytes that a schema's text and the texts that it refers to may have together.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

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
    #[error("the schema registry does not know schema id {id}")]
    UnknownId {
        /// The id.
        id: u32,
    },
    /// The registry has the schema, and it is beyond a limit. It stays so: what an id means never
    /// changes.
    #[error("schema id {id} cannot be used: {problem}")]
    Unusable {
        /// The id.
        id: u32,
        /// The limit.
        problem: String,
    },
    /// Anything else: network, credentials, a malformed answer.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A Schema Registry (Confluent's API).
///
/// One call resolves a schema and its references (depth at most 16). Implementations bound what they
/// hold and how many requests are on their way, whoever asks. They do not cache and do not retry: the
/// caller keeps what it got (ids are immutable) and retries with a visible reason.
pub trait Registry: Send + Sync + 'static {
    /// The schema with this id.
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<RegisteredSchema, RegistryError>>;

    /// Where the registry is, for people: without credentials.
    fn address(&self) -> &str;
}
