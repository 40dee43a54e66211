//! `kcbq sim`: all fronts on their sockets.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::sim::{
    faults::FaultScript,
    grpc,
    http::{self, WireSettings},
    settings::SimSettings,
    simulator::Simulator,
    tls::{Acceptor, TlsError, TlsSettings},
};

/// How often load jobs are looked for that are due.
const LOOK_FOR_LOADS: Duration = Duration::from_millis(10);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where BigQuery's REST API listens; port 0 takes a free one.
    pub rest: SocketAddr,
    /// Where the Schema Registry listens; port 0 takes a free one.
    pub registry: SocketAddr,
    /// Where Cloud Storage's JSON API listens; port 0 takes a free one.
    pub gcs: SocketAddr,
    /// Where the Storage Write API listens; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Limits, delays and the store.
    pub settings: SimSettings,
    /// The fault script to begin with.
    pub faults: FaultScript,
    /// How slow the wire is.
    pub wire: WireSettings,
    /// TLS on all fronts but the Schema Registry's; none of them has it if not given.
    pub tls: Option<TlsSettings>,
}

impl Default for SimOptions {
    /// Three free ports on loopback, BigQuery's limits, no faults.
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            rest: loopback,
            registry: loopback,
            gcs: loopback,
            grpc: loopback,
            settings: SimSettings::default(),
            faults: FaultScript::default(),
            wire: WireSettings::default(),
            tls: None,
        }
    }
}

/// Why the simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}; is another process using the port?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error underneath.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A simulator that serves. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// Where BigQuery's REST API listens.
    pub rest_addr: SocketAddr,
    /// Where the Schema Registry listens.
    pub registry_addr: SocketAddr,
    /// Where Cloud Storage's JSON API listens.
    pub gcs_addr: SocketAddr,
    /// Where the Storage Write API listens.
    pub grpc_addr: SocketAddr,
    /// The simulator, to look into.
    pub simulator: Simulator,
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits until the `shutdown` given to [`serve`] has stopped all fronts.
    pub async fn stopped(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Listens and serves until `shutdown` is cancelled.
///
/// All listeners reach the same core: every path works on each.
pub async fn serve(
    options: SimOptions,
    shutdown: CancellationToken,
) -> Result<Running, ServeError> {
    let rest = bind(options.rest).await?;
    let registry = bind(options.registry).await?;
    let gcs = bind(options.gcs).await?;
    let grpc = bind(options.grpc).await?;
    let address = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let (rest_addr, registry_addr, gcs_addr, grpc_addr) = (
        address(&rest, options.rest),
        address(&registry, options.registry),
        address(&gcs, options.gcs),
        address(&grpc, options.grpc),
    );
    let simulator = Simulator::with_system_clock(options.settings);
    simulator.with_core(|core, _| {
        core.set_faults(options.faults);
        core.read_elsewhere();
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(read_loads(simulator.clone(), shutdown.clone()));
    let tls = |protocol| options.tls.as_ref().map(|tls| Acceptor::new(tls, protocol)).transpose();
    let (http, grpc_tls) = (tls("http/1.1")?, tls("h2")?);
    let fronts = [
        (rest, Front { speaks: Protocol::Http, tls: http.clone() }),
        (registry, Front { speaks: Protocol::Http, tls: None }),
        (gcs, Front { speaks: Protocol::Http, tls: http }),
        (grpc, Front { speaks: Protocol::Grpc, tls: grpc_tls }),
    ];
    for (listener, front) in fronts {
        let simulator = simulator.clone();
        tasks.spawn(accept((listener, front), simulator, options.wire, shutdown.clone()));
    }
    Ok(Running { rest_addr, registry_addr, gcs_addr, grpc_addr, simulator, tasks })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })
}

/// Reads the files of load jobs, one job after the other, on a thread of its own.
async fn read_loads(simulator: Simulator, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let next = simulator.with_core(|core, now| core.next_reading(now));
        let Some((number, reading)) = next else {
            tokio::time::sleep(LOOK_FOR_LOADS).await;
            continue;
        };
        // A panic is a defect of the simulator; the job stays RUNNING.
        if let Ok(read) = tokio::task::spawn_blocking(move || reading.read()).await {
            simulator.with_core(|core, now| core.end_reading(number, read, now));
        }
    }
}

/// What a listener's connections speak, and through what.
#[derive(Clone, Debug)]
struct Front {
    speaks: Protocol,
    tls: Option<Acceptor>,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http,
    Grpc,
}

impl Front {
    /// Serves one connection until it ends or `stop` is cancelled.
    async fn serve(
        self,
        simulator: Simulator,
        stream: TcpStream,
        wire: WireSettings,
        stop: CancellationToken,
    ) {
        // Answers are small; without this, Nagle's algorithm would add 40 ms to some.
        stream.set_nodelay(true).ok();
        let Some(tls) = self.tls else {
            return self.speaks.serve(simulator, stream, wire, stop).await;
        };
        match tls.accept(stream).await {
            Ok(stream) => self.speaks.serve(simulator, stream, wire, stop).await,
            Err(error) => tracing::debug!(%error, "a client of the simulator did not speak TLS"),
        }
    }
}

impl Protocol {
    async fn serve(
        self,
        simulator: Simulator,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        wire: WireSettings,
        stop: CancellationToken,
    ) {
        match self {
            Self::Http => http::serve_connection(simulator, stream, wire, stop).await,
            Self::Grpc => grpc::serve_connection(simulator, stream, wire, stop).await,
        }
    }
}

async fn accept(
    (listener, front): (TcpListener, Front),
    simulator: Simulator,
    wire: WireSettings,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (front, simulator) = (front.clone(), simulator.clone());
                    connections.spawn(front.serve(simulator, stream, wire, stop.clone()));
                }
                // Out of file descriptors, or the client left already: go on after a moment.
                Err(error) => {
                    tracing::warn!(%error, "the simulator could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}
