//! A lane whose records cannot be read: how long to wait until the next try, when it is no passing
//! trouble any more, and what a person can do.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use super::inflate::Refusal;

/// The wait after the first failure.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait: when the cause is gone, reading goes on within this time.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// From this failure on without a record in between, the lane is said to stand.
const LASTING: u32 = 2;
/// The same where other batches take the memory, which they do for a while whenever BigQuery is slow.
const LASTING_WITHOUT_MEMORY: u32 = 6;
/// The broker answers a fetch within a fraction of a second, and librdkafka reports the same error again
/// after every seek (2.12.1, `rdkafka_fetcher.c`, `rktp_last_error`): a lane that reports none for so long
/// is read again, although there may be no record to show for it.
const QUIET: Duration = Duration::from_secs(5);

/// Failures of a lane without a record in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    failures: u32,
    /// Whether it is more than a passing trouble.
    lasts: bool,
    /// When it was tried again last, unless it has failed since.
    tried: Option<Instant>,
}

impl Failing {
    /// Counts one more; how long to wait.
    pub fn again(&mut self, refusal: Option<Refusal>) -> Duration {
        let wait = WAIT_MIN * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.tried = None;
        let lasting = match refusal {
            Some(Refusal::NoMemory) => LASTING_WITHOUT_MEMORY,
            _ => LASTING,
        };
        self.lasts |= self.failures >= lasting;
        wait.min(WAIT_MAX)
    }

    /// A try begins.
    pub fn tried(&mut self, now: Instant) {
        self.tried = Some(now);
    }

    /// Whether it is more than a passing trouble.
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// Whether the last try has gone well.
    pub fn is_over(&self, now: Instant) -> bool {
        self.tried.is_some_and(|at| now.saturating_duration_since(at) >= QUIET)
    }
}

/// An error of a read in words, and what a person can do about it. `refusal` is why the batch was not
/// decompressed, where that was decided here.
pub fn told(topic: &str, code: Code, message: &str, refusal: Option<Refusal>) -> (String, String) {
    let setting = "kafka.decompressed_bytes_max";
    match refusal.filter(|_| code == Code::BadCompression) {
        None => (message.to_owned(), remedy(topic, code)),
        Some(Refusal::TooLarge(bytes)) => (
            format!(
                "{message}: its records take {bytes} bytes or more in memory, which `{setting}` does not allow"
            ),
            format!(
                "set `{setting}` to {} or more, and raise the memory of the process by as much; or have the producer make smaller batches, and reset the group's offset behind this one",
                rounded(bytes)
            ),
        ),
        Some(Refusal::NoMemory) => (
            format!("{message}: other batches take the memory that `{setting}` allows"),
            format!(
                "it goes on once they are written; if this lasts, raise `{setting}` and the memory of the process"
            ),
        ),
    }
}

/// A bound is known to be too small, not by how much: somewhat more, in whole 16 MiB.
fn rounded(bytes: u64) -> u64 {
    const STEP: u64 = 16 << 20;
    bytes.saturating_add(bytes / 4).div_ceil(STEP).saturating_mul(STEP)
}

fn remedy(topic: &str, code: Code) -> String {
    match code {
        Code::TopicAuthorizationFailed => {
            format!("allow the service's Kafka user to read the topic `{topic}` (ACL `READ`)")
        }
        Code::BadMessage => "the broker's copy of a batch is damaged: let another replica of the partition \
             lead; if no replica has a good copy, stop all replicas of the service and reset the group's \
             offset behind the batch, whose records are then lost"
            .to_owned(),
        Code::BadCompression => "the batch cannot be decompressed: `kafka-dump-log.sh` on the broker shows \
             whether it is damaged; then stop all replicas of the service and reset the group's offset \
             behind the batch, whose records are then lost"
            .to_owned(),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            "raise `kafka.record_bytes_max` to the topic's `max.message.bytes`".to_owned()
        }
        _ => format!("look at the brokers' logs for the topic `{topic}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_short_enough_to_go_on_soon_after_the_cause_is_gone() {
        let mut failing = Failing::default();
        let waits: Vec<u128> = (0..7).map(|_| failing.again(None).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    }

    #[test]
    fn a_failure_lasts_from_the_second_one_on_and_is_over_after_a_quiet_try() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        failing.again(None);
        assert!(!failing.lasts());
        failing.again(None);
        assert!(failing.lasts());
        assert!(!failing.is_over(now + QUIET), "it was not tried since");
        failing.tried(now);
        assert!(!failing.is_over(now + QUIET / 2));
        assert!(failing.is_over(now + QUIET));
        failing.again(None);
        assert!(!failing.is_over(now + QUIET));
        let mut waiting = Failing::default();
        for _ in 1..LASTING_WITHOUT_MEMORY {
            waiting.again(Some(Refusal::NoMemory));
        }
        assert!(!waiting.lasts(), "others are worked off first");
        waiting.again(Some(Refusal::NoMemory));
        assert!(waiting.lasts());
    }

    #[test]
    fn a_batch_that_is_too_large_is_told_with_the_setting_that_lets_it_in() {
        let told = |refusal| told("orders", Code::BadCompression, "bad", refusal);
        let (message, remedy) = told(Some(Refusal::TooLarge(300_000_000)));
        assert!(message.contains("300000000 bytes"), "{message}");
        assert!(remedy.contains("`kafka.decompressed_bytes_max` to 385875968"), "{remedy}");
        assert!(told(Some(Refusal::NoMemory)).1.contains("goes on once they are written"));
        assert!(told(None).1.contains("kafka-dump-log.sh"));
    }

    #[test]
    fn a_denied_topic_is_named_with_the_right_that_is_missing() {
        let remedy = remedy("orders", Code::TopicAuthorizationFailed);
        assert!(remedy.contains("`orders`") && remedy.contains("READ"), "{remedy}");
    }
}
