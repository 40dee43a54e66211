//! What the encoder wants to know again about a lane.

use std::sync::Arc;

use crate::{
    delivery::encoder::{BadRecordPolicy, TableIx},
    pipeline::settings::TopicSettings,
    record::TopicPartition,
    transcode::LaneLabel,
    write::insert_all::framing::LanePrefix,
};

/// A lane's settings and what is rendered once for all its rows.
#[derive(Debug)]
pub struct Origin {
    /// The lane.
    pub lane: TopicPartition,
    /// Its topic's id, or its own in place of one.
    pub topic_id: Option<String>,
    /// Its topic's settings.
    pub settings: Arc<TopicSettings>,
    /// Their number.
    pub settings_ix: u32,
    /// The metadata cells.
    pub label: LaneLabel,
    /// The start of every row, with the record's identity.
    pub prefix: LanePrefix,
    /// What is done with bad records.
    pub bad_records: BadRecordPolicy,
    /// The table, where it does not depend on the record.
    pub table: Option<TableIx>,
}

impl Origin {
    /// Renders a lane's origin. `identity` stands for the topic in every insertId.
    pub fn new(
        lane: &TopicPartition,
        settings: Arc<TopicSettings>,
        index: usize,
        identity: &str,
    ) -> Self {
        Self {
            lane: lane.clone(),
            topic_id: None,
            settings_ix: u32::try_from(index).unwrap_or(u32::MAX),
            label: LaneLabel::new(Arc::clone(&lane.topic), lane.partition),
            prefix: LanePrefix::new(identity, lane.partition),
            bad_records: BadRecordPolicy {
                dead_letter: settings.dead_letter.clone(),
                budget: settings.dead_letter_budget,
            },
            settings,
            table: None,
        }
    }
}
