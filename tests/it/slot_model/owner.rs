//! One owner, as it goes from step to step.

use super::{
    Committed, Defect, Faults, Job, JobId, JobState, Message, RECORDS, TABLES, World,
    memory::{self, Prints},
};

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
    pub(super) started: bool,
    /// Whether it stands still until a person has done something.
    pub(super) is_halted: bool,
    pub(super) chains: [Place; TABLES],
    /// Which log the last row below each chain's end is of, where that is known.
    pub(super) prints: [Option<bool>; TABLES],
    /// The nodes of each chain that it knows of, by bit: what it may commit as a hint.
    nodes: [u8; TABLES],
    /// Whether it knows where each chain begins, or has a hint.
    pub(super) has_beginning: [bool; TABLES],
    /// Whether no chain can be there of which it has no hint: what it commits says so only if it was told so.
    is_whole: bool,
    /// The next record to take in.
    pub(super) next: u8,
    /// Which of the records that it has taken in are of the second log.
    pub(super) log: u8,
    /// Records that lie below a chain's end and are not compared yet, by bit.
    passed: u8,
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
            is_halted: false,
            chains: [Place::Sought { node: 0, attempt: 0 }; TABLES],
            prints: [None; TABLES],
            nodes: [1; TABLES],
            has_beginning: [true; TABLES],
            is_whole: true,
            next: 0,
            log: 0,
            passed: 0,
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

    pub(super) fn node(place: Place) -> u8 {
        match place {
            Place::Sought { node, .. }
            | Place::End { node, .. }
            | Place::Asking { node, .. }
            | Place::Polling { node, .. } => node,
        }
    }

    fn progress(&self, faults: &Faults) -> Committed {
        let offset = self.watermark(faults);
        let below = |known: u8| 7 - (known & ((2 << offset) - 1)).leading_zeros() as u8;
        let nodes = match faults.prints {
            // A hint that does not lie above the offset needs no print.
            Prints::All => self.nodes.map(below),
            _ => self.chains.map(Self::node),
        };
        let is_left_out =
            |node: u8| faults.defect == Some(Defect::HintAtOffsetLeftOut) && node == offset;
        Committed {
            offset,
            nodes: nodes.map(|node| if is_left_out(node) { 0 } else { node }),
            is_ours: true,
            is_whole: self.is_whole,
            log: offset.checked_sub(1).map(|last| memory::has(self.log, last)),
        }
    }

    /// Whether the running client notices that the log below its position is another one.
    pub(super) fn sees(&self, log: u8) -> bool {
        self.next > 0 && memory::has(log ^ self.log, self.next - 1)
    }

    /// Where a chain ends is known now.
    fn found(&mut self, table: usize, node: u8, print: Option<bool>) {
        self.nodes[table] |= 1 << node;
        self.prints[table] = print;
        self.has_beginning[table] = true;
    }

    /// Whether it has nothing left to do.
    pub(super) fn is_done(&self, committed: Committed, faults: &Faults) -> bool {
        self.started
            && !self.is_halted
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
    if owner.is_halted {
        return;
    }
    if !owner.started {
        return found.extend(start(world, index, faults));
    }
    if owner.sees(world.log) {
        return found.push(halted(world, index));
    }
    found.extend(memory::move_floor(world, index, faults));
    for table in 0..TABLES {
        found.extend(follow(world, index, table, faults));
    }
    found.extend(take_in(world, index, faults));
    let what = owner.progress(faults);
    found.extend(commit(world.clone(), index, what, faults));
    if let Some(world) = memory::spend(world, memory::LOST_HINTS, faults.lost_hints) {
        let what = Committed { nodes: [0; TABLES], is_whole: false, ..what };
        found.extend(commit(world, index, what, faults));
    }
}

pub(super) fn halted(world: &World, index: usize) -> World {
    let mut next = world.clone();
    next.owners[index].is_halted = true;
    next
}

/// Commits what has changed. Where commits neither overtake each other nor are stamped anew, one that is
/// late is like one that is made later, and one of an owner that is over does nothing.
fn commit(mut world: World, index: usize, what: Committed, faults: &Faults) -> Option<World> {
    let owner = &world.owners[index];
    let is_wired = faults.restamped || faults.reordered;
    if what == world.committed || !is_wired && owner.generation != world.generation {
        return None;
    }
    if !is_wired {
        world.commit(what);
        return Some(world);
    }
    let message = Message::Commit { owner: owner.generation, what };
    let commits = world.wire.iter().filter(|sent| matches!(sent, Message::Commit { .. }));
    (!world.wire.contains(&message) && commits.count() < COMMITS_MAX).then(|| {
        world.wire.push(message);
        world
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
    let known = memory::known(world, faults);
    let place = |node| match faults.defect {
        Some(Defect::BaseAtStart) => Place::End { node: committed.offset.max(node), attempt: 0 },
        Some(Defect::HintAtOffsetLeftOut) if node == 0 => {
            Place::Sought { node: committed.offset, attempt: 0 }
        }
        _ => Place::Sought { node, attempt: 0 },
    };
    *owner = Owner {
        started: true,
        is_halted: memory::is_another(world),
        chains: known.map(|known| place(known.node)),
        prints: known.map(|known| known.print),
        nodes: known.map(|known| 1 | 1 << known.node),
        has_beginning: known.map(|known| known.has_beginning),
        is_whole: committed.is_whole,
        next: committed.offset,
        log: world.log & ((1 << committed.offset) - 1),
        done: (1 << committed.offset) - 1,
        switched: owner.switched,
        brought: if faults.switching { world.brought() } else { 0 },
        ..Owner::new(generation)
    };
    Some(next)
}

impl Owner {
    /// Passes over a record below the chain's end: a job has brought it, if the chain belongs to this log. That
    /// shows at the last row of the chain.
    fn pass(&mut self, record: u8, table: usize, faults: &Faults) {
        let bit = 1 << record;
        let print = self.prints[table].filter(|_| faults.prints >= Prints::Passed);
        match print {
            None => self.done |= bit,
            Some(print) if record + 1 == Self::node(self.chains[table]) => {
                if print == memory::has(self.log, record) {
                    self.done |= bit | self.passed & mask(table, faults);
                    self.passed &= !mask(table, faults);
                } else {
                    self.is_halted = true;
                }
            }
            Some(_) => self.passed |= bit,
        }
    }

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
            let found = job((node, attempt), 0).copied();
            me.chains[table] = match found.map(|job| (job.state, job.end)) {
                None if memory::is_no_end(owner, table, node, world.log, faults) => {
                    return vec![halted(world, index)];
                }
                None => Place::End { node, attempt },
                Some((JobState::Active, _)) => return Vec::new(),
                Some((JobState::Loaded, end)) => Place::Sought { node: end, attempt: 0 },
                Some((JobState::Failed, _)) => Place::Sought { node, attempt: attempt + 1 },
            };
            if let Some(job) = found.filter(|job| job.state == JobState::Loaded) {
                me.found(table, job.end, Some(job.print()));
            } else if found.is_some() {
                me.has_beginning[table] = true;
            }
            vec![next]
        }
        Place::End { node, attempt } => {
            let rows = owner.staged & mask(table, faults);
            if rows == 0 {
                return Vec::new();
            }
            // Everything below `next` is settled: staged, in a job, streamed, or not for this table. The
            // slot ends behind its last row, and its label says of which log that is.
            let end = 8 - rows.leading_zeros() as u8;
            me.staged &= !rows;
            let (id, log) = (id(faults, table, (node, attempt), end), owner.log & rows);
            vec![ask(next, index, Job { id, end, rows, log, state: JobState::Active })]
        }
        Place::Asking { .. } => Vec::new(),
        Place::Polling { node, attempt, end, rows } => {
            // One that BigQuery has forgotten meanwhile is waited for by a person.
            let Some(found) = job((node, attempt), end) else { return vec![halted(world, index)] };
            let failed = faults.defect != Some(Defect::DoneIsSuccess);
            match found.state {
                JobState::Active => return Vec::new(),
                JobState::Failed if failed => {
                    let reused = faults.defect == Some(Defect::FailedIdReused);
                    let attempt = if reused { attempt } else { attempt + 1 };
                    let (id, log) = (id(faults, table, (node, attempt), end), owner.log & rows);
                    let job = Job { id, end, rows, log, state: JobState::Active };
                    next = ask(next, index, job);
                }
                _ if found.end == end && memory::is_other_row(owner, found, faults) => {
                    me.is_halted = true;
                }
                _ if found.end == end || faults.defect == Some(Defect::OwnEndKept) => {
                    me.done |= rows;
                    me.chains[table] = Place::End { node: end, attempt: 0 };
                    me.found(table, end, Some(memory::has(owner.log, end - 1)));
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
        let me = &mut next.owners[index];
        me.next += 1;
        me.log = me.log & !(1 << record) | world.log & 1 << record;
        work(&mut next);
        next
    };
    let bit = 1 << record;
    let pass = |next: &mut World| next.owners[index].pass(record, table, faults);
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
