//! The full screen: title, progress, one large curve, the others small.

use super::snapshot::{position, state};
use super::view::{Curve, RunView, State};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Sparkline};

/// Rows of a small curve, with its frame.
const SMALL: u16 = 4;
/// Columns that a small curve needs at least, for its title.
const NARROW: u16 = 26;

/// Draws the run; `chosen` is the curve that is large, and `plain` leaves colours out.
pub(super) fn draw(frame: &mut Frame<'_>, view: &RunView, chosen: usize, plain: bool) {
    let paint = Paint { plain };
    let area = frame.area();
    let small = if area.height > 12 && view.curves.len() > 1 { SMALL } else { 0 };
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(0), Constraint::Length(small)];
    let [title, gauge, large, curves, keys] =
        Layout::vertical([rows[0], rows[1], rows[2], rows[3], Constraint::Length(1)]).areas(area);
    frame.render_widget(paint.title(view), title);
    let label = format!("{:.0} %", 100.0 * view.progress());
    frame.render_widget(
        Gauge::default().ratio(view.progress()).label(label).gauge_style(paint.of(Color::Cyan)),
        gauge,
    );
    match view.curves.get(chosen.min(view.curves.len().saturating_sub(1))) {
        Some(curve) => paint.chart(frame, view, curve, large),
        None => frame.render_widget(Paragraph::new("nothing is logged yet"), large),
    }
    if small > 0 {
        paint.small_curves(frame, view, chosen, curves);
    }
    frame.render_widget(Paragraph::new("q quit   ← → another curve").style(Style::new().dim()), keys);
}

struct Paint {
    plain: bool,
}

impl Paint {
    fn of(&self, colour: Color) -> Style {
        if self.plain { Style::new() } else { Style::new().fg(colour) }
    }

    fn title<'a>(&self, view: &'a RunView) -> Line<'a> {
        let colour = match view.state {
            State::Starting | State::Running => Color::Green,
            State::Silent(_) | State::Interrupted => Color::Yellow,
            State::Finished => Color::Cyan,
        };
        Line::from(vec![
            Span::raw(&view.name).bold(),
            Span::raw("  "),
            Span::styled(state(view), self.of(colour)),
            Span::raw(format!("  {}", position(view))),
        ])
    }

    /// A curve over the steps, with the losses of evaluations beside those of training.
    fn chart(&self, frame: &mut Frame<'_>, view: &RunView, curve: &Curve, area: Rect) {
        let is_loss = curve.title == "loss";
        let evaluations: &[(f64, f64)] = if is_loss { &view.evaluations } else { &[] };
        let points = || curve.points.iter().chain(evaluations);
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            let low = points().map(of).fold(f64::INFINITY, f64::min);
            let high = points().map(of).fold(f64::NEG_INFINITY, f64::max);
            // A flat curve is drawn in the middle.
            let room = if high > low { 0.0 } else { high.abs().max(1e-9) / 2.0 };
            [low - room, high + room]
        };
        let ([left, right], [low, high]) = (bounds(|point| point.0), bounds(|point| point.1));
        let mut lines = vec![
            Dataset::default()
                .name(curve.title)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(self.of(Color::Cyan))
                .data(&curve.points),
        ];
        if !evaluations.is_empty() {
            let line = Dataset::default().name("eval loss").marker(Marker::Dot).style(self.of(Color::Yellow));
            lines.push(line.data(evaluations));
        }
        let last = curve.last().map(curve.write).unwrap_or_default();
        let chart = Chart::new(lines)
            .block(Block::bordered().title(format!(" {} {last} ", curve.title)))
            .x_axis(
                Axis::default().bounds([left, right]).labels([format!("{left:.0}"), format!("{right:.0}")]),
            )
            .y_axis(Axis::default().bounds([low, high]).labels([(curve.write)(low), (curve.write)(high)]));
        frame.render_widget(chart, area);
    }

    /// All curves but the large one, side by side, as many as there is room for.
    fn small_curves(&self, frame: &mut Frame<'_>, view: &RunView, chosen: usize, area: Rect) {
        let others: Vec<&Curve> = view
            .curves
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != chosen)
            .map(|(_, curve)| curve)
            .collect();
        let count = others.len().min((area.width / NARROW).max(1) as usize);
        let places = Layout::horizontal(vec![Constraint::Fill(1); count]).split(area);
        for (curve, place) in others.into_iter().zip(places.iter()) {
            let last = curve.last().map(curve.write).unwrap_or_default();
            let block = Block::bordered().title(format!(" {} {last} ", curve.title));
            let inner = block.inner(*place);
            let heights = heights(&curve.points, inner.width as usize);
            let line = Sparkline::default().data(heights).max(100).style(self.of(Color::Cyan));
            frame.render_widget(line.block(block), *place);
        }
    }
}

/// The last `width` values as heights from 0 to 100, the lowest of them a tenth.
fn heights(points: &[(f64, f64)], width: usize) -> Vec<u64> {
    let values = &points[points.len().saturating_sub(width)..];
    let low = values.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let range = values.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max) - low;
    let height = |value: f64| if range > 0.0 { 10.0 + 90.0 * (value - low) / range } else { 50.0 };
    values.iter().map(|point| height(point.1) as u64).collect()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    fn drawn(view: &RunView, chosen: usize, width: u16, height: u16, plain: bool) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, view, chosen, plain)).expect("drawn");
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let width = buffer.area.width as usize;
        let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
        symbols.chunks(width).map(|row| row.concat() + "\n").collect()
    }

    #[test]
    fn a_running_run_shows_everything() {
        let text = text(&drawn(&view(20, None, 0), 0, 110, 30, false));
        for words in [
            "mine  running  step 20 of 100 (20 %), epoch 0.40, 40 s, 2 min 40 s left",
            "20 %",
            "loss 2.8000",
            "eval loss",
            "learning rate 1.00e-4",
            "tokens/s 512",
            "memory 2.00 GB",
            "q quit",
        ] {
            assert!(text.contains(words), "no `{words}` in\n{text}");
        }
        assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "a curve of dots:\n{text}");
    }

    #[test]
    fn another_curve_can_be_large() {
        let text = text(&drawn(&view(20, None, 0), 3, 110, 30, false));
        assert!(text.lines().nth(2).expect("a row").contains("tokens/s 512"), "{text}");
        assert!(text.contains("loss 2.8000"), "{text}");
    }

    #[test]
    fn no_screen_is_too_small_and_no_run_too_young() {
        for (width, height) in [(1, 1), (5, 3), (20, 5), (40, 10), (60, 13), (300, 100)] {
            for view in
                [view(0, None, 0), view(1, None, 0), view(2, Some(true), 0), view(100, Some(false), 0)]
            {
                for chosen in [0, 5, 99] {
                    drawn(&view, chosen, width, height, false);
                }
            }
        }
        let text = text(&drawn(&view(0, None, 0), 0, 60, 15, false));
        assert!(text.contains("starting") && text.contains("nothing is logged yet"), "{text}");
    }

    #[test]
    fn colours_can_be_left_out() {
        let coloured = |plain| {
            let buffer = drawn(&view(20, None, 0), 0, 110, 30, plain);
            buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert!(coloured(false) > 0);
        assert_eq!(coloured(true), 0);
    }
}
