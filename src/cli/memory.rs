//! How much memory sorting, joining and grouping may take: what casebook.toml says, else a share of
//! what this process may have.

use std::path::Path;

/// Share of the memory that queries get: models, readers and writers need the rest.
const SHARE: f64 = 0.5;

/// The limit where casebook.toml names none; none where the machine does not say what it has.
pub(super) fn default_limit() -> Option<usize> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let bytes = available(&read)?;
    Some((bytes as f64 * SHARE) as usize)
}

/// Bytes that this process may have: the machine's, or less if a control group says so.
fn available(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    })?;
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limits_of(line, read));
    Some(limits.fold(machine, u64::min))
}

/// The limits of one line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`: of the group and of those
/// above it. Within a container the path is the host's, and only the root is there.
fn limits_of(line: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return vec![];
    };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return vec![],
    };
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| read(&Path::new(root).join(group).join(file)))
        // `max` is no number, and no limit.
        .filter_map(|text| text.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], wanted: Option<u64>) {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(available(&read), wanted, "{files:?}");
    }

    #[test]
    fn the_smallest_limit_counts() {
        const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:       8000 kB\nMemFree: 1 kB\n");
        const V2: (&str, &str) = ("/proc/self/cgroup", "0::/a/b\n");
        check(&[], None);
        check(&[("/proc/meminfo", "nonsense")], None);
        check(&[MACHINE], Some(8_192_000));
        check(&[MACHINE, V2], Some(8_192_000));
        check(
            &[MACHINE, V2, ("/sys/fs/cgroup/a/b/memory.max", "max\n")],
            Some(8_192_000),
        );
        check(
            &[MACHINE, V2, ("/sys/fs/cgroup/a/b/memory.max", "4096\n")],
            Some(4096),
        );
        check(
            &[MACHINE, V2, ("/sys/fs/cgroup/a/memory.max", "2048\n")],
            Some(2048),
        );
        // A container, whose own group is the root it sees.
        check(
            &[MACHINE, V2, ("/sys/fs/cgroup/memory.max", "1024\n")],
            Some(1024),
        );
        check(
            &[
                MACHINE,
                ("/proc/self/cgroup", "3:cpu:/x\n5:memory:/x\n"),
                ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "512\n"),
            ],
            Some(512),
        );
        // What version 1 writes for "no limit" is more than any machine has.
        check(
            &[
                MACHINE,
                ("/proc/self/cgroup", "5:memory:/\n"),
                (
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712",
                ),
            ],
            Some(8_192_000),
        );
    }
}
