//! The public emulator of Cloud Storage, fake-gcs-server, as a server with one bucket.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    http::Http,
    place::{self, Place},
    process::{self, Process},
};

/// The emulator's process.
#[derive(Debug)]
pub(crate) struct FakeGcs {
    port: u16,
    _process: Process,
}

impl FakeGcs {
    /// The only bucket that it has.
    pub(crate) const BUCKET: &'static str = "stage";

    /// Whether it is installed.
    pub(crate) fn installed() -> bool {
        place::cache().join("tools/bin/fake-gcs-server").is_file()
    }

    /// Starts it over a new folder, waits until it answers, and makes the bucket.
    pub(crate) fn start(place: &Place, http: &Http) -> Result<Self> {
        let port = place::free_port()?;
        let mut command = process::command(&place::scripts().join("fake-gcs/start"));
        command.arg(place.join("fake-gcs")).arg(port.to_string());
        command.env("KCBQ_CACHE", place::cache());
        let mut process = Process::spawn("fake-gcs", &mut command, place.path())?;
        let buckets = format!("http://127.0.0.1:{port}/storage/v1/b?project=p");
        process.until("answer", Duration::from_secs(30), |_| {
            http.get(&buckets).is_ok_and(|answer| answer.status == 200)
        })?;
        http.post(&buckets, &json!({"name": Self::BUCKET}))?.json()?;
        Ok(Self { port, _process: process })
    }

    /// Scheme, host and port.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The names of the objects that are there now.
    pub(crate) fn objects(&self, http: &Http) -> Result<Vec<String>> {
        let url = format!("{}/storage/v1/b/{}/o", self.endpoint(), Self::BUCKET);
        let page = http.get(&url)?.json()?;
        let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
        let name = |item: &Value| Some(item.get("name")?.as_str()?.to_owned());
        items.map(|item| name(item).context("an object without a name")).collect()
    }
}
