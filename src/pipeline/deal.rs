//! Which worker takes a lane.

use std::hash::BuildHasher;

use crate::record::TopicPartition;

/// The worker, of `workers`, that takes `lane` while the lanes in hand are with the workers `held`:
/// the one that the lane's name hashes to, so that a returning lane finds its plans there, or, if
/// that one has its equal share already, the next that has not (consistent hashing with bounded
/// loads, Mirrokni et al. 2016): few lanes would else leave a CPU idle.
pub(crate) fn deal(
    lane: &TopicPartition,
    held: impl Iterator<Item = usize>,
    workers: usize,
) -> usize {
    let mut loads = vec![0; workers.max(1)];
    let mut lanes = 1_usize;
    for worker in held {
        lanes += 1;
        if let Some(load) = loads.get_mut(worker) {
            *load += 1;
        }
    }
    let share = lanes.div_ceil(loads.len());
    let hash = foldhash::fast::FixedState::default().hash_one(lane);
    let preferred = (hash % loads.len() as u64) as usize;
    let (before, from) = loads.split_at_checked(preferred).unwrap_or((&[], &loads));
    let free = |load: &usize| *load < share;
    from.iter()
        .position(free)
        .map(|step| preferred + step)
        .or_else(|| before.iter().position(free))
        .unwrap_or(preferred)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(partition: i32) -> TopicPartition {
        TopicPartition::new("shop.orders", partition)
    }

    #[test]
    fn no_worker_has_more_than_its_share() {
        for workers in 1..9 {
            let mut dealt = Vec::new();
            for partition in 0..40 {
                dealt.push(deal(&lane(partition), dealt.iter().copied(), workers));
                let load = |worker| dealt.iter().filter(|held| **held == worker).count();
                let most = (0..workers).map(load).max().unwrap();
                assert!(most <= dealt.len().div_ceil(workers), "{dealt:?}");
            }
        }
    }

    #[test]
    fn a_lane_comes_back_to_its_worker_where_there_is_room() {
        let alone = |partition| deal(&lane(partition), std::iter::empty(), 4);
        let firsts: Vec<_> = (0..40).map(alone).collect();
        assert!((0..4).all(|worker| firsts.contains(&worker)), "{firsts:?}");
        // The other three workers have one lane each, and this one none.
        let others = |own| (0..4).filter(move |worker| *worker != own);
        assert!((0..40).all(|partition| {
            let own = alone(partition);
            deal(&lane(partition), others(own), 4) == own
        }));
    }
}
