//! What is written to this machine's disk survives a power cut: files, and the directories that name
//! them. Object stores have answered when a file does.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Makes what is called `names` in `directory` durable: the content of a file, the names in a folder.
pub(super) fn sync(directory: &Path, names: &[String]) -> io::Result<()> {
    let mut paths = names.iter().map(|name| directory.join(name));
    paths.try_for_each(|path| match cfg!(unix) {
        true => std::fs::File::open(path)?.sync_all(),
        false => Ok(()),
    })
}

/// The folders that `files` are in, from the directory itself on, which is empty.
pub(super) fn above(files: &[String]) -> BTreeSet<&str> {
    let mut folders = BTreeSet::new();
    for file in files {
        let mut rest = file.as_str();
        while let Some((folder, _)) = rest.rsplit_once('/') {
            folders.insert(folder);
            rest = folder;
        }
        folders.insert("");
    }
    folders
}

/// Makes `folder` and those above it that are not there, so that they survive a power cut.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|above| !above.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::create_dir_all(folder)?;
    let parents = missing.iter().filter_map(|made| made.parent());
    for parent in parents.filter(|_| cfg!(unix)) {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_above_a_file_names_something_new() {
        let files = ["a=1/b=2/x.csv", "a=1/y.csv", "a=3/b=2/z.csv"].map(str::to_owned);
        let found: Vec<&str> = above(&files).into_iter().collect();
        assert_eq!(found, ["", "a=1", "a=1/b=2", "a=3", "a=3/b=2"]);
        assert_eq!(above(&["x.csv".to_owned()]), BTreeSet::from([""]));
        assert!(above(&[]).is_empty());
    }

    #[test]
    fn folders_are_made_with_those_above_them() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            make(&dir.path().join("a/b/c")).unwrap();
        }
        assert!(dir.path().join("a/b/c").is_dir());
        std::fs::write(dir.path().join("f"), "").unwrap();
        assert!(make(&dir.path().join("f/a")).is_err());
    }
}
