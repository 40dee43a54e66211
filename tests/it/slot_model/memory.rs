//! What a chain may be believed to have loaded, where jobs are forgotten, hints lost, offsets reset and logs
//! written anew; and what each half of the repair misses.

use super::CALM;
use super::{
    Committed, Faults, Job, JobState, Message, RECORDS, TABLES, World, fails, holds,
    owner::{Owner, Place},
};

const REWRITES: usize = 4;
const RESETS: usize = 5;
const FORGOTTEN: usize = 6;
pub(super) const LOST_HINTS: usize = 7;

/// Where the last row below a slot's end is compared with the log; each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prints {
    /// Nowhere: jobs have no such label.
    #[default]
    None,
    /// Once a chain's end is found, and only there.
    Found,
    /// When that row's record is passed over, and those before it are not settled until then.
    Passed,
    /// Also where a job turns out to exist with the end that one has asked for.
    Existing,
    /// And no hint lies above the committed offset, so that no label is skipped.
    All,
}

/// What an owner believes of a chain if it knows no node of it, and no job has its first id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Beginning {
    /// That it has no jobs.
    #[default]
    Assumed,
    /// The same, but it halts where an offset above zero comes without metadata.
    Ours,
    /// Only metadata that lack no hint say that it has none; otherwise it halts.
    Whole,
    /// A floor is kept apart, and says how far each chain was committed at least.
    Floor,
}

/// What an owner knows of a chain as it starts.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) node: u8,
    pub(super) print: Option<bool>,
    pub(super) has_beginning: bool,
}

pub(super) fn has(bits: u8, record: u8) -> bool {
    bits >> record & 1 == 1
}

/// The same with one more fault of this kind, if there may be one.
pub(super) fn spend(world: &World, kind: usize, most: u8) -> Option<World> {
    (world.used[kind] < most).then(|| {
        let mut next = world.clone();
        next.used[kind] += 1;
        next
    })
}

/// Where the search for each chain's end begins.
pub(super) fn known(world: &World, faults: &Faults) -> [Known; TABLES] {
    let committed = world.committed;
    std::array::from_fn(|table| {
        let (node, (floor, print)) = (committed.nodes[table], world.floor[table]);
        let has_beginning = match faults.beginning {
            Beginning::Assumed | Beginning::Floor => true,
            Beginning::Ours => committed.is_ours || committed.offset == 0,
            Beginning::Whole => node > 0 || committed.is_ours && committed.is_whole,
        };
        match faults.beginning {
            Beginning::Floor if floor > node => Known { node: floor, print, has_beginning },
            _ => Known { node, print: None, has_beginning },
        }
    })
}

/// Whether the record below the committed offset is not the one that was committed.
pub(super) fn is_another(world: &World) -> bool {
    let Committed { offset, log, .. } = world.committed;
    log.is_some_and(|log| log != has(world.log, offset - 1))
}

/// Whether a slot without a job is not to be taken for the chain's end.
pub(super) fn is_no_end(owner: &Owner, table: usize, node: u8, log: u8, faults: &Faults) -> bool {
    let is_other = |print| node > 0 && print != has(log, node - 1);
    let is_compared = faults.prints == Prints::Found;
    !owner.has_beginning[table] || is_compared && owner.prints[table].is_some_and(is_other)
}

/// Whether a job of one's own slot and end was made of other rows.
pub(super) fn is_other_row(owner: &Owner, job: &Job, faults: &Faults) -> bool {
    faults.prints >= Prints::Existing && job.print() != has(owner.log, job.end - 1)
}

/// Keeps apart how far a chain is, once that is committed.
pub(super) fn move_floor(world: &World, index: usize, faults: &Faults) -> Vec<World> {
    let owner = &world.owners[index];
    let moved = |table: usize| {
        let Place::End { node, .. } = owner.chains[table] else { return None };
        let is_due = node > world.floor[table].0 && world.committed.offset >= node;
        (faults.beginning == Beginning::Floor && is_due).then(|| {
            let mut next = world.clone();
            next.floor[table] = (node, owner.prints[table]);
            next
        })
    };
    (0..TABLES).filter_map(moved).collect()
}

/// Whether no request and no job is under way.
pub(super) fn is_idle(world: &World) -> bool {
    world.wire.iter().all(|sent| matches!(sent, Message::Commit { .. }))
        && world.jobs.iter().all(|job| job.state != JobState::Active)
}

/// Whether the present owner waits for a person, and nothing is under way.
pub(super) fn is_halted(world: &World) -> bool {
    let halted = |owner: &Owner| owner.generation == world.generation && owner.is_halted;
    is_idle(world) && world.owners.iter().any(halted)
}

pub(super) fn trouble(world: &World, faults: &Faults, found: &mut Vec<World>) {
    if let Some(world) = spend(world, REWRITES, faults.rewrites) {
        found.extend((1..RECORDS).map(|cut| rewritten(world.clone(), cut)));
    }
    let is_time =
        faults.rewrites == 0 || world.cut.is_some_and(|cut| world.committed.offset >= cut);
    if let Some(mut next) = spend(world, RESETS, faults.resets).filter(|_| is_time) {
        next.committed = Committed::bare(world.cut.unwrap_or(0), false);
        next.hand_over();
        found.push(next);
    }
    for index in 0..world.jobs.len() {
        found.extend(forgotten(world, index, faults));
    }
}

fn rewritten(mut world: World, cut: u8) -> World {
    world.log |= (cut..RECORDS).fold(0, |log, record| log | 1 << record);
    world.cut = Some(cut);
    world
}

/// BigQuery forgets the oldest job of a chain, which is older than whatever anybody has under way, and was
/// committed long ago.
fn forgotten(world: &World, index: usize, faults: &Faults) -> Option<World> {
    let job = world.jobs[index];
    let table = usize::from(job.id.table);
    let is_behind = |owner: &Owner| owner.started && Owner::node(owner.chains[table]) < job.end;
    let is_late = |sent: &Message| {
        matches!(sent, Message::Insert { job: other, .. }
            if other.id.table == job.id.table && other.id.node < job.end)
    };
    let is_young = world.owners.iter().any(is_behind) || world.wire.iter().any(is_late);
    let is_above = faults.beginning == Beginning::Floor && world.floor[table].0 < job.end;
    let is_young = is_young || world.committed_max < job.end;
    let is_before = |other: &Job| other.id.table == job.id.table && other.id.node < job.id.node;
    let is_oldest = !world.jobs.iter().any(is_before);
    let is_forgotten = job.state == JobState::Loaded && is_oldest && !is_above;
    if !is_forgotten || is_young && !faults.is_forgetful {
        return None;
    }
    let mut next = spend(world, FORGOTTEN, faults.forgotten)?;
    next.jobs.remove(index);
    Some(next)
}

/// A log that was cut and written anew, and an operator who sets the offset back to there.
const REWRITTEN: Faults = Faults { rewrites: 1, resets: 1, ..CALM };
/// The same with all that is compared.
const COMPARED: Faults = Faults { prints: Prints::All, ..REWRITTEN };
/// A job is forgotten, and nothing but the floor knows of it.
const FLOOR: Faults =
    Faults { forgotten: 1, prints: Prints::All, beginning: Beginning::Floor, ..CALM };
/// The same, and no floor.
const WHOLE: Faults = Faults { beginning: Beginning::Whole, ..FLOOR };

/// L1, L3 to L3c.
#[test]
fn a_log_written_anew_is_lost_unless_all_is_compared() {
    let two = Faults { two_tables: true, deaths: 1, ..REWRITTEN };
    fails(&[
        ("L1 nothing is compared", REWRITTEN, "lost"),
        ("L3 only once the end is found", Faults { prints: Prints::Found, ..two }, "lost"),
        ("L3b not on a job that exists", Faults { prints: Prints::Passed, ..REWRITTEN }, "lost"),
        (
            "L3c a hint above the offset",
            Faults { deaths: 1, prints: Prints::Existing, ..REWRITTEN },
            "lost",
        ),
    ]);
}

/// L2 to L2d.
#[test]
fn a_log_written_anew_halts_the_partition() {
    holds(&[("L2", COMPARED), ("L2, two tables", Faults { two_tables: true, ..COMPARED })]);
}

/// L4 to L6, L8.
#[test]
fn a_forgotten_job_has_rows_twice_unless_a_chains_beginning_is_known() {
    let lost = Faults { forgotten: 1, lost_hints: 1, deaths: 1, ..CALM };
    fails(&[
        ("L4 the operator resets", Faults { forgotten: 1, resets: 1, ..CALM }, "twice"),
        ("L5 hints do not fit", lost, "twice"),
        ("L6 metadata count, whole or not", Faults { beginning: Beginning::Ours, ..lost }, "twice"),
        (
            "L6b an offset of zero counts without",
            Faults { forgotten: 1, resets: 1, beginning: Beginning::Ours, ..CALM },
            "twice",
        ),
        (
            "L8 an owner sleeps longer than BigQuery remembers",
            Faults { rebalances: 1, is_forgetful: true, ..FLOOR },
            "twice",
        ),
    ]);
}

/// L7 to L7d, and the same without a bucket.
#[test]
fn a_forgotten_job_is_known_by_the_floor_or_halts_the_partition() {
    let lost = |faults| Faults { lost_hints: 1, deaths: 1, ..faults };
    holds(&[
        ("L7 floor, a reset", Faults { resets: 1, ..FLOOR }),
        ("L7b floor, hints do not fit, a death", lost(FLOOR)),
        ("L7d floor, all on top", Faults { rewrites: 1, resets: 1, ..FLOOR }),
        ("L9 no floor, a reset", Faults { resets: 1, ..WHOLE }),
        ("L9b no floor, hints do not fit, a death", lost(WHOLE)),
        ("L9d no floor, all on top", Faults { rewrites: 1, resets: 1, ..WHOLE }),
    ]);
}

#[test]
#[ignore = "millions of states: cargo test --release --test it slot_model -- --ignored"]
fn what_a_chain_has_loaded_is_known_whatever_else_happens() {
    holds(&[
        ("L2 a death", Faults { deaths: 1, ..COMPARED }),
        ("L2b two tables, a death", Faults { two_tables: true, deaths: 1, ..COMPARED }),
        ("L2c a hand-over, a request in doubt", Faults { rebalances: 1, network: 1, ..COMPARED }),
        ("L2d a hand-over", Faults { rebalances: 1, ..COMPARED }),
        ("L7b two tables", Faults { lost_hints: 1, deaths: 1, two_tables: true, ..FLOOR }),
        (
            "L7c a hand-over, stray commits",
            Faults { rebalances: 1, restamped: true, reordered: true, ..FLOOR },
        ),
        ("L7d a death on top", Faults { rewrites: 1, resets: 1, deaths: 1, ..FLOOR }),
        (
            "L9c no floor, a hand-over, stray commits",
            Faults { rebalances: 1, restamped: true, reordered: true, ..WHOLE },
        ),
        ("L9d no floor, a death on top", Faults { rewrites: 1, resets: 1, deaths: 1, ..WHOLE }),
    ]);
}
