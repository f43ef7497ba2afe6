//! Who has a store open: asked of the system, since trying the lock would get in a program's way.

use rocstate::inspect::Inspector;

/// Whether a process has the store, as far as can be told.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) held: bool,
    pub(crate) pid: Option<u32>,
    /// The program's name.
    pub(crate) program: Option<String>,
}

/// Looks among the locks that the system knows; `None` where it cannot be told.
#[cfg(target_os = "linux")]
pub(crate) fn holder(files: &Inspector) -> Option<Holder> {
    use std::os::unix::fs::MetadataExt;

    let path = files.path_of(rocstate::format::name::LOCK);
    let lock = std::fs::metadata(&path).ok()?;
    let found = procfs::locks().ok()?.into_iter().find(|known| {
        let device = (u64::from(known.devmaj), u64::from(known.devmin));
        // Some file systems show one device to whoever asks for a file and another one here.
        let same = || device == device_of(lock.dev()) || has_open(known.pid, &path);
        known.inode == lock.ino() && same()
    });
    let Some(found) = found else { return Some(Holder { held: false, pid: None, program: None }) };
    // A process outside this namespace shows as 0 or less.
    let pid = found.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let program = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Some(Holder { held: true, pid, program: program.map(|name| name.trim().to_owned()) })
}

/// Whether a process has a file open.
#[cfg(target_os = "linux")]
fn has_open(pid: Option<i32>, path: &std::path::Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let files = pid.and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let mut links = files.into_iter().flatten().flatten();
    links.any(|file| std::fs::read_link(file.path()).is_ok_and(|open| open == path))
}

/// Major and minor number of a device, as the kernel packs them.
#[cfg(target_os = "linux")]
fn device_of(device: u64) -> (u64, u64) {
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff & 0xffff_ffff;
    (major, minor)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn holder(_: &Inspector) -> Option<Holder> {
    None
}
