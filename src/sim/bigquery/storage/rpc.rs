//! How a call ends: gRPC's codes with BigQuery's details, in an answer's shape.

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    StorageError, storage_error::StorageErrorCode,
};
pub use googleapis_tonic_google_cloud_bigquery_storage_v1::google::rpc::Status;
use http::HeaderMap;
use prost::Message;

use crate::sim::message::Response;

/// What details hold, by its name.
const STORAGE_ERROR: &str = "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError";

/// gRPC's status codes, as far as BigQuery uses them
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// The request is wrong, whatever the state of the service.
    InvalidArgument = 3,
    /// No answer in time.
    DeadlineExceeded = 4,
    /// There is no such thing.
    NotFound = 5,
    /// There is such a thing already.
    AlreadyExists = 6,
    /// Not allowed.
    PermissionDenied = 7,
    /// A quota is used up, or too fast.
    ResourceExhausted = 8,
    /// The state of the service does not allow it.
    FailedPrecondition = 9,
    /// Given up, to be tried again.
    Aborted = 10,
    /// Behind the end.
    OutOfRange = 11,
    /// The service does not know it.
    Unimplemented = 12,
    /// The service is broken.
    Internal = 13,
    /// The service is away.
    Unavailable = 14,
    /// No credentials, or wrong ones.
    Unauthenticated = 16,
}

impl Code {
    /// The code for an HTTP status and a BigQuery reason of a fault script. What the REST API answers with 403
    /// for a quota or a rate is a code of its own here.
    pub fn of_http(status: u16, reason: &str) -> Self {
        match status {
            403 if matches!(reason, "quotaExceeded" | "rateLimitExceeded") => {
                Self::ResourceExhausted
            }
            400 | 413 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::Aborted,
            412 => Self::FailedPrecondition,
            429 => Self::ResourceExhausted,
            500 => Self::Internal,
            501 => Self::Unimplemented,
            504 => Self::DeadlineExceeded,
            _ => Self::Unavailable,
        }
    }

    fn http(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Internal => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}

/// A call, or one request of a connection, that failed.
#[derive(Clone, Debug)]
pub struct RpcError {
    /// gRPC's code.
    pub code: Code,
    /// The message.
    pub message: String,
    /// BigQuery's own code, and what it is about.
    pub storage: Option<(StorageErrorCode, String)>,
}

impl RpcError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), storage: None }
    }

    /// The same error, with BigQuery's code, about `entity`.
    #[must_use]
    pub fn about(self, code: StorageErrorCode, entity: &str) -> Self {
        let message = format!("{} Entity: {entity}", self.message);
        Self { message, storage: Some((code, entity.to_owned())), ..self }
    }

    /// The status as BigQuery sends it.
    pub fn status(&self) -> Status {
        let detail = self.storage.as_ref().map(|(code, entity)| StorageError {
            code: i32::from(*code),
            entity: entity.clone(),
            error_message: self.message.clone(),
        });
        let packed = |detail: StorageError| prost_types::Any {
            type_url: STORAGE_ERROR.to_owned(),
            value: detail.encode_to_vec(),
        };
        Status {
            code: self.code as i32,
            message: self.message.clone(),
            details: detail.map(packed).into_iter().collect(),
        }
    }
}

/// The call, or the connection, ends with it: the status is the body.
impl From<RpcError> for Response {
    fn from(error: RpcError) -> Self {
        let body = Bytes::from(error.status().encode_to_vec());
        Self { status: error.code.http(), headers: HeaderMap::new(), body }
    }
}

/// An answer.
pub fn answer(message: &impl Message) -> Response {
    Response { status: 200, headers: HeaderMap::new(), body: message.encode_to_vec().into() }
}

/// What an answer's body is: a message, or the status with which the call or the connection ends.
///
/// # Errors
/// The status.
pub fn outcome(response: Response) -> Result<Bytes, Status> {
    match response.is_success() {
        true => Ok(response.body),
        false => Err(Status::decode(response.body).unwrap_or_default()),
    }
}
