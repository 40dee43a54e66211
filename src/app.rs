//! The composition root: the only place that builds adapters and plugs them into ports.

use std::future::Future;

use crate::config::Settings;

/// Runs the service until `shutdown` resolves, then drains.
///
/// # Errors
///
/// The service cannot start, or fails for good.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    drop(settings);
    shutdown.await;
    anyhow::bail!("not built yet")
}
