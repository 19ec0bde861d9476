//! How much memory this process has used.

/// The most resident memory of this process so far, in bytes: `VmHWM` of Linux. `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse_high_water_mark(&status)
}

fn parse_high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_format() {
        assert_eq!(parse_high_water_mark("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 5 kB\n"), Some(2 << 20));
        assert_eq!(parse_high_water_mark("Name:\tx\n"), None);
        assert_eq!(parse_high_water_mark("VmHWM:\tmany kB\n"), None);
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
