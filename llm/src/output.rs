//! Files that are left behind: whole or not at all, never through a link or over a device, and one
//! writer at a time.
//!
//! A lock is the operating system's (`File::try_lock`), so it ends with its holder, however that
//! ends. The last part of a path must be what it seems; links above it are the user's business.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorKind, Result};

/// How often a file that another writer renames away is looked for again.
const ATTEMPTS: usize = 8;

/// Refuses `path` if a file written there would go through a link or replace something else than a
/// file.
///
/// # Errors
/// A link, a device, a directory; a path that cannot be looked at.
pub fn check_file(path: &Path) -> Result<()> {
    match look(path)? {
        Some(found) if !found.is_file() => Err(refused(path, &found, "a file")),
        _ => Ok(()),
    }
}

/// Refuses `path` if it is there and no directory of its own.
///
/// # Errors
/// A link, a file, a device; a path that cannot be looked at.
pub fn check_directory(path: &Path) -> Result<()> {
    match look(path)? {
        Some(found) if !found.is_dir() => Err(refused(path, &found, "a directory")),
        _ => Ok(()),
    }
}

/// A new empty file; one that is there is replaced, not written into.
///
/// # Errors
/// See [`check_file`]; a file that cannot be made.
pub fn create(path: &Path) -> Result<File> {
    check_file(path)?;
    let doing = |e| Error::io(format!("writing {}", path.display()), e);
    match fs::remove_file(path) {
        Err(e) if e.kind() != Io::NotFound => return Err(doing(e)),
        _ => {}
    }
    // A link that appears in between is not followed: new means new.
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.map_err(doing)
}

/// Writes `bytes` to `path` in one step: readers see the file before or the whole new one.
///
/// # Errors
/// See [`check_file`]; a file that cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    check_file(path)?;
    let doing = |e| Error::io(format!("writing {}", path.display()), e);
    make_parent(path)?;
    // Two writers of one path must not share the name under which they prepare it.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let staged = beside(path, &format!("{}-{count}.tmp", std::process::id()));
    let mut file = create(&staged)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&staged, path));
    written.map_err(|e| {
        fs::remove_file(&staged).ok();
        doing(e)
    })
}

/// A file on its way to its place, locked against other writers of it.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    path: PathBuf,
    file: File,
    committed: bool,
}

impl Staged {
    /// Begins a file that [`Staged::commit`] puts at `target`.
    ///
    /// # Errors
    /// Another writer of the same target; see [`check_file`].
    pub fn begin(target: &Path) -> Result<Self> {
        check_file(target)?;
        make_parent(target)?;
        let path = beside(target, "tmp");
        let doing = |e| Error::io(format!("writing {}", target.display()), e);
        for _ in 0..ATTEMPTS {
            check_file(&path)?;
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(doing)?;
            lock(&file, target)?;
            // The writer before may have renamed or removed what was opened here.
            if !is_at(&file, &path).map_err(doing)? {
                continue;
            }
            file.set_len(0).map_err(doing)?;
            return Ok(Self {
                target: target.to_path_buf(),
                path,
                file,
                committed: false,
            });
        }
        Err(busy(target))
    }

    /// Where to write.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the file durable and puts it in place.
    ///
    /// # Errors
    /// A disk that is full; a target that became something else than a file.
    pub fn commit(mut self) -> Result<()> {
        let doing = |e| Error::io(format!("writing {}", self.target.display()), e);
        self.file.sync_all().map_err(doing)?;
        check_file(&self.target)?;
        fs::rename(&self.path, &self.target).map_err(doing)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A lock that is held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the file `path`, which is made and stays behind; `what` is what it stands for.
    ///
    /// # Errors
    /// Another holder; see [`check_file`].
    pub fn take(path: &Path, what: &Path) -> Result<Self> {
        check_file(path)?;
        make_parent(path)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| Error::io(format!("locking {}", what.display()), e))?;
        lock(&file, what)?;
        Ok(Self { _file: file })
    }
}

fn lock(file: &File, what: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(busy(what)),
        Err(TryLockError::Error(e)) if e.kind() == Io::Unsupported => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is on a file system that has no locks, so two runs could write it at once; \
                 choose a location on a local disk and copy it afterwards",
                what.display()
            ),
        )
        .with_source(e)),
        Err(TryLockError::Error(e)) => Err(Error::io(format!("locking {}", what.display()), e)),
    }
}

fn busy(what: &Path) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{} is being written by another run; wait until it is done, or choose another location",
            what.display()
        ),
    )
}

/// What is at `path` itself; none if nothing is.
fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == Io::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("looking at {}", path.display()), e)),
    }
}

fn refused(path: &Path, found: &Metadata, wanted: &str) -> Error {
    let kind = found.file_type();
    let (what, advice) = if kind.is_symlink() {
        ("a symbolic link", "name what it points to")
    } else if kind.is_dir() {
        ("a directory", "choose another location")
    } else if kind.is_file() {
        ("a file", "choose another location")
    } else {
        ("a device or pipe", "choose another location")
    };
    Error::invalid_input(format!(
        "{} is {what}, not {wanted}; {advice}",
        path.display()
    ))
}

/// `dir/.NAME.SUFFIX` for `dir/NAME`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => fs::create_dir_all(parent)
            .map_err(|e| Error::io(format!("writing {}", path.display()), e)),
        None => Ok(()),
    }
}

/// True if the open `file` is the one that `path` names.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == Io::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// True: a file that is open is not renamed or removed there.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> std::io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time_and_the_file_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.jsonl");
        let mut first = Staged::begin(&target).unwrap();
        let second = Staged::begin(&target).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Unavailable);
        assert!(second.to_string().contains("a.jsonl is being written"));
        // Another target of the same stem is another file.
        drop(Staged::begin(&dir.path().join("a.json")).unwrap());
        first.file().write_all(b"whole").unwrap();
        assert!(!target.exists());
        first.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        // What a killed writer leaves is taken over, and what a failed one leaves is removed.
        fs::write(dir.path().join(".a.jsonl.tmp"), "left by a killed writer").unwrap();
        let mut third = Staged::begin(&target).unwrap();
        third.file().write_all(b"new").unwrap();
        drop(third);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        let mut fourth = Staged::begin(&target).unwrap();
        fourth.file().write_all(b"new").unwrap();
        fourth.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path, dir.path()).unwrap();
        assert!(Lock::take(&path, dir.path()).is_err());
        drop(held);
        Lock::take(&path, dir.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_devices_and_directories_are_refused() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("precious"), "precious").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        symlink(dir.path(), at("folder")).unwrap();
        let text = |r: Result<()>| r.unwrap_err().to_string();
        for name in ["link", "dangling"] {
            assert!(text(write(&at(name), b"x")).contains("symbolic link"));
            assert!(text(Staged::begin(&at(name)).map(drop)).contains("symbolic link"));
            assert!(text(create(&at(name)).map(drop)).contains("symbolic link"));
        }
        assert!(text(write(dir.path(), b"x")).contains("a directory"));
        assert!(text(write(Path::new("/dev/null"), b"x")).contains("device"));
        assert!(text(Staged::begin(Path::new("/dev/null")).map(drop)).contains("device"));
        assert!(text(check_directory(&at("folder"))).contains("name what it points to"));
        assert!(text(check_directory(&at("precious"))).contains("a file"));
        // The name under which a file is prepared is looked at as well.
        symlink(at("precious"), at(".new.tmp")).unwrap();
        assert!(text(Staged::begin(&at("new")).map(drop)).contains("symbolic link"));
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        assert!(!at("nowhere").exists());
        // A link above the file is followed.
        write(&at("folder").join("file"), b"x").unwrap();
        assert_eq!(fs::read(at("file")).unwrap(), b"x");
    }
}
