//! Which columns a table of files has: declared, read from the files, named by folders.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::datasource::file_format::FileFormat;
use object_store::ObjectMeta;

use super::ending::{Ending, common_ending};
use super::listing::Listed;
use super::locate::{Kind, Located};
use super::options::STRICT;
use super::partitions::{self, Partitions};
use super::table::Notices;
use crate::declared::check_columns;
use crate::error::{Error, ErrorKind, Result};
use crate::evolve;
use crate::guard::in_other_case;
use crate::options::{TableOptions, parse_value};

/// What is at the places of a table while it is opened.
pub(super) struct There<'a> {
    format: &'static str,
    places: Vec<(&'a Located, Listed)>,
}

impl<'a> There<'a> {
    /// Lists the places.
    pub(super) async fn look(
        state: &dyn Session,
        format: &'static str,
        places: &'a [Located],
        notices: &Notices,
    ) -> Result<Self> {
        let below = !state
            .config_options()
            .execution
            .listing_table_ignore_subdirectory;
        let mut there = vec![];
        for place in places {
            let mut listed = place.list(state, format, below).await?;
            if let Some(notice) = listed.notice(place, format) {
                notices.say(notice);
            }
            listed.files.retain(|file| file.size > 0);
            there.push((place, listed));
        }
        Ok(Self {
            format,
            places: there,
        })
    }

    /// A directory that an INSERT would make must not be called as a file is: who asks for x.csv
    /// means a file, and an INSERT adds files to a directory.
    pub(super) fn check_new(&self) -> Result<()> {
        for (place, listed) in &self.places {
            let is_made = listed.files.is_empty() && !place.is_on_disk();
            if !is_made
                || place.shown.ends_with('/')
                || Ending::of(&place.shown, self.format).plain.is_empty()
            {
                continue;
            }
            return Err(Error::invalid(format!(
                "'{}' is the name of a file, and an INSERT adds files to a directory; leave the \
                 ending out, or end the location with / for a directory of this name",
                place.shown
            )));
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = (&'a Located, &ObjectMeta)> {
        let places = self.places.iter();
        places.flat_map(|(place, listed)| listed.files.iter().map(|file| (*place, file)))
    }

    /// How the files end, and new ones will.
    pub(super) fn ending(&self, format: &str, options: &TableOptions) -> Result<Ending> {
        let said = said_compression(options);
        let shown = self.places.first().map_or("", |(place, _)| &place.shown);
        let names = self
            .files()
            .filter_map(|(_, file)| file.location.filename());
        let found = match said {
            // The option holds for every file.
            Some(_) => self
                .files()
                .next()
                .map(|(_, file)| Ending::of(file.location.filename().unwrap_or_default(), format)),
            None => common_ending(names, format, shown)?,
        };
        Ok(match found {
            Some(found) => found,
            None => match self.places.first() {
                Some((place, _)) if !matches!(place.kind, Kind::Directory) => {
                    Ending::of(&place.shown, format)
                }
                _ => Ending::written(format, said),
            },
        })
    }

    /// Columns that folders such as `year=2026` name.
    pub(super) fn partitions(&self) -> Result<Partitions> {
        let mut names: Option<Vec<String>> = None;
        for (place, listed) in &self.places {
            let paths = listed.files.iter().map(|file| &file.location);
            if matches!(place.kind, Kind::File) || listed.files.is_empty() {
                continue;
            }
            let found = partitions::found(place, paths)?;
            match &names {
                Some(names) if *names != found => {
                    return Err(Error::invalid(format!(
                        "the folders of '{}' name other columns than those of the first location; \
                         give locations of one kind",
                        place.shown
                    )));
                }
                _ => names = Some(found),
            }
        }
        let names = names.unwrap_or_default().into_iter();
        Ok(names
            .map(|name| (name, partitions::undeclared_type()))
            .collect())
    }

    /// Every file must be in folders of the declared columns.
    pub(super) fn check_partitions(&self, declared: &Partitions) -> Result<()> {
        for (place, file) in self.files() {
            partitions::values(place, &file.location, declared)?;
        }
        Ok(())
    }

    /// The columns of all files, which must agree.
    pub(super) async fn infer(
        &self,
        state: &dyn Session,
        format: &Arc<dyn FileFormat>,
    ) -> Result<SchemaRef> {
        let mut inferred = None;
        for (place, listed) in &self.places {
            listed.check(place, self.format)?;
            if listed.files.is_empty() {
                return Err(place.nothing_found(self.format, listed));
            }
            let found = place.infer(state, format, &listed.files).await?;
            agree(&mut inferred, found, &place.shown)?;
        }
        inferred.ok_or_else(|| Error::invalid("the table has no LOCATION"))
    }

    /// Files that are already there must have the columns of a contract. Types are those of the
    /// files in Parquet alone; JSON leaves out nulls.
    pub(super) async fn check_declared(
        &self,
        state: &dyn Session,
        format: &Arc<dyn FileFormat>,
        declared: &SchemaRef,
        evolve: bool,
    ) -> Result<()> {
        for (place, listed) in &self.places {
            if listed.files.is_empty() {
                continue;
            }
            let same = |declared: &Schema, found: &Schema| match evolve {
                // Files with fewer columns stay as they are; where a new one stands is all the same.
                true => check_columns(declared, found, &place.shown, true),
                false => evolve::missing(declared, found, false, &place.shown).map(drop),
            };
            let found = place.infer(state, format, &listed.files).await?;
            let names = |schema: &Schema| -> SchemaRef {
                let fields = schema.fields().iter();
                let texts = fields.map(|f| Field::new(f.name(), DataType::Utf8View, true));
                Arc::new(Schema::new(texts.collect::<Vec<_>>()))
            };
            match self.format {
                "PARQUET" => same(declared, &found)?,
                "CSV" => same(&names(declared), &names(&found))?,
                _ => {
                    let extra = found.fields().iter().map(|f| f.name());
                    let extra = extra.filter(|n| declared.column_with_name(n).is_none());
                    let extra: Vec<&str> = extra.map(String::as_str).collect();
                    if !extra.is_empty() {
                        return Err(Error::invalid(format!(
                            "the files at '{}' have columns that are not declared: {}; choose \
                             another location or declare them",
                            place.shown,
                            extra.join(", ")
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Names declared columns that no file has: they would be null in every row. CSV files have
    /// their header compared by their reader.
    pub(super) async fn check_missing(
        &self,
        state: &dyn Session,
        format: &Arc<dyn FileFormat>,
        declared: &SchemaRef,
        table: &str,
        options: &TableOptions,
    ) -> Result<()> {
        let strict = match options.get(STRICT.key) {
            Some(value) => parse_value(STRICT.key, value, "true or false")?,
            None => false,
        };
        if self.format == "CSV" || self.files().next().is_none() {
            return Ok(());
        }
        let fields = declared.fields().iter();
        let mut missing: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
        // The first file has them all, as a rule.
        for (place, file) in self.files() {
            let found = place.infer(state, format, std::slice::from_ref(file));
            let found = match found.await {
                Ok(found) => found,
                // Of a key that is not declared, nobody asks what column it would be.
                Err(_) if self.format == "JSON" && !strict => return Ok(()),
                Err(error) => return Err(error),
            };
            missing.retain(|name| found.column_with_name(name).is_none());
            for name in &missing {
                if let Some(other) = in_other_case(name, found.fields(), declared.fields()) {
                    return Err(Error::invalid(format!(
                        "the declared column {name} of {table} is called {0} in {1}; declare it as \
                         \"{0}\", in double quotes",
                        other.name(),
                        place.name(&file.location)
                    )));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
        // Of JSON only the first records were looked at.
        let (looked, therefore) = match self.format {
            "JSON" => (
                "none of the first records (format.schema_infer_max_rec)",
                "they are null unless later records have them",
            ),
            _ => ("no file", "they are null"),
        };
        let names = missing.join(", ");
        let shown = self.places.first().map_or("", |(place, _)| &place.shown);
        match strict {
            true => Err(Error::invalid(format!(
                "{looked} at '{shown}' has the declared columns of {table}: {names}; declare the \
                 columns that the files have"
            ))),
            false => {
                log::warn!(
                    target: "casebook",
                    "{looked} at '{shown}' has these declared columns of {table}: {names}; \
                     {therefore}; files.strict makes this an error"
                );
                Ok(())
            }
        }
    }
}

impl Located {
    async fn infer(
        &self,
        state: &dyn Session,
        format: &Arc<dyn FileFormat>,
        files: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let store = self.store(state)?;
        let found = format.infer_schema(state, &store, files).await;
        found.map_err(|e| Error::while_doing(format!("reading the columns of {}", self.shown), e))
    }
}

/// What an option says about how the files are compressed.
pub(super) fn said_compression(options: &TableOptions) -> Option<&str> {
    const KEY: &str = "format.compression";
    options
        .get(KEY)
        .or_else(|| options.format.get(KEY).map(String::as_str))
}

/// The library reads a table through one store.
pub(super) fn check_one_store(places: &[Located]) -> Result<()> {
    let first = places.first();
    let other = places
        .iter()
        .find(|p| first.is_some_and(|f| f.store != p.store));
    match (first, other) {
        (Some(first), Some(other)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "'{}' and '{}' are in different stores; make a table of each and join them with \
                 UNION ALL",
                first.shown, other.shown
            ),
        )),
        _ => Ok(()),
    }
}

/// Columns of PARTITIONED BY, in the types that the statement declares.
pub(super) fn declared_partitions(names: &[String], schema: &Schema) -> Partitions {
    let typed = names.iter().map(|name| {
        let declared = schema.field_with_name(name).map(|f| f.data_type().clone());
        (
            name.clone(),
            declared.unwrap_or_else(|_| partitions::undeclared_type()),
        )
    });
    typed.collect()
}

/// The columns of the files: those that no folder gives.
pub(super) fn without(schema: &Schema, partitions: &Partitions) -> SchemaRef {
    let fields = schema.fields().iter();
    let own = fields.filter(|f| partitions.iter().all(|(name, _)| name != f.name()));
    Arc::new(Schema::new(own.cloned().collect::<Vec<_>>()))
}

/// A column that both the files and the folders have is that of the folders, as Spark reads it.
pub(super) fn partitions_win(
    format: &str,
    found: &SchemaRef,
    partitions: &mut Partitions,
) -> Result<SchemaRef> {
    for (name, kind) in partitions.iter_mut() {
        let Ok(field) = found.field_with_name(name) else {
            continue;
        };
        if format != "CSV" {
            *kind = field.data_type().clone();
            continue;
        }
        // A column that has no name in the files goes by its place, which must not shift.
        if name.starts_with("column_") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the folders {name}=... have the name of a column of the CSV files that has \
                     none itself; give the files a header, or rename the folders"
                ),
            ));
        }
    }
    Ok(without(found, partitions))
}

/// Folders that are never listed are no columns.
pub(super) fn check_listed(partitions: &Partitions) -> Result<()> {
    match partitions.iter().find(|(name, _)| name.starts_with('.')) {
        Some((name, _)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the table is partitioned by {name}, and folders whose names begin with a dot are \
                 no data; give the column another name"
            ),
        )),
        None => Ok(()),
    }
}

/// A warning about columns that SQL tells apart only in quotes: without, a name means the one in
/// lower case.
pub(super) fn warn_of_case(schema: &Schema, table: &str) {
    let mut names: Vec<(String, &String)> = schema
        .fields()
        .iter()
        .map(|f| (f.name().to_lowercase(), f.name()))
        .collect();
    names.sort();
    for pair in names.windows(2) {
        if pair[0].0 == pair[1].0 {
            log::warn!(
                target: "casebook",
                "the columns \"{}\" and \"{}\" of {table} differ by case only; write their names in \
                 double quotes",
                pair[0].1, pair[1].1
            );
        }
    }
}

/// All places must have the same columns.
pub(super) fn agree(inferred: &mut Option<SchemaRef>, found: SchemaRef, shown: &str) -> Result<()> {
    match inferred {
        None => *inferred = Some(found),
        Some(first) if first.fields() != found.fields() => {
            let names = |s: &Schema| -> Vec<String> {
                s.fields()
                    .iter()
                    .map(|f| format!("{} {}", f.name(), f.data_type()))
                    .collect()
            };
            return Err(Error::invalid(format!(
                "'{shown}' has the columns {}, the first location has {}; give files with the \
                 same columns",
                names(&found).join(", "),
                names(first).join(", ")
            )));
        }
        Some(_) => {}
    }
    Ok(())
}

/// Texts are Utf8View, so that no batch of them can be too large.
pub(super) fn with_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new_with_metadata(
        fields.collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}
