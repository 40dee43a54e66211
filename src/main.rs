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
/// tables 483 MB, of which 154 were in use. Buffers from 64 KiB on are mapped by themselves and go back at once; large batches do not feel it,
/// because their buffers are used again. Where the allocator is another one, it is left as it is.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let options = [
            (libc::M_MMAP_THRESHOLD, 64 << 10),
            (libc::M_TRIM_THRESHOLD, 128 << 10),
            (libc::M_ARENA_MAX, 2),
        ];
        for (option, value) in options {
            #[expect(unsafe_code, reason = "no crate has a safe call for it")]
            // SAFETY: mallopt takes two numbers and no pointer; no other thread exists yet that could
            // allocate meanwhile. An option that it does not take changes nothing.
            unsafe {
                libc::mallopt(option, value);
            }
        }
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
