//! From settings to librdkafka's properties: what the service owns, what it refuses, why.

use std::time::Duration;

use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaConfRes};

use super::settings::{KafkaSettings, Sasl};
use crate::printable;

/// A property that the settings must not contain, or a combination that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The service owns the property.
    #[error("kafka.properties.{name} is set by the service and cannot be changed: {reason}")]
    Owned {
        /// The property.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A setting of its own exists for the property.
    #[error("kafka.properties.{name}: use the setting kafka.{setting} instead")]
    HasSetting {
        /// The property.
        name: String,
        /// The setting.
        setting: &'static str,
    },
    /// librdkafka has no such property.
    #[error(
        "kafka.properties.{name} is no property of librdkafka; its CONFIGURATION.md lists them"
    )]
    Unknown {
        /// The property.
        name: String,
    },
    /// librdkafka does not take the value, which may be a secret and is not shown.
    #[error(
        "kafka.properties.{name} has a value that librdkafka does not take; its CONFIGURATION.md says what it \
         takes"
    )]
    Value {
        /// The property.
        name: String,
    },
    /// Credentials would travel in the clear.
    #[error(
        "kafka.security.sasl without kafka.security.tls sends credentials over a connection that anyone may read; configure tls, or set kafka.security.allow_insecure: true"
    )]
    Insecure,
}

impl PropertyError {
    /// Where in the configuration the mistake stands.
    pub fn path(&self) -> String {
        match self {
            Self::Owned { name, .. }
            | Self::HasSetting { name, .. }
            | Self::Unknown { name }
            | Self::Value { name } => format!("kafka.properties.{name}"),
            Self::Insecure => "kafka.security.sasl".to_owned(),
        }
    }
}

/// Why rdkafka made no client, where it is for a property: without the value, which rdkafka's own error shows.
pub fn refused(error: &KafkaError) -> Option<PropertyError> {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            Some(PropertyError::Unknown { name: printable::name(name).into_owned() })
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            Some(PropertyError::Value { name: printable::name(name).into_owned() })
        }
        _ => None,
    }
}

/// How often a client tells the state of its connections. The statistics of thousands of partitions
/// are megabytes, so not oftener than a person looks.
pub const STATISTICS_INTERVAL_MS: &str = "10000";

/// The properties on which the delivery guarantee rests: (name, value, reason). A value of `None`
/// means: left at librdkafka's default, but not to be changed.
const ENFORCED: &[(&str, Option<&str>, &str)] = &[
    (
        "enable.auto.commit",
        Some("false"),
        "an offset is committed only after BigQuery acknowledged everything below it",
    ),
    (
        "enable.auto.offset.store",
        Some("false"),
        "offsets are tracked by the service, record by record",
    ),
    (
        "auto.offset.reset",
        Some("error"),
        "a reset inside the client would skip records silently; use kafka.start and kafka.on_data_loss",
    ),
    (
        "isolation.level",
        Some("read_committed"),
        "records of aborted transactions must not become rows",
    ),
    ("check.crcs", Some("true"), "a corrupt record must not become a row"),
    (
        "partition.assignment.strategy",
        Some("cooperative-sticky"),
        "rebalances must leave unaffected partitions alone, and all members must agree",
    ),
    ("group.protocol", Some("classic"), "the offset fence is built for the classic protocol"),
    (
        "max.poll.interval.ms",
        Some("600000"),
        "the drain deadline and the liveness probe are derived from it",
    ),
    (
        "allow.auto.create.topics",
        Some("false"),
        "a misspelt topic must be an error, not a new topic",
    ),
    ("enable.partition.eof", Some("false"), "the client's position is wrong after such an event"),
    (
        "statistics.interval.ms",
        Some(STATISTICS_INTERVAL_MS),
        "the service learns from them which brokers answer again",
    ),
    ("ssl.endpoint.identification.algorithm", Some("https"), "the broker's name must be verified"),
    ("enable.ssl.certificate.verification", Some("true"), "the broker's name must be verified"),
    ("consume.callback.max.messages", None, "records are read in batches"),
    ("offset.store.method", None, "offsets are stored at the broker"),
    ("offset_commit_cb", None, "commits are made by one module only"),
    ("rebalance_cb", None, "rebalances are handled by one module only"),
    ("plugin.library.paths", None, "no foreign code is loaded into the process"),
    ("ssl.engine.location", None, "no foreign code is loaded into the process"),
    ("ssl.engine.id", None, "no foreign code is loaded into the process"),
    ("ssl.providers", None, "no foreign code is loaded into the process"),
    ("sasl.kerberos.kinit.cmd", None, "no program is run"),
    ("sasl.oauthbearer.config", None, "tokens come from the process's own identity"),
    ("log.queue", None, "the client's log is part of the service's log"),
];

/// Properties that have a setting of their own.
const SETTINGS: &[(&str, &str)] = &[
    ("bootstrap.servers", "bootstrap_servers"),
    ("metadata.broker.list", "bootstrap_servers"),
    ("group.id", "group_id"),
    ("group.instance.id", "group_instance_id"),
    ("queued.max.messages.kbytes", "prefetch_bytes"),
    ("topic.metadata.refresh.interval.ms", "discovery_interval_seconds"),
    ("message.max.bytes", "record_bytes_max"),
    ("security.protocol", "security"),
    ("sasl.mechanism", "security.sasl"),
    ("sasl.mechanisms", "security.sasl"),
    ("sasl.username", "security.sasl"),
    ("sasl.password", "security.sasl"),
    ("ssl.ca.location", "security.tls.ca_file"),
    ("ssl.certificate.location", "security.tls.certificate_file"),
    ("ssl.key.location", "security.tls.key_file"),
    ("ssl.key.password", "security.tls.key_password"),
];

/// Starting values that settings may override (measured: `docs` on performance).
const DEFAULTS: &[(&str, &str)] = &[
    ("session.timeout.ms", "45000"),
    ("fetch.wait.max.ms", "100"),
    // The default of one second would let a lane with a full queue starve for that long.
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.error.backoff.ms", "500"),
    ("reconnect.backoff.max.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("client.id", "kcbq"),
];

/// The smallest prefetch, KiB.
const QUEUE_KBYTES_MIN: u64 = 64;

/// What every client of the cluster needs: addresses, security, the user's own properties.
///
/// # Errors
///
/// [`PropertyError`] for a property that the settings must not contain.
pub fn common(settings: &KafkaSettings) -> Result<ClientConfig, PropertyError> {
    refuse(settings)?;
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        if name.starts_with("socket.") || name.starts_with("reconnect.") || *name == "client.id" {
            config.set(*name, *value);
        }
    }
    config.set("bootstrap.servers", settings.bootstrap_servers.join(","));
    config.set(
        "topic.metadata.refresh.interval.ms",
        (u64::from(settings.discovery_interval_seconds) * 1000).to_string(),
    );
    security(settings, &mut config);
    for (name, value) in &settings.properties {
        if !is_consumer_only(name) {
            config.set(name, value.expose());
        }
    }
    Ok(config)
}

/// The consumer's properties.
///
/// # Errors
///
/// [`PropertyError`] as for [`common`].
pub fn consumer(settings: &KafkaSettings) -> Result<ClientConfig, PropertyError> {
    let mut config = common(settings)?;
    for (name, value) in DEFAULTS {
        config.set(*name, *value);
    }
    config.set("group.id", &settings.group_id);
    if let Some(instance) = &settings.group_instance_id {
        config.set("group.instance.id", instance);
    }
    // Every partition's queue is forwarded to one, and librdkafka (2.12.1, `rd_kafka_q_size`) then
    // compares the size of that one: the bound is over all partitions.
    let queue = (settings.prefetch_bytes / 1024).clamp(QUEUE_KBYTES_MIN, 2_097_151);
    config.set("queued.max.messages.kbytes", queue.to_string());
    // A larger record comes all the same (KIP-74); a larger answer would keep one worker busy with
    // one partition while the others wait.
    config.set("fetch.message.max.bytes", settings.record_bytes_max.min(1 << 20).to_string());
    let fetch = settings.record_bytes_max.max(4 << 20);
    config.set("fetch.max.bytes", fetch.to_string());
    config.set("receive.message.max.bytes", receive_bytes_max(settings, fetch).to_string());
    for (name, value) in &settings.properties {
        config.set(name, value.expose());
    }
    for (name, value, _) in ENFORCED {
        if let Some(value) = value
            && !name.contains("ssl.")
        {
            config.set(*name, *value);
        }
    }
    Ok(config)
}

/// It bounds more than an answer: librdkafka (2.12.1, `rdkafka_zstd.c`) triples the buffer for a zstd batch until
/// the content fits, and does not read the batch where that would exceed this property. So a third of it is what
/// is surely read.
fn receive_bytes_max(settings: &KafkaSettings, fetch: u32) -> u64 {
    const MOST: u64 = i32::MAX as u64;
    let answer = u64::from(fetch).saturating_add(1 << 20);
    settings.decompressed_bytes_max.saturating_mul(3).max(answer).min(MOST)
}

/// All that the settings must not contain.
pub fn problems(settings: &KafkaSettings) -> Vec<PropertyError> {
    let properties = settings.properties.iter();
    let mut found: Vec<_> =
        properties.filter_map(|(name, value)| problem(name, value.expose())).collect();
    let security = &settings.security;
    if security.sasl.is_some() && security.tls.is_none() && !security.allow_insecure {
        found.push(PropertyError::Insecure);
    }
    found
}

fn problem(name: &str, value: &str) -> Option<PropertyError> {
    let owned = || name.to_owned();
    if let Some((_, _, reason)) = ENFORCED.iter().find(|(enforced, ..)| *enforced == name) {
        return Some(PropertyError::Owned { name: owned(), reason });
    }
    if let Some((_, setting)) = SETTINGS.iter().find(|(known, _)| *known == name) {
        return Some(PropertyError::HasSetting { name: owned(), setting });
    }
    let tried = ClientConfig::new().set(name, value).create_native_config();
    tried.err().as_ref().and_then(refused)
}

fn refuse(settings: &KafkaSettings) -> Result<(), PropertyError> {
    problems(settings).into_iter().next().map_or(Ok(()), Err)
}

/// How long the group waits for a member that says nothing.
pub fn session_timeout(settings: &KafkaSettings) -> Duration {
    const NAME: &str = "session.timeout.ms";
    let own = settings.properties.get(NAME).map(|value| value.expose());
    let default = DEFAULTS.iter().find(|(name, _)| *name == NAME).map(|(_, value)| *value);
    let milliseconds = own.or(default).and_then(|text| text.trim().parse().ok());
    Duration::from_millis(milliseconds.unwrap_or_default())
}

/// Properties that a producer or a bare client warns about.
fn is_consumer_only(name: &str) -> bool {
    name.starts_with("fetch.")
        || name.starts_with("queued.")
        || name.starts_with("session.")
        || name.starts_with("heartbeat.")
        || name.starts_with("group.")
}

fn security(settings: &KafkaSettings, config: &mut ClientConfig) {
    let security = &settings.security;
    let protocol = match (&security.tls, &security.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &security.tls {
        config.set("ssl.endpoint.identification.algorithm", "https");
        config.set("enable.ssl.certificate.verification", "true");
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            config.set("ssl.key.password", password.expose());
        }
    }
    match &security.sasl {
        None => {}
        Some(Sasl::Plain { username, password }) => {
            login(config, "PLAIN", username, password.expose())
        }
        Some(Sasl::ScramSha256 { username, password }) => {
            login(config, "SCRAM-SHA-256", username, password.expose());
        }
        Some(Sasl::ScramSha512 { username, password }) => {
            login(config, "SCRAM-SHA-512", username, password.expose());
        }
        Some(Sasl::OauthGoogle) => {
            config.set("sasl.mechanism", "OAUTHBEARER");
        }
    }
}

fn login(config: &mut ClientConfig, mechanism: &str, username: &str, password: &str) {
    config.set("sasl.mechanism", mechanism);
    config.set("sasl.username", username);
    config.set("sasl.password", password);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings(yaml: &str) -> KafkaSettings {
        let base = "bootstrap_servers: [localhost:1]\ngroup_id: g\n";
        serde_saphyr::from_str(&format!("{base}{yaml}")).unwrap()
    }

    #[test]
    fn everything_the_guarantee_rests_on_is_refused_by_name() {
        for (name, _, reason) in ENFORCED {
            let mut settings = settings("");
            settings.properties.insert((*name).into(), Secret::new("x"));
            let refused = consumer(&settings).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains(reason), "{refused}");
        }
        for (name, setting) in SETTINGS {
            let mut settings = settings("");
            settings.properties.insert((*name).into(), Secret::new("x"));
            let refused = consumer(&settings).unwrap_err().to_string();
            assert!(refused.contains(setting), "{refused}");
        }
    }

    #[test]
    fn what_loads_code_or_runs_a_program_is_refused() {
        for name in [
            "plugin.library.paths",
            "ssl.engine.location",
            "ssl.engine.id",
            "ssl.providers",
            "sasl.kerberos.kinit.cmd",
        ] {
            let refused = problem(name, "x").unwrap();
            assert!(matches!(refused, PropertyError::Owned { .. }), "{refused}");
        }
    }

    #[test]
    fn every_property_that_is_refused_is_told_and_no_value_is() {
        let settings = settings(
            "properties: {enable.auto.commit: canary, group.id: canary, sasl.pasword: canary, \
             socket.nagle.disable: canary, socket.timeout.ms: '99999999999', client.id: canary, \
             sasl.kerberos.min.time.before.relogin: canary, fetch.wait.max.ms: '10'}",
        );
        let found: Vec<String> = problems(&settings).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 6, "{found:#?}");
        let wanted = [
            "enable.auto.commit is set by the service",
            "group.id: use the setting",
            "sasl.kerberos.min.time.before.relogin has a value",
            "sasl.pasword is no property",
            "socket.nagle.disable has a value",
            "socket.timeout.ms has a value",
        ];
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted) && !found.contains("canary"), "{found}");
        }
        let shown = format!("{:?}", problems(&settings));
        assert!(!shown.contains("canary") && !shown.contains("99999999999"), "{shown}");
    }

    #[test]
    fn what_rdkafka_refuses_is_told_without_the_value() {
        for name in ["no.such.property", "socket.timeout.ms"] {
            let error =
                ClientConfig::new().set(name, "canary").create_native_config().err().unwrap();
            let shown = crate::kafka::consumer::ConsumeError::create(error);
            let shown = format!("{shown} {shown:?}");
            assert!(shown.contains(name) && !shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn the_enforced_values_stand_and_librdkafka_takes_them_all() {
        let config = consumer(&settings("properties: {fetch.wait.max.ms: '5'}")).unwrap();
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("fetch.wait.max.ms"), Some("5"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("4096"));
        config.create_native_config().unwrap();
        let tls = "security: {tls: {}, sasl: {mechanism: scram_sha512, username: u, password: p}}";
        let config = consumer(&settings(tls)).unwrap();
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        config.create_native_config().unwrap();
    }

    #[test]
    fn credentials_in_the_clear_need_an_explicit_word() {
        let sasl = "sasl: {mechanism: plain, username: u, password: canary}";
        let refused = consumer(&settings(&format!("security: {{{sasl}}}")));
        assert_eq!(refused.unwrap_err(), PropertyError::Insecure);
        let allowed = settings(&format!("security: {{allow_insecure: true, {sasl}}}"));
        assert!(consumer(&allowed).is_ok());
        assert!(!format!("{allowed:?}").contains("canary"));
    }

    #[test]
    fn the_prefetch_budget_is_one_for_all_partitions_and_never_nothing() {
        let queue = |bytes| {
            let mut settings = settings("");
            settings.prefetch_bytes = bytes;
            let config = consumer(&settings).unwrap();
            config.get("queued.max.messages.kbytes").unwrap().to_owned()
        };
        assert_eq!([queue(16 << 20), queue(0)], ["16384", "64"]);
    }

    #[test]
    fn what_may_be_decompressed_is_a_third_of_what_bounds_librdkafka() {
        let receive = |decompressed, record| {
            let mut settings = settings("");
            settings.decompressed_bytes_max = decompressed;
            settings.record_bytes_max = record;
            let config = consumer(&settings).unwrap();
            config.create_native_config().unwrap();
            config.get("receive.message.max.bytes").unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(receive(128 << 20, 4 << 20), 3 * (128 << 20));
        assert_eq!(receive(1 << 20, 16 << 20), 17 << 20, "an answer fits");
        assert_eq!(receive(4 << 30, 4 << 20), i32::MAX as u64);
    }

    #[test]
    fn the_session_is_the_users_or_the_default() {
        let mut settings: KafkaSettings =
            serde_json::from_str(r#"{"bootstrap_servers": "a:1", "group_id": "g"}"#).unwrap();
        assert_eq!(session_timeout(&settings), Duration::from_secs(45));
        settings.properties.insert("session.timeout.ms".to_owned(), Secret::new("6000"));
        assert_eq!(session_timeout(&settings), Duration::from_secs(6));
    }
}
