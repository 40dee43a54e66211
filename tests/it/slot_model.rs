//! The slot protocol as an explicit-state model: one topic-partition, two tables, owners that come and go.
//!
//! Every interleaving within the budgets of [`Faults`] is visited, breadth first, so that what is found
//! is found by a shortest way. It is a model of `delivery::core::load` and `write::load::run`, written
//! from the rules in `docs/delivery.md` and not from their code; the seeded histories
//! (`pipeline::simulation`) run the code itself.
//!
//! What is modelled: owners that learn of a rebalance never or late, deaths at every step, offset commits
//! that are applied late, in another order, or by who owns nothing any more; `jobs.insert` that arrives
//! after its client has given up, or whose answer is lost; jobs that fail; a table whose rows are streamed
//! until its path is switched. Then what makes a chain's end a matter of belief ([`memory`]): BigQuery forgets
//! jobs, hints do not fit into the metadata, an operator resets the offset, the log is cut and written anew
//! under the same topic id. What is not modelled: objects (unique names, needed until their job is done),
//! batches, dead letters, topics made again.

mod memory;
mod owner;
mod search;

use self::{
    memory::{Beginning, Prints},
    owner::Owner,
    search::{Found, search},
};

/// Records of the partition.
const RECORDS: u8 = 3;
/// Tables at most.
const TABLES: usize = 2;

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// A job's id names its end.
    EndInJobId,
    /// The chain begins where the owner begins to read.
    BaseAtStart,
    /// A failed job's id is used again.
    FailedIdReused,
    /// A job that is done counts as one that has succeeded.
    DoneIsSuccess,
    /// Rows count as stored once they are staged.
    CommitAfterStage,
    /// An owner whose job exists with another end takes its own end for loaded.
    OwnEndKept,
    /// Rows are streamed without a look at what jobs have brought.
    StreamedBlindly,
    /// A hint that equals the offset is left out, and a chain without a hint is looked for from the offset.
    HintAtOffsetLeftOut,
}

/// What may go wrong, and how often at most.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Whether every other record is of a second table.
    two_tables: bool,
    /// Hand-overs whose old owner goes on.
    rebalances: u8,
    /// Deaths.
    deaths: u8,
    /// Requests that outlive their client's patience, or answers that are lost.
    network: u8,
    /// Jobs that fail.
    failures: u8,
    /// Commits of owners that own nothing are applied, too (librdkafka stamps them anew).
    restamped: bool,
    /// Commits are applied in any order.
    reordered: bool,
    /// The second table's rows are streamed first, and its path is switched at any record.
    switching: bool,
    /// Times the log is cut and written anew from there.
    rewrites: u8,
    /// Times the operator sets the offset back, to where the log was cut or to the beginning.
    resets: u8,
    /// Jobs that BigQuery forgets.
    forgotten: u8,
    /// Whether it may also forget one that is younger than an owner's sleep.
    is_forgetful: bool,
    /// Commits whose hints do not fit.
    lost_hints: u8,
    /// What is compared.
    prints: Prints,
    /// What is believed of a chain of which nothing is known.
    beginning: Beginning,
    /// The mistake.
    defect: Option<Defect>,
}

/// What is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Committed {
    offset: u8,
    /// A node of each chain; zero is that there is no hint.
    nodes: [u8; TABLES],
    /// Whether it has the owners' metadata, and those say that no hint is missing.
    is_ours: bool,
    is_whole: bool,
    /// Which log the record below the offset is of; `None` where that is not said.
    log: Option<bool>,
}

impl Committed {
    /// What was committed for the first owner, or by a tool.
    fn bare(offset: u8, is_ours: bool) -> Self {
        Self { offset, nodes: [0; TABLES], is_ours, is_whole: is_ours, log: None }
    }
}

/// A job's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct JobId {
    table: u8,
    node: u8,
    attempt: u8,
    /// Zero, but for [`Defect::EndInJobId`].
    end: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum JobState {
    Active,
    Loaded,
    Failed,
}

/// A job: where its slot ends, and its rows by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Job {
    id: JobId,
    end: u8,
    rows: u8,
    /// Which of its rows are of the second log.
    log: u8,
    state: JobState,
}

impl Job {
    /// Its label: which log its last row is of.
    fn print(&self) -> bool {
        memory::has(self.log, self.end - 1)
    }
}

/// What is under way. Owners are called by their generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Commit { owner: u8, what: Committed },
    Insert { owner: u8, job: Job },
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    committed: Committed,
    /// The highest offset that was ever committed.
    committed_max: u8,
    /// Of the present owner.
    generation: u8,
    /// Those that live.
    owners: Vec<Owner>,
    wire: Vec<Message>,
    jobs: Vec<Job>,
    /// Which records are of the second log.
    log: u8,
    /// Where it was cut.
    cut: Option<u8>,
    /// What is kept apart from the commits: a node of each chain, and which log its last row is of.
    floor: [(u8, Option<bool>); TABLES],
    /// How often each record's row was loaded, by log.
    loaded: [[u8; RECORDS as usize]; 2],
    /// How often it was streamed.
    streamed: [u8; RECORDS as usize],
    /// Whether an owner streamed a row that a job had brought before it took over.
    repeated: bool,
    used: [u8; 8],
}

impl World {
    /// The rows that jobs have brought, by bit.
    fn brought(&self) -> u8 {
        let loaded = self.jobs.iter().filter(|job| job.state == JobState::Loaded);
        loaded.fold(0, |rows, job| rows | job.rows)
    }
}

impl Faults {
    fn table_of(&self, record: u8) -> usize {
        if self.two_tables { usize::from(record) % TABLES } else { 0 }
    }
}

/// Nothing goes wrong.
const CALM: Faults = Faults {
    two_tables: false,
    rebalances: 0,
    deaths: 0,
    network: 0,
    failures: 0,
    restamped: false,
    reordered: false,
    switching: false,
    rewrites: 0,
    resets: 0,
    forgotten: 0,
    is_forgetful: false,
    lost_hints: 0,
    prints: Prints::None,
    beginning: Beginning::Assumed,
    defect: None,
};

/// [`CALM`], with a second table.
const TWO: Faults = Faults { two_tables: true, ..CALM };
/// Commits of former owners count, in any order.
const STRAY: Faults = Faults { restamped: true, reordered: true, ..CALM };

fn holds(variants: &[(&str, Faults)]) {
    for (name, faults) in variants {
        let Found { states, ends, violation } = search(*faults);
        println!("{name}: {states} states, {ends} ends");
        assert_eq!(violation, None, "{name}");
        assert!(ends > 0, "{name}: nothing ever ended");
    }
}

#[test]
fn no_row_is_lost_or_loaded_twice() {
    holds(&[
        ("calm", TWO),
        ("a death", Faults { deaths: 1, ..TWO }),
        ("two deaths", Faults { deaths: 2, ..CALM }),
        (
            "a death, a request in doubt, a failed job",
            Faults { deaths: 1, network: 1, failures: 1, ..CALM },
        ),
        ("a hand-over, a request in doubt", Faults { rebalances: 1, network: 1, ..CALM }),
        ("a hand-over, a failed job", Faults { rebalances: 1, failures: 1, ..CALM }),
        ("a hand-over, stray commits", Faults { rebalances: 1, ..STRAY }),
        ("a switched path, a death", Faults { switching: true, deaths: 1, ..TWO }),
    ]);
}

#[test]
#[ignore = "millions of states: cargo test --release --test it slot_model -- --ignored"]
fn no_row_is_lost_or_loaded_twice_over_two_tables() {
    holds(&[
        ("two deaths", Faults { deaths: 2, ..TWO }),
        ("a hand-over", Faults { rebalances: 1, ..TWO }),
        ("a switched path, two deaths", Faults { switching: true, deaths: 2, ..TWO }),
        ("a switched path, a hand-over", Faults { switching: true, rebalances: 1, ..TWO }),
    ]);
}

#[test]
fn every_mistake_is_found() {
    let doubt = Faults { rebalances: 1, network: 1, ..CALM };
    let mistakes = [
        (Defect::EndInJobId, doubt, "twice"),
        (Defect::BaseAtStart, Faults { deaths: 2, ..TWO }, "twice"),
        (Defect::FailedIdReused, Faults { failures: 1, ..CALM }, "stuck"),
        (Defect::DoneIsSuccess, Faults { failures: 1, ..CALM }, "lost"),
        (Defect::CommitAfterStage, CALM, "lost"),
        (Defect::OwnEndKept, doubt, "lost"),
        (Defect::StreamedBlindly, Faults { switching: true, deaths: 2, ..TWO }, "repeated"),
        (Defect::HintAtOffsetLeftOut, Faults { rebalances: 1, ..TWO }, "twice"),
    ];
    for (defect, faults, expected) in mistakes {
        let faults = Faults { defect: Some(defect), ..faults };
        fails(&[(&format!("{defect:?}"), faults, expected)]);
    }
}

/// A search for each of them finds what is said.
fn fails(variants: &[(&str, Faults, &str)]) {
    for (name, faults, expected) in variants {
        let found = search(*faults);
        println!("{name}: {expected} after {} states", found.states);
        let violation = found.violation.unwrap_or_else(|| panic!("{name}: nothing was found"));
        assert!(violation.starts_with(expected), "{name}: {violation}");
    }
}
