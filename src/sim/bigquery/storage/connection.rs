//! One connection of `AppendRows`: what its requests need not say again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, ProtoSchema,
};
use prost_types::DescriptorProto;

use crate::sim::{
    bigquery::{
        columns::Column,
        storage::{
            rpc::{Code, RpcError},
            schema::WriterSchema,
            stream::StreamName,
        },
    },
    settings::StorageSettings,
};

/// What rows are read with.
#[derive(Clone, Debug)]
pub struct Reader {
    descriptor: DescriptorProto,
    /// The columns that the schema was fitted to.
    pub columns: Arc<Vec<Column>>,
    /// The rows' fields.
    pub schema: Arc<WriterSchema>,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    opened: Duration,
    used: Duration,
    is_left: bool,
    stream: String,
    /// Whether it was used for several streams: from then on every request names its own.
    is_multiplexed: bool,
    reader: Option<Reader>,
    /// The columns of each stream's table that the client knows of.
    told: HashMap<String, Arc<Vec<Column>>>,
}

impl Connection {
    /// One that is opened now.
    pub fn new(now: Duration) -> Self {
        Self {
            opened: now,
            used: now,
            is_left: false,
            stream: String::new(),
            is_multiplexed: false,
            reader: None,
            told: HashMap::new(),
        }
    }

    /// The client leaves.
    pub fn leave(&mut self) {
        self.is_left = true;
    }

    /// Whether the client has left, and requests of it are still on their way.
    pub fn is_left(&self) -> bool {
        self.is_left
    }

    /// The stream of the last request.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether the service ends the connection, because nobody used it for a while or it is old.
    ///
    /// # Errors
    /// What it ends with.
    pub fn check_age(&mut self, now: Duration, limits: &StorageSettings) -> Result<(), RpcError> {
        let idle = Duration::from_millis(limits.idle_ms);
        if now.saturating_sub(self.used) >= idle {
            let seconds = idle.as_secs();
            let message = format!(
                "Closing the stream because there has been no activity for {seconds} seconds."
            );
            return Err(RpcError::new(Code::Aborted, message));
        }
        let age = limits.connection_age_ms.map(Duration::from_millis);
        if age.is_some_and(|age| now.saturating_sub(self.opened) >= age) {
            return Err(RpcError::new(Code::Unavailable, "The connection is closed: GOAWAY."));
        }
        self.used = now;
        Ok(())
    }

    /// Goes over to the request's stream; its name.
    ///
    /// # Errors
    /// The request names none where it must, or another than it may.
    pub fn enter(&mut self, request: &AppendRowsRequest) -> Result<String, RpcError> {
        let named = request.write_stream.as_str();
        if named.is_empty() {
            if self.stream.is_empty() || self.is_multiplexed {
                return Err(invalid("write_stream must be specified."));
            }
            return Ok(self.stream.clone());
        }
        if named != self.stream {
            let is_first = self.stream.is_empty();
            let may_switch = StreamName::parse(named)?.is_default()
                && StreamName::parse(&self.stream).is_ok_and(|stream| stream.is_default());
            if !is_first && !may_switch {
                return Err(invalid(
                    "write_stream must match that of the first request: only default streams share a connection.",
                ));
            }
            self.is_multiplexed |= !is_first;
            named.clone_into(&mut self.stream);
            self.reader = None;
        }
        Ok(named.to_owned())
    }

    /// Whether the table has other columns than when the connection was first used for it, or since that was
    /// told.
    pub fn is_news(&mut self, columns: &Arc<Vec<Column>>) -> bool {
        let told = self.told.insert(self.stream.clone(), Arc::clone(columns));
        told.is_some_and(|told| !Arc::ptr_eq(&told, columns))
    }

    /// What the request's rows are read with: its own schema, or that of an earlier request for the same
    /// stream, against the columns that there are now.
    ///
    /// # Errors
    /// There is no schema, or it does not fit.
    pub fn reader(
        &mut self,
        schema: Option<ProtoSchema>,
        columns: &Arc<Vec<Column>>,
    ) -> Result<Reader, RpcError> {
        let sent = schema.and_then(|schema| schema.proto_descriptor);
        let known = self.reader.as_ref();
        let is_same = |known: &&Reader| {
            Arc::ptr_eq(&known.columns, columns)
                && sent.as_ref().is_none_or(|sent| *sent == known.descriptor)
        };
        if let Some(known) = known.filter(is_same) {
            return Ok(known.clone());
        }
        let before = || known.map(|known| known.descriptor.clone());
        let descriptor = sent.or_else(before).ok_or_else(|| {
            invalid("writer_schema must be specified in the first request of a stream.")
        })?;
        let schema = Arc::new(WriterSchema::new(&descriptor, columns, &self.stream)?);
        let reader = Reader { descriptor, columns: Arc::clone(columns), schema };
        self.reader = Some(reader.clone());
        Ok(reader)
    }
}

fn invalid(message: &str) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}
