//! The simulator's contract (`tests/it/sim_contract`) on the public emulator: what both do alike is
//! checked by the same assertions, and what the emulator does otherwise must be on the list.

use std::{
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::runtime::Builder;

#[path = "../it/sim_contract/mod.rs"]
#[expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check fails by it")]
mod suite;

use crate::rig::{bigquery::LocalBigQuery, http::Http, place::Place};

/// Runs it.
pub(crate) fn run() -> Result<()> {
    let place = Place::new("contract")?;
    let emulator = LocalBigQuery::start(&place, &Http::new(Duration::from_secs(60))?)?;
    let rest = suite::HttpRest::new(emulator.endpoint());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut held, mut differ, mut wrong) = (0, 0, 0);
    // What a check says as it fails is printed below, where it matters.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    for check in suite::CHECKS {
        let run = || runtime.block_on(check.run(&rest, LocalBigQuery::PROJECT));
        let failure = panic::catch_unwind(AssertUnwindSafe(run)).err();
        let said = failure.as_deref().map(message);
        match (check.difference, said) {
            (None, None) => held += 1,
            (Some(difference), Some(_)) => {
                differ += 1;
                println!("{:<57} differs: {difference}", check.name);
            }
            (None, Some(said)) => {
                wrong += 1;
                println!("{:<57} WRONG: {said}", check.name);
            }
            (Some(_), None) => {
                wrong += 1;
                println!("{:<57} WRONG: it holds; take it off the list of differences", check.name);
            }
        }
    }
    panic::set_hook(hook);
    println!("{held} checks hold on the emulator as on the simulator, {differ} differ as listed");
    ensure!(wrong == 0, "{wrong} checks met another outcome than the listed one");
    Ok(())
}

/// What a panic said.
fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    text.chars().take(300).collect()
}
