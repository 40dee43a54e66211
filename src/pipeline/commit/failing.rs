//! What keeps commits from landing: told once for each cause, and once when it has passed. A cluster
//! that is away fails every commit of every lane.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::fault::Fault;

/// Causes that are told of one failing.
const CAUSES_MAX: usize = 8;

/// Since when commits have failed, and why.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    since: Option<Instant>,
    causes: Vec<String>,
}

/// Something to tell.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// Commits fail for a cause that was not told yet.
    Failing {
        /// The first such fault.
        fault: &'a Fault,
        /// How many lanes it keeps back.
        lanes: usize,
    },
    /// All commits land again.
    Passed {
        /// How long some did not.
        after: Duration,
    },
}

impl Failing {
    /// Takes one round's faults, one for each lane that was not committed.
    pub(crate) fn round<'a>(
        &mut self,
        faults: impl IntoIterator<Item = &'a Fault>,
        now: Instant,
    ) -> Vec<News<'a>> {
        let mut causes: BTreeMap<&str, (&Fault, usize)> = BTreeMap::new();
        for fault in faults {
            causes.entry(&fault.reason).or_insert((fault, 0)).1 += 1;
        }
        if causes.is_empty() {
            self.causes.clear();
            let passed = |since| News::Passed { after: now.saturating_duration_since(since) };
            return self.since.take().map(passed).into_iter().collect();
        }
        self.since.get_or_insert(now);
        let mut news = Vec::new();
        for (cause, (fault, lanes)) in causes {
            if self.causes.len() < CAUSES_MAX && !self.causes.iter().any(|told| told == cause) {
                self.causes.push(cause.to_owned());
                news.push(News::Failing { fault, lanes });
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    fn fault(reason: &str) -> Fault {
        Fault::unknown(FaultKind::Transient, reason, "no answer")
    }

    #[test]
    fn each_cause_is_told_once_and_the_end_once() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        assert!(failing.round([], start).is_empty(), "nothing was wrong");
        let faults = [fault("a"), fault("b"), fault("a")];
        let told = failing.round(&faults, start);
        let told: Vec<_> = told
            .iter()
            .map(|news| match news {
                News::Failing { fault, lanes } => (fault.reason.as_str(), *lanes),
                News::Passed { .. } => ("passed", 0),
            })
            .collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
        for _ in 0..100 {
            assert!(failing.round(&faults, start).is_empty());
        }
        let end = start + Duration::from_secs(7);
        let told = failing.round([], end);
        assert!(matches!(told[..], [News::Passed { after }] if after.as_secs() == 7), "{told:?}");
        assert!(failing.round([], end).is_empty());
        assert_eq!(failing.round(&faults, end).len(), 2, "what fails next is told again");
    }

    #[test]
    fn causes_are_not_told_without_end() {
        let mut failing = Failing::default();
        let faults: Vec<Fault> = (0..100).map(|n| fault(&n.to_string())).collect();
        assert_eq!(failing.round(&faults, Instant::now()).len(), CAUSES_MAX);
    }
}
