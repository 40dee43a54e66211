//! The replicas: who is alive, who owns what, and the replacement of those who died.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{REPLICAS, Stage};
use crate::rig::{
    clients::Lane,
    sink::{LaneState, Sink},
};

/// How long joining and rebalancing may take.
const SETTLE: Duration = Duration::from_secs(90);

/// A replica, and what it will die of.
pub(crate) struct Replica {
    /// The process.
    pub(crate) sink: Sink,
    /// The failpoint that it was started with.
    pub(crate) failpoint: Option<String>,
    /// What `/status` last said.
    pub(crate) lanes: Vec<LaneState>,
}

/// All replicas.
pub(crate) struct Crew {
    /// Those that should be alive.
    pub(crate) replicas: Vec<Replica>,
    started: u32,
}

impl Crew {
    /// Starts the first replicas and waits until they own everything.
    pub(crate) fn start(stage: &Stage) -> Result<Self> {
        let mut crew = Self { replicas: Vec::new(), started: 0 };
        for _ in 0..REPLICAS {
            crew.add(stage, None)?;
        }
        crew.wait_settled(stage)?;
        Ok(crew)
    }

    /// Starts one more replica.
    pub(crate) fn add(&mut self, stage: &Stage, failpoint: Option<String>) -> Result<()> {
        self.started += 1;
        let name = format!("replica-{}", self.started);
        let sink = stage.start(self.started, &name, failpoint.as_deref())?;
        self.replicas.push(Replica { sink, failpoint, lanes: Vec::new() });
        Ok(())
    }

    /// Asks every replica for its lanes; one that does not answer keeps its last answer.
    pub(crate) fn look(&mut self, stage: &Stage) {
        for replica in &mut self.replicas {
            if let Ok(lanes) = replica.sink.lanes(&stage.http) {
                replica.lanes = lanes;
            }
        }
    }

    /// Waits until every lane has exactly one owner and every replica owns something.
    pub(crate) fn wait_settled(&mut self, stage: &Stage) -> Result<()> {
        let end = Instant::now() + SETTLE;
        loop {
            self.check_alive()?;
            self.look(stage);
            let mut owners: BTreeMap<&Lane, u32> = BTreeMap::new();
            for lane in self.replicas.iter().flat_map(|replica| &replica.lanes) {
                *owners.entry(&lane.lane).or_default() += 1;
            }
            let complete = stage.lanes.iter().all(|lane| owners.get(lane) == Some(&1));
            if complete && self.replicas.iter().all(|replica| !replica.lanes.is_empty()) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("after {SETTLE:?} the lanes are owned like this: {owners:?}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// A replica without a failpoint must never end by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            if replica.failpoint.is_none()
                && let Some(status) = replica.sink.exited()?
            {
                let (name, tail) = (replica.sink.name(), replica.sink.tail());
                bail!("VIOLATION: {name} ended by itself ({status})\n{tail}");
            }
        }
        Ok(())
    }

    /// The lanes that none but `victim` claims.
    pub(crate) fn lanes_left_by(&self, stage: &Stage, victim: usize) -> BTreeSet<Lane> {
        let survivors = self.replicas.iter().enumerate().filter(|(index, _)| *index != victim);
        let claimed: BTreeSet<&Lane> =
            survivors.flat_map(|(_, replica)| &replica.lanes).map(|lane| &lane.lane).collect();
        stage.lanes.iter().filter(|lane| !claimed.contains(lane)).cloned().collect()
    }

    /// Stops one replica by SIGTERM, which must end with 0.
    pub(crate) fn retire(&mut self, index: usize) -> Result<Replica> {
        let mut replica = self.replicas.remove(index);
        replica.sink.stop(Duration::from_secs(60))?;
        Ok(replica)
    }

    /// Stops all replicas by SIGTERM.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.check_alive()?;
        while !self.replicas.is_empty() {
            self.retire(0)?;
        }
        Ok(())
    }
}
