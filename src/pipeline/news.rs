//! Rows that wait for a column go as soon as the write path is known to have it.

use crate::{
    delivery::{core::Core, encoder::NeedId},
    pipeline::encoder::TopicEncoder,
    write::storage::news::SchemaNews,
};

/// Has tables that BigQuery told of since `seen` looked at again where rows wait for them: what kept the rows
/// back may have passed.
pub fn follow(core: &mut Core<TopicEncoder>, news: &SchemaNews, seen: &mut u64) {
    for table in news.since(seen) {
        let encoder = core.encoder();
        let waits_for = |need: &NeedId| encoder.table_of_need(*need).as_ref() == Some(&table);
        let needs: Vec<NeedId> = core.needs().map(|(need, _)| need).filter(waits_for).collect();
        for need in needs {
            core.look_again(need);
        }
    }
}
