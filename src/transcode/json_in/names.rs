//! Finding a field by its name, and noticing one that comes twice.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

/// Names and their positions.
#[derive(Debug)]
pub struct NameIndex {
    names: Box<[Option<Arc<str>>]>,
    positions: HashMap<Arc<str>, usize, RandomState>,
}

impl NameIndex {
    /// Indexes `names` by their order; a position without a name cannot be found.
    pub fn new(names: impl IntoIterator<Item = Option<Arc<str>>>) -> Self {
        let names: Box<[Option<Arc<str>>]> = names.into_iter().collect();
        let named = names.iter().enumerate();
        let positions =
            named.filter_map(|(position, name)| Some((name.clone()?, position))).collect();
        Self { names, positions }
    }

    /// The position of `name`, looked for first at `hint`: fields mostly come in order.
    #[inline]
    pub fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if let Some(Some(expected)) = self.names.get(hint)
            && **expected == *name
        {
            return Some(hint);
        }
        self.positions.get(name).copied()
    }
}

/// Which positions have been seen. Allocates only beyond 128 of them.
#[derive(Debug, Default)]
pub struct Seen {
    low: u128,
    high: Vec<u64>,
}

impl Seen {
    /// Marks `position`; false if it was marked already.
    pub fn insert(&mut self, position: usize) -> bool {
        if position < 128 {
            let bit = 1_u128 << position;
            let new = self.low & bit == 0;
            self.low |= bit;
            return new;
        }
        let (word, bit) = ((position - 128) / 64, 1_u64 << (position % 64));
        if word >= self.high.len() {
            self.high.resize(word + 1, 0);
        }
        let Some(bits) = self.high.get_mut(word) else { return false };
        let new = *bits & bit == 0;
        *bits |= bit;
        new
    }

    /// Whether `position` is marked.
    pub fn contains(&self, position: usize) -> bool {
        if position < 128 {
            return self.low & (1 << position) != 0;
        }
        let bit = 1_u64 << (position % 64);
        self.high.get((position - 128) / 64).is_some_and(|bits| bits & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_any_hint() {
        let index = NameIndex::new(["a", "b"].map(|name| Some(Arc::from(name))));
        assert_eq!(
            (index.find("b", 0), index.find("b", 1), index.find("b", 9)),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!(index.find("c", 0), None);
    }

    #[test]
    fn a_second_time_is_noticed_at_any_position() {
        let mut seen = Seen::default();
        for position in [0, 127, 128, 191, 192, 5_000] {
            assert!(!seen.contains(position));
            assert!(seen.insert(position));
            assert!(!seen.insert(position));
            assert!(seen.contains(position));
        }
    }
}
