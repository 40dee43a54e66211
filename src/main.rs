//! The `kcbq` binary: parse arguments, call the library, print the error chain, exit code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use kcbq::cli::Arguments;

fn main() -> ExitCode {
    no_huge_pages();
    give_memory_back();
    match Arguments::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is gone, the exit code is all there is to say.
            drop(writeln!(std::io::stderr(), "error: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Where the system gives huge pages to everybody, a buffer of a few kilobytes is 2 MiB of resident memory, cleared at its first
/// touch: resident memory would be several times what is in use. Failing to say so changes nothing
/// else, as on a kernel that was built without them.
fn no_huge_pages() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

/// Batches of hundreds of tables grow and go, each at its own pace. Left to itself the allocator keeps what they leave in pieces: with 300
/// tables 483 MB, of which 154 were in use. What is free is given back once a second. To map large buffers by themselves would give it back
/// at once, but costs a page fault for every 4 KiB that are fetched or staged, half as much CPU time again. Where the allocator is another one,
/// it is left as it is.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let trim = || {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
                #[expect(unsafe_code, reason = "no crate has a safe call for it")]
                // SAFETY: malloc_trim takes a number and no pointer, and may be called from any thread.
                unsafe {
                    libc::malloc_trim(0);
                }
            }
        };
        // Without it memory is kept, and everything works.
        std::thread::Builder::new().name("kcbq-trim".to_owned()).spawn(trim).ok();
    }
}

/// The error and what lies underneath, one per line; nothing is repeated that a cause said already.
fn chain(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !lines.last().is_some_and(|line| line.ends_with(&cause)) {
            lines.push(cause);
        }
    }
    lines.join("\n  because: ")
}
