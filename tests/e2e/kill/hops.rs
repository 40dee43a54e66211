//! The hops between the replicas and everything else, each of which can be disturbed.

use std::time::Duration;

use anyhow::Result;

use super::Path;
use crate::rig::{
    broker::Broker,
    place::{self, Place},
    proxy::{Fault, Proxy},
    simulator::Simulator,
};

/// What a hop can suffer.
const FAULTS: [(&str, Fault); 4] = [
    ("latency", Fault::Latency(Duration::from_millis(1_500))),
    ("resets", Fault::Reset),
    ("half-open", Fault::HalfOpen),
    ("lost answers", Fault::LostAnswers),
];

/// The hops.
pub(crate) struct Hops {
    kafka: Proxy,
    bigquery: Proxy,
    storage: Proxy,
    bucket: Proxy,
    registry: Proxy,
}

/// The proxy before a broker's listener.
#[derive(Debug)]
pub(crate) struct Behind(Proxy);

impl Behind {
    /// Starts a broker with a listener that is reached through a proxy only.
    pub(crate) fn start(place: &Place) -> Result<(Broker, Self)> {
        let listener = place::free_port()?;
        // Before the broker, which has to know its port: one that was free might not be any more.
        let behind = Proxy::start(&format!("127.0.0.1:{listener}"))?;
        let proxy = behind.address();
        let broker = Broker::start_with(place, |plain, controller| {
            vec![
                format!(
                    "listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{listener},\
                     CONTROLLER://127.0.0.1:{controller}"
                ),
                format!("advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://{proxy}"),
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,\
                 CONTROLLER:PLAINTEXT"
                    .to_owned(),
                "inter.broker.listener.name=PLAINTEXT".to_owned(),
            ]
        })?;
        Ok((broker, Self(behind)))
    }
}

impl Hops {
    /// Proxies to all of these.
    pub(crate) fn start(behind: Behind, simulator: &Simulator) -> Result<Self> {
        let to = |endpoint: &str| Proxy::start(endpoint.trim_start_matches("http://"));
        Ok(Self {
            kafka: behind.0,
            bigquery: to(&simulator.endpoint())?,
            storage: to(&simulator.storage())?,
            bucket: to(&simulator.gcs())?,
            registry: to(&simulator.registry())?,
        })
    }

    /// Kafka's address.
    pub(crate) fn bootstrap(&self) -> String {
        self.kafka.address()
    }

    /// BigQuery's address.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.bigquery.address())
    }

    /// The Storage Write API's address.
    pub(crate) fn storage(&self) -> String {
        format!("http://{}", self.storage.address())
    }

    /// Cloud Storage's address.
    pub(crate) fn gcs(&self) -> String {
        format!("http://{}", self.bucket.address())
    }

    /// The registry's address.
    pub(crate) fn registry(&self) -> String {
        format!("http://{}", self.registry.address())
    }

    /// The `number`-th way to disturb a hop, and its name: every fault on every hop in turn. `path` says which
    /// of them there are.
    pub(crate) fn nth(&self, number: usize, path: Path) -> (String, &Proxy, Fault) {
        let rows = match path {
            Path::Storage | Path::Pending => ("storage", &self.storage),
            Path::Streaming | Path::Load | Path::Upload | Path::Auto => ("bucket", &self.bucket),
        };
        let hops = [
            ("kafka", &self.kafka),
            ("bigquery", &self.bigquery),
            rows,
            ("registry", &self.registry),
        ];
        let (hop, proxy) = hops[number % hops.len()];
        let (fault, how) = FAULTS[number / hops.len() % FAULTS.len()];
        (format!("{hop}, {fault}"), proxy, how)
    }
}
