//! Places to put files: a directory of the test's own, and a file system that is full.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

/// A directory that is removed with its guard. Any user may look into it.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes an empty directory.
    #[expect(
        clippy::new_without_default,
        reason = "it makes a directory: a default does nothing"
    )]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pipestall-test-")
            .tempdir()
            .expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its mode");
        Self(dir)
    }

    /// Names a file in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Gives a program another name: the comm of what is started by it.
    pub fn named(&self, program: &Path, name: &str) -> PathBuf {
        let link = self.path(name);
        symlink(program, &link).expect("a symbolic link");
        link
    }

    /// Copies a program to where every user can run it.
    pub fn for_everyone(&self, program: &Path) -> PathBuf {
        let copy = self.path(program.file_name().expect("a program has a name"));
        fs::copy(program, &copy).expect("a copy of the program");
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("its mode");
        copy
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

/// A tmpfs of a few pages, unmounted with its guard. Needs root.
#[derive(Debug)]
pub struct SmallDisk {
    dir: Scratch,
}

impl SmallDisk {
    const FLAGS: MountFlags = MountFlags::NODEV
        .union(MountFlags::NOSUID)
        .union(MountFlags::NOEXEC);

    /// Mounts it.
    #[expect(clippy::new_without_default, reason = "it mounts: a default does nothing")]
    pub fn new() -> Self {
        Self::of(c"size=64k")
    }

    /// Mounts one of another size, as in `size=8m`.
    pub fn of(size: &CStr) -> Self {
        let dir = Scratch::new();
        fs::create_dir(dir.path("disk")).expect("a mount point");
        mount("tmpfs", dir.path("disk"), "tmpfs", Self::FLAGS, Some(size)).expect("a tmpfs");
        Self { dir }
    }

    /// Names its root.
    pub fn path(&self) -> PathBuf {
        self.dir.path("disk")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path().join("ballast")).expect("the ballast");
        // In pages and then in bytes, so that it ends with the disk's last byte.
        for piece in [&[b'x'; 4096][..], b"x"] {
            // More than the disk holds.
            let full = (0..(64 << 10)).find_map(|_| file.write_all(piece).err());
            let error = full.expect("the small disk takes everything");
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        }
    }

    /// Lets nothing be written any more.
    pub fn make_read_only(&self) {
        let flags = MountFlags::RDONLY | Self::FLAGS;
        mount_remount(self.path(), flags, c"").expect("a tmpfs that is read-only");
    }

    /// Makes the room again that [`Self::fill`] took.
    pub fn clear(&self) {
        fs::remove_file(self.path().join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached, so that a process that still looks at it cannot keep it in the tree.
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}
