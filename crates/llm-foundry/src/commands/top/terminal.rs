//! The loop of the full screen: read, draw, wait for a key.
//!
//! The terminal is given back as it was however the program ends: ratatui's panic hook does it after a panic, and the
//! signals that end a process are taken as the wish to quit.

use super::screen::draw;
use super::view::RunView;
use crate::failure::{Failure, Outcome};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the run is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How soon a signal or a key is seen.
const TICK: Duration = Duration::from_millis(100);

/// Shows the run until the user has seen enough.
pub(super) fn follow(dir: &Path) -> Outcome {
    let quits = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&quits)).map_err(Failure::run)?;
    }
    // What cannot be read at all is said before the screen changes.
    let view = RunView::read(dir)?;
    let mut terminal = ratatui::try_init().map_err(Failure::run)?;
    let shown =
        Screen { dir, view, chosen: 0, plain: std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) }
            .show(&mut terminal, &quits);
    ratatui::try_restore().map_err(Failure::run)?;
    shown
}

/// What a key asks for.
enum Wish {
    Quit,
    Curve(isize),
    Redraw,
}

struct Screen<'a> {
    dir: &'a Path,
    view: RunView,
    chosen: usize,
    plain: bool,
}

impl Screen<'_> {
    fn show(&mut self, terminal: &mut ratatui::DefaultTerminal, quits: &AtomicBool) -> Outcome {
        loop {
            terminal.draw(|frame| draw(frame, &self.view, self.chosen, self.plain)).map_err(Failure::run)?;
            let drawn = Instant::now();
            while drawn.elapsed() < EVERY {
                if quits.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if !event::poll(TICK).map_err(Failure::run)? {
                    continue;
                }
                match wish(&event::read().map_err(Failure::run)?) {
                    Some(Wish::Quit) => return Ok(()),
                    Some(Wish::Curve(by)) => {
                        let count = self.view.curves.len().max(1) as isize;
                        self.chosen = (self.chosen as isize + by).rem_euclid(count) as usize;
                        break;
                    }
                    Some(Wish::Redraw) => break,
                    None => {}
                }
            }
            // A file that cannot be read for a moment leaves what was seen last.
            if let Ok(view) = RunView::read(self.dir) {
                self.view = view;
            }
        }
    }
}

fn wish(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
            KeyCode::Right | KeyCode::Tab => Some(Wish::Curve(1)),
            KeyCode::Left | KeyCode::BackTab => Some(Wish::Curve(-1)),
            _ => None,
        },
        _ => None,
    }
}
