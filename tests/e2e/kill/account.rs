//! The account: every record that Kafka holds against every row that the simulator stored.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use anyhow::{Context, Result, bail};
use rdkafka::{Message, message::Headers};

use super::{
    DEAD, Options, Stage,
    feed::{self, Feed},
    rounds::Round,
};
use crate::rig::{cell, clients::Lane};

/// The outcome.
#[derive(Debug, Default)]
pub(crate) struct Account {
    records: u64,
    poison: u64,
    rows: u64,
    lost: Vec<(Lane, i64)>,
    phantom: Vec<(Lane, i64)>,
    corrupt: Vec<(Lane, i64)>,
    duplicates: u64,
    unheard: u64,
    unexplained: Vec<(Lane, i64)>,
    over_bound: u64,
    letters: u64,
    letters_lost: Vec<(Lane, i64)>,
    letters_phantom: Vec<(Lane, i64)>,
    letters_twice: u64,
}

/// How long an answer that has come may lie unread while its connection breaks.
const ANSWER_READ_MS: i64 = 300;

/// Why a row may be there more than once.
struct Excuses<'a> {
    rounds: &'a mut [Round],
    /// When answers were lost, in milliseconds since the epoch, in order.
    lost: Vec<i64>,
    /// With a lost answer its connection breaks, and what waits there for an answer for at most so long, in
    /// milliseconds, goes unheard, too.
    late: i64,
}

impl Excuses<'_> {
    /// Whether the answer to what was stored then may have been lost.
    fn is_unheard(&self, stored_ms: i64) -> bool {
        let next = self.lost.partition_point(|lost| *lost < stored_ms);
        self.lost.get(next).is_some_and(|lost| lost - stored_ms <= self.late)
    }
}

/// By lane and offset: the hash of the row; `None` is poison.
type Expected = BTreeMap<Lane, Vec<Option<u64>>>;

impl Account {
    /// Reads both sides and compares them; notes each round's duplicates in it.
    pub(crate) fn draw_up(
        stage: &Stage,
        feed: &Feed,
        options: &Options,
        rounds: &mut [Round],
    ) -> Result<Self> {
        let expected = read_topics(stage, feed)?;
        let mut account = Self::default();
        for hash in expected.values().flatten() {
            account.records += 1;
            account.poison += u64::from(hash.is_none());
        }
        // Nothing excuses a row that was loaded twice.
        let mut excuses = match options.path.is_exact() {
            true => Excuses { rounds: &mut [], lost: Vec::new(), late: 0 },
            false => Excuses {
                rounds,
                lost: match options.path.repeats_what_is_unheard() {
                    true => stage.simulator.lost_answers(&stage.http)?,
                    false => Vec::new(),
                },
                late: i64::try_from(options.answer_delay.as_millis())? + ANSWER_READ_MS,
            },
        };
        account.compare_rows(stage, &expected, &mut excuses)?;
        account.compare_letters(stage, &expected)?;
        account.over_bound = rounds.iter().filter(|round| round.repeats == 1).map(over_bound).sum();
        Ok(account)
    }

    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.records > 0
            && self.lost.is_empty()
            && self.phantom.is_empty()
            && self.corrupt.is_empty()
            && self.unexplained.is_empty()
            && self.over_bound == 0
            && self.letters_lost.is_empty()
            && self.letters_phantom.is_empty()
    }

    fn compare_rows(
        &mut self,
        stage: &Stage,
        expected: &Expected,
        excuses: &mut Excuses<'_>,
    ) -> Result<()> {
        let mut copies: HashMap<Lane, Vec<Vec<i64>>> = expected
            .iter()
            .map(|(lane, hashes)| (lane.clone(), vec![Vec::new(); hashes.len()]))
            .collect();
        for entry in stage.simulator.ledger(&stage.http)? {
            self.rows += 1;
            let index = usize::try_from(entry.offset)?;
            let hashes = expected.get(&entry.lane);
            match hashes.and_then(|hashes| hashes.get(index)) {
                None | Some(None) => self.phantom.push((entry.lane, entry.offset)),
                Some(Some(hash)) => {
                    if *hash != entry.hash {
                        self.corrupt.push((entry.lane.clone(), entry.offset));
                    }
                    if let Some(times) =
                        copies.get_mut(&entry.lane).and_then(|lane| lane.get_mut(index))
                    {
                        times.push(entry.stored_ms);
                    }
                }
            }
        }
        for (lane, hashes) in expected {
            for (offset, hash) in hashes.iter().enumerate() {
                match (hash, &mut copies.get_mut(lane).context("a lane")?[offset][..]) {
                    (Some(_), []) => self.lost.push((lane.clone(), offset as i64)),
                    (_, times @ [_, _, ..]) => {
                        times.sort_unstable();
                        self.explain(lane, offset as i64, times, excuses);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Every further copy of a row needs an answer that was lost, or a death that exposed it.
    fn explain(&mut self, lane: &Lane, offset: i64, times: &[i64], excuses: &mut Excuses<'_>) {
        let extra = times.len() as u32 - 1;
        self.duplicates += u64::from(extra);
        let unheard = times[..times.len() - 1].iter().filter(|at| excuses.is_unheard(**at)).count();
        self.unheard += unheard as u64;
        let mut left = extra - unheard as u32;
        let causes = excuses
            .rounds
            .iter_mut()
            .filter(|round| round.exposed.get(lane).is_some_and(|stored| stored.contains(&offset)));
        for round in causes {
            let repeats = round.repeats.min(left);
            round.duplicates += u64::from(repeats);
            left -= repeats;
        }
        if left > 0 {
            self.unexplained.push((lane.clone(), offset));
        }
    }

    fn compare_letters(&mut self, stage: &Stage, expected: &Expected) -> Result<()> {
        let mut seen: HashSet<(Lane, i64)> = HashSet::new();
        let lanes = stage.observer.lanes(&[DEAD.to_owned()])?;
        self.letters = stage.observer.read(&lanes, |message| {
            let Some(origin) = origin(message) else { bail!("a dead letter without its origin") };
            let poison = expected
                .get(&origin.0)
                .and_then(|hashes| hashes.get(usize::try_from(origin.1).ok()?))
                .is_some_and(Option::is_none);
            if !poison {
                self.letters_phantom.push(origin);
            } else if !seen.insert(origin) {
                self.letters_twice += 1;
            }
            Ok(())
        })?;
        for (lane, hashes) in expected {
            for (offset, _) in hashes.iter().enumerate().filter(|(_, hash)| hash.is_none()) {
                let origin = (lane.clone(), offset as i64);
                if !seen.contains(&origin) {
                    self.letters_lost.push(origin);
                }
            }
        }
        Ok(())
    }
}

/// A death explains one more copy of each row that it exposed.
fn over_bound(round: &Round) -> u64 {
    round.duplicates.saturating_sub(round.uncommitted)
}

fn read_topics(stage: &Stage, feed: &Feed) -> Result<Expected> {
    let schemas = feed.schemas();
    let mut expected = Expected::new();
    stage.observer.read(&stage.lanes, |message| {
        let lane = (message.topic().to_owned(), message.partition());
        let hashes = expected.entry(lane).or_default();
        let value = message.payload().unwrap_or_default();
        if hashes.len() as i64 != message.offset() {
            bail!("the observer read offset {} after {}", message.offset(), hashes.len());
        }
        hashes.push(match feed::is_poison(value) {
            true => None,
            false => Some(cell::row_hash(&schemas.read(value)?)),
        });
        Ok(())
    })?;
    Ok(expected)
}

/// Where a dead letter came from, by Connect's headers.
fn origin(message: &impl Message) -> Option<(Lane, i64)> {
    let headers = message.headers()?;
    let text = |name: &str| {
        let mut found = headers.iter().filter(|header| header.key == name);
        Some(std::str::from_utf8(found.next()?.value?).ok()?.to_owned())
    };
    let topic = text("__connect.errors.topic")?;
    let partition = text("__connect.errors.partition")?.parse().ok()?;
    let offset = text("__connect.errors.offset")?.parse().ok()?;
    Some(((topic, partition), offset))
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |list: &[(Lane, i64)]| {
            let shown = list.iter().take(5);
            let shown: Vec<_> =
                shown.map(|((t, p), offset)| format!("{t}[{p}]@{offset}")).collect();
            format!("{:>9}  {}", list.len(), shown.join(" "))
        };
        writeln!(f, "records in Kafka        {:>9}, {} of them poison", self.records, self.poison)?;
        writeln!(f, "rows stored             {:>9}", self.rows)?;
        writeln!(f, "lost                    {}", some(&self.lost))?;
        writeln!(f, "phantom                 {}", some(&self.phantom))?;
        writeln!(f, "corrupt                 {}", some(&self.corrupt))?;
        writeln!(f, "duplicates              {:>9}", self.duplicates)?;
        writeln!(f, "  answer lost           {:>9}", self.unheard)?;
        writeln!(f, "  without a cause       {}", some(&self.unexplained))?;
        writeln!(f, "  over a round's bound  {:>9}", self.over_bound)?;
        writeln!(
            f,
            "dead letters            {:>9}, {} of them again",
            self.letters, self.letters_twice
        )?;
        writeln!(f, "  lost                  {}", some(&self.letters_lost))?;
        write!(f, "  phantom               {}", some(&self.letters_phantom))
    }
}
