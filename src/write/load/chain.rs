//! Names: of a chain, its jobs and its objects.

use std::{fmt, sync::Arc};

use crate::{
    record::TopicPartition,
    table::TableRef,
    write::{load::job::SeriesIx, stable_hash::fnv1a_128},
};

/// What a chain is for. Whatever changes here begins another chain, in which records that are read
/// again are loaded again.
#[derive(Clone, Copy, Debug)]
pub struct ChainOf<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The topic-partition.
    pub lane: &'a TopicPartition,
    /// The topic's id, where the brokers tell it: a topic that was made again has its offsets anew.
    pub topic_id: Option<&'a str>,
    /// The table.
    pub table: &'a TableRef,
    /// Counted up by an operator who wants records loaded once more.
    pub load_epoch: u32,
}

/// The node at which every chain begins. It is a constant: an owner that does not know the chain, be
/// it from lost or from older offset metadata, finds it from here, and two owners never begin the same
/// chain at two places.
pub const BASE: i64 = 0;

/// A chain: the rows of one topic-partition for one table, slot after slot.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChainId(Arc<str>);

impl ChainId {
    /// The chain's name, the same for every owner and release.
    pub fn new(of: &ChainOf<'_>) -> Self {
        let ChainOf { group, lane, topic_id, table, load_epoch } = of;
        let topic = topic_id.unwrap_or(&lane.topic);
        // Lengths keep apart what would read the same when put together.
        let parts = [*group, topic, &table.to_string(), &load_epoch.to_string()];
        let text: String = parts.iter().map(|part| format!("{}:{part};", part.len())).collect();
        let hash = fnv1a_128(text.as_bytes());
        Self(format!("kcbq-{hash:032x}-{}", lane.partition).into())
    }

    /// The chain's name in offset metadata, where room is scarce: 16 hexadecimal digits.
    pub fn short(&self) -> &str {
        self.0.get(5..21).unwrap_or(&self.0)
    }

    /// The id of a slot's job, of the 1,024 letters, digits, dashes and underscores that BigQuery
    /// takes.
    pub fn job(&self, slot: Slot) -> String {
        format!("{}-{}-a{}", self.0, slot.node, slot.attempt)
    }

    /// What the commit of the series of PENDING streams before this one is called in logs.
    pub fn commit(&self, series: SeriesIx) -> String {
        format!("{}-s{}", self.0, series.0)
    }

    /// The name of a staged object, below `prefix`. `nonce` is the process's own and `number` counts in it,
    /// so that no two attempts, of whatever owner, write to one name. `extension` is one of [`EXTENSIONS`].
    pub fn object(
        &self,
        prefix: &str,
        first: i64,
        (nonce, number): (&str, u64),
        extension: &str,
    ) -> String {
        format!("{prefix}{}/{first:020}-{nonce}-{number}{extension}", self.0)
    }
}

/// What the names of staged objects end in. By BigQuery's documents a job is not told that its JSON is
/// compressed, and they do not promise that it looks for that anywhere but in the name.
pub const EXTENSIONS: [&str; 2] = [".json.gz", ".avro"];

/// The nonce in the name of a staged object; `None` for a name below `prefix` that
/// [`ChainId::object`] never makes.
pub fn nonce<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let (chain, object) = name.strip_prefix(prefix)?.split_once('/')?;
    let (hash, partition) = chain.strip_prefix("kcbq-")?.split_once('-')?;
    let (first, rest) = object.split_once('-')?;
    let rest = EXTENSIONS.into_iter().find_map(|extension| rest.strip_suffix(extension))?;
    let (nonce, number) = rest.rsplit_once('-')?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_ours = (hash.len() == 32 && hash.bytes().all(is_hex))
        && (first.len() == 20 && is_number(first))
        && is_number(partition)
        && is_number(number)
        && !nonce.contains('/');
    is_ours.then_some(nonce)
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({})", self.0)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a chain for which one job can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Rows below this offset are loaded, or never go by this chain.
    pub node: i64,
    /// How many jobs have failed here.
    pub attempt: u32,
}

impl Slot {
    /// The first slot of a chain.
    pub const FIRST: Self = Self { node: BASE, attempt: 0 };

    /// The first attempt at a node.
    pub fn at(node: i64) -> Self {
        Self { node, attempt: 0 }
    }

    /// The attempt after a failed job.
    #[must_use]
    pub fn again(self) -> Self {
        Self { attempt: self.attempt + 1, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(lane: &'a TopicPartition, table: &'a TableRef) -> ChainOf<'a> {
        ChainOf { group: "shop", lane, topic_id: None, table, load_epoch: 0 }
    }

    #[test]
    fn job_ids_are_what_they_always_were() {
        let lane = TopicPartition::new("shop.orders", 3);
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let chain = ChainId::new(&of(&lane, &table));
        let id = chain.job(Slot { node: 42, attempt: 1 });
        assert_eq!(id, "kcbq-b0f748f712693f5335cd4d56736f37ac-3-42-a1");
        assert_eq!(
            chain.object("stage/", 42, ("n0nce", 7), ".avro"),
            "stage/kcbq-b0f748f712693f5335cd4d56736f37ac-3/00000000000000000042-n0nce-7.avro"
        );
    }

    #[test]
    fn only_names_of_staged_objects_have_a_nonce() {
        let lane = TopicPartition::new("shop.orders", 3);
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let chain = ChainId::new(&of(&lane, &table));
        let name = chain.object("stage/", 42, ("0a1b-2", 7), ".json.gz");
        assert_eq!(nonce("stage/", &name), Some("0a1b-2"));
        assert_eq!(nonce("", &name), None, "another prefix");
        for (part, other) in [
            ("stage/", "stage/sub/"),
            ("kcbq-", "mine-"),
            ("b0f7", "B0F7"),
            ("b0f7", ""),
            ("-3/", "-x/"),
            ("-3/", "/"),
            ("/000", "/00"),
            ("00042-", "0004x-"),
            ("0a1b-2", "0a1b/2"),
            ("-7", "-x"),
            (".json.gz", ""),
            (".json.gz", ".json"),
        ] {
            assert_eq!(nonce("stage/", &name.replacen(part, other, 1)), None, "{part} {other}");
        }
    }

    #[test]
    fn everything_that_makes_another_chain_changes_its_name() {
        let (lane, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let topic = TopicPartition::new("u", 0);
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let second = TableRef { table: "u".into(), ..table.clone() };
        let base = of(&lane, &table);
        let chains = [
            ChainId::new(&base),
            ChainId::new(&ChainOf { group: "sho", ..base }),
            ChainId::new(&ChainOf { lane: &other, ..base }),
            ChainId::new(&ChainOf { lane: &topic, ..base }),
            ChainId::new(&ChainOf { topic_id: Some("id"), ..base }),
            ChainId::new(&ChainOf { table: &second, ..base }),
            ChainId::new(&ChainOf { load_epoch: 1, ..base }),
        ];
        for (index, chain) in chains.iter().enumerate() {
            assert!(!chains[..index].contains(chain), "{chain}");
        }
    }
}
