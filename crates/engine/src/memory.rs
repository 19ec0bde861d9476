//! How much memory this process has used.

/// The most resident memory of this process so far, in bytes: `VmHWM` of Linux. `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status, "VmHWM:")
}

/// The resident memory of this process now, in bytes: `VmRSS` of Linux. `None` where the system does not say.
pub fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status, "VmRSS:")
}

fn parse(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_format() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 5 kB\n";
        assert_eq!((parse(status, "VmHWM:"), parse(status, "VmRSS:")), (Some(2 << 20), Some(5 << 10)));
        assert_eq!(parse("Name:\tx\n", "VmHWM:"), None);
        assert_eq!(parse("VmHWM:\tmany kB\n", "VmHWM:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_uses_memory() {
        let before = peak_rss_bytes().expect("Linux says");
        let touched = vec![1u8; 32 << 20];
        let after = peak_rss_bytes().expect("Linux says");
        assert!(after >= before && after >= touched.len() as u64, "{before} {after}");
    }
}
