//! One owner, as it goes from step to step.

use super::{Committed, Defect, Faults, Job, JobId, JobState, Message, RECORDS, TABLES, World};

/// Commits under way at most, where they travel.
const COMMITS_MAX: usize = 2;

/// Where one table's chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Looked for from this slot on.
    Sought { node: u8, attempt: u8 },
    /// Found: no job of this slot is known.
    End { node: u8, attempt: u8 },
    /// A job of this slot is asked for.
    Asking { node: u8, attempt: u8, end: u8, rows: u8 },
    /// It exists; its end is awaited.
    Polling { node: u8, attempt: u8, end: u8, rows: u8 },
}

/// Whoever has, or had, the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) generation: u8,
    /// Whether it has read the committed offset.
    started: bool,
    chains: [Place; TABLES],
    /// The next record to take in.
    next: u8,
    /// Rows that are in an object of no job yet, by bit.
    staged: u8,
    /// Records that are done with, by bit; those that it found committed are.
    done: u8,
    /// Whether the second table's rows are loaded by now.
    switched: bool,
    /// Rows that jobs had brought when it began; for the judge only.
    brought: u8,
}

impl Owner {
    pub(super) fn new(generation: u8) -> Self {
        Self {
            generation,
            started: false,
            chains: [Place::Sought { node: 0, attempt: 0 }; TABLES],
            next: 0,
            staged: 0,
            done: 0,
            switched: false,
            brought: 0,
        }
    }

    fn watermark(&self, faults: &Faults) -> u8 {
        match faults.defect {
            Some(Defect::CommitAfterStage) => self.next,
            _ => self.done.trailing_ones() as u8,
        }
    }

    fn node(place: Place) -> u8 {
        match place {
            Place::Sought { node, .. }
            | Place::End { node, .. }
            | Place::Asking { node, .. }
            | Place::Polling { node, .. } => node,
        }
    }

    fn progress(&self, faults: &Faults) -> Committed {
        Committed { offset: self.watermark(faults), nodes: self.chains.map(Self::node) }
    }

    /// Whether it has nothing left to do.
    pub(super) fn is_done(&self, committed: Committed, faults: &Faults) -> bool {
        self.started
            && committed.offset == RECORDS
            && committed == self.progress(faults)
            && self.staged == 0
            && self.chains.iter().all(|place| matches!(place, Place::End { .. }))
    }
}

fn id(faults: &Faults, table: usize, (node, attempt): (u8, u8), end: u8) -> JobId {
    let end = if faults.defect == Some(Defect::EndInJobId) { end } else { 0 };
    JobId { table: table as u8, node, attempt, end }
}

/// Everything that the owner may do next.
pub(super) fn steps(world: &World, index: usize, faults: &Faults, found: &mut Vec<World>) {
    let owner = &world.owners[index];
    if !owner.started {
        return found.extend(start(world, index, faults));
    }
    for table in 0..TABLES {
        found.extend(follow(world, index, table, faults));
    }
    found.extend(take_in(world, index, faults));
    found.extend(commit(world, index, faults));
}

/// Commits what has changed. Where commits neither overtake each other nor are stamped anew, one that is
/// late is like one that is made later, and one of an owner that is over does nothing.
fn commit(world: &World, index: usize, faults: &Faults) -> Option<World> {
    let owner = &world.owners[index];
    let what = owner.progress(faults);
    let is_wired = faults.restamped || faults.reordered;
    if what == world.committed || !is_wired && owner.generation != world.generation {
        return None;
    }
    let mut next = world.clone();
    if !is_wired {
        next.committed = what;
        return Some(next);
    }
    let message = Message::Commit { owner: owner.generation, what };
    let commits = world.wire.iter().filter(|sent| matches!(sent, Message::Commit { .. }));
    (!world.wire.contains(&message) && commits.count() < COMMITS_MAX).then(|| {
        next.wire.push(message);
        next
    })
}

/// Reads the committed offset; who is not a member any more cannot.
fn start(world: &World, index: usize, faults: &Faults) -> Option<World> {
    let mut next = world.clone();
    let (committed, generation) = (world.committed, world.generation);
    let owner = &mut next.owners[index];
    if owner.generation != generation {
        next.owners.remove(index);
        return Some(next);
    }
    let place = |node| match faults.defect {
        Some(Defect::BaseAtStart) => Place::End { node: committed.offset.max(node), attempt: 0 },
        _ => Place::Sought { node, attempt: 0 },
    };
    *owner = Owner {
        started: true,
        chains: committed.nodes.map(place),
        next: committed.offset,
        done: (1 << committed.offset) - 1,
        switched: owner.switched,
        brought: if faults.switching { world.brought() } else { 0 },
        ..Owner::new(generation)
    };
    Some(next)
}

impl Owner {
    /// Whether it waits for the answer to this job's request.
    pub(super) fn waits_for(&self, id: JobId) -> bool {
        let place = self.chains[usize::from(id.table)];
        matches!(place, Place::Asking { node, attempt, .. } if (node, attempt) == (id.node, id.attempt))
    }

    /// The job exists, this owner's or another's.
    pub(super) fn answered(&mut self, id: JobId) {
        let place = &mut self.chains[usize::from(id.table)];
        if let Place::Asking { node, attempt, end, rows } = *place {
            *place = Place::Polling { node, attempt, end, rows };
        }
    }
}

/// Asks for a job. That it is asked late is like that the request arrives late.
fn ask(mut world: World, index: usize, job: Job) -> World {
    let owner = &mut world.owners[index];
    let JobId { table, node, attempt, .. } = job.id;
    owner.chains[usize::from(table)] =
        Place::Asking { node, attempt, end: job.end, rows: job.rows };
    let owner = owner.generation;
    world.wire.push(Message::Insert { owner, job });
    world
}

/// One step of one chain.
fn follow(world: &World, index: usize, table: usize, faults: &Faults) -> Vec<World> {
    let owner = &world.owners[index];
    let job = |place, end| world.jobs.iter().find(|job| job.id == id(faults, table, place, end));
    let mut next = world.clone();
    let me = &mut next.owners[index];
    match owner.chains[table] {
        Place::Sought { node, attempt } => {
            me.chains[table] = match job((node, attempt), 0).map(|job| (job.state, job.end)) {
                None => Place::End { node, attempt },
                Some((JobState::Active, _)) => return Vec::new(),
                Some((JobState::Loaded, end)) => Place::Sought { node: end, attempt: 0 },
                Some((JobState::Failed, _)) => Place::Sought { node, attempt: attempt + 1 },
            };
            vec![next]
        }
        Place::End { node, attempt } => {
            let rows = owner.staged & mask(table, faults);
            if rows == 0 {
                return Vec::new();
            }
            // Everything below `next` is settled: staged, in a job, streamed, or not for this table.
            let end = owner.next;
            me.staged &= !rows;
            let id = id(faults, table, (node, attempt), end);
            vec![ask(next, index, Job { id, end, rows, state: JobState::Active })]
        }
        Place::Asking { .. } => Vec::new(),
        Place::Polling { node, attempt, end, rows } => {
            let Some(found) = job((node, attempt), end) else { return Vec::new() };
            let failed = faults.defect != Some(Defect::DoneIsSuccess);
            match found.state {
                JobState::Active => return Vec::new(),
                JobState::Failed if failed => {
                    let reused = faults.defect == Some(Defect::FailedIdReused);
                    let attempt = if reused { attempt } else { attempt + 1 };
                    let id = id(faults, table, (node, attempt), end);
                    next = ask(next, index, Job { id, end, rows, state: JobState::Active });
                }
                _ if found.end == end || faults.defect == Some(Defect::OwnEndKept) => {
                    me.done |= rows;
                    me.chains[table] = Place::End { node: end, attempt: 0 };
                }
                // Another owner's: the lane is given up and taken over again.
                _ => me.started = false,
            }
            vec![next]
        }
    }
}

fn mask(table: usize, faults: &Faults) -> u8 {
    (0..RECORDS).filter(|record| faults.table_of(*record) == table).map(|record| 1 << record).sum()
}

/// Takes in the next record, once its chain's end is known.
fn take_in(world: &World, index: usize, faults: &Faults) -> Vec<World> {
    let owner = &world.owners[index];
    let record = owner.next;
    let table = faults.table_of(record);
    let place = owner.chains[table];
    let blind = faults.defect == Some(Defect::StreamedBlindly);
    let streams = faults.switching && table == 1 && !owner.switched;
    if record >= RECORDS || matches!(place, Place::Sought { .. }) && !(blind && streams) {
        return Vec::new();
    }
    let is_loaded = record < Owner::node(place);
    let taken = |work: &dyn Fn(&mut World)| {
        let mut next = world.clone();
        next.owners[index].next += 1;
        work(&mut next);
        next
    };
    let bit = 1 << record;
    let pass = |next: &mut World| next.owners[index].done |= bit;
    let stage = |next: &mut World| next.owners[index].staged |= bit;
    let switch = |next: &mut World| {
        next.owners[index].switched = true;
        next.owners[index].staged |= bit;
    };
    let stream = |next: &mut World| {
        next.repeated |= owner.brought & bit != 0;
        next.streamed[usize::from(record)] = 1;
        next.owners[index].done |= bit;
    };
    match (is_loaded, streams) {
        (true, false) => vec![taken(&pass)],
        (true, true) if !blind => vec![taken(&pass)],
        (_, true) => vec![taken(&stream), taken(&switch)],
        (false, false) => vec![taken(&stage)],
    }
}
