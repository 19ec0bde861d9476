//! What all trackers have in common.

use crate::error::TrackingError;
use crate::table::Table;
use serde_json::{Map, Value};

/// Values of several curves at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where on the axis that all curves share.
    pub position: u64,
    /// Name of a curve, and its value there; not finite values are written as such.
    pub values: Vec<(String, f64)>,
}

/// Somewhere that keeps what happened in a run. What a tracker has no place for it leaves out.
pub trait Tracker {
    /// The name that users call it by.
    fn name(&self) -> &'static str;

    /// New values.
    fn log(&mut self, row: &Row) -> Result<(), TrackingError>;

    /// Figures of the whole run, known at this position. Later ones replace earlier ones of the same name.
    fn summarize(&mut self, row: &Row) -> Result<(), TrackingError>;

    /// How the machine is doing now.
    fn measure(&mut self, _values: &[(String, f64)]) -> Result<(), TrackingError> {
        Ok(())
    }

    /// A line that the user saw on the terminal, without its end.
    fn print(&mut self, _line: &str) -> Result<(), TrackingError> {
        Ok(())
    }

    /// A table at a position.
    fn tabulate(&mut self, _position: u64, _name: &str, _table: &Table) -> Result<(), TrackingError> {
        Ok(())
    }

    /// What was told so far is on the disk when this returns.
    fn flush(&mut self) -> Result<(), TrackingError>;

    /// The run is over; 0 stands for success.
    fn finish(&mut self, exit_code: u8) -> Result<(), TrackingError>;

    /// What is needed to go on with the same run later.
    fn state(&self) -> Map<String, Value>;

    /// A sentence for the user on where to look; `None` where there is nothing to say.
    fn whereabouts(&self) -> Option<String>;
}
