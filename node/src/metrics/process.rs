//! What the process uses, under the names that every Prometheus client library gives it, and the size of its disk. Read
//! when it is asked for.

use prometheus::{Counter, Gauge, IntGauge, Registry};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks of a second in `/proc/PID/stat`. They are fixed for programs on Linux, whatever the kernel uses.
const TICKS_PER_SECOND: f64 = 100.0;

/// See the module's header. Without `/proc` the series stay at zero.
#[derive(Debug)]
pub(super) struct Process {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
    data_dir: OnceLock<PathBuf>,
    disk_bytes: IntGauge,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "Time on processors, user and system.");
        let cpu_seconds = cpu_seconds.expect("the name is valid");
        registry.register(Box::new(cpu_seconds.clone())).expect("the name is new");
        let start =
            Gauge::new("process_start_time_seconds", "When the process started, since the Unix epoch.");
        let start = start.expect("the name is valid");
        registry.register(Box::new(start.clone())).expect("the name is new");
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let limit = super::gauge(registry, "process_max_fds", "Most open files.");
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.set(super::as_gauge(most.unwrap_or(u64::MAX)));
        Self {
            cpu_seconds,
            resident_bytes: super::gauge(registry, "process_resident_memory_bytes", "Resident memory."),
            open_files: super::gauge(registry, "process_open_fds", "Open files."),
            data_dir: OnceLock::new(),
            disk_bytes: super::gauge(registry, "raftqueue_wal_disk_bytes", "Size of the data disk."),
        }
    }

    /// Says where the data directory is.
    pub(super) fn data_dir(&self, path: &Path) {
        // Said once, when the node starts.
        let _ = self.data_dir.set(path.to_owned());
    }

    /// The size of the data disk, when it was looked at last.
    pub(super) fn disk_bytes(&self) -> u64 {
        super::storage::value(&self.disk_bytes)
    }

    /// Resident memory, when it was looked at last.
    pub(super) fn resident_bytes(&self) -> u64 {
        super::storage::value(&self.resident_bytes)
    }

    /// Reads what is used now.
    pub(super) fn observe(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&status) {
            self.resident_bytes.set(super::as_gauge(bytes));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The folder itself is open while it is counted.
            self.open_files.set(super::as_gauge((files.count() as u64).saturating_sub(1)));
        }
        if let Some(space) = self.data_dir.get().and_then(|path| rustix::fs::statvfs(path).ok()) {
            self.disk_bytes.set(super::as_gauge(space.f_blocks.saturating_mul(space.f_frsize)));
        }
    }
}

/// User and system time: the 14th and 15th field. The second, a name in parentheses, may have spaces in it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "77 (raft) q) S 1 77 77 0 -1 4194560 1000 0 5 0 250 75 0 0 20 0 9 0 1234 99 88 184467";
        assert_eq!(cpu_seconds(stat), Some(3.25));
        assert_eq!(cpu_seconds("77 (node) S 1"), None);
        assert_eq!(resident_bytes("Name:\tnode\nVmRSS:\t    2048 kB\nVmSwap: 0 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("VmRSS:\tx kB"), None);
    }
}
