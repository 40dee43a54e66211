//! Where a chain ends: what earlier owners' jobs have brought is not staged again.

use std::time::Instant;

use super::wait;
use crate::{
    delivery::{
        action::{Action, ChainKey},
        chain::{Chain, Place},
        core::{Core, Place as RecordPlace, Timer},
        encoder::Encoder,
    },
    fault::Fault,
    record::Record,
    write::load::chain::{BASE, Slot},
};

impl<E: Encoder> Core<E> {
    /// Whether a record's row is to go its way now. Otherwise it is in the table already, or put aside
    /// until the chain's end is known.
    pub(in crate::delivery::core) fn admit(
        &mut self,
        key: ChainKey,
        place: RecordPlace,
        record: &Record<'_>,
    ) -> bool {
        if self.chains.get(&key).is_some_and(|chain| chain.is_new(record.offset)) {
            return true;
        }
        let Some(chain) = self.chain(key) else { return true };
        match chain.place {
            Place::End(_) if chain.is_new(record.offset) => return true,
            Place::End(_) => {
                self.resolve(place, 1, record.bytes());
                return false;
            }
            Place::Unknown(_) | Place::Sought(_) => {}
        }
        let before = chain.waiting.memory_bytes();
        chain.waiting.push_unencoded(place.lane, place.span, record);
        let after = chain.waiting.memory_bytes();
        self.recharge(before, after);
        self.locate(key);
        false
    }

    fn chain(&mut self, key: ChainKey) -> Option<&mut Chain> {
        if !self.chains.contains_key(&key) {
            let lane = self.lanes.get(&key.lane)?;
            let facts = self.encoder.chain(&lane.origin, key.table)?;
            let node = lane.nodes.get(facts.id.short()).copied().unwrap_or(BASE);
            let suspicion = self.suspicions.get(&(lane.lane.clone(), key.table));
            let suspicion = suspicion.copied().unwrap_or_default();
            self.chains.insert(key, Chain::new(facts, node, suspicion));
        }
        self.chains.get_mut(&key)
    }

    /// Asks the driver for the chain's end, once.
    pub(in crate::delivery::core) fn locate(&mut self, key: ChainKey) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        let Place::Unknown(from) = chain.place else { return };
        chain.place = Place::Sought(from);
        let (chain, table) = (chain.facts.id.clone(), chain.facts.table.clone());
        self.actions.push_back(Action::Locate { key, chain, table, from });
    }

    /// The answer to `Action::Locate`.
    pub fn located(&mut self, key: ChainKey, result: Result<Slot, Fault>, now: Instant) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        match result {
            Ok(slot) => {
                (chain.place, chain.fault, chain.attempts) = (Place::End(slot), None, 0);
                let waiting = std::mem::take(&mut chain.waiting);
                self.note_node(key);
                for row in waiting.rows() {
                    let Some(lane) = self.lanes.get(&row.lane) else { break };
                    let record = waiting.record(row);
                    let route = self.encoder.route(&lane.origin, &record);
                    let place = RecordPlace { lane: row.lane, span: row.span };
                    self.place(place, &record, route, now);
                }
                self.release_memory(waiting.memory_bytes());
                self.close_owed();
            }
            Err(fault) => {
                chain.place = Place::Unknown(Slot::at(chain.node()));
                chain.attempts += 1;
                let wait = wait(&self.settings, &fault, chain.attempts, u64::from(key.lane.0));
                chain.fault = Some(fault);
                self.at(now + wait, Timer::Locate(key));
            }
        }
        self.flow(now);
    }

    /// The lane's next commit says how far the chain is.
    pub(super) fn note_node(&mut self, key: ChainKey) {
        let (Some(chain), Some(lane)) = (self.chains.get(&key), self.lanes.get_mut(&key.lane))
        else {
            return;
        };
        if chain.facts.is_pending {
            return;
        }
        lane.nodes.insert(chain.facts.id.short().to_owned(), chain.node());
    }
}
