//! How many bytes the rows of a batch have, whatever else their buffers hold, and batches cut by that.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;

/// `batch` in pieces of at most `most` bytes, or of one row.
pub(crate) fn pieces(batch: RecordBatch, most: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows < 2 || bytes(&batch) <= most {
        return vec![batch];
    }
    let half = rows / 2;
    let mut out = pieces(batch.slice(0, half), most);
    out.extend(pieces(batch.slice(half, rows - half), most));
    out
}

/// Bytes of the values in `batch`, without those of rows that were sliced off.
pub(crate) fn bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(bytes_of).sum()
}

fn bytes_of(column: &ArrayRef) -> usize {
    // A list that was sliced keeps all values; its offsets say which are its own.
    let between =
        |values: &ArrayRef, start: usize, end: usize| bytes_of(&values.slice(start, end - start));
    match column.data_type() {
        // Of a view the low half is the length of its text.
        DataType::Utf8View => {
            let views = column.as_string_view().views().iter();
            views.map(|view| *view as u32 as usize + 16).sum()
        }
        DataType::BinaryView => {
            let views = column.as_binary_view().views().iter();
            views.map(|view| *view as u32 as usize + 16).sum()
        }
        DataType::Struct(_) => column.as_struct().columns().iter().map(bytes_of).sum(),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let (start, end) = ends(list.value_offsets());
            4 * column.len() + between(list.values(), start, end)
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            let offsets = list.value_offsets();
            let (start, end) = match offsets {
                [start, .., end] => (*start as usize, *end as usize),
                _ => (0, 0),
            };
            8 * column.len() + between(list.values(), start, end)
        }
        DataType::Map(_, _) => {
            let map = column.as_map();
            let (start, end) = ends(map.value_offsets());
            let entries = map.entries().slice(start, end - start);
            4 * column.len() + entries.columns().iter().map(bytes_of).sum::<usize>()
        }
        // Its values are sliced with it.
        DataType::FixedSizeList(_, _) => bytes_of(column.as_fixed_size_list().values()),
        _ => column.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

fn ends(offsets: &[i32]) -> (usize, usize) {
    match offsets {
        [start, .., end] => (*start as usize, *end as usize),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        FixedSizeListBuilder, LargeListBuilder, ListBuilder, MapBuilder, StringBuilder,
        StringViewArray, StringViewBuilder, StructArray, UInt32Array,
    };
    use datafusion::arrow::compute::take;
    use datafusion::arrow::datatypes::Field;

    use super::*;

    const TEXT: usize = 1000;
    const ROWS: usize = 100;

    #[test]
    fn a_batch_of_long_texts_is_cut_into_pieces_that_hold_every_row() {
        let one = StringViewArray::from_iter_values(["x".repeat(1 << 20)]);
        let texts = take(&one, &UInt32Array::from(vec![0; 600]), None).unwrap();
        let batch = RecordBatch::try_from_iter([("t", texts)]).unwrap();
        let most = 256 << 20;
        let cut = pieces(batch, most);
        assert_eq!(cut.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
        assert!(cut.len() > 2);
        assert!(cut.iter().all(|piece| bytes(piece) <= most));
    }

    fn check(column: ArrayRef) {
        let name = column.data_type().to_string();
        let whole = bytes_of(&column);
        assert!(
            (ROWS * 2 * TEXT..ROWS * 2 * TEXT + ROWS * 200).contains(&whole),
            "{name}: {whole}"
        );
        // A tenth of the rows has a tenth of the bytes.
        let part = bytes_of(&column.slice(20, ROWS / 10));
        assert!(part.abs_diff(whole / 10) < 200, "{name}: {part} of {whole}");
        assert!(bytes_of(&column.slice(3, 0)) < 20, "{name}");
    }

    #[test]
    fn a_slice_has_the_bytes_of_its_own_rows() {
        let text = "x".repeat(TEXT);
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut large = LargeListBuilder::new(StringViewBuilder::new());
        let mut fixed = FixedSizeListBuilder::new(StringViewBuilder::new(), 2);
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringViewBuilder::new());
        for _ in 0..ROWS {
            for _ in 0..2 {
                lists.values().append_value(&text);
                large.values().append_value(&text);
                fixed.values().append_value(&text);
                maps.keys().append_value("k");
                maps.values().append_value(&text);
            }
            lists.append(true);
            large.append(true);
            fixed.append(true);
            maps.append(true).unwrap();
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let inside = Field::new("x", lists.data_type().clone(), true);
        let inside = StructArray::from(vec![(Arc::new(inside), Arc::clone(&lists))]);
        let mut nested = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
        for _ in 0..ROWS {
            for _ in 0..2 {
                nested.values().values().append_value(&text);
                nested.values().append(true);
            }
            nested.append(true);
        }
        check(lists);
        check(Arc::new(large.finish()));
        check(Arc::new(fixed.finish()));
        check(Arc::new(maps.finish()));
        check(Arc::new(inside));
        check(Arc::new(nested.finish()));
    }
}
