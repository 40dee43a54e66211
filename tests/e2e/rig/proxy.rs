//! A hop that can be disturbed: a TCP proxy on loopback.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

/// How the hop is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Each piece is on its way for so long.
    Latency(Duration),
    /// A connection is reset as soon as something is sent over it.
    Reset,
    /// What is sent over the connections that are there goes nowhere, for ever, and nobody is told; new
    /// ones are as good as any.
    HalfOpen,
    /// What is asked arrives; the connection is reset in place of the answer.
    LostAnswers,
}

/// What holds now, and how often half-open connections have been made.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    fault: Option<Fault>,
    cut: u64,
}

/// The proxy. It ends with the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// How soon a pump sees that the hop is disturbed.
const LOOK: Duration = Duration::from_millis(50);

impl Proxy {
    /// Listens on a port of its own for connections to `target`, `host:port`, which need not be there yet;
    /// undisturbed.
    pub(crate) fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the proxy's port")?;
        let port = listener.local_addr()?.port();
        let state = Arc::<Mutex<State>>::default();
        let (theirs, target) = (Arc::clone(&state), target.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Whoever connects to what is away sees the connection end.
                if let Ok(server) = TcpStream::connect(&target) {
                    join(client, server, &theirs);
                }
            }
        });
        Ok(Self { port, state })
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Disturbs the hop, or lets it be.
    pub(crate) fn disturb(&self, fault: Option<Fault>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault = fault;
        if fault == Some(Fault::HalfOpen) {
            state.cut += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Towards {
    Server,
    Client,
}

/// One connection through the proxy.
#[derive(Debug)]
struct Link {
    state: Arc<Mutex<State>>,
    /// How often there were half-open ones when it was made.
    born: u64,
    /// It was reset.
    is_dead: AtomicBool,
}

fn join(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>) {
    let (born, is_dead) = (look(state).cut, AtomicBool::new(false));
    let link = Arc::new(Link { state: Arc::clone(state), born, is_dead });
    for towards in [Towards::Server, Towards::Client] {
        let (from, to) = match towards {
            Towards::Server => (client.try_clone(), server.try_clone()),
            Towards::Client => (server.try_clone(), client.try_clone()),
        };
        let link = Arc::clone(&link);
        if let (Ok(from), Ok(to)) = (from, to) {
            thread::spawn(move || link.pump(from, to, towards));
        }
    }
}

impl Link {
    /// Copies until one side ends.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, towards: Towards) {
        let mut piece = vec![0; 64 * 1024];
        if from.set_read_timeout(Some(LOOK)).is_err() {
            return;
        }
        while !self.is_dead.load(Ordering::Relaxed) {
            let len = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            let State { fault, cut } = look(&self.state);
            if cut != self.born {
                continue;
            }
            match fault {
                Some(Fault::Latency(time)) => thread::sleep(time),
                Some(Fault::Reset) => return self.reset(&from, &to),
                Some(Fault::LostAnswers) if towards == Towards::Client => {
                    return self.reset(&from, &to);
                }
                Some(Fault::LostAnswers | Fault::HalfOpen) | None => {}
            }
            let piece = piece.get(..len).unwrap_or_default();
            if to.write_all(piece).is_err() {
                break;
            }
        }
        if look(&self.state).cut == self.born && !self.is_dead.load(Ordering::Relaxed) {
            // An error is that there is nothing to end any more.
            _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Both ends see a reset: a socket that does not linger sends one when its last handle is closed, the
    /// other pump's.
    fn reset(&self, one: &TcpStream, other: &TcpStream) {
        for stream in [one, other] {
            _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
        self.is_dead.store(true, Ordering::Relaxed);
    }
}

fn look(state: &Mutex<State>) -> State {
    *state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
