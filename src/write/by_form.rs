//! Each request by the path of its rows.

use futures_util::future::BoxFuture;

use crate::{
    fault::{Fault, FaultKind},
    write::{
        RowForm, Write, WriteOutcome, WriteRequest, insert_all::InsertAll, storage::StorageWrite,
    },
};

/// Both streaming paths.
#[derive(Debug)]
pub struct ByForm {
    /// For JSON.
    pub insert_all: InsertAll,
    /// For protobuf rows; `None` where no topic goes by it.
    pub storage: Option<StorageWrite>,
}

impl Write for ByForm {
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, WriteOutcome> {
        match (&request.form, &self.storage) {
            (RowForm::Json, _) => self.insert_all.write(request),
            (RowForm::Proto(_), Some(storage)) => storage.write(request),
            (RowForm::Proto(_), None) => Box::pin(async {
                let message = "no connection to the Storage Write API was set up";
                WriteOutcome::Refused(Fault::refused(FaultKind::Transient, "noStorage", message))
            }),
        }
    }
}
