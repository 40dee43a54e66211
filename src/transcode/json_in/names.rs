//! Finding a field by its name, and noticing one that comes twice.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;

use crate::transcode::{
    json_in::tokens::Tokens,
    scan::{self, CHUNK},
};

/// How many fields that may have been left out are passed before a name is looked up.
const GAP: usize = 3;

/// A key as nearly all writers spell it: quoted, without escapes, the colon behind it.
#[derive(Debug)]
pub struct SpelledKey {
    head: [u8; CHUNK],
    tail: [u8; CHUNK],
    size: usize,
    /// Ones where `head` and `tail` go beyond the key.
    beyond: (u32, u32),
}

impl SpelledKey {
    /// What no UTF-8 begins with.
    const NEVER: Self =
        Self { head: [0xff; CHUNK], tail: [0xff; CHUNK], size: CHUNK, beyond: (0, 0) };

    /// Spells `name`; as what is never found where it is longer than two chunks or writers differ.
    fn new(name: Option<&str>) -> Self {
        let is_clean = |name: &&str| scan::clean_prefix(name.as_bytes()) == name.len();
        name.filter(is_clean).and_then(Self::of_clean).unwrap_or(Self::NEVER)
    }

    fn of_clean(name: &str) -> Option<Self> {
        let spelled = format!("\"{name}\":");
        let mut bytes = [[0; CHUNK]; 2];
        bytes.as_flattened_mut().get_mut(..spelled.len())?.copy_from_slice(spelled.as_bytes());
        let [head, tail] = bytes;
        let beyond = u64::from(u32::MAX) << spelled.len();
        let (low, high) = (beyond & 0xffff, beyond >> 16 & 0xffff);
        // Both have sixteen bits.
        Some(Self { head, tail, size: spelled.len(), beyond: (low as u32, high as u32) })
    }

    /// Whether `text` begins with the key, and a chunk or two can be read of it.
    #[inline(always)]
    pub fn begins(&self, text: &[u8]) -> bool {
        let Some((head, after)) = text.split_first_chunk() else { return false };
        if !scan::is_same(head, &self.head, self.beyond.0) {
            return false;
        }
        self.size <= CHUNK
            || after
                .first_chunk()
                .is_some_and(|tail| scan::is_same(tail, &self.tail, self.beyond.1))
    }

    /// How many bytes it takes.
    #[inline(always)]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Names and their positions.
#[derive(Debug)]
pub struct NameIndex {
    names: Box<[Option<Arc<str>>]>,
    spelled: Box<[SpelledKey]>,
    positions: HashMap<Arc<str>, usize, RandomState>,
    /// Which position came last after each, that before the first included. No more than a guess, so that it does
    /// not matter which thread's record it comes from.
    next: Box<[AtomicUsize]>,
}

impl NameIndex {
    /// Indexes `names` by their order; a position without a name cannot be found.
    pub fn new(names: impl IntoIterator<Item = Option<Arc<str>>>) -> Self {
        let names: Box<[Option<Arc<str>>]> = names.into_iter().collect();
        let spelled = names.iter().map(|name| SpelledKey::new(name.as_deref())).collect();
        let next = (0..=names.len()).map(AtomicUsize::new).collect();
        let named = names.iter().enumerate();
        let positions =
            named.filter_map(|(position, name)| Some((name.clone()?, position))).collect();
        Self { names, spelled, positions, next }
    }

    /// The position of `name`, looked for first at `hint`, which is one more than the position of the key before.
    pub fn find(&self, name: &str, hint: usize) -> Option<usize> {
        let is_next = self.names.get(hint).is_some_and(|next| next.as_deref() == Some(name));
        let position = if is_next { hint } else { self.positions.get(name).copied()? };
        if let Some(next) = self.next.get(hint)
            && next.load(Relaxed) != position
        {
            next.store(position, Relaxed);
        }
        Some(position)
    }

    /// The position of the key that comes next, consumed with its colon, if it is spelled as usual and comes where
    /// it did in a record before, or soon after it. Otherwise nothing is consumed, and the key may be any. `hint`
    /// is as for [`find`](Self::find).
    #[inline(always)]
    pub fn take(&self, tokens: &mut Tokens<'_>, hint: usize) -> Option<usize> {
        let guess = self.next.get(hint)?.load(Relaxed);
        if tokens.take_key(self.spelled.get(guess)?) {
            return Some(guess);
        }
        self.take_later(tokens, guess)
    }

    /// The same where the field at `guess` was left out.
    #[inline(never)]
    fn take_later(&self, tokens: &mut Tokens<'_>, mut guess: usize) -> Option<usize> {
        for _ in 0..GAP {
            guess = self.next.get(guess + 1)?.load(Relaxed);
            if tokens.take_key(self.spelled.get(guess)?) {
                return Some(guess);
            }
        }
        None
    }
}

/// Which positions have been seen. Allocates only beyond 128 of them.
#[derive(Debug, Default)]
pub struct Seen {
    low: [u64; 2],
    high: Vec<u64>,
}

impl Seen {
    /// Marks `position`; false if it was marked already.
    #[inline(always)]
    pub fn insert(&mut self, position: usize) -> bool {
        let bit = 1_u64 << (position % 64);
        let Some(bits) = self.low.get_mut(position / 64) else { return self.insert_high(position) };
        let new = *bits & bit == 0;
        *bits |= bit;
        new
    }

    #[inline(never)]
    fn insert_high(&mut self, position: usize) -> bool {
        let (word, bit) = (position / 64 - self.low.len(), 1_u64 << (position % 64));
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
        let mut words = self.low.iter().chain(&self.high);
        words.nth(position / 64).is_some_and(|bits| bits & 1 << (position % 64) != 0)
    }

    /// Whether all positions are marked that are marked in `other`.
    #[inline(always)]
    pub fn contains_all(&self, other: &Self) -> bool {
        let is_within = |(other, own): (&u64, &u64)| other & !own == 0;
        let mut high = other.high.iter().zip(self.high.iter().chain(std::iter::repeat(&0)));
        other.low.iter().zip(&self.low).all(is_within) && high.all(is_within)
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
    fn a_key_is_taken_only_if_it_is_soon_and_spelled_as_usual() {
        let names = ["a", "b\"", "twelve_bytes", "thirteen_byte", "fourteen_bytes", "é", "g", "h"];
        let long = "x".repeat(29);
        let names = names.into_iter().chain([&*long, "z"]);
        let index = NameIndex::new(names.map(|name| Some(Arc::from(name))));
        let take = |key: &str, hint| {
            let text = format!("{key}1, and more than a chunk, and another one");
            let mut tokens = Tokens::of(&text);
            let taken = index.take(&mut tokens, hint);
            assert_eq!(tokens.number().is_ok(), taken.is_some(), "{key}");
            taken
        };
        for (key, position) in [
            ("\"a\":", 0),
            ("\"twelve_bytes\":", 2),
            ("\"thirteen_byte\":", 3),
            ("\"fourteen_bytes\":", 4),
            ("\"é\":", 5),
            (&format!("\"{long}\":"), 8),
        ] {
            assert_eq!(take(key, position), Some(position), "{key}");
            assert_eq!(take(key, position.saturating_sub(GAP)), Some(position), "{key}");
            assert_eq!((take(key, position + 1), take(key, 99)), (None, None), "{key}");
        }
        assert_eq!(take("\"fourteen_bytes\":", 0), None);
        for other in
            ["\"b\"\":", "\"b\\\"\":", "\"\\u0061\":", "\"a\" :", "\"a", "\"fourteen_bytez\":"]
        {
            assert_eq!((0..9).find_map(|hint| take(other, hint)), None, "{other}");
        }
        assert_eq!(index.take(&mut Tokens::of("\"a\":1}"), 0), None);
    }

    #[test]
    fn another_order_is_learned_and_left_out_fields_do_not_disturb_it() {
        let index = NameIndex::new(["a", "b", "c", "d"].map(|name| Some(Arc::from(name))));
        // How many keys of an object with these members have to be looked up.
        let looked_up = |keys: &str| {
            let (mut hint, mut count) = (0, 0);
            for key in keys.chars() {
                let text = format!("\"{key}\":1, and more than a chunk");
                let position = index.take(&mut Tokens::of(&text), hint).unwrap_or_else(|| {
                    count += 1;
                    index.find(&key.to_string(), hint).unwrap()
                });
                assert_eq!("abcd".find(key), Some(position));
                hint = position + 1;
            }
            count
        };
        assert_eq!(["abcd", "bd", "a", "", "abcd"].map(looked_up), [0; 5]);
        assert_eq!(["dbca", "dbca", "dbca", "da", "dba", "ca"].map(looked_up), [2, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_missing_is_noticed_at_any_position() {
        let seen = |positions: &[usize]| {
            let mut seen = Seen::default();
            assert!(positions.iter().all(|position| seen.insert(*position)));
            seen
        };
        let all = seen(&[0, 100, 128, 300]);
        assert!(all.contains_all(&seen(&[])) && all.contains_all(&seen(&[0, 300])));
        for missing in [1, 127, 129, 299, 301, 5_000] {
            assert!(!all.contains_all(&seen(&[0, missing])), "{missing}");
        }
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
