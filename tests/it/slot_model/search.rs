//! The search, and everything that happens outside owners.

use std::collections::{HashMap, VecDeque};

use super::{
    Committed, Faults, JobId, JobState, Message, RECORDS, TABLES, World,
    memory::{self, spend},
    owner::{Owner, steps},
};

/// More states than any variant has; a search that reaches it proves nothing and fails.
const STATES_MAX: usize = 4_000_000;

/// What a search came to.
#[derive(Debug)]
pub(super) struct Found {
    /// States visited.
    pub(super) states: usize,
    /// States in which nothing is left to do.
    pub(super) ends: usize,
    /// The first violation.
    pub(super) violation: Option<String>,
}

/// States by number, and which led to which.
#[derive(Default)]
struct Graph {
    numbers: HashMap<World, u32>,
    queue: VecDeque<(World, u32)>,
    steps: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl Graph {
    fn number(&mut self, world: World) -> u32 {
        if let Some(known) = self.numbers.get(&world) {
            return *known;
        }
        assert!(self.numbers.len() < STATES_MAX, "too many states");
        let number = self.numbers.len() as u32;
        self.numbers.insert(world.clone(), number);
        self.queue.push_back((world, number));
        number
    }

    /// A state from which no end can be reached.
    fn stuck(&self) -> Option<String> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.numbers.len()];
        for (from, to) in &self.steps {
            before[*to as usize].push(*from);
        }
        let mut ends = vec![false; self.numbers.len()];
        let mut queue = self.ends.clone();
        while let Some(number) = queue.pop() {
            if !std::mem::replace(&mut ends[number as usize], true) {
                queue.extend(&before[number as usize]);
            }
        }
        let stuck = ends.iter().position(|ends| !ends)? as u32;
        let (world, _) = self.numbers.iter().find(|(_, number)| **number == stuck)?;
        Some(format!("stuck: {world:#?}"))
    }
}

/// Visits everything that can be reached.
pub(super) fn search(faults: Faults) -> Found {
    let mut graph = Graph::default();
    graph.number(World {
        committed: Committed::bare(0, true),
        committed_max: 0,
        generation: 0,
        owners: vec![Owner::new(0)],
        wire: Vec::new(),
        jobs: Vec::new(),
        log: 0,
        cut: None,
        floor: [(0, None); TABLES],
        loaded: [[0; RECORDS as usize]; 2],
        streamed: [0; RECORDS as usize],
        repeated: false,
        used: [0; 8],
    });
    let mut violation = None;
    while let Some((world, number)) = graph.queue.pop_front() {
        let is_over = is_over(&world, &faults);
        violation = fault(&world).or_else(|| is_over.then(|| fault_at_end(&world)).flatten());
        if violation.is_some() {
            break;
        }
        if is_over || memory::is_halted(&world) {
            graph.ends.push(number);
        }
        for world in next(&world, &faults) {
            let next = graph.number(world);
            graph.steps.push((number, next));
        }
    }
    let violation = violation.or_else(|| graph.stuck());
    Found { states: graph.numbers.len(), ends: graph.ends.len(), violation }
}

/// What must never be, at any moment.
fn fault(world: &World) -> Option<String> {
    // Once the log was cut, what was committed of the old one may not be of the new.
    let is_missing = |record: &u8| world.cut.is_none() && world.stored(*record) == 0;
    if let Some(record) = (0..world.committed.offset).find(is_missing) {
        return Some(format!("lost: {record} is committed and nowhere: {world:#?}"));
    }
    for loaded in &world.loaded {
        if let Some(record) = loaded.iter().position(|count| *count > 1) {
            return Some(format!("twice: {record}: {world:#?}"));
        }
    }
    world.repeated.then(|| format!("repeated: a loaded row was streamed: {world:#?}"))
}

/// Whether the present owner has nothing left to do, and nothing is under way.
fn is_over(world: &World, faults: &Faults) -> bool {
    let is_done = |owner: &Owner| {
        owner.generation == world.generation
            && !owner.sees(world.log)
            && owner.is_done(world.committed, faults)
    };
    memory::is_idle(world) && world.wire.is_empty() && world.owners.iter().any(is_done)
}

fn fault_at_end(world: &World) -> Option<String> {
    let lost = (0..RECORDS).find(|record| world.stored(*record) == 0);
    lost.map(|record| format!("lost: {record} at the end: {world:#?}"))
}

/// Everything that can happen next.
fn next(world: &World, faults: &Faults) -> Vec<World> {
    let mut found = Vec::new();
    trouble(world, faults, &mut found);
    for index in 0..world.owners.len() {
        steps(world, index, faults, &mut found);
    }
    for index in 0..world.wire.len() {
        deliver(world, index, faults, &mut found);
    }
    for index in 0..world.jobs.len() {
        finish(world, index, faults, &mut found);
    }
    found
}

const REBALANCES: usize = 0;
const DEATHS: usize = 1;
const NETWORK: usize = 2;
const FAILURES: usize = 3;

impl World {
    fn stored(&self, record: u8) -> u8 {
        let (log, record) = (memory::has(self.log, record), usize::from(record));
        self.loaded[usize::from(log)][record] + self.streamed[record]
    }

    pub(super) fn commit(&mut self, what: Committed) {
        self.committed = what;
        self.committed_max = self.committed_max.max(what.offset);
    }

    pub(super) fn hand_over(&mut self) {
        self.generation += 1;
        self.owners.push(Owner::new(self.generation));
    }

    /// Who waits for the answer to this request.
    fn asker(&mut self, owner: u8, id: JobId) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|known| known.generation == owner && known.waits_for(id))
    }
}

fn trouble(world: &World, faults: &Faults, found: &mut Vec<World>) {
    if let Some(mut next) = spend(world, REBALANCES, faults.rebalances) {
        next.hand_over();
        found.push(next);
    }
    for (index, owner) in world.owners.iter().enumerate() {
        if let Some(mut next) = spend(world, DEATHS, faults.deaths) {
            next.owners.remove(index);
            if owner.generation == world.generation {
                next.hand_over();
            }
            found.push(next);
        }
    }
    memory::trouble(world, faults, found);
}

fn deliver(world: &World, index: usize, faults: &Faults, found: &mut Vec<World>) {
    let mut next = world.clone();
    match next.wire.remove(index) {
        Message::Commit { owner, what } => {
            let is_earlier = |message: &Message| matches!(message, Message::Commit { owner: other, .. } if *other == owner);
            if !faults.reordered && world.wire[..index].iter().any(is_earlier) {
                return;
            }
            if owner == world.generation || faults.restamped {
                next.commit(what);
            }
            found.push(next);
        }
        Message::Insert { owner, job } => {
            // Its client gives up and asks again; this one arrives later.
            if next.asker(owner, job.id).is_some() {
                found.extend(spend(world, NETWORK, faults.network).map(|mut world| {
                    world.wire.push(Message::Insert { owner, job });
                    world
                }));
            }
            if !next.jobs.iter().any(|known| known.id == job.id) {
                next.jobs.push(job);
                next.jobs.sort_unstable();
            }
            if let Some(owner) = next.asker(owner, job.id) {
                owner.answered(job.id);
            }
            found.push(next);
        }
    }
}

/// A job ends.
fn finish(world: &World, index: usize, faults: &Faults, found: &mut Vec<World>) {
    let job = world.jobs[index];
    if job.state != JobState::Active {
        return;
    }
    if let Some(mut next) = spend(world, FAILURES, faults.failures) {
        next.jobs[index].state = JobState::Failed;
        found.push(next);
    }
    let mut next = world.clone();
    next.jobs[index].state = JobState::Loaded;
    for record in (0..RECORDS).filter(|record| job.rows & (1 << record) != 0) {
        let log = memory::has(job.log, record);
        next.loaded[usize::from(log)][usize::from(record)] += 1;
    }
    found.push(next);
}
