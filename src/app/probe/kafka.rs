//! What the brokers keep beside a committed offset.

use std::{sync::Arc, time::Duration};

use crate::{
    app::{
        check::probes::{all_topics, chain, fed},
        kafka_tokens::kafka_tokens,
        probe::{
            Outcome,
            transcript::{Log, Question, Trouble, Verdict},
        },
    },
    committer::metadata,
    config::Settings,
    kafka::{
        admin::{AskError, Cluster, Limit},
        oauth::TokenSource,
        settings::KafkaSettings,
    },
    record::TopicPartition,
};

/// The longest string that is tried; the protocol that commits go by has none of more than 32,767 bytes.
const BYTES_MAX: usize = 32_000;

pub(crate) static METADATA: Question = Question {
    name: "offset-metadata",
    asks: "How long a string do the brokers keep beside a committed offset?",
    assumes: "4,096 bytes at least, and what was committed is read again",
    rests: "`committer::metadata`: where it is cut",
};

/// Asks the brokers of the configuration. Blocks.
pub(crate) fn metadata(
    settings: &Settings,
    tokens: Option<Arc<dyn TokenSource>>,
    log: &Log,
) -> Outcome {
    let group = format!("{}-probe", settings.kafka.group_id);
    let kafka = KafkaSettings { group_id: group.clone(), ..settings.kafka.clone() };
    let remedy = "check the `kafka` section";
    let cluster =
        Cluster::new(&kafka, tokens).map_err(|error| Trouble::new(chain(&error), remedy))?;
    let found = all_topics(&cluster).map_err(unanswered)?;
    let Some((topic, _)) = fed(settings, &found).pop_first() else {
        let why = "no topic of the configuration exists, for which an offset could be committed";
        return Err(Trouble::new(why, "create one, or correct `topics`"));
    };
    let lane = TopicPartition::new(topic, 0);
    let mut tell = |bytes: usize, answer: &str, took: Duration| {
        let request = format!("OffsetCommit of group {group}, {lane}, {bytes} bytes of metadata");
        log.note(&request, answer, took);
    };
    let limit = cluster.longest_metadata(&lane, metadata::BYTES_MAX, BYTES_MAX, &mut tell);
    let refused = |error: AskError| {
        let remedy = match error.lost.is_empty() {
            true => format!(
                "allow READ of the group `{group}`, which must have no members, and of the topic"
            ),
            false => error.remedy().to_owned(),
        };
        Trouble::new(chain(&error), remedy)
    };
    Ok(verdict(limit.map_err(refused)?))
}

/// The same, from the runtime.
pub(crate) async fn look(settings: &Settings, log: &Log) -> Outcome {
    let credentials = "check `kafka.security.sasl` and `bigquery.credentials`";
    let tokens =
        kafka_tokens(settings).map_err(|error| Trouble::new(chain(&error), credentials))?;
    let (settings, log) = (settings.clone(), log.clone());
    let asked = tokio::task::spawn_blocking(move || metadata(&settings, tokens, &log)).await;
    asked.map_err(|error| Trouble::new(error.to_string(), "report this"))?
}

fn verdict(limit: Limit) -> Verdict {
    match limit {
        Limit { is_whole: false, .. } => {
            Verdict::Different("what is read again is not what was committed".to_owned())
        }
        Limit { bytes, .. } if bytes < metadata::BYTES_MAX => {
            Verdict::Different(format!("{bytes} bytes are kept and not more"))
        }
        Limit { .. } => Verdict::AsAssumed,
    }
}

fn unanswered(error: AskError) -> Trouble {
    Trouble::new(chain(&error), error.remedy())
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::{self, Process};

    fn settings(bootstrap: &str) -> Settings {
        let text = format!(
            "kafka: {{bootstrap_servers: '{bootstrap}', group_id: shop}}\n\
             bigquery: {{project: p, dataset: d}}\n\
             topics: [{{match: orders, value_format: json}}]\n"
        );
        config::parse(&text, &Process).unwrap()
    }

    #[test]
    fn brokers_are_asked_in_a_group_beside_the_services() {
        let cluster = MockCluster::new(1).unwrap();
        let (settings, log) = (settings(&cluster.bootstrap_servers()), Log::default());
        let missing = metadata(&settings, None, &log).unwrap_err();
        assert!(missing.why.starts_with("no topic of the configuration exists"), "{missing:?}");
        cluster.create_topic("orders", 2, 1).unwrap();
        assert_eq!(metadata(&settings, None, &log), Ok(Verdict::AsAssumed));
        let text = format!("{log:?}");
        assert!(text.contains("OffsetCommit of group shop-probe, orders[0], 4096 bytes"), "{text}");
        assert!(!text.contains("group shop,"), "{text}");
    }

    #[test]
    fn fewer_bytes_than_are_written_are_a_difference() {
        let verdict = |bytes, is_whole| verdict(Limit { bytes, is_whole }).to_string();
        assert_eq!(verdict(4_096, true), "as assumed");
        assert_eq!(verdict(4_095, true), "DIFFERENT: 4095 bytes are kept and not more");
        assert!(verdict(4_096, false).starts_with("DIFFERENT: what is read again"));
    }
}
