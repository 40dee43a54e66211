//! Objects that owners left in the bucket when they crashed, swept once nothing can need them any more.
//!
//! An object is needed until the job that names it is done. A job is done within hours of its creation,
//! repetitions included, and an object waits for its job about as long as the topic's `freshness`; a day
//! more than that is the least age that the configuration takes. Longer than that waits only what its
//! owner cannot load, for a permission, say: should it be swept, the job finds its object missing and
//! fails as a whole, and the lane is read and staged again. So a sweep can cost time, never a row.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    fault::Fault,
    jitter::Jitter,
    telemetry::Telemetry,
    write::load::{ListedObject, Objects, chain},
};

/// From one sweep to the next, on average: every replica sweeps.
const EVERY: Duration = Duration::from_hours(2);
/// Pages that one sweep looks at; the next one goes on behind them.
const PAGES_MAX: usize = 50;
/// After so many deleted objects a sweep ends with its page, of a thousand objects.
const DELETED_MAX: u64 = 1_000;

/// Sweeps the bucket below the service's prefix, a part of it at a time.
pub struct Orphans {
    objects: Arc<dyn Objects>,
    prefix: String,
    /// This process's own: it knows best which of its objects it needs.
    nonce: String,
    age: Duration,
    /// Where the next sweep begins.
    page: Option<String>,
    telemetry: Arc<Telemetry>,
}

impl std::fmt::Debug for Orphans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orphans").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// What came of a sweep.
#[derive(Debug, Default)]
struct Swept {
    deleted: u64,
    /// The first call that failed.
    fault: Option<Fault>,
}

/// Sweeps at jittered intervals until `stop`. `now_ms` is the time, milliseconds since the epoch.
pub async fn run(
    mut orphans: Orphans,
    jitter: Jitter,
    now_ms: impl Fn() -> i64,
    stop: CancellationToken,
) {
    // Replicas that start together do not sweep together.
    let mut wait = jitter.up_to(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = async {
                tokio::time::sleep(wait).await;
                let swept = orphans.sweep(now_ms()).await;
                orphans.report(&swept);
            } => {}
        }
        wait = EVERY / 2 + jitter.up_to(EVERY);
    }
}

impl Orphans {
    /// Objects below `prefix` whose names hold another nonce than `nonce` are swept after `age`.
    pub fn new(
        objects: Arc<dyn Objects>,
        prefix: String,
        nonce: String,
        age: Duration,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { objects, prefix, nonce, age, page: None, telemetry }
    }

    /// Looks at the next pages and deletes what is an orphan at `now_ms`.
    async fn sweep(&mut self, now_ms: i64) -> Swept {
        let mut swept = Swept::default();
        for _ in 0..PAGES_MAX {
            let page = self.page.take();
            let (objects, next) = match self.objects.list(&self.prefix, page.as_deref()).await {
                Ok(listed) => listed,
                Err(fault) => {
                    swept.fault = Some(fault);
                    return swept;
                }
            };
            for object in objects.iter().filter(|object| self.is_orphan(object, now_ms)) {
                match self.objects.delete(&self.objects.uri(&object.name)).await {
                    Ok(()) => {
                        swept.deleted += 1;
                        self.telemetry.metrics.orphans_deleted.inc();
                    }
                    Err(fault) => swept.fault = Some(fault),
                }
            }
            self.page = next;
            let is_enough = swept.deleted >= DELETED_MAX || swept.fault.is_some();
            if is_enough || self.page.is_none() {
                break;
            }
        }
        swept
    }

    /// Whether another process has made the object, and so long ago that nothing needs it. A clock that
    /// is days wrong gets no token from Google, and so sweeps nothing.
    fn is_orphan(&self, object: &ListedObject, now_ms: i64) -> bool {
        let Some(nonce) = chain::nonce(&self.prefix, &object.name) else { return false };
        let is_own = nonce.rsplit_once('-').is_some_and(|(process, _)| process == self.nonce);
        let age_ms = now_ms.saturating_sub(object.created_ms);
        !is_own && u64::try_from(age_ms).is_ok_and(|ms| Duration::from_millis(ms) > self.age)
    }

    fn report(&self, swept: &Swept) {
        let Swept { deleted, fault } = swept;
        let prefix = &*self.prefix;
        if *deleted > 0 {
            tracing::info!(deleted, prefix, "staged objects that a crash had left were deleted");
        }
        if let Some(fault) = fault {
            tracing::warn!(%fault, prefix, "old staged objects could not be swept; trying again in hours");
        }
    }
}

#[cfg(test)]
mod tests;
