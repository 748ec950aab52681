//! A set of hashes: in memory up to a bound, beyond it in sorted files that vanish with it.
//!
//! A file is looked at through an index of the first hash of each of its blocks, so that a hash
//! costs one read of 4 KiB. The files are merged before they become many.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

/// Hashes in memory: half a gigabyte of them.
const IN_MEMORY: usize = 16 << 20;
/// Hashes of a block: 4 KiB, the unit in which disks read.
const BLOCK: usize = 256;
/// Files before they are merged into one.
const MAX_FILES: usize = 8;
/// Bytes of a hash.
const WIDTH: usize = 16;

/// A set of 128-bit hashes.
#[derive(Debug)]
pub(crate) struct HashesSet {
    memory: HashSet<u128>,
    files: Vec<Sorted>,
    bound: usize,
}

impl Default for HashesSet {
    fn default() -> Self {
        Self::with_bound(IN_MEMORY)
    }
}

impl HashesSet {
    /// With at most `bound` hashes in memory.
    pub(crate) fn with_bound(bound: usize) -> Self {
        Self {
            memory: HashSet::new(),
            files: vec![],
            bound: bound.max(1),
        }
    }

    /// An empty one with half of its bound.
    pub(crate) fn smaller(&self) -> Self {
        Self::with_bound(self.bound / 2)
    }

    /// True if a look at it may read a file.
    #[cfg(test)]
    pub(super) fn is_on_disk(&self) -> bool {
        !self.files.is_empty()
    }

    /// Adds `hashes`; some of them may be there.
    pub(crate) fn extend(&mut self, hashes: impl IntoIterator<Item = u128>) -> io::Result<()> {
        for hash in hashes {
            self.memory.insert(hash);
            if self.memory.len() >= self.bound {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Which of `hashes` are there.
    pub(crate) fn contains(&self, hashes: &[u128]) -> io::Result<Vec<bool>> {
        let there = hashes.iter().map(|hash| self.memory.contains(hash));
        let mut there: Vec<bool> = there.collect();
        if self.files.is_empty() {
            return Ok(there);
        }
        // In their order, so that neighbours share a block.
        let mut order: Vec<usize> = (0..hashes.len()).collect();
        order.sort_unstable_by_key(|i| hashes[*i]);
        for file in &self.files {
            let mut block = (usize::MAX, vec![]);
            for &i in order.iter() {
                if !there[i] {
                    there[i] = file.contains(hashes[i], &mut block)?;
                }
            }
        }
        Ok(there)
    }

    /// How many hashes of `others` are there.
    pub(crate) fn count_common(&self, others: &Self) -> io::Result<usize> {
        let mut count = 0;
        others.each_batch(|batch| {
            count += self
                .contains(batch)?
                .into_iter()
                .filter(|there| *there)
                .count();
            Ok(())
        })?;
        Ok(count)
    }

    /// Adds those of `others`.
    pub(crate) fn absorb(&mut self, others: &Self) -> io::Result<()> {
        others.each_batch(|batch| self.extend(batch.iter().copied()))
    }

    /// Every hash, once.
    fn each_batch(&self, mut look: impl FnMut(&[u128]) -> io::Result<()>) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BLOCK);
        for file in &self.files {
            let mut hashes = file.read()?;
            while let Some(hash) = next(&mut hashes)? {
                // Files have no hash in common, but the memory may have one of theirs.
                if !self.memory.contains(&hash) {
                    batch.push(hash);
                }
                if batch.len() == BLOCK {
                    look(&batch)?;
                    batch.clear();
                }
            }
        }
        look(&batch)?;
        for hash in &self.memory {
            look(std::slice::from_ref(hash))?;
        }
        Ok(())
    }

    /// Moves what is in memory, and in no file yet, into one.
    fn spill(&mut self) -> io::Result<()> {
        let known = self.contains_in_files()?;
        let mut hashes: Vec<u128> = self.memory.drain().filter(|h| !known.contains(h)).collect();
        hashes.sort_unstable();
        self.files.push(Sorted::write(hashes.into_iter().map(Ok))?);
        if self.files.len() >= MAX_FILES {
            let files = std::mem::take(&mut self.files);
            self.files.push(Sorted::write(Merged::new(&files)?)?);
        }
        Ok(())
    }

    /// Those in memory that a file has, too.
    fn contains_in_files(&self) -> io::Result<HashSet<u128>> {
        let mut known = HashSet::new();
        if self.files.is_empty() {
            return Ok(known);
        }
        let mut hashes: Vec<u128> = self.memory.iter().copied().collect();
        hashes.sort_unstable();
        for file in &self.files {
            let mut block = (usize::MAX, vec![]);
            for hash in &hashes {
                if file.contains(*hash, &mut block)? {
                    known.insert(*hash);
                }
            }
        }
        Ok(known)
    }
}

/// A file of hashes in ascending order.
#[derive(Debug)]
struct Sorted {
    file: File,
    /// The first hash of each block.
    firsts: Vec<u128>,
}

impl Sorted {
    fn write(hashes: impl Iterator<Item = io::Result<u128>>) -> io::Result<Self> {
        let mut writer = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        let mut firsts = vec![];
        for (i, hash) in hashes.enumerate() {
            let hash = hash?;
            if i % BLOCK == 0 {
                firsts.push(hash);
            }
            writer.write_all(&hash.to_be_bytes())?;
        }
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Self { file, firsts })
    }

    /// `block` is the number and the content of the block that was looked at last.
    fn contains(&self, hash: u128, block: &mut (usize, Vec<u128>)) -> io::Result<bool> {
        let Some(at) = self
            .firsts
            .partition_point(|first| *first <= hash)
            .checked_sub(1)
        else {
            return Ok(false);
        };
        if block.0 != at {
            let mut file = &self.file;
            file.seek(SeekFrom::Start((at * BLOCK * WIDTH) as u64))?;
            let mut bytes = vec![];
            file.take((BLOCK * WIDTH) as u64).read_to_end(&mut bytes)?;
            let hashes = bytes.chunks_exact(WIDTH);
            let hashes = hashes.map(|b| b.iter().fold(0, |n, byte| n << 8 | u128::from(*byte)));
            *block = (at, hashes.collect());
        }
        Ok(block.1.binary_search(&hash).is_ok())
    }

    fn read(&self) -> io::Result<BufReader<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::with_capacity(1 << 16, file))
    }
}

/// The next hash of a file.
fn next(file: &mut impl Read) -> io::Result<Option<u128>> {
    let mut bytes = [0; WIDTH];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u128::from_be_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The hashes of several files in ascending order.
struct Merged<'a> {
    files: Vec<BufReader<&'a File>>,
    heads: BinaryHeap<Reverse<(u128, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(files: &'a [Sorted]) -> io::Result<Self> {
        let files = files.iter().map(Sorted::read);
        let mut files = files.collect::<io::Result<Vec<_>>>()?;
        let mut heads = BinaryHeap::new();
        for (i, file) in files.iter_mut().enumerate() {
            heads.extend(next(file)?.map(|hash| Reverse((hash, i))));
        }
        Ok(Self { files, heads })
    }
}

impl Iterator for Merged<'_> {
    type Item = io::Result<u128>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((hash, i)) = self.heads.pop()?;
        match next(&mut self.files[i]) {
            Ok(following) => self.heads.extend(following.map(|hash| Reverse((hash, i)))),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_that_cannot_be_read_is_not_at_its_end() {
        let mut whole = &[7u8; WIDTH][..];
        assert!(next(&mut whole).unwrap().is_some());
        assert!(next(&mut whole).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let mut directory = File::open(dir.path()).unwrap();
        assert!(next(&mut directory).is_err());
    }

    proptest! {
        /// However little fits into memory, the set is the set.
        #[test]
        fn files_and_memory_are_one_set(
            hashes in prop::collection::vec(0..300u128, 0..2000),
            others in prop::collection::vec(0..300u128, 0..300),
            bound in 1..40usize,
        ) {
            let expected: HashSet<u128> = hashes.iter().copied().collect();
            let mut set = HashesSet::with_bound(bound);
            set.extend(hashes.iter().copied()).unwrap();
            prop_assert_eq!(set.is_on_disk(), expected.len() >= bound);
            let all: Vec<u128> = (0..300).rev().collect();
            let there = set.contains(&all).unwrap();
            for (hash, there) in all.iter().zip(there) {
                prop_assert_eq!(there, expected.contains(hash), "{}", hash);
            }
            let other: HashSet<u128> = others.iter().copied().collect();
            let mut other_set = HashesSet::with_bound(bound);
            other_set.extend(others).unwrap();
            let common = set.count_common(&other_set).unwrap();
            prop_assert_eq!(common, expected.intersection(&other).count());
            set.absorb(&other_set).unwrap();
            let there = set.contains(&all).unwrap();
            let both = there.iter().filter(|there| **there).count();
            prop_assert_eq!(both, expected.union(&other).count());
        }
    }
}
