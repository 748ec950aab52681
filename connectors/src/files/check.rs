//! `casebook check` for tables of files: the options, the store, a listing, a read, a scratch file.

use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::StreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::locate::{Kind, Located};
use crate::check::{CheckRequest, ScratchDirectories, Steps};
use crate::connector::Connector;
use crate::error::{Error, ErrorKind, Result};
use crate::location;
use crate::options::TableOptions;
use crate::stores;

/// Content of the scratch file.
const SCRATCH: &[u8] = b"casebook check";
/// Bytes that are read of the first file.
const START_BYTES: u64 = 1024;

/// Checks a location of `connector`; None as soon as a step failed.
pub(crate) async fn check(
    connector: &'static Connector,
    request: &CheckRequest,
    steps: &mut Steps,
) -> Option<()> {
    let options = steps.note("options", parse(connector, request), |_| "valid".into())?;
    let opened = open(&request.location, &options).await;
    let (store, place) = match opened {
        Ok(opened) => opened,
        Err(error) => return steps.note("reach", Err(error), |()| String::new()),
    };
    // The first answer of a store tells whether it is there and whether it knows us.
    let found = first_object(&store, &place).await;
    let denied = matches!(&found, Err(e) if e.kind() == ErrorKind::Denied);
    let (reach, sign_in) = match found {
        Err(error) if denied => (Ok(()), Err(error)),
        Err(error) => (Err(error), Ok(None)),
        Ok(object) => (Ok(()), Ok(object)),
    };
    steps.note("reach", reach, |()| {
        location::shown(&request.location).into_owned()
    })?;
    let object = match stores::is_local(&request.location) && !denied {
        true => sign_in.ok()?,
        false => steps.note("sign in", sign_in, |_| "allowed to list".into())?,
    };
    let listed = Ok::<_, Error>(&object);
    steps.note("list", listed, |object| match object {
        Some((path, bytes)) => format!("found {}, {bytes} bytes", place.name(path)),
        None => "nothing is there yet".into(),
    })?;
    if let Some((object, bytes)) = object {
        let name = place.name(&object);
        let read = read_start(connector.name, &store, &object, bytes, &name).await;
        steps.note("read", read, |n| format!("{n} bytes of {name}"))?;
    }
    // Into what is no directory there is no INSERT; planning one says so.
    if request.write && matches!(place.kind, Kind::Directory) {
        let written = write_scratch(&store, &place).await;
        steps.note("write", written, |name| format!("{name}, removed again"))?;
    }
    Some(())
}

fn parse(connector: &'static Connector, request: &CheckRequest) -> Result<TableOptions> {
    TableOptions::parse(connector, &request.location, &request.options)
}

async fn open(location: &str, options: &TableOptions) -> Result<(Arc<dyn ObjectStore>, Located)> {
    let state = SessionContext::new().state();
    let is_new = options.get("table.create").is_some();
    let place = Located::find(&state, location, options, is_new).await?;
    Ok((place.store(&state)?, place))
}

/// The location itself if it is a file, else the first file below it.
async fn first_object(
    store: &Arc<dyn ObjectStore>,
    place: &Located,
) -> Result<Option<(StorePath, u64)>> {
    if matches!(place.kind, Kind::File) {
        let found = store.head(&place.base).await;
        let meta = found.map_err(|e| place.failed("opening", e))?;
        return Ok(Some((meta.location, meta.size)));
    }
    let mut files = store.list(Some(&place.base));
    loop {
        match files.next().await {
            None => return Ok(None),
            // What Casebook and others keep beside the data, too.
            Some(Ok(meta)) if !place.may_have(&meta.location) => {}
            Some(Ok(meta)) => return Ok(Some((meta.location, meta.size))),
            Some(Err(error)) => return Err(place.failed("listing", error)),
        }
    }
}

async fn read_start(
    name: &str,
    store: &Arc<dyn ObjectStore>,
    path: &StorePath,
    bytes: u64,
    shown: &str,
) -> Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let read = store.get_range(path, 0..bytes.min(START_BYTES)).await;
    let read = read.map_err(|e| Error::while_doing(format!("reading {shown}"), e))?;
    let is_parquet = read.starts_with(b"PAR1");
    let holds = match name {
        "PARQUET" | "DELTA" => !path.as_ref().ends_with(".parquet") || is_parquet,
        _ => !is_parquet,
    };
    match holds {
        true => Ok(read.len()),
        false => Err(Error::invalid(format!(
            "{shown} is {}; say STORED AS what it is",
            if is_parquet {
                "a Parquet file"
            } else {
                "no Parquet file"
            }
        ))),
    }
}

/// Writes a file below the directory and removes it again. No table shows its name.
async fn write_scratch(store: &Arc<dyn ObjectStore>, place: &Located) -> Result<String> {
    let name = format!("{}/.casebook-check-{}.tmp", place.base, std::process::id());
    let scratch = StorePath::parse(&name)
        .map_err(|e| Error::invalid(format!("'{name}' is not a path: {e}")))?;
    let shown = place.name(&scratch);
    let doing = |what: &str| format!("{what} {shown}");
    // Writing makes directories on disk; elsewhere there are none.
    let local = Path::new(&shown).parent().filter(|_| place.is_local());
    let _made = local.map(ScratchDirectories::missing);
    store
        .put(&scratch, PutPayload::from_static(SCRATCH))
        .await
        .map_err(|e| Error::while_doing(doing("writing"), e))?;
    store
        .delete(&scratch)
        .await
        .map_err(|e| Error::while_doing(doing("removing"), e))?;
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn checked(location: &str) -> Vec<(&'static str, std::result::Result<String, String>)> {
        let request = CheckRequest {
            location: location.into(),
            options: Default::default(),
            write: true,
        };
        let steps = super::super::CSV.check(request).await;
        let shown = steps.into_iter();
        shown
            .map(|s| (s.name, s.result.map_err(|e| e.to_string())))
            .collect()
    }

    #[tokio::test]
    async fn a_directory_is_listed_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "id,text\n1,x\n").unwrap();
        let steps = checked(&dir.path().display().to_string()).await;
        let names: Vec<_> = steps.iter().map(|s| s.0).collect();
        assert_eq!(names, ["options", "reach", "list", "read", "write"]);
        assert!(steps.iter().all(|s| s.1.is_ok()), "{steps:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn the_location_may_be_below_a_hidden_name() {
        let dir = tempfile::tempdir().unwrap();
        let cases = dir.path().join("_raw/.cases");
        std::fs::create_dir_all(cases.join("_casebook")).unwrap();
        std::fs::create_dir_all(cases.join("_done")).unwrap();
        std::fs::create_dir_all(cases.join("_year=2026")).unwrap();
        for name in ["_a.csv", "_casebook/a.csv", "_done/a.csv"] {
            std::fs::write(cases.join(name), "id\n").unwrap();
        }
        let listed = || async {
            let steps = checked(&cases.display().to_string()).await;
            let list = steps.iter().find(|step| step.0 == "list").unwrap();
            list.1.clone().unwrap()
        };
        assert_eq!(listed().await, "nothing is there yet");
        std::fs::write(cases.join("_year=2026/b.csv"), "id,text\n1,x\n").unwrap();
        let found = listed().await;
        assert!(
            found.contains("_raw/.cases/_year=2026/b.csv, 12 bytes"),
            "{found}"
        );
    }

    #[tokio::test]
    async fn a_check_leaves_nothing_behind_and_shows_whole_paths() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().display().to_string();
        let steps = checked(&format!("{base}/new/deep/")).await;
        let last = steps.last().unwrap();
        let written = last.1.as_ref().unwrap();
        assert!(last.0 == "write" && written.starts_with(&base), "{steps:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // What others put there meanwhile stays.
        let scratch = ScratchDirectories::missing(&dir.path().join("a/b/c"));
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/x"), "").unwrap();
        drop(scratch);
        assert!(dir.path().join("a/x").exists() && !dir.path().join("a/b").exists());
        let steps = checked(&format!("{base}/a/x.csv")).await;
        let error = steps.last().unwrap().1.as_ref().unwrap_err();
        assert!(error.contains("there is no file"), "{steps:?}");
    }

    #[tokio::test]
    async fn the_failing_step_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "id\n").unwrap();
        for below in ["a.csv/x.csv", "a.csv/", "a.csv/x/", "a.csv/x/y/"] {
            let below = dir.path().join(below).display().to_string();
            let steps = checked(&below).await;
            let last = steps.last().unwrap();
            assert!(last.0 == "reach" && last.1.is_err(), "{steps:?}");
        }
        // A file is read; nothing is written beside it.
        let steps = checked(&dir.path().join("a.csv").display().to_string()).await;
        assert_eq!(steps.last().unwrap().0, "read", "{steps:?}");
        std::fs::write(dir.path().join("b.csv"), "PAR1").unwrap();
        let steps = checked(&format!("{}/b*.csv", dir.path().display())).await;
        let last = steps.last().unwrap();
        let error = steps.last().unwrap().1.as_ref().unwrap_err();
        assert!(
            last.0 == "read" && error.contains("a Parquet file"),
            "{steps:?}"
        );
    }
}
