//! A sync that takes the same time each time, in place of the system's.
//!
//! The disks of shared machines are limited in bursts: a sync takes 0.15 ms in one minute and 4 ms in the
//! next. These functions stand in for libc's in the whole program, the C code of the peers included. Until
//! [`fix`] is called they do what the system does; from then on they sync nothing and wait.
#![expect(unsafe_code, reason = "it takes the place of functions of libc")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static WAIT_US: AtomicU64 = AtomicU64::new(0);

/// Has every sync take this long from here on, in this thread and those that it starts.
pub fn fix(wait: Duration) {
    WAIT_US.store(u64::try_from(wait.as_micros()).unwrap_or_default(), Ordering::Relaxed);
    // SAFETY: it sets how late this thread may be woken, in nanoseconds.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// Whether it waited instead.
fn waited() -> bool {
    let wait = WAIT_US.load(Ordering::Relaxed);
    if wait > 0 {
        std::thread::sleep(Duration::from_micros(wait));
    }
    wait > 0
}

fn outcome(of: i64) -> c_int {
    c_int::try_from(of).unwrap_or(-1)
}

// SAFETY: it has the signature and the meaning of libc's, as far as a machine that does not lose power
// can tell.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: the system call checks its argument.
    if waited() { 0 } else { outcome(unsafe { libc::syscall(libc::SYS_fdatasync, file) }) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    // SAFETY: as above.
    if waited() { 0 } else { outcome(unsafe { libc::syscall(libc::SYS_fsync, file) }) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn msync(from: *mut c_void, len: usize, flags: c_int) -> c_int {
    // SAFETY: as above.
    if waited() { 0 } else { outcome(unsafe { libc::syscall(libc::SYS_msync, from, len, flags) }) }
}
