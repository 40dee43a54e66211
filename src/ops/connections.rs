//! Serving HTTP to anyone: one request a connection, and always room for the next.
//!
//! Whoever reaches the port may open sockets and say nothing. So nobody waits for a place: where all are taken, the
//! connection that has waited longest for its request is cut. The kubelet, which sends its request at once, is
//! answered while any number of idle sockets push each other out.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, rt::TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time,
};
use tower::ServiceExt as _;

/// Connections at once, over all peers.
const CONNECTIONS_MAX: usize = 64;
/// Connections of one address at once, so that it pushes out its own before those of others.
const CONNECTIONS_PER_PEER_MAX: usize = 32;
/// How long a request's head may take to arrive, from the connection on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one connection may live, whatever it does: the largest answer to a slow reader.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` on `listener` until `shutdown` resolves; open connections are then cut.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut tasks = JoinSet::new();
    let mut open = Open::default();
    tokio::pin!(shutdown);
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let asked = Arc::<AtomicBool>::default();
        let task = tasks.spawn(connection(stream, router.clone(), Arc::clone(&asked)));
        open.add(Connection { peer: peer.ip(), task, asked });
    }
}

/// One request and its answer. A connection that is kept for a further one would be a place that is taken.
async fn connection(stream: TcpStream, router: Router, asked: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("admin connection closed: too old"),
    }
}

struct Connection {
    peer: IpAddr,
    task: AbortHandle,
    /// Whether its request has arrived.
    asked: Arc<AtomicBool>,
}

/// The connections, oldest first.
#[derive(Default)]
struct Open(VecDeque<Connection>);

impl Open {
    /// Adds one, and cuts another where that is one too many.
    fn add(&mut self, new: Connection) {
        self.0.retain(|connection| !connection.task.is_finished());
        let peer = new.peer;
        self.0.push_back(new);
        let of_peer = self.0.iter().filter(|connection| connection.peer == peer).count();
        if of_peer > CONNECTIONS_PER_PEER_MAX {
            self.cut_one(|connection| connection.peer == peer);
        } else if self.0.len() > CONNECTIONS_MAX {
            self.cut_one(|_| true);
        }
    }

    /// Cuts the oldest of these that has sent no request; where all have, the oldest.
    fn cut_one(&mut self, of: impl Fn(&Connection) -> bool) {
        let is_idle = |one: &Connection| of(one) && !one.asked.load(Ordering::Relaxed);
        let found = self.0.iter().position(is_idle).or_else(|| self.0.iter().position(of));
        if let Some(connection) = found.and_then(|index| self.0.remove(index)) {
            connection.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Instant};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a probe of the kubelet waits for at most is 5 s; here it is more than ten times less.
    const PATIENCE: Duration = Duration::from_millis(400);

    async fn start() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "ok\n" }));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, router, std::future::pending()));
        (address, tasks)
    }

    /// Sends a request for `/livez` and reads until the other end closes.
    async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn livez(address: SocketAddr) -> Duration {
        let began = Instant::now();
        let answer = async { ask(&mut TcpStream::connect(address).await.unwrap()).await.unwrap() };
        let answer = time::timeout(PATIENCE, answer).await.expect("/livez is starved");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        began.elapsed()
    }

    /// The attack: sockets that stay open and send a request every few seconds, each opened anew when it is cut.
    fn attack(address: SocketAddr, sockets: usize, pause: Duration) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..sockets {
            tasks.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                    time::sleep(pause).await;
                    drop(ask(&mut stream).await);
                }
            });
        }
        tasks
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn idle_sockets_starve_no_probe() {
        let (address, _server) = start().await;
        for sockets in [80, 800] {
            let attackers = attack(address, sockets, Duration::from_secs(4));
            time::sleep(Duration::from_millis(300)).await;
            let mut longest = Duration::ZERO;
            for _ in 0..10 {
                longest = longest.max(livez(address).await);
                time::sleep(Duration::from_millis(100)).await;
            }
            println!("{sockets} idle sockets: /livez within {longest:?}");
            drop(attackers);
        }
    }

    #[tokio::test]
    async fn a_connection_has_one_request_and_little_time_for_it() {
        let (address, _server) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut stream).await.unwrap();
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        let began = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(began.elapsed() < HEAD_TIMEOUT * 3, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_one_that_waits_longest_goes_and_never_one_that_asked_before_it() {
        let mut tasks = JoinSet::new();
        let mut open = Open::default();
        let mut add = |open: &mut Open, peer: [u8; 4], asked: bool| {
            let task = tasks.spawn(std::future::pending::<()>());
            let asked = Arc::new(AtomicBool::new(asked));
            open.add(Connection { peer: peer.into(), task, asked });
        };
        let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        add(&mut open, other, false);
        add(&mut open, one, true);
        (0..CONNECTIONS_PER_PEER_MAX).for_each(|_| add(&mut open, one, false));
        let of = |open: &Open, peer: [u8; 4]| {
            open.0.iter().filter(|connection| connection.peer == IpAddr::from(peer)).count()
        };
        assert_eq!((of(&open, one), of(&open, other)), (CONNECTIONS_PER_PEER_MAX, 1));
        assert!(open.0[1].asked.load(Ordering::Relaxed), "what asked first stays");
        (0..100).for_each(|last| add(&mut open, [10, 0, 1, last], false));
        assert_eq!(open.0.len(), CONNECTIONS_MAX);
        assert_eq!(of(&open, other), 0, "the oldest without a request");
    }
}
