//! The poll loop's view of the lanes it was given.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use super::read_failure::Failing;
use crate::{
    committer::Fingerprint,
    record::TopicPartition,
    source::{Epoch, OwnedLane},
};

/// A lane's state. It leaves the map when it is revoked or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The committed offset and the watermarks are being asked for.
    Recovering(Recovering),
    /// Records flow; the lane is part of librdkafka's assignment.
    Running(Running),
    /// The lane stands still for a reason that was reported; a person must act.
    Halted,
}

/// See [`State::Recovering`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovering {
    /// How often it failed so far.
    pub failures: u32,
    /// When to ask again; `None` while a question is under way.
    pub due: Option<Instant>,
    /// Where it was, if it was running already: the handler knows it, and is not told again.
    pub own: Option<Own>,
}

/// Where a lane was when its offset turned out to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its next offset.
    pub next: i64,
    /// Whether the handler has paused it.
    pub paused: bool,
}

/// See [`State::Running`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The next offset to deliver: what comes below is dropped.
    pub next: i64,
    /// A record below `next` that is compared when it comes by.
    pub verify: Option<Fingerprint>,
    /// Whether the handler has paused the lane.
    pub paused: bool,
    /// Set after an error: the client's position is not trusted until it was sought back to `next`
    /// at this time; until then all that comes is dropped.
    pub rewind: Option<Instant>,
    /// Reading has failed since the last record.
    pub failing: Option<Failing>,
}

impl Running {
    /// A lane that begins at `next`.
    pub fn at(next: i64) -> Self {
        Self { next, verify: None, paused: false, rewind: None, failing: None }
    }
}

/// One assigned lane.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its assignment.
    pub epoch: Epoch,
    /// Its state.
    pub state: State,
}

/// All assigned lanes.
#[derive(Debug, Default)]
pub struct Lanes {
    map: HashMap<TopicPartition, Lane>,
    last_epoch: Epoch,
}

impl Lanes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Adds newly assigned lanes as recovering, each under an epoch of its own.
    pub fn assign(&mut self, lanes: Vec<TopicPartition>) -> Vec<OwnedLane> {
        let mut owned = Vec::with_capacity(lanes.len());
        for lane in lanes {
            self.last_epoch += 1;
            let epoch = self.last_epoch;
            let state = State::Recovering(Recovering::default());
            self.map.insert(lane.clone(), Lane { epoch, state });
            owned.push(OwnedLane { lane, epoch });
        }
        owned
    }

    /// All of them.
    pub fn all(&self) -> Vec<OwnedLane> {
        let of = |(lane, held): (&TopicPartition, &Lane)| OwnedLane {
            lane: lane.clone(),
            epoch: held.epoch,
        };
        self.map.iter().map(of).collect()
    }

    /// Those of `lanes` that are assigned.
    pub fn owned(&self, lanes: &[TopicPartition]) -> Vec<OwnedLane> {
        let of = |lane: &TopicPartition| {
            self.map.get(lane).map(|held| OwnedLane { lane: lane.clone(), epoch: held.epoch })
        };
        lanes.iter().filter_map(of).collect()
    }

    /// Removes lanes; returns those that are part of librdkafka's assignment.
    pub fn remove(&mut self, lanes: &[OwnedLane]) -> Vec<TopicPartition> {
        let removed = lanes.iter().filter_map(|owned| {
            let lane = self.map.remove(&owned.lane)?;
            matches!(lane.state, State::Running(_)).then(|| owned.lane.clone())
        });
        removed.collect()
    }

    /// The lane, whatever its assignment.
    pub fn get_mut(&mut self, lane: &TopicPartition) -> Option<&mut Lane> {
        self.map.get_mut(lane)
    }

    /// The lane under this very assignment.
    pub fn owned_mut(&mut self, owned: &OwnedLane) -> Option<&mut Lane> {
        self.map.get_mut(&owned.lane).filter(|lane| lane.epoch == owned.epoch)
    }

    /// The lane under this very assignment, if it is running.
    pub fn running_mut(&mut self, owned: &OwnedLane) -> Option<&mut Running> {
        match self.owned_mut(owned) {
            Some(Lane { state: State::Running(running), .. }) => Some(running),
            _ => None,
        }
    }

    /// The running lanes of these topics, each with its next offset.
    pub fn running_of(&self, topics: &BTreeSet<Arc<str>>) -> Vec<(TopicPartition, i64)> {
        let running = self.map.iter().filter_map(|(lane, held)| match &held.state {
            State::Running(running) if topics.contains(&lane.topic) => {
                Some((lane.clone(), running.next))
            }
            _ => None,
        });
        running.collect()
    }

    /// Marks the lane as paused, or as to go on at `resume`; returns whether the client has to be
    /// told, which it need not where the lane is paused already or recovering.
    pub fn set_flow(&mut self, owned: &OwnedLane, resume: Option<i64>) -> bool {
        let (paused, next, running) = match self.owned_mut(owned).map(|lane| &mut lane.state) {
            Some(State::Running(running)) => (&mut running.paused, &mut running.next, true),
            Some(State::Recovering(Recovering { own: Some(own), .. })) => {
                (&mut own.paused, &mut own.next, false)
            }
            _ => return false,
        };
        // A resume is carried out in any case: records may have been refused since a pause that never
        // got here because its end came before it was asked for.
        if *paused && resume.is_none() {
            return false;
        }
        *paused = resume.is_none();
        *next = resume.unwrap_or(*next);
        running
    }

    /// Lanes whose recovery is due, marked as under way, each with its own next offset.
    pub fn take_due(&mut self, now: Instant) -> Vec<(OwnedLane, Option<i64>)> {
        let mut due = Vec::new();
        for (lane, held) in &mut self.map {
            if let State::Recovering(recovering) = &mut held.state
                && recovering.due.is_some_and(|at| at <= now)
            {
                recovering.due = None;
                let own = recovering.own.map(|own| own.next);
                due.push((OwnedLane { lane: lane.clone(), epoch: held.epoch }, own));
            }
        }
        due
    }

    /// Takes the failures from lanes that were tried again without another one; those among them that
    /// had been said to stand.
    pub fn take_read_again(&mut self, now: Instant) -> Vec<OwnedLane> {
        let over = self.map.iter_mut().filter_map(|(lane, held)| {
            let State::Running(running) = &mut held.state else { return None };
            // Of a paused lane nothing is fetched: it cannot fail.
            let is_over = !running.paused && running.failing.as_ref()?.is_over(now);
            let failing = if is_over { running.failing.take()? } else { return None };
            let owned = OwnedLane { lane: lane.clone(), epoch: held.epoch };
            failing.lasts().then_some(owned)
        });
        over.collect()
    }

    /// Running lanes whose rewind is due, with the offset to seek to.
    pub fn rewinds_due(&self, now: Instant) -> Vec<(OwnedLane, i64)> {
        let due = self.map.iter().filter_map(|(lane, held)| match &held.state {
            State::Running(running) if running.rewind.is_some_and(|at| at <= now) => {
                Some((OwnedLane { lane: lane.clone(), epoch: held.epoch }, running.next))
            }
            _ => None,
        });
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_goes_back_even_if_its_pause_never_came() {
        let mut lanes = Lanes::default();
        let [owned] = lanes.assign(vec![TopicPartition::new("t", 0)]).try_into().unwrap();
        let running = Running::at(9);
        lanes.owned_mut(&owned).unwrap().state = State::Running(running);
        let next = |lanes: &mut Lanes| lanes.running_mut(&owned).map(|running| running.next);
        assert!(lanes.set_flow(&owned, Some(5)));
        assert_eq!(next(&mut lanes), Some(5));
        assert!(lanes.set_flow(&owned, None));
        assert!(!lanes.set_flow(&owned, None), "it is paused already");
        assert!(lanes.set_flow(&owned, Some(7)));
        assert_eq!(next(&mut lanes), Some(7));
    }

    #[test]
    fn a_lane_that_came_back_is_untouched_by_what_is_said_of_its_earlier_assignment() {
        let lane = TopicPartition::new("t", 0);
        let mut lanes = Lanes::default();
        let [first] = lanes.assign(vec![lane.clone()]).try_into().unwrap();
        lanes.remove(std::slice::from_ref(&first));
        let [second] = lanes.assign(vec![lane]).try_into().unwrap();
        let running = Running::at(9);
        lanes.owned_mut(&second).unwrap().state = State::Running(running.clone());
        // A cooperative rebalance that brings nothing new is an assignment, too.
        assert!(lanes.assign(Vec::new()).is_empty());
        assert!(!lanes.set_flow(&first, None) && !lanes.set_flow(&first, Some(2)));
        assert!(lanes.running_mut(&first).is_none());
        assert_eq!(lanes.running_mut(&second), Some(&mut running.clone()));
    }
}
