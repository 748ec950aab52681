//! Which files a place has now, and which of those that lie there are left out.
//!
//! A directory gives the files with an ending of its format, in either case, those below folders
//! such as `year=2026` among them; a pattern gives what it matches, whatever its ending. Nothing is
//! left out without being named, except what is hidden by custom ([`is_hidden`]).

use std::collections::HashSet;

use datafusion::catalog::Session;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore};

use super::ending::{Ending, endings};
use super::locate::{Kind, Located};
use super::pattern::{Glob, Matched, is_hidden};
use crate::error::{Error, ErrorKind, Result};

/// Files of one table: their names are held while a query is planned, some 200 bytes each.
const MAX_FILES: usize = 500_000;
/// Names that a notice or an error lists.
const NAMES_SHOWN: usize = 5;
/// Names that are counted: they are held until all are seen.
const NAMES_COUNTED: usize = 10_000;
/// Folder for what must not be read as data, below a table's directory.
pub(super) const HIDDEN: &str = "_casebook";

/// What lies at a place.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) files: Vec<ObjectMeta>,
    /// Files of other endings.
    others: Unread,
    /// Folders whose files are not read.
    folders: Unread,
    /// Files that would be read but for their names, or those of their folders.
    hidden: Unread,
    /// Patterns that matched no file.
    unmatched: Vec<String>,
}

/// Names that are left out; many files may give one.
#[derive(Debug, Default)]
struct Unread {
    /// The first few, in the order in which they were found.
    first: Vec<String>,
    /// All that are counted.
    seen: HashSet<String>,
    /// There are others.
    more: bool,
}

impl Unread {
    fn add(&mut self, name: &str) {
        if self.seen.contains(name) {
            return;
        }
        if self.seen.len() == NAMES_COUNTED {
            self.more = true;
            return;
        }
        self.seen.insert(name.to_owned());
        if self.first.len() < NAMES_SHOWN {
            self.first.push(name.to_owned());
        }
    }

    fn count(&self) -> usize {
        self.seen.len()
    }

    fn list(&self) -> String {
        let than = if self.more { "more than " } else { "" };
        let more = match self.seen.len() - self.first.len() {
            0 => String::new(),
            n => format!(" and {than}{n} more"),
        };
        format!("{}{more}", self.first.join(", "))
    }
}

impl Located {
    /// The files of `format` that are there now; none is an error only where the place names its
    /// files itself. `below` is whether a directory's other folders are read, too.
    pub(super) async fn list(
        &self,
        state: &dyn Session,
        format: &str,
        below: bool,
    ) -> Result<Listed> {
        let store = self.store(state)?;
        let mut listed = match &self.kind {
            Kind::File => self.one(store.as_ref()).await?,
            Kind::Directory => self.directory(store.as_ref(), format, below).await?,
            Kind::Pattern(glob) => self.pattern(store.as_ref(), glob, format, below).await?,
        };
        // Stores differ in their order; the first file decides what an error says.
        listed.files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(listed)
    }

    async fn one(&self, store: &dyn ObjectStore) -> Result<Listed> {
        use object_store::ObjectStoreExt;
        let meta = store.head(&self.base).await;
        let meta = meta.map_err(|e| self.failed("opening", e))?;
        Ok(Listed {
            files: vec![meta],
            ..Listed::default()
        })
    }

    async fn directory(
        &self,
        store: &dyn ObjectStore,
        format: &str,
        below: bool,
    ) -> Result<Listed> {
        let mut listed = Listed::default();
        let mut found = store.list(Some(&self.base));
        while let Some(meta) = self.next(found.try_next().await)? {
            let Some(path) = self.relative(&meta.location) else {
                continue;
            };
            let path: Vec<&str> = path.split('/').collect();
            if listed.holds(&path, &path, format, below) {
                self.push(&mut listed, meta)?;
            }
        }
        Ok(listed)
    }

    async fn pattern(
        &self,
        store: &dyn ObjectStore,
        glob: &Glob,
        format: &str,
        below: bool,
    ) -> Result<Listed> {
        let mut listed = Listed::default();
        let mut matched = vec![false; glob.patterns.len()];
        let mut found = match glob.is_flat() {
            // A directory may have large ones below it.
            true => {
                let there = store.list_with_delimiter(Some(&self.base)).await;
                let there = there.map_err(|e| self.unlisted(e))?;
                for folder in &there.common_prefixes {
                    let name = folder.filename().unwrap_or_default();
                    if glob
                        .patterns
                        .iter()
                        .any(|p| p.matches(&[name]) == Matched::File)
                    {
                        listed.folders.add(name);
                    }
                }
                futures::stream::iter(there.objects.into_iter().map(Ok)).boxed()
            }
            false => store.list(Some(&self.base)),
        };
        while let Some(meta) = self.next(found.try_next().await)? {
            let Some(path) = self.relative(&meta.location) else {
                continue;
            };
            let path: Vec<&str> = path.split('/').collect();
            let mut is_in = false;
            for (pattern, matched) in glob.patterns.iter().zip(&mut matched) {
                let fits = match pattern.matches(&path) {
                    Matched::No => {
                        let folder =
                            (1..path.len()).find(|n| pattern.matches(&path[..*n]) == Matched::File);
                        if let Some(n) = folder {
                            listed.folders.add(&path[..n].join("/"));
                        }
                        false
                    }
                    Matched::File => true,
                    Matched::Below(n) => {
                        listed.holds(&path, &path[path.len() - n..], format, below)
                    }
                };
                *matched |= fits;
                is_in |= fits;
            }
            if is_in {
                self.push(&mut listed, meta)?;
            }
        }
        let missed = glob.patterns.iter().zip(matched).filter(|(_, m)| !*m);
        listed.unmatched = missed.map(|(p, _)| p.text().to_owned()).collect();
        Ok(listed)
    }

    fn push(&self, listed: &mut Listed, meta: ObjectMeta) -> Result<()> {
        if listed.files.len() == MAX_FILES {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "'{}' has more than {MAX_FILES} files; name fewer of them with a pattern, or \
                     put their rows into larger files",
                    self.shown
                ),
            ));
        }
        listed.files.push(meta);
        Ok(())
    }

    fn next(&self, found: object_store::Result<Option<ObjectMeta>>) -> Result<Option<ObjectMeta>> {
        match found {
            Ok(found) => Ok(found),
            // A directory that is still to be made.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.unlisted(e)),
        }
    }

    fn unlisted(&self, error: object_store::Error) -> Error {
        let failed = self.failed("listing", error);
        // The library says which link it is, but keeps the type of this error to itself.
        match failed.to_string().contains("File system loop") {
            true => Error::invalid(format!(
                "{failed}, so that there is no end of it; remove that link, or name the files \
                 themselves"
            ))
            .with_source(failed),
            false => failed,
        }
    }

    /// The path below the base; none for what is not data.
    fn relative<'a>(&self, path: &'a StorePath) -> Option<&'a str> {
        let rest = path.as_ref().strip_prefix(self.base.as_ref())?;
        let rest = match self.base.as_ref().is_empty() {
            true => rest,
            false => rest.strip_prefix('/')?,
        };
        (!rest.split('/').any(|part| part == HIDDEN)).then_some(rest)
    }

    /// True if a file at `path` can be one of this place.
    pub(super) fn may_have(&self, path: &StorePath) -> bool {
        let Some(path) = self.relative(path) else {
            return false;
        };
        let path: Vec<&str> = path.split('/').collect();
        match &self.kind {
            Kind::Pattern(glob) => {
                let mut patterns = glob.patterns.iter();
                patterns.any(|p| p.matches(&path) != Matched::No)
            }
            Kind::File => true,
            Kind::Directory => !path.iter().any(|part| is_hidden(part)),
        }
    }

    /// An error that says what is there instead.
    pub(super) fn nothing_found(&self, format: &str, listed: &Listed) -> Error {
        let endings = endings(format).first().copied().unwrap_or_default();
        let message = match (&self.kind, &listed.unmatched[..]) {
            (Kind::Pattern(glob), [..]) => {
                let below = match listed.folders.count() {
                    0 => String::new(),
                    _ => format!(
                        "; it matches the folders {}: end it with / to read the files in them",
                        listed.folders.list()
                    ),
                };
                let which = match glob.patterns.len() {
                    1 => String::new(),
                    _ => format!(" as far as {} goes", listed.unmatched.join(", ")),
                };
                format!("no file matches '{}'{which}{below}", self.shown)
            }
            _ => {
                let others = match (listed.others.count(), listed.folders.count()) {
                    (0, 0) => String::new(),
                    (0, _) => format!(
                        "; there are files in the folders {}, which '{}/**/*{endings}' names",
                        listed.folders.list(),
                        self.shown.trim_end_matches('/')
                    ),
                    _ => format!(
                        "; there is {}: name files with other endings by a pattern, such as '{}/*'",
                        listed.others.list(),
                        self.shown.trim_end_matches('/')
                    ),
                };
                let hidden = match listed.hidden.count() {
                    0 => String::new(),
                    _ => format!(
                        "; names that begin with _ or . are no data: {}",
                        listed.hidden.list()
                    ),
                };
                format!(
                    "there are no {endings} files at '{}'{others}{hidden}; to make a table there, declare \
                     its columns or say OPTIONS ('table.create' 'qa_pairs')",
                    self.shown
                )
            }
        };
        Error::new(ErrorKind::NotFound, message)
    }
}

impl Listed {
    /// True if a file is one of a directory's: `below` is its path from there, `path` the whole.
    fn holds(&mut self, path: &[&str], below: &[&str], format: &str, all_folders: bool) -> bool {
        let Some((name, folders)) = below.split_last() else {
            return false;
        };
        let fits = !Ending::of(name, format).plain.is_empty();
        if below.iter().any(|part| is_hidden(part)) {
            if fits {
                self.hidden.add(&path.join("/"));
            }
            return false;
        }
        match folders.iter().position(|folder| !folder.contains('=')) {
            Some(at) if !all_folders => {
                let before = path.len() - below.len();
                self.folders.add(&path[..=before + at].join("/"));
                false
            }
            _ if fits => true,
            _ => {
                self.others.add(&path.join("/"));
                false
            }
        }
    }

    /// Patterns that match nothing are an error, as in a command of the shell.
    pub(super) fn check(&self, place: &Located, format: &str) -> Result<()> {
        match (&place.kind, self.unmatched.is_empty()) {
            (Kind::Pattern(_), false) => Err(place.nothing_found(format, self)),
            _ => Ok(()),
        }
    }

    /// What the user should know about files that are not read; none if all are.
    pub(super) fn notice(&self, place: &Located, format: &str) -> Option<String> {
        let shown = place.shown.trim_end_matches('/');
        let mut said = vec![];
        if self.others.count() > 0 {
            said.push(format!(
                "{} of '{}' {} left out, because the name does not end in {}: name files with \
                 other endings by a pattern, such as '{shown}/*'",
                self.others.list(),
                place.shown,
                if self.others.count() == 1 {
                    "is"
                } else {
                    "are"
                },
                endings(format).join(" or ")
            ));
        }
        if self.folders.count() > 0 {
            let hint = match place.kind {
                Kind::Pattern(_) => {
                    "end the pattern with / to read the files in folders".to_owned()
                }
                _ => format!(
                    "'{shown}/**/*{}' reads them, too",
                    endings(format).first().copied().unwrap_or_default()
                ),
            };
            said.push(format!(
                "the files in {} of '{}' are left out: {hint}",
                self.folders.list(),
                place.shown
            ));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_named() {
        let mut listed = Listed::default();
        for (path, expected) in [
            ("a.csv", true),
            ("B.CSV", true),
            ("c.txt", false),
            ("_SUCCESS", false),
            (".a.csv.crc", false),
            ("year=2026/x.csv", true),
            ("2020/b.csv", false),
            ("_temporary/0/x.csv", false),
            ("_a.csv", false),
            (".a.csv", false),
            ("a.csv~", false),
            (".hidden/x.csv", false),
            ("year=2026/_x.csv", false),
            ("_year=2026/x.csv", true),
            (".year=2026/x.csv", false),
            ("year=2026/_temporary/x.csv", false),
        ] {
            let path: Vec<&str> = path.split('/').collect();
            assert_eq!(
                listed.holds(&path, &path, "CSV", false),
                expected,
                "{path:?}"
            );
        }
        assert_eq!(listed.others.first, ["c.txt", "a.csv~"]);
        assert_eq!(listed.hidden.count(), 7);
        assert_eq!(listed.folders.first, ["2020"]);
    }

    #[test]
    fn each_name_is_counted_once() {
        let mut folders = Unread::default();
        for round in 0..3 {
            for year in 0..7 {
                folders.add(&format!("{year}"));
                assert_eq!(folders.count(), if round == 0 { year + 1 } else { 7 });
            }
        }
        assert_eq!(folders.list(), "0, 1, 2, 3, 4 and 2 more");
        (0..2 * NAMES_COUNTED).for_each(|name| folders.add(&name.to_string()));
        assert_eq!(folders.list(), "0, 1, 2, 3, 4 and more than 9995 more");
    }
}
