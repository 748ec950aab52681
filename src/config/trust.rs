//! May a casebook.toml be read that nobody named?
//!
//! In a directory of somebody else (a download, a shared folder, a checkout of a stranger) it would
//! decide which servers are contacted, with values of this user's environment. So a file that was
//! only found is used if it and its directory belong to the user or to root, and nobody else can
//! write them. A directory with the sticky bit (`/tmp`) lets nobody replace the file of another, so
//! there the file's owner decides.
//!
//! Writable by a group is accepted for the user's own primary group: with the usual umask 002 that
//! is a group of the user alone (Debian, Fedora), and where it is not, its members share their files
//! by that choice. A file named with `--config` is used as it is.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Whose rights count.
#[cfg(unix)]
#[derive(Clone, Copy)]
struct User {
    user: u32,
    group: u32,
}

/// What is asked of a file or a directory.
#[cfg(unix)]
#[derive(Clone, Copy)]
struct Rights {
    owner: u32,
    group: u32,
    mode: u32,
}

/// Refuses a configuration file that was found, not named, where others can have written it.
///
/// # Errors
/// Who could have, and how to use the file all the same.
#[cfg(unix)]
pub fn check_implicit(path: &Path) -> Result<()> {
    let user = User {
        user: nix::unistd::geteuid().as_raw(),
        group: nix::unistd::getegid().as_raw(),
    };
    // Where a link leads to is what is read, and the directory of both can be changed.
    let target = path.canonicalize().map_err(|e| unreadable(path, e))?;
    for path in [path, target.as_path()] {
        check_one(path, user)?;
    }
    Ok(())
}

/// Elsewhere directories of other users are not written to by default.
#[cfg(not(unix))]
pub fn check_implicit(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn check_one(path: &Path, user: User) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    for (what, path, is_folder) in [("it", path, false), ("its directory", folder, true)] {
        let found = std::fs::symlink_metadata(path).map_err(|e| unreadable(path, e))?;
        // The rights of a link are those of its directory.
        if found.is_symlink() {
            continue;
        }
        use std::os::unix::fs::MetadataExt;
        let rights = Rights {
            owner: found.uid(),
            group: found.gid(),
            mode: found.mode(),
        };
        if let Some(why) = complaint(rights, user, is_folder) {
            let message = format!(
                "{} was found here but is not used: {what} {why}, and it decides which servers \
                 are contacted; read it and name it: --config {}",
                super::DEFAULT,
                super::DEFAULT
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
    }
    Ok(())
}

/// Why others can have written something with these rights.
#[cfg(unix)]
fn complaint(rights: Rights, user: User, is_folder: bool) -> Option<String> {
    const GROUP: u32 = 0o020;
    const EVERYBODY: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let sticky = is_folder && rights.mode & STICKY != 0;
    if rights.owner != user.user && rights.owner != 0 {
        return Some(format!("belongs to another user ({})", rights.owner));
    }
    if rights.mode & EVERYBODY != 0 && !sticky {
        return Some("can be written by everybody".to_owned());
    }
    let own_group = rights.group == user.group || rights.group == 0;
    match rights.mode & GROUP != 0 && !own_group && !sticky {
        true => Some(format!("can be written by the group {}", rights.group)),
        false => None,
    }
}

#[cfg(unix)]
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let message = format!("{}: {error}; name another with --config", path.display());
    Error::new(ErrorKind::Configuration, message).with_source(error)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn owners_and_rights_decide() {
        const ME: User = User {
            user: 1000,
            group: 1000,
        };
        const ROOT: User = User { user: 0, group: 0 };
        let file = |owner, group, mode, user| {
            let rights = Rights { owner, group, mode };
            complaint(rights, user, false).unwrap_or_default()
        };
        let folder = |owner, group, mode, user| {
            let rights = Rights { owner, group, mode };
            complaint(rights, user, true).unwrap_or_default()
        };
        for (found, expected) in [
            (file(1000, 1000, 0o644, ME), ""),
            (file(1000, 1000, 0o664, ME), ""), // umask 002
            (file(1000, 100, 0o644, ME), ""),
            (file(0, 0, 0o644, ME), ""),
            (file(0, 0, 0o664, ME), ""),
            (
                file(1000, 100, 0o664, ME),
                "can be written by the group 100",
            ),
            (file(1000, 1000, 0o666, ME), "can be written by everybody"),
            (file(1000, 1000, 0o1666, ME), "can be written by everybody"),
            (
                file(1001, 1000, 0o644, ME),
                "belongs to another user (1001)",
            ),
            (
                folder(1001, 1001, 0o755, ME),
                "belongs to another user (1001)",
            ),
            (folder(0, 0, 0o1777, ME), ""), // /tmp
            (folder(0, 0, 0o777, ME), "can be written by everybody"),
            (
                folder(1000, 100, 0o2775, ME),
                "can be written by the group 100",
            ),
            (
                folder(1001, 1001, 0o1777, ME),
                "belongs to another user (1001)",
            ),
            // As root in a container, in a checkout of the user outside.
            (
                file(1000, 1000, 0o644, ROOT),
                "belongs to another user (1000)",
            ),
            (
                file(0, 1000, 0o664, ROOT),
                "can be written by the group 1000",
            ),
            (file(0, 1000, 0o644, ROOT), ""),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_others_can_write_is_refused_and_links_are_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let allow = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let path = dir.path().join("casebook.toml");
        std::fs::write(&path, "").unwrap();
        allow(&path, 0o600);
        check_implicit(&path).unwrap();
        allow(&path, 0o666);
        let error = check_implicit(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("--config"), "{error}");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        symlink(&path, inner.join("casebook.toml")).unwrap();
        assert!(check_implicit(&inner.join("casebook.toml")).is_err());
        allow(&path, 0o600);
        check_implicit(&inner.join("casebook.toml")).unwrap();
        allow(&inner, 0o777);
        let error = check_implicit(&inner.join("casebook.toml")).unwrap_err();
        assert!(error.to_string().contains("its directory"), "{error}");
        allow(&inner, 0o700);
        assert!(check_implicit(&inner.join("nowhere.toml")).is_err());
    }
}
