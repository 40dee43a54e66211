//! The tower layer that spaces requests so that a process sends at most so many bytes per second.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::write::stack::Attempt;

/// One budget of bytes per second, shared by all services made from it.
///
/// A request books its bytes at once and waits until the bookings before it are paid for, so that
/// requests pass in the order of their calls. Up to a quarter second of unused budget may be spent in
/// a burst.
#[derive(Clone, Debug)]
pub struct ByteRate {
    bytes_per_second: u64,
    paid_until: Arc<Mutex<Option<Instant>>>,
}

const BURST: Duration = Duration::from_millis(250);

impl ByteRate {
    /// A budget of `bytes_per_second`, at least 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: Arc::default() }
    }

    /// Books `bytes` and tells when they may be sent.
    fn book(&self, now: Instant, bytes: usize) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = match self.paid_until.lock() {
            Ok(paid) => paid,
            // A poisoned budget is still a number.
            Err(poisoned) => poisoned.into_inner(),
        };
        let oldest = now.checked_sub(BURST).unwrap_or(now);
        let start = paid.map_or(oldest, |paid| paid.max(oldest));
        *paid = Some(start + cost);
        start
    }
}

impl<S> Layer<S> for ByteRate {
    type Service = ByteRated<S>;

    fn layer(&self, inner: S) -> ByteRated<S> {
        ByteRated { rate: self.clone(), inner }
    }
}

/// A service behind a [`ByteRate`].
#[derive(Clone, Debug)]
pub struct ByteRated<S> {
    rate: ByteRate,
    inner: S,
}

impl<S> Service<Attempt> for ByteRated<S>
where
    S: Service<Attempt, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner service's readiness is a slot; it is taken only when the bytes are due.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let now = Instant::now();
        let due = self.rate.book(now, attempt.request.body.len());
        let inner = self.inner.clone();
        Box::pin(async move {
            if due > now {
                sleep_until(due).await;
            }
            inner.oneshot(attempt).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_spaced_and_bursts_are_bounded() {
        let rate = ByteRate::new(1_000);
        let now = Instant::now();
        let dues: Vec<_> = (0..4)
            .map(|_| rate.book(now, 250).saturating_duration_since(now).as_millis())
            .collect();
        assert_eq!(dues, [0, 0, 250, 500]);
        let later = now + Duration::from_secs(60);
        assert!(rate.book(later, 250) < later);
        assert_eq!(rate.book(later, 250), later);
    }
}
