//! Axes: round numbers at even distances.

/// A linear or logarithmic axis over what is to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    /// Where the axis has a mark.
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// Even, from below the lowest to above the highest number, with about `marks` marks.
    pub(super) fn linear(low: f64, high: f64, marks: usize) -> Self {
        let (low, high) = if low < high { (low, high) } else { widened(low) };
        let step = round_step((high - low) / marks.max(1) as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { low: first * step, high: last * step, is_log: false, ticks }
    }

    /// Whole numbers from `low` to `high`, which are the ends of the axis.
    pub(super) fn whole(low: f64, high: f64, marks: usize) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step((high - low) / marks.max(1) as f64).max(1.0);
        let first = (low / step - 1e-9).ceil();
        let count = (high / step + 1e-9).floor() - first;
        let ticks = (0..=count.max(0.0) as usize).map(|i| (first + i as f64) * step).collect();
        Self { low, high, is_log: false, ticks }
    }

    /// Powers of ten; both ends above zero.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        let (first, last) = (low.log10().floor(), high.log10().ceil());
        let last = last.max(first + 1.0);
        let every = ((last - first) / 5.0).ceil().max(1.0);
        let count = ((last - first) / every) as usize;
        let ticks = (0..=count).map(|i| 10f64.powf(first + i as f64 * every)).collect();
        Self { low: first, high: last, is_log: true, ticks }
    }

    /// From 0 at the low end to 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.is_log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    /// A mark's number, with as many digits as tell it from its neighbours.
    pub(super) fn label(&self, tick: f64) -> String {
        if self.is_log {
            return format!("{tick:e}");
        }
        let step = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).next().unwrap_or(1.0);
        let top = self.ticks.iter().fold(0.0, |top: f64, tick| top.max(tick.abs()));
        if tick == 0.0 {
            return "0".into();
        }
        if !(1e-2..1e6).contains(&top) {
            let digits = (tick.abs().log10().floor() - step.log10().floor()).max(0.0) as usize;
            return format!("{tick:.digits$e}");
        }
        let digits = (-step.log10().floor()).max(0.0) as usize;
        format!("{tick:.digits$}")
    }
}

/// A range around one number.
fn widened(x: f64) -> (f64, f64) {
    match x == 0.0 {
        true => (0.0, 1.0),
        false => (x - x.abs() * 0.1, x + x.abs() * 0.1),
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|&tick| scale.label(tick)).collect()
    }

    #[test]
    fn marks_are_round_and_told_apart() {
        assert_eq!(labels(&Scale::linear(1.23, 2.97, 4)), ["1.0", "1.5", "2.0", "2.5", "3.0"]);
        assert_eq!(labels(&Scale::linear(0.0, 2e-4, 4)), ["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4"]);
        assert_eq!(labels(&Scale::linear(1.0, 1.0, 2)), ["0.9", "1.0", "1.1"]);
        assert_eq!(labels(&Scale::linear(0.0, 0.0, 2)), ["0", "0.5", "1.0"]);
        assert_eq!(labels(&Scale::whole(1.0, 20.0, 4)), ["5", "10", "15", "20"]);
        assert_eq!(labels(&Scale::whole(1.0, 3.0, 5)), ["1", "2", "3"]);
        assert_eq!(labels(&Scale::logarithmic(0.02, 300.0)), ["1e-2", "1e-1", "1e0", "1e1", "1e2", "1e3"]);
    }

    #[test]
    fn places_run_from_zero_to_one() {
        let scale = Scale::linear(0.0, 10.0, 2);
        assert_eq!([0.0, 5.0, 10.0].map(|x| scale.place(x)), [0.0, 0.5, 1.0]);
        let scale = Scale::logarithmic(1.0, 100.0);
        assert_eq!([1.0, 10.0, 100.0].map(|x| scale.place(x)), [0.0, 0.5, 1.0]);
    }
}
