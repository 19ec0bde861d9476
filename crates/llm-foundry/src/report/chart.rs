//! Curves over steps, as SVG inside the page.

use super::html::escaped;
use super::scale::Scale;
use std::fmt::Write;

/// Units of the drawing; the page stretches it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Points of a line: more cannot be seen, and would only make the page heavy.
const MOST_POINTS: usize = 400;
/// Parts of the width that answer to a pointer.
const MOST_COLUMNS: usize = 100;
/// From so many points on a noisy line gets a smooth one.
const SMOOTHED_FROM: usize = 50;
/// Of the exponential mean.
const SMOOTHING: f64 = 0.9;
/// Colours of lines in the style sheet.
pub(super) const COLOURS: usize = 8;

/// A line: values at steps; `None` where there was no number.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    pub(super) name: String,
    /// Index of its colour.
    pub(super) colour: usize,
    pub(super) points: Vec<(u64, Option<f64>)>,
}

impl Series {
    fn known(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.points.iter().filter_map(|&(step, value)| Some((step as f64, value?)))
    }
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// Behind the numbers, such as `tokens/s`.
    pub(super) unit: &'a str,
    pub(super) series: Vec<Series>,
    /// The axis begins at 0.
    pub(super) from_zero: bool,
    /// Noisy: a smooth line is drawn over it.
    pub(super) smooth: bool,
}

impl Chart<'_> {
    /// The figure; `None` where there is no number.
    pub(super) fn figure(&self) -> Option<String> {
        let (x, y) = self.scales()?;
        let notes = [self.unit, if self.is_logarithmic() { "logarithmic" } else { "" }];
        let notes = notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join(", ");
        let notes = if notes.is_empty() { notes } else { format!(" <small>{}</small>", escaped(&notes)) };
        let mut svg = String::new();
        self.axes(&mut svg, &x, &y);
        for series in &self.series {
            self.line(&mut svg, series, &x, &y);
        }
        self.columns(&mut svg, &x);
        Some(format!(
            "<figure><figcaption>{}{notes}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">{svg}</svg></figure>\n",
            escaped(self.title),
            escaped(&self.description())
        ))
    }

    /// For those who cannot see it.
    fn description(&self) -> String {
        let ends = self.series.iter().filter_map(|series| {
            let (first, last) = (series.known().next()?, series.known().last()?);
            let name = if self.series.len() > 1 { format!(" of {}", series.name) } else { String::new() };
            Some(format!(
                "{}{name}: {} at step {}, {} at step {}",
                self.title,
                short(first.1),
                first.0,
                short(last.1),
                last.0
            ))
        });
        ends.collect::<Vec<_>>().join("; ")
    }

    fn scales(&self) -> Option<(Scale, Scale)> {
        let all = || self.series.iter().flat_map(Series::known);
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |ends: Option<(f64, f64)>, v| {
                Some(ends.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
            })
        };
        let (first, last) = ends(&mut all().map(|point| point.0))?;
        let (low, high) = ends(&mut all().map(|point| point.1))?;
        let y = match self.is_logarithmic() {
            true => Scale::logarithmic(low, high),
            false if self.from_zero => Scale::linear(low.min(0.0), high.max(0.0), 4),
            false => Scale::linear(low, high, 4),
        };
        Some((Scale::whole(first, last, 5), y))
    }

    /// A few spikes would flatten everything else.
    fn is_logarithmic(&self) -> bool {
        let mut values: Vec<f64> = self.series.iter().flat_map(Series::known).map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        match (values.first(), values.get(values.len() / 2), values.last()) {
            (Some(&low), Some(&middle), Some(&high)) => !self.from_zero && low > 0.0 && high > 50.0 * middle,
            _ => false,
        }
    }

    fn axes(&self, svg: &mut String, x: &Scale, y: &Scale) {
        for &tick in &y.ticks {
            let at = across(y, tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                at + 4.5,
                y.label(tick)
            );
        }
        for &tick in &x.ticks {
            let at = along(x, tick);
            // A number at the right end would not have room for its second half.
            let anchor = if x.place(tick) > 0.97 { "end" } else { "middle" };
            let at = if anchor == "end" { at + RIGHT - 4.0 } else { at };
            let below = HEIGHT - BOTTOM + 20.0;
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"{anchor}\">{}</text>",
                x.label(tick)
            );
        }
    }

    fn line(&self, svg: &mut String, series: &Series, x: &Scale, y: &Scale) {
        let colour = series.colour % COLOURS;
        let dashed = if series.colour >= COLOURS { " dashed" } else { "" };
        let is_noisy = self.smooth && series.points.len() >= SMOOTHED_FROM;
        let faint = if is_noisy { " faint" } else { "" };
        let points = thinned(&series.points);
        let _ = write!(svg, "<path class=\"line c{colour}{faint}{dashed}\" d=\"{}\"/>", path(&points, x, y));
        if is_noisy {
            let smooth = thinned(&smoothed(&series.points));
            let _ = write!(svg, "<path class=\"line c{colour}{dashed}\" d=\"{}\"/>", path(&smooth, x, y));
        }
        if series.known().count() <= 30 && !is_noisy {
            for (step, value) in series.known() {
                let _ = write!(
                    svg,
                    "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>",
                    along(x, step),
                    across(y, value)
                );
            }
        }
    }

    /// Invisible bars that tell the numbers below the pointer.
    fn columns(&self, svg: &mut String, x: &Scale) {
        let mut steps: Vec<u64> =
            self.series.iter().flat_map(|s| s.points.iter().map(|point| point.0)).collect();
        steps.sort_unstable();
        steps.dedup();
        let every = steps.len().div_ceil(MOST_COLUMNS).max(1);
        // The last step is what most people ask for.
        let shown: Vec<u64> = steps.iter().rev().copied().step_by(every).collect();
        let width = (WIDTH - LEFT - RIGHT) / shown.len().max(1) as f64;
        for step in shown {
            let at = along(x, step as f64);
            let mut said = format!("step {step}");
            for series in &self.series {
                let Some(&(_, value)) = series.points.iter().rev().find(|point| point.0 <= step) else {
                    continue;
                };
                let name = if self.series.len() > 1 { format!("{}: ", series.name) } else { String::new() };
                let value = value.map_or_else(|| "no number".into(), short);
                let _ = write!(said, "\n{name}{value} {}", self.unit);
            }
            let (left, bar) = (at - width / 2.0, HEIGHT - TOP - BOTTOM);
            let _ = write!(
                svg,
                "<g class=\"hit\"><rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{bar}\"/>\
                 <line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/><title>{}</title></g>",
                HEIGHT - BOTTOM,
                escaped(said.trim_end())
            );
        }
    }
}

fn along(x: &Scale, step: f64) -> f64 {
    LEFT + x.place(step) * (WIDTH - LEFT - RIGHT)
}

fn across(y: &Scale, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)
}

/// A line with gaps where there is no number.
fn path(points: &[(u64, Option<f64>)], x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for &(step, value) in points {
        let Some(value) = value else {
            pen = 'M';
            continue;
        };
        let _ = write!(path, "{pen}{:.1} {:.1}", along(x, step as f64), across(y, value));
        pen = 'L';
    }
    path
}

/// At most [`MOST_POINTS`]: of each stretch the lowest and the highest, so that spikes stay.
fn thinned(points: &[(u64, Option<f64>)]) -> Vec<(u64, Option<f64>)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    let of_stretch = |stretch: &[(u64, Option<f64>)]| {
        let known = || stretch.iter().filter(|point| point.1.is_some());
        let by_value = |a: &&(u64, Option<f64>), b: &&(u64, Option<f64>)| {
            a.1.unwrap_or(0.0).total_cmp(&b.1.unwrap_or(0.0))
        };
        match known().min_by(by_value).zip(known().max_by(by_value)) {
            Some((low, high)) if low.0 <= high.0 => vec![*low, *high],
            Some((low, high)) => vec![*high, *low],
            None => stretch.first().copied().into_iter().collect(),
        }
    };
    points.chunks(stretch).flat_map(of_stretch).collect()
}

/// An exponential mean without the pull towards its beginning (TensorBoard's).
fn smoothed(points: &[(u64, Option<f64>)]) -> Vec<(u64, Option<f64>)> {
    let (mut mean, mut weight) = (0.0, 0.0);
    let mut smooth = |&(step, value): &(u64, Option<f64>)| {
        let Some(value) = value else { return (step, None) };
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * value;
        weight = SMOOTHING * weight + (1.0 - SMOOTHING);
        (step, Some(mean / weight))
    };
    points.iter().map(&mut smooth).collect()
}

/// Four digits that count.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = (3.0 - size.log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(u64, Option<f64>)>) -> Chart<'static> {
        let series = vec![Series { name: "a<b".into(), colour: 0, points }];
        Chart { title: "Loss", unit: "nats", series, from_zero: false, smooth: true }
    }

    #[test]
    fn gaps_and_lonely_numbers_are_drawn_and_nothing_is_no_figure() {
        assert!(chart(vec![]).figure().is_none() && chart(vec![(1, None)]).figure().is_none());
        let one = chart(vec![(3, Some(1.0))]).figure().expect("a figure");
        assert!(one.contains("<circle") && one.contains("step 3"), "{one}");
        let gap = chart(vec![(1, Some(1.0)), (2, None), (3, Some(2.0))]).figure().expect("a figure");
        assert_eq!(gap.matches('M').count(), 2, "{gap}");
        for svg in [one, gap] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn long_lines_are_thinned_and_keep_their_spikes() {
        let mut points: Vec<_> = (0..100_000).map(|step| (step, Some(1.0))).collect();
        points[54_321].1 = Some(9.0);
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS + 2 && thin.contains(&(54_321, Some(9.0))), "{}", thin.len());
        assert!(thin.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        let svg = chart(points).figure().expect("a figure");
        assert!(svg.len() < 60_000 && svg.contains("faint"), "{}", svg.len());
    }

    #[test]
    fn spikes_make_the_axis_logarithmic() {
        let flat: Vec<_> = (0..20).map(|step| (step, Some(0.5))).collect();
        assert!(!chart(flat.clone()).is_logarithmic());
        assert!(chart([flat, vec![(20, Some(500.0))]].concat()).is_logarithmic());
    }

    #[test]
    fn the_mean_starts_where_the_numbers_do() {
        let smooth = smoothed(&[(1, Some(4.0)), (2, None), (3, Some(2.0))]);
        assert_eq!(smooth[0].1, Some(4.0));
        assert!(smooth[1].1.is_none() && smooth[2].1.is_some_and(|v| v > 2.0 && v < 4.0));
        assert_eq!(
            [short(0.0), short(1.23456), short(1234.6), short(2e-4)],
            ["0", "1.235", "1235", "2.000e-4"]
        );
    }
}
