//! A secured cluster: TLS, passwords over it or client certificates, a registry behind a password.
//! Whoever is let in reads and writes as ever; who is not is told what to correct; and no secret is
//! found anywhere that anybody may look.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    odd::read_letters,
    real::rows_by_offset,
    rig::{
        bigquery::Dataset,
        broker::Broker,
        certificates,
        clients::{self, Observer, Sender},
        http::Http,
        place::{self, Place},
        process::{self, Process},
        sink::{self, Sink},
        workload,
    },
};

const TOPIC: &str = "secure.orders";
const RECORDS: u64 = 1_000;
const POISON_AT: u64 = 500;
const SCHEMA_ID: u32 = 7;
const USER: &str = "kcbq";

/// A name, and what must never be seen: passwords, and a record's value.
type Secret = (&'static str, &'static str);

const SCRAM: Secret = ("scram", "canary-scram-4f1d");
const PLAIN: Secret = ("plain", "canary-plain-0c3e");
const LATER: Secret = ("later", "canary-later-77aa");
const WRONG: Secret = ("wrong", "canary-wrong-91b2");
const KEY: Secret = ("key", "canary-key-5e8f");
const REGISTRY: Secret = ("registry", "canary-registry-a6d0");
const POISON: Secret = ("poison", "canary-value-c2b9");
const SECRETS: [Secret; 7] = [SCRAM, PLAIN, LATER, WRONG, KEY, REGISTRY, POISON];

/// How somebody shows who he is.
enum Who {
    /// A password by a SASL mechanism.
    Password(&'static str, Secret),
    /// A certificate.
    Certificate,
}

struct Scene {
    place: Place,
    http: Http,
    binary: PathBuf,
    broker: Broker,
    /// The ports for passwords and for certificates.
    ports: (u16, u16),
    /// BigQuery's, the registry's and the Storage Write API's ports.
    simulator: [u16; 3],
    _simulator: Process,
}

/// Runs it.
pub(crate) fn run(binary: PathBuf) -> Result<()> {
    let place = Place::new("secure")?;
    let http = Http::new(Duration::from_secs(60))?;
    for (name, secret) in SECRETS {
        fs::write(place.join(&format!("{name}.secret")), secret)?;
    }
    make_certificates(&place)?;
    let ports = (place::free_port()?, place::free_port()?);
    let broker = Broker::start_with(&place, |plain, controller| {
        properties(&place, &[plain, controller, ports.0, ports.1])
    })?;
    let simulator = [place::free_port()?, place::free_port()?, place::free_port()?];
    let process = start_simulator(&place, &http, &binary, simulator)?;
    let scene = Scene { place, http, binary, broker, ports, simulator, _simulator: process };
    scene.check()
}

impl Scene {
    fn check(&self) -> Result<()> {
        // First, and beside the others: to be refused takes ten seconds.
        let by = |mechanism, secret| Who::Password(mechanism, secret);
        let mut late = self.start("late", &by("scram_sha512", LATER))?;
        let mut wrong = self.ask(self.config("wrong", &by("scram_sha512", WRONG)), "wrong")?;
        let mut stranger = self.config("stranger", &Who::Certificate);
        stranger["kafka"]["security"]["tls"]["ca_file"] = json!(self.place.join("other-ca.pem"));
        let mut stranger = self.ask(stranger, "stranger")?;
        self.produce()?;
        self.set_password(SCRAM)?;
        let mut scram = self.start("scram", &by("scram_sha512", SCRAM))?;
        let mut mutual = self.start("mutual", &Who::Certificate)?;
        let mut plain = self.ask(self.config("plain", &by("plain", PLAIN)), "plain")?;

        finds(&mut plain, None).context("PLAIN: check")?;
        println!("PLAIN over TLS               check finds nothing");
        self.delivers(&mut scram).context("SCRAM: run")?;
        println!("SCRAM-SHA-512 over TLS       {} rows, 1 dead letter", RECORDS - 1);
        self.delivers(&mut mutual).context("certificate: run")?;
        println!("client certificate           {} rows, 1 dead letter", RECORDS - 1);
        let line = finds(&mut wrong, Some("kafka.security.sasl")).context("wrong password")?;
        println!("wrong password               check: {line}");
        let line = finds(&mut stranger, Some("kafka.security.tls")).context("unknown authority")?;
        println!("unknown authority            check: {line}");
        self.waits_for_its_password(&mut late).context("late password")?;
        for sink in [&mut scram, &mut mutual, &mut late] {
            sink.stop(Duration::from_secs(60))?;
        }
        self.nothing_was_told()
    }

    /// A configuration with a group, a table and a dead-letter topic of its own.
    fn config(&self, name: &str, who: &Who) -> Value {
        let secret = |(name, _): Secret| {
            format!("${{file:{}}}", self.place.join(&format!("{name}.secret")).display())
        };
        let ca = self.place.join("ca.pem");
        let (port, security) = match who {
            Who::Password(mechanism, password) => {
                let password = secret(*password);
                let sasl = json!({"mechanism": mechanism, "username": USER, "password": password});
                (self.ports.0, json!({"tls": {"ca_file": ca}, "sasl": sasl}))
            }
            Who::Certificate => {
                let [certificate, key] =
                    ["client.pem", "client.key"].map(|name| self.place.join(name));
                let tls = json!({
                    "ca_file": ca,
                    "certificate_file": certificate,
                    "key_file": key,
                    "key_password": secret(KEY),
                });
                (self.ports.1, json!({"tls": tls}))
            }
        };
        let [bigquery, _, storage] = self.simulator;
        json!({
            "kafka": {
                "bootstrap_servers": format!("127.0.0.1:{port}"),
                "group_id": format!("kcbq-{name}"),
                "security": security,
                "properties": {"reconnect.backoff.max.ms": "500"},
            },
            "schema_registry": {
                "url": self.registry(),
                "allow_insecure": true,
                "username": USER,
                "password": secret(REGISTRY),
            },
            "bigquery": {
                "project": "secure",
                "dataset": "raw",
                "endpoint": format!("https://127.0.0.1:{bigquery}"),
                "storage_endpoint": format!("https://127.0.0.1:{storage}"),
            },
            "topics": [{"match": TOPIC, "table": name, "dead_letter": dead(name)}],
        })
    }

    /// The registry's address, where the simulator answers everything without TLS.
    fn registry(&self) -> String {
        format!("http://127.0.0.1:{}", self.simulator[1])
    }

    /// Who BigQuery is, is known by the same authority.
    fn trust(&self) -> PathBuf {
        self.place.join("ca.pem")
    }

    fn start(&self, name: &str, who: &Who) -> Result<Sink> {
        let config = self.config(name, who);
        Sink::start_trusting(&self.binary, config, &self.place, name, &self.trust())
    }

    fn ask(&self, config: Value, name: &str) -> Result<Process> {
        let trusted = self.trust();
        let environment = sink::trust(&trusted);
        sink::spawn(&self.binary, (name, &["check"]), &config, &self.place, &environment)
    }

    fn set_password(&self, (_, password): Secret) -> Result<()> {
        let set = format!("SCRAM-SHA-512=[iterations=4096,password={password}]");
        let output = Command::new(place::scripts().join("kafka/tool"))
            .args(["kafka.admin.ConfigCommand", "--bootstrap-server", &self.broker.address()])
            .args(["--alter", "--entity-type", "users", "--entity-name", USER])
            .args(["--add-config", &set])
            .env("KCBQ_CACHE", place::cache())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "Kafka's tool does not set a password: {text}");
        Ok(())
    }

    /// By the listener without security, which only the rig uses.
    fn produce(&self) -> Result<()> {
        let address = self.broker.address();
        let letters = ["scram", "mutual", "late", "plain"].map(dead);
        let mut topics: Vec<(&str, i32)> = letters.iter().map(|name| (name.as_str(), 1)).collect();
        topics.push((TOPIC, 2));
        clients::create_topics(&address, &topics)?;
        let schema =
            json!([{"id": SCHEMA_ID, "schema": workload::schema(0), "schemaType": "AVRO"}]);
        let schemas = format!("{}/sim/v1/schemas", self.registry());
        self.http.post(&schemas, &schema)?.json()?;
        let sender = Sender::new(&address)?;
        let mut value = Vec::new();
        for index in 0..RECORDS {
            value.clear();
            workload::encode(&mut value, SCHEMA_ID, 0, 1, index);
            if index == POISON_AT {
                value = POISON.1.as_bytes().to_vec();
            }
            sender.send((TOPIC, (index % 2) as i32), None, Some(&value))?;
        }
        sender.flush()
    }

    /// All rows arrive, and the poison record's dead letter.
    fn delivers(&self, sink: &mut Sink) -> Result<()> {
        let name = sink.name().to_owned();
        let observer = Observer::new(&self.broker.address(), &format!("kcbq-{name}"))?;
        let lanes = observer.lanes(&[TOPIC.to_owned()])?;
        let waited = observer.wait_for_no_lag(&lanes, Duration::from_secs(60));
        waited.map_err(|error| error.context(sink.tail()))?;
        let dataset = Dataset {
            http: &self.http,
            endpoint: self.registry(),
            project: "secure",
            dataset: "raw",
            keeps_text_in_records: false,
        };
        let rows = rows_by_offset(&dataset, &name)?.len() as u64;
        ensure!(rows == RECORDS - 1, "{rows} rows of {}", RECORDS - 1);
        let letters = read_letters(&observer, &dead(&name))?.len();
        ensure!(letters == 1, "{letters} dead letters");
        self.keep_what_is_shown(sink)
    }

    /// What the admin endpoint shows goes into the folder that is searched for secrets.
    fn keep_what_is_shown(&self, sink: &Sink) -> Result<()> {
        let shown = format!("{}\n{}", sink.status(&self.http)?, sink.metrics(&self.http)?);
        Ok(fs::write(self.place.join(&format!("{}.shown", sink.name())), shown)?)
    }

    /// Refused at first, it says so once and in `/status`, and goes on when the password is set.
    fn waits_for_its_password(&self, sink: &mut Sink) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(40);
        let refused = loop {
            let status = sink.status(&self.http).unwrap_or_default();
            let brokers = &status["process"]["unreachable_brokers"];
            if let Some(reason) = brokers[0]["reason"].as_str() {
                break reason.to_owned();
            }
            ensure!(Instant::now() < end, "/status names no broker\n{}", sink.tail());
            thread::sleep(Duration::from_millis(100));
        };
        ensure!(refused.contains("SASL"), "the reason in /status is {refused}");
        self.keep_what_is_shown(sink)?;
        self.set_password(LATER)?;
        self.delivers(sink)?;
        let log = sink.log();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        // One for the consumer and one for the dead letters, however many attempts there were.
        let (refusals, setting) = (lines("cannot be used"), lines("kafka.security.sasl"));
        ensure!((1..=2).contains(&refusals) && setting == refusals, "{log}");
        println!("password set later           {refusals} lines in the log; then all rows");
        Ok(())
    }

    /// Searches all that the product has written or shown.
    fn nothing_was_told(&self) -> Result<()> {
        let (mut searched, mut telling) = (0, 0);
        for entry in fs::read_dir(self.place.path())? {
            let path = entry?.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let of_product = ["out", "err", "shown", "yaml"].contains(&ending)
                && !name.starts_with("kafka")
                && name != "sim";
            if !of_product {
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            for (secret, canary) in SECRETS {
                ensure!(!text.contains(canary), "{} tells the secret {secret}", path.display());
            }
            searched += 1;
            telling += usize::from(text.contains(TOPIC));
        }
        // The search would find something: the topic is no secret.
        ensure!(searched >= 15 && telling >= 12, "{telling} of {searched} files name the topic");
        println!("secrets                      none in {searched} logs, answers and outputs");
        Ok(())
    }
}

fn dead(name: &str) -> String {
    format!("{name}.dead")
}

/// What a `check` came to: no problem, or one whose line names the setting to correct.
fn finds(check: &mut Process, setting: Option<&str>) -> Result<String> {
    let status = check.wait(Duration::from_secs(60))?;
    let text = check.stdout();
    let problem = text.lines().find(|line| line.starts_with("PROBLEM  kafka "));
    match (setting, problem) {
        (None, None) => ensure!(status.success(), "it ended with {status}:\n{text}"),
        (Some(setting), Some(line)) => {
            ensure!(line.contains(setting), "it does not name {setting}:\n{text}");
            ensure!(status.code() == Some(1), "it ended with {status}:\n{text}");
        }
        _ => anyhow::bail!("it found something else:\n{text}"),
    }
    Ok(problem.unwrap_or_default().split_whitespace().skip(2).collect::<Vec<_>>().join(" "))
}

/// Three listeners beside the controller's: without security for the rig, for passwords, for
/// certificates.
fn properties(place: &Place, ports: &[u16; 4]) -> Vec<String> {
    let [plain, controller, sasl, mutual] = ports;
    let file = |name: &str| place.join(name).display().to_string();
    let listeners = format!(
        "PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual}"
    );
    let module = "org.apache.kafka.common.security";
    vec![
        format!("listeners={listeners},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners={listeners}"),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,\
         MUTUAL:SSL"
            .to_owned(),
        "listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN".to_owned(),
        format!(
            "listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule \
             required;"
        ),
        format!(
            "listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
             user_{USER}=\"{}\";",
            PLAIN.1
        ),
        "listener.name.mutual.ssl.client.auth=required".to_owned(),
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", file("broker.pem")),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", file("ca.pem")),
    ]
}

/// An authority with the broker's and a client's certificates, and an authority that signed neither.
fn make_certificates(place: &Place) -> Result<()> {
    certificates::authority(place, "ca")?;
    certificates::authority(place, "other-ca")?;
    certificates::sign(place, "server", &["-nodes"])?;
    certificates::sign(place, "client", &["-passout", &format!("pass:{}", KEY.1)])?;
    let read = |name: &str| fs::read_to_string(place.join(name));
    let broker = format!("{}{}", read("server.key")?, read("server.pem")?);
    Ok(fs::write(place.join("broker.pem"), broker)?)
}

/// The simulator with TLS, and a registry that demands a password.
fn start_simulator(
    place: &Place,
    http: &Http,
    binary: &std::path::Path,
    [rest, registry, grpc]: [u16; 3],
) -> Result<Process> {
    let mut command = process::command(binary);
    command.args(["sim", "--rest", &format!("127.0.0.1:{rest}")]);
    command.args(["--registry", &format!("127.0.0.1:{registry}"), "--gcs", "127.0.0.1:0"]);
    command.args(["--grpc", &format!("127.0.0.1:{grpc}")]);
    command.arg("--tls-certificate").arg(place.join("server.pem"));
    command.arg("--tls-key").arg(place.join("server.key"));
    command.args(["--registry-auth", &format!("{USER}:{}", REGISTRY.1)]);
    let mut process = Process::spawn("sim", &mut command, place.path())?;
    let probe = format!("http://127.0.0.1:{registry}/sim/v1/counters");
    process.until("answer", Duration::from_secs(30), |_| {
        http.get(&probe).is_ok_and(|answer| answer.status == 200)
    })?;
    Ok(process)
}
