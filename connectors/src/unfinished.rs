//! Files that a killed COPY left beside its target. They are named to the user and never removed: they
//! stand among files that are not ours, and their writer may be alive.

use std::path::{Path, PathBuf};

use datafusion::datasource::listing::ListingTableUrl;

/// Files that a notice names.
const NAMED: usize = 3;
/// Entries of directories that are looked at, so that a large one delays no COPY.
const LOOKED_AT: usize = 100_000;

/// Tells the user of what is unfinished where a COPY writes to `targets`, in `folders` levels of folders
/// below them.
pub(crate) async fn say(targets: &[ListingTableUrl], folders: usize) {
    let local = targets.iter().filter(|target| target.scheme() == "file");
    let local: Vec<(PathBuf, bool)> = local
        .map(|target| {
            let path = PathBuf::from(format!("/{}", target.prefix()));
            (path, target.is_collection())
        })
        .collect();
    let look = move || {
        let found = local.iter().map(|(path, is_directory)| match is_directory {
            true => below(path, folders),
            false => beside(path),
        });
        found.flatten().collect::<Vec<PathBuf>>()
    };
    let Ok(found) = tokio::task::spawn_blocking(look).await else {
        return;
    };
    if let Some(notice) = notice(&found) {
        log::warn!(target: "casebook", "{notice}");
    }
}

fn notice(found: &[PathBuf]) -> Option<String> {
    let names = found.iter().take(NAMED);
    let names: Vec<String> = names.map(|path| format!("'{}'", path.display())).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "unfinished files of another COPY: {}{more}; if it was killed, remove them",
            names.join(", ")
        )
    })
}

/// What is unfinished of the file `path`.
fn beside(path: &Path) -> Vec<PathBuf> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return vec![];
    };
    let name = name.to_string_lossy();
    let mut found = listed(above, 0);
    found.retain(|path| unfinished(path).is_some_and(|of| of == name));
    found
}

/// What is unfinished in `directory` and in its folders.
fn below(directory: &Path, folders: usize) -> Vec<PathBuf> {
    let mut found = listed(directory, folders);
    found.retain(|path| unfinished(path).is_some());
    found
}

/// The files in `directory` and `folders` levels below it.
fn listed(directory: &Path, folders: usize) -> Vec<PathBuf> {
    let mut waiting = vec![(directory.to_path_buf(), folders)];
    let mut files = vec![];
    let mut looked_at = 0;
    while let Some((directory, folders)) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT {
                return files;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && folders > 0 => {
                    waiting.push((entry.path(), folders - 1))
                }
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// The name of the file that `path` would have become: the library writes `NAME` as `NAME#1`.
fn unfinished(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let (name, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_is_found_where_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("p=1/q=2/deep")).unwrap();
        std::fs::create_dir(at("x.csv#9")).unwrap();
        for name in [
            "x.csv",
            "x.csv#1",
            "x.csv#12",
            "y.csv#1",
            "x.csv#",
            "x.csv#a",
            "#1",
            "x#1.csv",
            "p=1/a.parquet#1",
            "p=1/q=2/b#3",
            "p=1/q=2/deep/c#1",
        ] {
            std::fs::write(at(name), "x").unwrap();
        }
        let names = |found: Vec<PathBuf>| {
            let names = found.iter().map(|p| p.strip_prefix(dir.path()).unwrap());
            names.map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(beside(&at("x.csv"))), ["x.csv#1", "x.csv#12"]);
        assert_eq!(names(beside(&at("z.csv"))), [""; 0]);
        assert_eq!(names(beside(&at("none/z.csv"))), [""; 0]);
        assert_eq!(
            names(below(dir.path(), 0)),
            ["x.csv#1", "x.csv#12", "y.csv#1"]
        );
        assert_eq!(
            names(below(dir.path(), 2)),
            [
                "p=1/a.parquet#1",
                "p=1/q=2/b#3",
                "x.csv#1",
                "x.csv#12",
                "y.csv#1"
            ]
        );
        let notice = notice(&below(dir.path(), 2)).unwrap();
        assert!(
            notice.contains("q=2/b#3'") && notice.contains(" and 2 more;"),
            "{notice}"
        );
        assert_eq!(super::notice(&[]), None);
    }
}
