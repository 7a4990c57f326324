//! How much memory this process may have, as its control groups say: of version 2, of version 1, or of both.

use std::path::{Path, PathBuf};

/// Where the groups are mounted, unless the process is told otherwise.
const ROOT: &str = "/sys/fs/cgroup";
/// Greater limits mean none: for "no limit" version 1 says the greatest multiple of a page.
const NO_LIMIT: u64 = 1 << 60;

/// The smallest limit of the groups that this process is in; `None` if none of them has one.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    limit_by(|path| std::fs::read_to_string(path).ok())
}

/// The same by whatever reads a file.
fn limit_by(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limit = |file: PathBuf| {
        read(&file).and_then(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < NO_LIMIT)
    };
    let limits = groups.lines().filter_map(|line| {
        // `hierarchy:controllers:path`; the one of version 2 is 0 and names no controllers.
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (root, file) = if number == "0" && controllers.is_empty() {
            (PathBuf::from(ROOT), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (Path::new(ROOT).join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // All groups around a group bound it, too. In a container the path may be one of the machine outside, which
        // cannot be seen here. Then the root is the container's own group.
        let within = Path::new(path.trim_start_matches('/'));
        within.ancestors().filter_map(|group| limit(root.join(group).join(file))).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        limit_by(|path| files.get(path.to_str().expect("text")).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_smallest_limit_of_all_groups_around_counts_in_both_versions() {
        assert_eq!(limit(&[]), None, "no groups");
        let two = ("/proc/self/cgroup", "0::/pods/a\n");
        assert_eq!(limit(&[two]), None, "groups without limits");
        assert_eq!(limit(&[two, ("/sys/fs/cgroup/pods/a/memory.max", "max\n")]), None);
        let outer = ("/sys/fs/cgroup/pods/memory.max", "1000\n");
        assert_eq!(limit(&[two, ("/sys/fs/cgroup/pods/a/memory.max", "max\n"), outer]), Some(1_000));
        assert_eq!(limit(&[two, ("/sys/fs/cgroup/pods/a/memory.max", "2000\n"), outer]), Some(1_000));
        let inside = ("/proc/self/cgroup", "0::/\n");
        assert_eq!(limit(&[inside, ("/sys/fs/cgroup/memory.max", "536870912\n")]), Some(512 << 20));
        let one = ("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/a\n0::/\n");
        let free = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(&[one, free]), None, "the greatest number of version 1 is no limit");
        let group = ("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "3000\n");
        assert_eq!(limit(&[one, free, group]), Some(3_000));
        // Only the container's own group is mounted, as the root.
        assert_eq!(limit(&[one, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n")]), Some(4_000));
        assert_eq!(limit(&[("/proc/self/cgroup", "nonsense\n4:memory\n")]), None);
    }
}
