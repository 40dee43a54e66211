//! Which brokers do not answer, from what librdkafka says of its connections. No clock: `now` is an
//! argument.
//!
//! librdkafka reports every failed attempt to connect, once in its log and once as an error, and
//! nothing at all when an attempt succeeds; its statistics tell the state of every connection. Made
//! of the three, a change is told once: a broker is lost, a lost one answers again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::source::LostBroker;

/// Different reasons that are told of one outage; more are variations of these.
const REASONS_MAX: usize = 3;

/// An idle connection may only wait for its next attempt. Attempts that fail for one reason are
/// reported every 30 seconds, so none for this long means that nobody wants the connection.
const UNWANTED: Duration = Duration::from_secs(300);

/// Brokers that are kept track of; more than any cluster has.
const BROKERS_MAX: usize = 1_000;

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The broker does not answer, or it does not for another reason than before.
    Lost {
        /// `host:port`.
        broker: String,
        /// librdkafka's words.
        reason: String,
        /// What a person can do, where the reason tells.
        remedy: Option<&'static str>,
    },
    /// The broker answers again.
    Back {
        /// `host:port`.
        broker: String,
        /// How long it did not.
        after: Duration,
    },
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    tried: Instant,
    reasons: Vec<String>,
}

/// The brokers of one client that do not answer.
#[derive(Debug, Default)]
pub struct Brokers {
    outages: BTreeMap<String, Outage>,
}

impl Brokers {
    /// A connection failed; `message` is `NAME: REASON (after 3ms in state CONNECT)`.
    pub fn failed(&mut self, message: &str, now: Instant) -> Option<Change> {
        let (broker, reason) = broker_and_reason(without_thread(message));
        let broker = broker.to_owned();
        let reason = reason.rsplit_once(" (after ").map_or(reason, |(reason, _)| reason);
        if self.outages.len() >= BROKERS_MAX && !self.outages.contains_key(&broker) {
            return None;
        }
        let fresh = || Outage { since: now, tried: now, reasons: Vec::new() };
        let outage = self.outages.entry(broker.clone()).or_insert_with(fresh);
        outage.tried = now;
        if outage.reasons.len() >= REASONS_MAX || outage.reasons.iter().any(|told| told == reason) {
            return None;
        }
        outage.reasons.push(reason.to_owned());
        Some(Change::Lost { broker, reason: reason.to_owned(), remedy: remedy(reason) })
    }

    /// Reads the state of every connection from librdkafka's statistics.
    pub fn observed(&mut self, statistics: &[u8], now: Instant) -> Vec<Change> {
        if self.outages.is_empty() {
            return Vec::new();
        }
        // What cannot be read tells nothing; the next ones come in a few seconds.
        let Ok(Statistics { brokers }) = serde_json::from_slice(statistics) else {
            return Vec::new();
        };
        let mut states: BTreeMap<&str, Connection> = BTreeMap::new();
        for Connected { nodename, state } in brokers.values() {
            let seen = Connection::of(state);
            let known = states.entry(address(nodename)).or_insert(seen);
            *known = (*known).max(seen);
        }
        let mut back = Vec::new();
        self.outages.retain(|broker, outage| match states.get(broker.as_str()) {
            Some(Connection::Failing) => true,
            Some(Connection::Up) => {
                let after = now.saturating_duration_since(outage.since);
                back.push(Change::Back { broker: broker.clone(), after });
                false
            }
            Some(Connection::Idle) => now.saturating_duration_since(outage.tried) < UNWANTED,
            // It has left the cluster.
            None => false,
        });
        back
    }

    /// Those that do not answer.
    pub fn lost(&self) -> Vec<LostBroker> {
        let of = |(broker, outage): (&String, &Outage)| LostBroker {
            broker: broker.clone(),
            since: outage.since,
            reason: outage.reasons.last().cloned().unwrap_or_default(),
        };
        self.outages.iter().map(of).collect()
    }
}

/// The part of the statistics that is read.
#[derive(Deserialize)]
struct Statistics {
    brokers: BTreeMap<String, Connected>,
}

#[derive(Deserialize)]
struct Connected {
    nodename: String,
    state: String,
}

/// What is known of an address with several connections: all that are wanted must be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Connection {
    Idle,
    Up,
    Failing,
}

impl Connection {
    fn of(state: &str) -> Self {
        match state {
            "INIT" => Self::Idle,
            "UP" | "REAUTH" => Self::Up,
            _ => Self::Failing,
        }
    }
}

/// librdkafka begins its log lines with `[thrd:NAME]: `.
pub(super) fn without_thread(message: &str) -> &str {
    let rest = message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: "));
    rest.map_or(message, |(_, rest)| rest)
}

/// Takes `NAME: REASON` apart. The connection to the group's coordinator has a name of its own, with
/// the broker's address after it: `GroupCoordinator: kafka-1:9092: REASON`.
fn broker_and_reason(message: &str) -> (&str, &str) {
    match message.split_once(": ") {
        Some(("GroupCoordinator", rest)) => {
            rest.split_once(": ").unwrap_or(("the group coordinator", rest))
        }
        Some((name, reason)) => (address(name), reason),
        None => ("the cluster", message),
    }
}

/// `sasl_ssl://kafka-1:9092/1` and `sasl_ssl://kafka-1:9092/bootstrap` are one broker.
fn address(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, name)| name);
    name.rsplit_once('/').map_or(name, |(name, _)| name)
}

/// What a person can do about a connection that fails for `reason`.
pub(super) fn remedy(reason: &str) -> Option<&'static str> {
    let reason = reason.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["sasl", "authentication", "oauth"]) {
        Some("check the mechanism, the user name and the password in kafka.security.sasl")
    } else if has(&["ssl", "certificate"]) {
        Some(
            "check kafka.security.tls: the certificates, the host name, and that the port speaks TLS",
        )
    } else if has(&["resolve"]) {
        Some("check the name in kafka.bootstrap_servers, and the DNS")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: \
                           Connection refused (after 0ms in state CONNECT)";

    fn statistics(brokers: &[(&str, &str)]) -> Vec<u8> {
        let broker = |(index, (name, state)): (usize, &(&str, &str))| {
            let of = serde_json::json!({"nodename": name, "state": state, "txbytes": 7});
            (index.to_string(), of)
        };
        let brokers: serde_json::Map<_, _> = brokers.iter().enumerate().map(broker).collect();
        serde_json::json!({"ts": 1, "brokers": brokers, "topics": {"t": [1]}}).to_string().into()
    }

    #[test]
    fn an_outage_is_told_once_and_its_end_once() {
        let (mut brokers, start) = (Brokers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = brokers.failed(&format!("[thrd:127.0.0.1:9092/1]: {REFUSED}"), start);
        let lost = Change::Lost {
            broker: "127.0.0.1:9092".into(),
            reason: "Connect to ipv4#127.0.0.1:9092 failed: Connection refused".into(),
            remedy: None,
        };
        assert_eq!(told, Some(lost));
        for attempt in 1..1_000 {
            let again = format!(
                "plaintext://127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: \
                 Connection refused (after {attempt}ms in state CONNECT, 9 identical error(s) \
                 suppressed)"
            );
            assert_eq!(brokers.failed(&again, at(attempt)), None);
        }
        let name = "127.0.0.1:9092";
        let failing = statistics(&[(name, "UP"), (name, "TRY_CONNECT")]);
        assert_eq!(brokers.observed(&failing, at(30)), []);
        assert_eq!(brokers.observed(&statistics(&[(name, "INIT")]), at(35)), []);
        assert_eq!(brokers.lost()[0].since, start);
        let up = [(name, "INIT"), (name, "UP")];
        let back = Change::Back { broker: "127.0.0.1:9092".into(), after: Duration::from_secs(40) };
        assert_eq!(brokers.observed(&statistics(&up), at(40)), [back]);
        assert_eq!(brokers.observed(&statistics(&up), at(50)), []);
        assert!(brokers.lost().is_empty());
        assert!(brokers.failed(REFUSED, at(60)).is_some(), "the next outage is told again");
    }

    #[test]
    fn another_reason_is_told_but_not_without_end() {
        let (mut brokers, now) = (Brokers::default(), Instant::now());
        let told = (0..100).filter_map(|n| brokers.failed(&format!("b:1/1: reason {n}"), now));
        assert_eq!(told.count(), REASONS_MAX);
        assert!(brokers.failed("c:1/2: reason 0", now).is_some(), "another broker is another line");
    }

    #[test]
    fn a_broker_that_nobody_needs_or_that_left_is_forgotten_silently() {
        let (mut brokers, now) = (Brokers::default(), Instant::now());
        brokers.failed("b:1/1: gone", now);
        brokers.failed("c:1/2: gone", now);
        assert_eq!(brokers.observed(b"no JSON", now), []);
        assert_eq!(brokers.lost().len(), 2);
        let idle = statistics(&[("c:1", "INIT")]);
        assert_eq!(brokers.observed(&idle, now), []);
        assert_eq!(brokers.lost().len(), 1, "it may only wait for its next attempt");
        assert_eq!(brokers.observed(&idle, now + UNWANTED), []);
        assert!(brokers.lost().is_empty());
    }

    #[test]
    fn the_coordinator_s_connection_is_one_of_its_broker() {
        let (mut brokers, now) = (Brokers::default(), Instant::now());
        let of_coordinator = format!("GroupCoordinator: {}", REFUSED.replace("/1: ", ": "));
        assert!(brokers.failed(REFUSED, now).is_some());
        assert_eq!(brokers.failed(&of_coordinator, now), None);
        assert_eq!(brokers.lost().len(), 1);
    }

    #[test]
    fn refused_credentials_and_certificates_name_the_setting() {
        for (reason, setting) in [
            ("SASL authentication error: Authentication failed", "kafka.security.sasl"),
            ("SSL handshake failed: certificate verify failed", "kafka.security.tls"),
            ("Failed to resolve 'kafka:9092': Name or service not known", "bootstrap_servers"),
        ] {
            let told = Brokers::default().failed(&format!("b:1/1: {reason}"), Instant::now());
            let Some(Change::Lost { remedy: Some(remedy), .. }) = told else { panic!("{told:?}") };
            assert!(remedy.contains(setting), "{remedy}");
        }
    }
}
