//! Named effect boundaries at which the process kills itself, for the kill test.
//!
//! Built only with the feature `failpoints`. `KCBQ_FAILPOINT=NAME[:NTH]` chooses the boundary; at its
//! NTH passing the process prints what it held at that moment and sends itself SIGKILL: no
//! destructor, no flush, nothing that a power cut would not do.

/// Kills the process if the boundary `$name` is the chosen one.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name);
    };
}

/// Tells what the process holds: lanes owned, records in flight.
#[cfg(feature = "failpoints")]
type Held = Box<dyn Fn() -> (usize, u64) + Send + Sync>;

#[cfg(feature = "failpoints")]
static HELD: std::sync::OnceLock<Held> = std::sync::OnceLock::new();

/// Says how to find out what the process holds, for its last words. The first call counts.
#[cfg(feature = "failpoints")]
pub fn report(held: impl Fn() -> (usize, u64) + Send + Sync + 'static) {
    drop(HELD.set(Box::new(held)));
}

/// Counts a passing and kills the process at the chosen one.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) {
    use std::{
        io::Write,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("KCBQ_FAILPOINT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    let Some((_, nth)) = chosen.as_ref().filter(|(chosen, _)| chosen == name) else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 != *nth {
        return;
    }
    let (lanes, records) = HELD.get().map_or((0, 0), |held| held());
    let line = format!("failpoint {name} lanes={lanes} in_flight_records={records}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
    let _killed =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
