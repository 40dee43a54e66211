//! A blocking HTTP client without kept connections (emulators drop theirs without notice).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// The client.
#[derive(Debug)]
pub(crate) struct Http {
    runtime: Runtime,
    client: Client,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; an error status is an error.
    pub(crate) fn json(&self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("HTTP {}: {}", self.status, self.body.chars().take(400).collect::<String>());
        }
        serde_json::from_str(&self.body).context("the answer is not JSON")
    }
}

impl Http {
    /// A client that waits `timeout` for a whole answer.
    pub(crate) fn new(timeout: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder()
            .no_proxy()
            .timeout(timeout)
            .pool_max_idle_per_host(0)
            .build()
            .context("building the HTTP client")?;
        Ok(Self { runtime, client })
    }

    /// Sends one request.
    pub(crate) fn send(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.runtime
            .block_on(async {
                let answer = request.send().await?;
                let status = answer.status().as_u16();
                Ok::<_, reqwest::Error>(Answer { status, body: answer.text().await? })
            })
            .with_context(|| format!("asking {url}"))
    }

    /// GET.
    pub(crate) fn get(&self, url: &str) -> Result<Answer> {
        self.send(Method::GET, url, None)
    }

    /// POST of a JSON body.
    pub(crate) fn post(&self, url: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, url, Some(body))
    }
}
