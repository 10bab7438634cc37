//! What `/proc` says of a process and of our sockets: processor time, memory,
//! descriptors, threads, datagrams dropped.

use serde::Serialize;

/// The kernel shows processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Usage {
    /// Processor time of all threads so far, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Looks at a process; `None` if there is none or it is not ours to see.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Some(Self {
            cpu_seconds: cpu_seconds(&stat)?,
            memory_kib: status_field(&status, "VmRSS:")?,
            threads: status_field(&status, "Threads:")?,
            descriptors: descriptors as u64,
        })
    }

    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self::of(std::process::id()).unwrap_or_default()
    }
}

/// Fields 14 and 15 of `stat`, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The one process of this name; an error names those found if they are several.
///
/// # Errors
/// If there is none, or more than one.
pub fn find(name: &str) -> anyhow::Result<u32> {
    let mut found: Vec<u32> = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        })
        .collect();
    found.sort_unstable();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => anyhow::bail!("no process is named {name}"),
        many => anyhow::bail!("several processes are named {name}: {many:?}; give --server-pid"),
    }
}

/// Datagrams that the kernel dropped at UDP sockets bound to these local ports.
#[must_use]
pub fn socket_drops(ports: &std::collections::BTreeSet<u16>) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|table| drops_of(&table, ports))
        .sum()
}

fn drops_of(table: &str, ports: &std::collections::BTreeSet<u16>) -> u64 {
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        ports.contains(&port).then_some(())?;
        fields.last()?.parse::<u64>().ok()
    });
    rows.sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn this_process_is_seen() {
        let own = Usage::own();
        assert!(own.memory_kib > 0 && own.threads > 0 && own.descriptors > 0);
        assert!(Usage::of(u32::MAX).is_none());
    }

    #[test]
    fn drops_are_summed_for_our_ports_alone() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 5\n\
             2: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 9\n";
        assert_eq!(drops_of(table, &BTreeSet::from([0x1f90])), 5);
        assert_eq!(drops_of(table, &BTreeSet::new()), 0);
    }
}
