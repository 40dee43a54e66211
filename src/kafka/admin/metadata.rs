//! How long a string the brokers keep beside a committed offset.

use std::time::{Duration, Instant};

use rdkafka::{
    TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};

use super::{AskError, Cluster, SETTLING_WAIT, TIMEOUT, is_settling, list};
use crate::{kafka::ffi, record::TopicPartition};

/// What the brokers keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The longest string that was taken, in bytes.
    pub bytes: usize,
    /// Whether it was read again as it was committed.
    pub is_whole: bool,
}

const QUESTION: &str = "how long a commit's metadata may be";

impl Cluster {
    /// Finds the longest metadata up to `bytes_max` by commits for a lane, in this client's group, which must have
    /// no members. The offset stays as it is, or becomes 0; the metadata end empty. `likely` is tried first;
    /// `tell` hears of each commit: bytes, answer, time.
    ///
    /// # Errors
    ///
    /// [`AskError`] if a commit is answered with anything else than that the metadata are too long.
    pub fn longest_metadata(
        &self,
        lane: &TopicPartition,
        likely: usize,
        bytes_max: usize,
        tell: &mut dyn FnMut(usize, &str, Duration),
    ) -> Result<Limit, AskError> {
        let positions = self.positions(std::slice::from_ref(lane))?;
        let offset = positions.get(lane).and_then(|position| position.committed).unwrap_or(0);
        let mut commit = |bytes: usize| {
            let asked = Instant::now();
            let answer = self.commit_metadata(lane, offset, &"m".repeat(bytes));
            let told = match &answer {
                Ok(true) => "taken".to_owned(),
                Ok(false) => Code::OffsetMetadataTooLarge.to_string(),
                Err(error) => error.source.to_string(),
            };
            tell(bytes, &told, asked.elapsed());
            answer
        };
        let (mut taken, mut refused) = (0, bytes_max.saturating_add(1));
        let mut next = likely.min(bytes_max);
        while refused - taken > 1 {
            match commit(next)? {
                true => taken = next,
                false => refused = next,
            }
            // Most brokers have the usual limit, or none that this client could reach.
            next = match taken == likely && refused > bytes_max {
                true => likely.saturating_add(1),
                false if refused > bytes_max => bytes_max,
                false => taken + (refused - taken) / 2,
            };
        }
        let is_whole = commit(taken)? && self.committed_bytes(lane)? == taken;
        commit(0)?;
        Ok(Limit { bytes: taken, is_whole })
    }

    /// Commits; whether it was taken, or the metadata are too long.
    fn commit_metadata(
        &self,
        lane: &TopicPartition,
        offset: i64,
        metadata: &str,
    ) -> Result<bool, AskError> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let mut request = TopicPartitionList::with_capacity(1);
            let mut element = request.add_partition(&lane.topic, lane.partition);
            let refused = |source| self.unanswered(QUESTION, source);
            element.set_offset(Offset::Offset(offset)).map_err(refused)?;
            element.set_metadata(metadata);
            let answer = ffi::commit(&self.client, &request);
            let own = answer.elements.iter().find_map(|element| element.error);
            match own.or(answer.error).map(KafkaError::ConsumerCommit) {
                None => return Ok(true),
                Some(KafkaError::ConsumerCommit(Code::OffsetMetadataTooLarge)) => return Ok(false),
                Some(error) if is_settling(&error) && Instant::now() < end => {
                    std::thread::sleep(SETTLING_WAIT);
                }
                Some(error) => return Err(self.unanswered(QUESTION, error)),
            }
        }
    }

    /// How many bytes of metadata stand beside the committed offset.
    fn committed_bytes(&self, lane: &TopicPartition) -> Result<usize, AskError> {
        let asked = list(std::slice::from_ref(lane), Offset::Invalid)?;
        let asked = self.client.committed_offsets(asked, TIMEOUT);
        let found = asked.map_err(|error| self.unanswered(QUESTION, error))?;
        Ok(ffi::elements(&found).first().map_or(0, |element| element.metadata.len()))
    }
}
