//! A curve in one line of text.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` as at most `width` bars, each the mean of its part, from the lowest to the highest of them. Numbers that
/// are not finite are left out.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let bars = finite.len().min(width);
    let part = |bar: usize| &finite[bar * finite.len() / bars..(bar + 1) * finite.len() / bars];
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let means: Vec<f64> = (0..bars).map(|bar| mean(part(bar))).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let range = means.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    let bar = |mean: &f64| match range > 0.0 {
        true => BARS[((mean - low) / range * 7.0).round() as usize],
        false => BARS[3],
    };
    means.iter().map(bar).collect()
}

/// A curve that grows without end in bounded memory: where it is full, neighbours become their mean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    points: Vec<f64>,
    /// Values of one point.
    each: u32,
    sum: f64,
    count: u32,
}

impl Trace {
    const MOST: usize = 256;

    /// The next value.
    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.each = self.each.max(1);
        self.sum += value;
        self.count += 1;
        if self.count < self.each {
            return;
        }
        self.points.push(self.sum / f64::from(self.count));
        (self.sum, self.count) = (0.0, 0);
        if self.points.len() == Self::MOST {
            self.points =
                self.points.chunks(2).map(|pair| pair.iter().sum::<f64>() / pair.len() as f64).collect();
            self.each *= 2;
        }
    }

    /// As [`sparkline`]; nothing before there are two points.
    pub(crate) fn line(&self, width: usize) -> String {
        if self.points.len() < 2 { String::new() } else { sparkline(&self.points, width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_from_the_lowest_to_the_highest() {
        let rising: Vec<f64> = (0..8).map(f64::from).collect();
        assert_eq!(sparkline(&rising, 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&rising, 4), "▁▃▆█");
        assert_eq!(sparkline(&[3.0, f64::NAN, 1.0], 8), "█▁");
        assert_eq!(sparkline(&[2.0, 2.0], 8), "▄▄");
        assert_eq!(sparkline(&[], 8), "");
        assert_eq!(sparkline(&[1.0], 0), "");
    }

    #[test]
    fn a_long_trace_keeps_its_shape_in_little_memory() {
        let mut trace = Trace::default();
        for step in 0..100_000 {
            trace.add(f64::from(100_000 - step));
        }
        assert!(trace.points.len() < Trace::MOST);
        assert_eq!(trace.line(8), "█▇▆▅▄▃▂▁");
        let mut short = Trace::default();
        short.add(1.0);
        assert_eq!(short.line(8), "");
    }
}
