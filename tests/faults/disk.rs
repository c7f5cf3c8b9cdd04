//! A disk of its own for a daemon: ext4 on an image, which can lose its power, fail, or become full.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use taskdaemon::clock;

use crate::host::PATIENCE;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH` of the kernel's `fs/ext4/ext4.h`: what is not on disk yet never gets there.
const NO_LOG_FLUSH: u32 = 2;

mod call {
    // `EXT4_IOC_SHUTDOWN` of the kernel's `fs/ext4/ext4.h`.
    nix::ioctl_read!(shutdown, b'X', 125, u32);
}

/// A mounted image.
pub(crate) struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    /// Makes an image below `dir` and mounts it; says why where that is not possible.
    pub(crate) fn make(dir: &Path, mib: u64, format: &[&str]) -> Result<Self, String> {
        let disk = Self {
            image: dir.join("disk.img"),
            place: dir.join("disk"),
        };
        fs::create_dir_all(&disk.place).map_err(|error| error.to_string())?;
        alone().map_err(|error| error.to_string())?;
        let image = fs::File::create(&disk.image).map_err(|error| error.to_string())?;
        image
            .set_len(mib << 20)
            .map_err(|error| error.to_string())?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F"]).args(format).arg(&disk.image);
        said(&mut make)?;
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "ext4", "-o", "loop,errors=remount-ro"])
            .args([&self.image, &self.place]);
        said(&mut mount)
    }

    /// Takes the power away: nothing reaches the disk from now on, and what had not reached it is gone.
    #[expect(unsafe_code, reason = "this call has no safe wrapper anywhere")]
    pub(crate) fn cut(&self) {
        let place = fs::File::open(&self.place).expect("the disk");
        let mut flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open for the length of the call, which reads one number through the pointer.
        unsafe { call::shutdown(place.as_raw_fd(), &raw mut flags) }.expect("cut");
    }

    /// Brings the power back, once nobody uses what was there before.
    pub(crate) fn recover(&self) {
        let start = clock::instant();
        while let Err(error) = umount2(&self.place, MntFlags::empty()) {
            assert!(start.elapsed() < PATIENCE, "still in use: {error}");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        self.mount().expect("the journal is replayed");
    }

    /// Mounts the file system anew with other options, such as `ro`; says why the kernel does not.
    pub(crate) fn remount(&self, options: &str) -> Result<(), String> {
        let options = format!("remount,{options}");
        said(
            Command::new("mount")
                .args(["-o", &options])
                .arg(&self.place),
        )
    }

    /// Lays the same file system over itself, read-only.
    pub(crate) fn cover(&self) {
        let none: Option<&str> = None;
        let place = Some(&self.place);
        mount(place, &self.place, none, MsFlags::MS_BIND, none).expect("cover");
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &self.place, none, read_only, none).expect("read-only");
    }

    /// Takes the cover away.
    pub(crate) fn uncover(&self) {
        umount2(&self.place, MntFlags::MNT_DETACH).expect("uncover");
    }

    /// Has the file system find itself damaged: it becomes read-only at once.
    pub(crate) fn damage(&self) {
        let device = said_by(
            Command::new("findmnt")
                .args(["-no", "SOURCE"])
                .arg(&self.place),
        );
        let device = device.expect("the device");
        let name = device.trim().trim_start_matches("/dev/").to_owned();
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(trigger, "taken for damaged").expect("trigger");
    }
}

/// Gives this thread, and what it starts, mounts of its own. Whoever else on the host makes a namespace meanwhile would
/// otherwise take a copy of the disk along, and what is in use anywhere cannot be mounted anew.
fn alone() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = umount2(&self.place, MntFlags::MNT_DETACH).is_err();
    }
}

fn said(command: &mut Command) -> Result<(), String> {
    said_by(command).map(drop)
}

fn said_by(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
