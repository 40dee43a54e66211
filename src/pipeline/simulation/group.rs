//! The group coordinator: members, generations, a cooperative sticky assignment, commits.
//!
//! A commit is accepted by membership and generation, as Kafka does it, and not by ownership. Who may
//! commit a lane is written down beside it, for the checker.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::TopicPartition;

/// A member's id; every join of a new incarnation gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberId(pub u64);

#[derive(Debug)]
struct Member {
    seen_ms: u64,
    /// What it claimed when it joined the rebalance under way.
    joined: Option<BTreeSet<TopicPartition>>,
    assigned: BTreeSet<TopicPartition>,
}

/// What a heartbeat tells the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing new, under this generation.
    Stable(i32),
    /// A rebalance is under way: join.
    Rebalance,
    /// The group goes on without this member.
    Unknown,
    /// No answer.
    Away,
}

/// What the coordinator says to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Durable.
    Accepted,
    /// Another generation.
    IllegalGeneration,
    /// No such member.
    UnknownMember,
}

/// The coordinator's state.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: BTreeMap<MemberId, Member>,
    generation: i32,
    /// When the rebalance under way ends without those that have not joined.
    rebalance_until: Option<u64>,
    last_member: u64,
    /// Who may commit a lane: its owner until it has given it up.
    pub(crate) holder: BTreeMap<TopicPartition, MemberId>,
    /// The committed offsets, with their metadata.
    pub(crate) committed: BTreeMap<TopicPartition, (i64, String)>,
    /// Until when the coordinator does not answer.
    pub(crate) away_until: u64,
    /// Lanes that the next assignment moves, whatever balance says.
    pub(crate) shuffle: BTreeSet<TopicPartition>,
}

/// What an advance of time did.
#[derive(Debug, Default)]
pub(crate) struct Advanced {
    /// Members that were put out, with the lanes they held.
    pub(crate) evicted: Vec<(MemberId, Vec<TopicPartition>)>,
    /// Whether a new generation began.
    pub(crate) rebalanced: bool,
}

impl Group {
    /// A new member, which has to join.
    pub(crate) fn enter(&mut self, now_ms: u64, rebalance_ms: u64) -> MemberId {
        self.last_member += 1;
        let id = MemberId(self.last_member);
        let member = Member { seen_ms: now_ms, joined: None, assigned: BTreeSet::new() };
        self.members.insert(id, member);
        self.rebalance(now_ms, rebalance_ms);
        id
    }

    /// A member says goodbye.
    pub(crate) fn leave(&mut self, id: MemberId, now_ms: u64, rebalance_ms: u64) {
        self.remove(id);
        self.rebalance(now_ms, rebalance_ms);
    }

    /// Starts a rebalance, unless one is under way.
    pub(crate) fn rebalance(&mut self, now_ms: u64, rebalance_ms: u64) {
        if self.rebalance_until.is_none() {
            self.rebalance_until = Some(now_ms + rebalance_ms);
            for member in self.members.values_mut() {
                member.joined = None;
            }
        }
    }

    /// A member's heartbeat.
    pub(crate) fn beat(&mut self, id: MemberId, now_ms: u64) -> Beat {
        if now_ms < self.away_until {
            return Beat::Away;
        }
        let Some(member) = self.members.get_mut(&id) else { return Beat::Unknown };
        member.seen_ms = now_ms;
        match self.rebalance_until {
            Some(_) => Beat::Rebalance,
            None => Beat::Stable(self.generation),
        }
    }

    /// A member joins the rebalance under way with the lanes it still owns.
    pub(crate) fn join(&mut self, id: MemberId, owned: BTreeSet<TopicPartition>) {
        for lane in self.held_by(id) {
            if !owned.contains(&lane) {
                self.holder.remove(&lane);
            }
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = Some(owned);
        }
    }

    /// Whether the member has joined the rebalance under way.
    pub(crate) fn has_joined(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.joined.is_some())
    }

    /// The member's lanes in the present generation.
    pub(crate) fn assignment(&self, id: MemberId) -> BTreeSet<TopicPartition> {
        self.members.get(&id).map(|member| member.assigned.clone()).unwrap_or_default()
    }

    /// Whether a commit of this member is taken.
    pub(crate) fn commit_verdict(&self, id: MemberId, generation: i32) -> Verdict {
        if !self.members.contains_key(&id) {
            Verdict::UnknownMember
        } else if generation != self.generation {
            Verdict::IllegalGeneration
        } else {
            Verdict::Accepted
        }
    }

    /// Lanes that this member may commit.
    pub(crate) fn held_by(&self, id: MemberId) -> Vec<TopicPartition> {
        let held = self.holder.iter().filter(|(_, holder)| **holder == id);
        held.map(|(lane, _)| lane.clone()).collect()
    }

    /// Sessions and rebalances that are over.
    pub(crate) fn advance(
        &mut self,
        now_ms: u64,
        session_ms: u64,
        rebalance_ms: u64,
        lanes: &BTreeSet<TopicPartition>,
    ) -> Advanced {
        let mut advanced = Advanced::default();
        if now_ms < self.away_until + session_ms {
            // A coordinator that was away gives everyone a new session.
            if self.away_until > now_ms {
                return advanced;
            }
        }
        let away = self.away_until;
        let silent = |member: &Member| member.seen_ms.max(away) + session_ms < now_ms;
        let gone: Vec<MemberId> =
            self.members.iter().filter(|(_, m)| silent(m)).map(|(id, _)| *id).collect();
        for id in gone {
            advanced.evicted.push((id, self.remove(id)));
            self.rebalance(now_ms, rebalance_ms);
        }
        if let Some(until) = self.rebalance_until {
            if now_ms >= until {
                let late = self.members.iter().filter(|(_, member)| member.joined.is_none());
                for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
                    advanced.evicted.push((id, self.remove(id)));
                }
            }
            if self.members.values().all(|member| member.joined.is_some()) {
                self.complete(lanes);
                advanced.rebalanced = true;
            }
        }
        advanced
    }

    fn remove(&mut self, id: MemberId) -> Vec<TopicPartition> {
        self.members.remove(&id);
        let held = self.held_by(id);
        for lane in &held {
            self.holder.remove(lane);
        }
        held
    }

    /// Members keep what they claimed as far as balance allows; what they lose goes to nobody yet
    /// (its owner gives it up and joins again), what nobody claimed goes to those with least.
    fn complete(&mut self, lanes: &BTreeSet<TopicPartition>) {
        self.generation += 1;
        self.rebalance_until = None;
        let Some(most) = lanes.len().checked_div(self.members.len()).map(|share| share + 1) else {
            return;
        };
        let mut free = lanes.clone();
        for member in self.members.values_mut() {
            let claimed = member.joined.take().unwrap_or_default();
            free.retain(|lane| !claimed.contains(lane));
            let keep = claimed.into_iter().filter(|lane| !self.shuffle.contains(lane));
            member.assigned = keep.take(most).collect();
        }
        self.shuffle.clear();
        for lane in free {
            let least = self.members.iter_mut().min_by_key(|(_, member)| member.assigned.len());
            if let Some((id, member)) = least {
                self.holder.insert(lane.clone(), *id);
                member.assigned.insert(lane);
            }
        }
    }
}
