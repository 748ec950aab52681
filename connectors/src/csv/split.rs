//! Which parts of which files a scan reads: byte ranges, whose borders are moved to those of
//! records when they are read (see [`super::pieces`]).

use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};

use super::encoding::Encoding;
use super::layout::CsvLayout;

/// Largest part, bytes. A part is held in memory while it is decoded.
const PART_BYTES: u64 = 8 << 20;
/// Smallest part: what is done once per part should not show.
const MIN_PART_BYTES: u64 = 1 << 20;
/// Parts per partition that a file should at least give, so that all end at about the same time.
const PARTS_PER_PARTITION: u64 = 4;

/// Files in parts, or none if they are best read whole.
///
/// The parts stay in the order of the files: idle partitions take the next one, so that the scan
/// goes from front to back and stops early if no more is wanted.
pub(super) fn split(
    config: &FileScanConfig,
    layout: &CsvLayout,
    partitions: usize,
    min_bytes: usize,
) -> Option<Vec<FileGroup>> {
    // A limit is reached soonest by one reader. Escapes, comments and terminators are rare enough
    // to be read by one, too, and a file in another encoding is converted from front to back.
    let dialect = &layout.dialect;
    let plain =
        dialect.escape.is_none() && dialect.comment.is_none() && layout.encoding == Encoding::Utf8;
    if config.limit.is_some()
        || config.file_compression_type.is_compressed()
        || !plain
        || dialect.terminator.is_some()
        || partitions < 2
    {
        return None;
    }
    let files: Vec<&PartitionedFile> = config.file_groups.iter().flat_map(|g| g.iter()).collect();
    let total: u64 = files.iter().map(|f| f.object_meta.size).sum();
    let wanted = total / (partitions as u64 * PARTS_PER_PARTITION);
    let part_bytes = wanted.clamp(MIN_PART_BYTES, PART_BYTES);
    let largest = files.iter().map(|f| f.object_meta.size).max()?;
    // Files that keep all partitions busy are read whole, which reads them once.
    if total < min_bytes as u64
        || largest <= total / partitions as u64
        || files.iter().any(|f| f.range.is_some())
        || files.iter().all(|f| f.object_meta.size <= part_bytes)
    {
        return None;
    }
    let parts = files.into_iter().flat_map(|f| parts_of(f, part_bytes));
    Some(grouped(parts, total.div_ceil(partitions as u64)))
}

/// Parts of nearly equal size; a small file stays whole.
fn parts_of(file: &PartitionedFile, part_bytes: u64) -> Vec<PartitionedFile> {
    let size = file.object_meta.size;
    let count = size.div_ceil(part_bytes);
    if count < 2 {
        return vec![file.clone()];
    }
    let border = |i: u64| (u128::from(size) * u128::from(i) / u128::from(count)) as i64;
    (0..count)
        .map(|i| {
            let mut part = file.clone();
            part.range = Some(FileRange {
                start: border(i),
                end: border(i + 1),
            });
            part
        })
        .collect()
}

/// Groups of about `group_bytes`, in order.
fn grouped(parts: impl Iterator<Item = PartitionedFile>, group_bytes: u64) -> Vec<FileGroup> {
    let (mut groups, mut group, mut bytes) = (vec![], vec![], 0);
    for part in parts {
        bytes += part.effective_size();
        group.push(part);
        if bytes >= group_bytes {
            groups.push(FileGroup::new(std::mem::take(&mut group)));
            bytes = 0;
        }
    }
    if !group.is_empty() {
        groups.push(FileGroup::new(group));
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::config::CsvOptions;
    use datafusion::datasource::physical_plan::FileScanConfigBuilder;
    use datafusion::datasource::source::DataSourceExec;
    use datafusion::datasource::table_schema::TableSchema;
    use datafusion::execution::object_store::ObjectStoreUrl;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use futures::TryStreamExt;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};
    use proptest::prelude::*;

    use super::super::options::OwnOptions;
    use super::super::source::source;
    use super::*;

    type Rows = Vec<Vec<Option<String>>>;

    /// A scan of `text` in the parts that begin at `starts`; none: whole.
    async fn plan(
        ctx: &SessionContext,
        store: Arc<dyn ObjectStore>,
        text: &str,
        starts: &[u64],
    ) -> Arc<DataSourceExec> {
        let path = object_store::path::Path::from("t.csv");
        store.put(&path, text.to_owned().into()).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        let url = ObjectStoreUrl::parse("memory://t").unwrap();
        ctx.register_object_store(url.as_ref(), store);
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Utf8View, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let mut own = OwnOptions::default();
        own.limits.allow_ragged = true;
        let layout = CsvLayout::new(&CsvOptions::default(), &own, true).unwrap();
        let source = source(TableSchema::from(schema), layout);
        let size = meta.size;
        let mut parts: Vec<PartitionedFile> = starts
            .iter()
            .enumerate()
            .map(|(i, start)| {
                let mut part = PartitionedFile::from(meta.clone());
                let end = starts.get(i + 1).copied().unwrap_or(size);
                part.range = Some(FileRange {
                    start: *start as i64,
                    end: end as i64,
                });
                part
            })
            .collect();
        if parts.is_empty() {
            parts.push(PartitionedFile::from(meta));
        }
        let groups = parts.into_iter().map(|p| FileGroup::new(vec![p])).collect();
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .build();
        DataSourceExec::from_data_source(config)
    }

    /// Each partition's rows; all are open at once and read in the order of `turns`.
    async fn read(
        text: &str,
        starts: &[u64],
        turns: &[usize],
        (stealing, local): (bool, bool),
    ) -> Result<Vec<Rows>, String> {
        let mut config = SessionConfig::new().with_batch_size(3);
        config
            .options_mut()
            .execution
            .enable_file_stream_work_stealing = stealing;
        let ctx = SessionContext::new_with_config(config);
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = match local {
            true => Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()),
            false => Arc::new(InMemory::new()),
        };
        let plan = plan(&ctx, store, text, starts).await;
        let count = plan.properties().partitioning.partition_count();
        let mut streams: Vec<_> = (0..count)
            .map(|p| Some(plan.execute(p, ctx.task_ctx()).unwrap()))
            .collect();
        let mut out = vec![vec![]; count];
        let order = turns.iter().map(|t| t % count).chain(0..count);
        for p in order {
            let Some(stream) = streams[p].take() else {
                continue;
            };
            let batches: Vec<_> = stream.try_collect().await.map_err(|e| e.to_string())?;
            for batch in batches {
                let columns = [batch.column(0), batch.column(1)].map(|c| c.as_string_view());
                out[p].extend((0..batch.num_rows()).map(|row| {
                    let cells = columns.iter().map(|c| {
                        let cell = c.iter().nth(row).flatten();
                        cell.map(str::to_owned)
                    });
                    cells.collect::<Vec<_>>()
                }));
            }
        }
        Ok(out)
    }

    /// Parts give what the whole gives, rows or the error, in the order of the file.
    async fn check(text: &str, cuts: &[u64], turns: &[usize], stealing: bool) {
        for local in [false, true] {
            check_in(text, cuts, turns, (stealing, local)).await;
        }
    }

    async fn check_in(text: &str, cuts: &[u64], turns: &[usize], how: (bool, bool)) {
        let size = text.len() as u64;
        let mut starts: Vec<u64> = cuts.iter().map(|c| c % size.max(1)).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let whole = read(text, &[], &[], how).await;
        let mut parts = read(text, &starts, turns, how).await;
        if how.0
            && let Ok(rows) = &mut parts
        {
            // Whoever reads first takes all there is.
            rows.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
            rows.truncate(1);
        }
        let joined = |rows: Vec<Rows>| rows.into_iter().flatten().collect::<Rows>();
        assert_eq!(
            parts.map(joined),
            whole.map(joined),
            "{text:?} split at {starts:?}"
        );
    }

    fn run(future: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).build().unwrap().block_on(future);
    }

    #[test]
    fn borders_fall_between_records() {
        let text = "a,b\r\n1,\"x\n\"\"y\"\"\"\r\n\r\n\"2\",\n3,\"\"\n4,5\" tube";
        run(async {
            for cut in 0..text.len() as u64 {
                check(text, &[cut], &[1], false).await;
                check(text, &[cut, cut + 1, cut + 9], &[2, 1, 3], false).await;
                check(text, &[cut, cut / 2], &[], true).await;
            }
        });
    }

    #[test]
    fn the_header_is_no_record_wherever_it_stands() {
        let text = "\n\n\n\n\n\na,b\n1,2\n\"3\",4\n5,6\n";
        run(async {
            for cut in 0..text.len() as u64 {
                check(text, &[cut], &[1], false).await;
                check(text, &[cut, cut / 2, cut + 3], &[2, 1], true).await;
            }
            let rows = read(text, &[0, 2, 4], &[1], (false, true)).await.unwrap();
            assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 3);
            check("\n\n\n\na,b\n", &[2, 6], &[1], false).await;
        });
    }

    /// The ranges, in MB, that files of these sizes in MB are split into.
    fn ranges(sizes: &[u64], partitions: usize, limit: Option<usize>) -> Option<Vec<String>> {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8View, true)]));
        let layout = CsvLayout::standard(OwnOptions::default());
        let source = source(TableSchema::from(schema), layout.clone());
        let files = sizes.iter().enumerate();
        let files = files.map(|(i, mb)| PartitionedFile::new(format!("f{i}"), mb << 20));
        let url = ObjectStoreUrl::parse("memory://t").unwrap();
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(vec![FileGroup::new(files.collect())])
            .with_limit(limit)
            .build();
        let groups = split(&config, &layout, partitions, 10 << 20)?;
        let show = |file: &PartitionedFile| match &file.range {
            Some(r) => format!(
                "{}:{}-{}",
                file.object_meta.location,
                r.start >> 20,
                r.end >> 20
            ),
            None => file.object_meta.location.to_string(),
        };
        let groups = groups
            .iter()
            .map(|g| g.iter().map(show).collect::<Vec<_>>().join(" "));
        Some(groups.collect())
    }

    #[test]
    fn large_files_are_split_and_only_those() {
        let both = [
            "f0:0-4 f0:4-8 f0:8-12 f0:12-16",
            "f0:16-20 f0:20-24 f0:24-28 f0:28-32",
        ];
        assert_eq!(ranges(&[32], 2, None).unwrap(), both);
        assert_eq!(ranges(&[1, 15], 2, None).unwrap().len(), 2);
        assert_eq!(ranges(&[32], 2, Some(5)), None, "a limit");
        assert_eq!(ranges(&[32], 1, None), None, "one partition");
        assert_eq!(ranges(&[20, 20], 2, None), None, "enough files");
        assert_eq!(ranges(&[9], 2, None), None, "a small file");
    }

    #[test]
    fn an_open_quote_is_the_same_error() {
        let text = "a,b\n1,2\n3,\"open\n4,5\n6,\"seven\"\n";
        run(async {
            check(text, &[10, 20, 30], &[3, 0], false).await;
            let error = read(text, &[0, 10, 20], &[2], (false, true))
                .await
                .unwrap_err();
            assert!(
                error.contains("record 3") && error.contains("byte 10"),
                "{error}"
            );
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn parts_equal_the_whole(
            lines in prop::collection::vec("[a,\"\n\ré ]{0,8}|\"([a,\n\r]|\"\"){0,9}\"", 0..12),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", ",", "\r"]), 12),
            cuts in prop::collection::vec(any::<u64>(), 0..5),
            turns in prop::collection::vec(any::<usize>(), 0..5),
            stealing in any::<bool>(),
        ) {
            let cells: String = lines.iter().zip(&ends).flat_map(|(l, e)| [l.as_str(), e]).collect();
            run(check(&format!("a,b\n{cells}"), &cuts, &turns, stealing));
        }
    }
}
