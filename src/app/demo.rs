//! `kcbq demo`: the service at work on an embedded Kafka and the simulator.

use std::future::Future;

/// What the demo does.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Stay up at the end.
    pub keep: bool,
    /// Records in the backlog of each topic.
    pub records: u64,
}

/// Shows the service at work on an embedded Kafka and the simulator.
///
/// # Errors
///
/// A part does not start, or the result is not what was promised.
pub async fn demo(
    options: DemoOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let _ = options;
    shutdown.await;
    anyhow::bail!("not built yet")
}
