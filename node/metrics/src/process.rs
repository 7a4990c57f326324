//! What the process uses, under the names that every Prometheus client library gives it. Read when it is asked for.

use prometheus::core::Collector;
use prometheus::{Counter, Gauge, IntGauge, Registry};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks of a second in `/proc/PID/stat`. They are fixed for programs on Linux, whatever the kernel uses.
const TICKS_PER_SECOND: u64 = 100;

/// What this process uses. Without `/proc` the series stay at zero.
#[derive(Debug)]
pub struct Process {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
}

impl Process {
    /// Known to this registry, at zero.
    ///
    /// # Panics
    /// If the registry has them already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let start =
            Gauge::new("process_start_time_seconds", "When the process started, since the Unix epoch.");
        let start = registered(registry, start);
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let limit = registered(registry, IntGauge::new("process_max_fds", "Most open files."));
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.set(as_gauge(most.unwrap_or(u64::MAX)));
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "Time on processors, user and system.");
        let resident_bytes = IntGauge::new("process_resident_memory_bytes", "Resident memory.");
        Self {
            cpu_seconds: registered(registry, cpu_seconds),
            resident_bytes: registered(registry, resident_bytes),
            open_files: registered(registry, IntGauge::new("process_open_fds", "Open files.")),
        }
    }

    /// Resident memory in bytes, when it was looked at last.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        u64::try_from(self.resident_bytes.get()).unwrap_or_default()
    }

    /// Processor time that this process has used until now, user and system, in milliseconds; 0 where the kernel does not
    /// say.
    #[must_use]
    pub fn cpu_ms() -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        cpu_ticks(&stat).map_or(0, |ticks| ticks * 1_000 / TICKS_PER_SECOND)
    }

    /// Reads what is used now. It reads files, which may block.
    pub fn observe(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(ticks) = cpu_ticks(&stat) {
            let seconds = ticks as f64 / TICKS_PER_SECOND as f64;
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&status) {
            self.resident_bytes.set(as_gauge(bytes));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The folder itself is open while it is counted.
            self.open_files.set(as_gauge((files.count() as u64).saturating_sub(1)));
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let made = made.expect("the name is valid");
    registry.register(Box::new(made.clone())).expect("the name is new");
    made
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// User and system time: the 14th and 15th field. The second, a name in parentheses, may have spaces in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(u64::from);
    Some(ticks()? + ticks()?)
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
        assert_eq!(cpu_ticks(stat), Some(325));
        assert_eq!(cpu_ticks("77 (node) S 1"), None);
        assert_eq!(resident_bytes("Name:\tnode\nVmRSS:\t    2048 kB\nVmSwap: 0 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("VmRSS:\tx kB"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let process = Process::new(&Registry::new());
        assert_eq!(process.resident_bytes(), 0, "nobody has looked yet");
        process.observe();
        assert!(process.resident_bytes() > 100_000);
        assert!(process.open_files.get() > 0);
    }
}
