//! File systems on images and loop devices, and the processes that serve them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A mounted file system; unmounted at the end.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// A device, or an image of one.
    pub fn new(what: &Path, at: &Path) -> Option<Mounted> {
        let options = if what.starts_with("/dev") { "rw" } else { "loop" };
        Mounted::with(&["-o", options, text(what)], at)
    }

    /// Three megabytes of memory.
    pub fn small(at: &Path) -> Option<Mounted> {
        Mounted::with(&["-t", "tmpfs", "-o", "size=3m", "tmpfs"], at)
    }

    /// What these arguments of `mount` say.
    pub fn with(what: &[&str], at: &Path) -> Option<Mounted> {
        run("mount", &[what, &[text(at)]].concat()).then(|| Mounted(at.to_owned()))
    }

    pub fn switch(&self) -> Switch {
        let mut command = Command::new("xfs_io");
        command.args(["-x", text(&self.0)]).stdin(Stdio::piped()).stdout(Stdio::null());
        Switch(command.spawn().unwrap())
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

/// What turns the power off: nothing that is not on the disk gets there. It is at hand, since starting it takes
/// longer than the commits that are at stake.
pub struct Switch(Child);

impl Switch {
    pub fn turn_off(mut self) {
        let mut to = self.0.stdin.take().unwrap();
        to.write_all(b"shutdown\nquit\n").unwrap();
        drop(to);
        assert!(self.0.wait().unwrap().success(), "the power did not go");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The last file of a process may be closed a moment after its end.
        let unmounted = || run("umount", &[text(&self.0)]);
        let mut tries = 0;
        while !unmounted() && tries < 100 {
            tries += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The file systems, with an image of each.
pub fn file_systems(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    [("ext4", "48M"), ("xfs", "320M")]
        .into_iter()
        .map(|(kind, size)| {
            let image = dir.join(kind);
            must("truncate", &["-s", size, text(&image)]);
            make_file_system(kind, &image);
            (kind, image)
        })
        .collect()
}

pub fn make_file_system(kind: &str, on: &Path) {
    let force = if kind == "xfs" { "-f" } else { "-F" };
    must(&format!("mkfs.{kind}"), &["-q", force, text(on)]);
}

/// A process that ends when this does, and the file that shows the device it serves.
pub struct Service {
    child: Child,
    export: PathBuf,
}

impl Service {
    /// Waits until a device shows in place of a file.
    pub fn exporting(child: Child, export: &Path) -> Service {
        let service = Service { child, export: export.to_owned() };
        let mut tries = 0;
        while std::fs::metadata(export).map_or(0, |data| data.len()) == 0 {
            std::thread::sleep(Duration::from_millis(20));
            tries += 1;
            assert!(tries < 250, "the export does not come up");
        }
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        run("umount", &["-l", text(&self.export)]);
    }
}

/// A file that is a block device, whatever lies behind it.
pub struct Loop(pub String);

impl Loop {
    pub fn over(file: &Path) -> Loop {
        Loop(must("losetup", &["-f", "--show", text(file)]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

/// Runs a command to its end; whether it succeeded.
pub fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
