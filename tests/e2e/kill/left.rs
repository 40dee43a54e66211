//! What replicas gave up before everything of it was done, as they say themselves in their logs.

use std::collections::{BTreeMap, BTreeSet};

use crate::rig::{clients::Lane, sink::Sink};

/// A drain that ran out, or a partition that was lost.
const UNFINISHED: &str = "the partition is given up before everything of it was acknowledged";
/// What was acknowledged, and could not be committed.
const UNCOMMITTED: &str = "the last commit of a revoked partition failed";

/// Records that a lane's next owner reads again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    lane: Lane,
    /// Unknown where the last commit failed.
    from: Option<i64>,
    to: i64,
}

/// The replicas' logs, each line of which is read once.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// Bytes read, by replica.
    read: BTreeMap<String, usize>,
}

impl Logs {
    /// What this replica has given up unfinished since it was asked last.
    pub(crate) fn unfinished(&mut self, sink: &Sink) -> Vec<Left> {
        let log = sink.log();
        let read = self.read.entry(sink.name().to_owned()).or_default();
        // A line that is half written is read next time.
        let end = log.rfind('\n').map_or(0, |at| at + 1);
        let new = log.get(*read..end).unwrap_or_default();
        *read = end;
        new.lines().filter_map(Left::read).collect()
    }
}

impl Left {
    fn read(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let start = line.find(&format!(" {name}="))? + name.len() + 2;
            line.get(start..)?.split_whitespace().next()
        };
        let number = |name: &str| field(name)?.parse::<i64>().ok();
        let (from, to) = if line.contains(UNFINISHED) {
            (number("offset"), number("next_offset")?)
        } else if line.contains(UNCOMMITTED) {
            (None, number("offset")?)
        } else {
            return None;
        };
        let topic = field("topic")?.trim_matches('"').to_owned();
        Some(Self { lane: (topic, i32::try_from(number("partition")?).ok()?), from, to })
    }
}

/// The offsets of each lane; from `committed` on where the replica does not say from where.
pub(crate) fn exposed(
    left: Vec<Left>,
    committed: &BTreeMap<Lane, i64>,
) -> BTreeMap<Lane, BTreeSet<i64>> {
    let mut exposed: BTreeMap<Lane, BTreeSet<i64>> = BTreeMap::new();
    for Left { lane, from, to } in left {
        let from = from.or(committed.get(&lane).copied()).unwrap_or(0);
        exposed.entry(lane).or_default().extend(from..to);
    }
    exposed
}
