//! The most memory so far.

use super::Callback;
use crate::error::EngineError;
use crate::memory::peak_rss_bytes;
use crate::report::LogRecord;

/// Fills in [`LogRecord::peak_rss_bytes`] from a probe.
pub struct Memory<F: Fn() -> Option<u64>> {
    probe: F,
}

impl<F: Fn() -> Option<u64>> Memory<F> {
    /// `probe` tells the most memory that this process (or its device) has used, in bytes.
    pub fn new(probe: F) -> Self {
        Self { probe }
    }
}

impl Memory<fn() -> Option<u64>> {
    /// The resident memory of this process.
    pub fn of_this_process() -> Self {
        Self { probe: peak_rss_bytes }
    }
}

impl<F: Fn() -> Option<u64>> Callback for Memory<F> {
    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        record.peak_rss_bytes = (self.probe)();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callbacks::metrics_jsonl::tests::record;

    #[test]
    fn asks_the_probe_at_every_line() {
        let mut line = record(1);
        Memory::new(|| Some(4096)).on_log(&mut line).unwrap();
        assert_eq!(line.peak_rss_bytes, Some(4096));
        Memory::new(|| None).on_log(&mut line).unwrap();
        assert_eq!(line.peak_rss_bytes, None);
    }
}
