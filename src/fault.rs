//! What a remote system refused, in neutral words.
//!
//! One commented classifier per remote (`write::insert_all::classify`, `gcp::classify`, …) turns the
//! vendor's errors into a [`Fault`]. What follows from a fault is a `Disposition`, decided in one
//! place (`delivery::disposition`), never where the error was read.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

/// Whether the refused request may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// The remote answered that it did nothing.
    Refused,
    /// No answer, or one that does not tell: the write may have happened. Repeating it may
    /// duplicate.
    Unknown,
}

/// What went wrong, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A passing fault of the remote or the network.
    Transient,
    /// Too fast: `rateLimitExceeded`; wait seconds.
    Throttled,
    /// A quota is used up: `quotaExceeded`; wait minutes.
    QuotaExceeded,
    /// The table (or its dataset) is not there, or not visible yet.
    TableNotFound,
    /// The table's schema does not know the row's columns (yet).
    SchemaMismatch,
    /// One row is not acceptable, whatever is done to the table.
    InvalidRow,
    /// The request as a whole is not acceptable, and no row can be named.
    InvalidRequest,
    /// The request, or a single row, is larger than the remote takes.
    TooLarge,
    /// A concurrent change won (HTTP 412).
    Conflict,
    /// The thing to create exists already (HTTP 409).
    AlreadyExists,
    /// The credentials are missing, wrong or expired.
    Unauthenticated,
    /// The identity lacks a permission, or the project its billing.
    PermissionDenied,
    /// A row lies outside the window that streaming accepts for its partition.
    PartitionOutOfRange,
}

impl FaultKind {
    /// The name used in metrics and logs, `snake_case`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::QuotaExceeded => "quota_exceeded",
            Self::TableNotFound => "table_not_found",
            Self::SchemaMismatch => "schema_mismatch",
            Self::InvalidRow => "invalid_row",
            Self::InvalidRequest => "invalid_request",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::AlreadyExists => "already_exists",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::PartitionOutOfRange => "partition_out_of_range",
        }
    }
}

/// A refusal or a failure, with what a person needs to act on it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// Whether it may have taken effect all the same.
    pub certainty: Certainty,
    /// The remote's own code, such as `quotaExceeded`; never a row's value.
    pub reason: String,
    /// One sentence for a person, without any row's value and without the remedy.
    pub message: String,
    /// What a person can do about it, where that is plain.
    pub remedy: Option<Cow<'static, str>>,
    /// How long the remote asked to wait.
    pub retry_after: Option<Duration>,
    /// The error underneath.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A fault that certainly took no effect.
    pub fn refused(kind: FaultKind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            certainty: Certainty::Refused,
            reason: reason.into(),
            message: message.into(),
            remedy: None,
            retry_after: None,
            source: None,
        }
    }

    /// A fault that may have taken effect.
    pub fn unknown(kind: FaultKind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { certainty: Certainty::Unknown, ..Self::refused(kind, reason, message) }
    }

    /// The same fault of a request whose effect, if it had one, nobody will ever see.
    #[must_use]
    pub fn without_effect(self) -> Self {
        Self { certainty: Certainty::Refused, ..self }
    }

    /// The same fault with what a person can do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// What is wrong, without the remedy: for places that show that beside it.
    pub fn what(&self) -> String {
        format!("{} ({}): {}", self.kind.name(), self.reason, self.message)
    }

    /// The same fault with the error underneath.
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// The same fault with the wait the remote asked for.
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
