//! Signals. Ctrl-C and SIGTERM: once means "finish the step, save, stop", once more (a second later or more)
//! means "stop now". SIGUSR1, which job schedulers send some time before the end: "save after this step, and go on".
//! A run of a sweep stops, too, when the sweep is gone.

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Signals closer together are one wish: a terminal, a shell and a job scheduler may each pass the same one on to every
/// process of a group.
const ONE_WISH: Duration = Duration::from_secs(1);

/// The variable that tells a run of a sweep which process the sweep is.
pub(crate) const PARENT: &str = "FOUNDRY_SWEEP_PID";

/// How often a run of a sweep looks whether the sweep is still there.
const LOOKED_EVERY: Duration = Duration::from_millis(500);

/// What signals have asked a training run for.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignalRequests {
    stop: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
}

impl SignalRequests {
    /// From now on the first SIGINT or SIGTERM sets a flag, and one that comes at least [`ONE_WISH`] after it ends the
    /// process with code 130; SIGUSR1 sets another.
    pub(crate) fn install() -> io::Result<Self> {
        let requests = Self::default();
        #[cfg(unix)]
        flag::register(SIGUSR1, requests.save.clone())?;
        watch_stop(requests.stop.clone())?;
        #[cfg(unix)]
        requests.watch_parent()?;
        Ok(requests)
    }

    /// A run of a sweep that was killed would train on with nobody waiting for it, while the sweep that is begun again
    /// starts the same run a second time: it stops, with a checkpoint.
    #[cfg(unix)]
    fn watch_parent(&self) -> io::Result<()> {
        let Some(parent) = std::env::var(PARENT).ok().and_then(|id| id.parse::<u32>().ok()) else {
            return Ok(());
        };
        let stop = self.stop.clone();
        let watch = move || {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(LOOKED_EVERY);
            }
            stop.store(true, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("sweep".into()).spawn(watch).map(|_| ())
    }

    /// A signal to stop has come.
    pub(crate) fn is_stop_set(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A signal to save has come since the last call.
    pub(crate) fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}

/// From now on the first SIGINT or SIGTERM sets `stop`, and one that comes at least [`ONE_WISH`] after it ends the
/// process with code 130.
pub(crate) fn watch_stop(stop: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        let mut first = None;
        for _ in signals.forever() {
            stop.store(true, Ordering::Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() >= ONE_WISH {
                low_level::exit(130);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(|_| ())
}

/// In a chat, Ctrl-C ends the answer that is being given, and the program while it waits for a line.
pub(crate) struct ChatInterrupt {
    waiting: Arc<AtomicBool>,
    hit: Arc<AtomicBool>,
}

/// While this lives, Ctrl-C only ends the answer.
pub(crate) struct Answering<'a>(&'a ChatInterrupt);

impl ChatInterrupt {
    /// Installs the handler.
    pub(crate) fn install() -> io::Result<Self> {
        let interrupt = Self { waiting: Arc::new(AtomicBool::new(true)), hit: Arc::default() };
        flag::register_conditional_default(SIGINT, interrupt.waiting.clone())?;
        flag::register(SIGINT, interrupt.hit.clone())?;
        Ok(interrupt)
    }

    /// An answer begins.
    pub(crate) fn answering(&self) -> Answering<'_> {
        self.hit.store(false, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        Answering(self)
    }
}

impl Answering<'_> {
    /// Ctrl-C was pressed since the answer began.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.0.hit.load(Ordering::Relaxed)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(true, Ordering::Relaxed);
    }
}

/// For a command that runs others one after another: signals are passed on to the one that runs.
pub(crate) struct PassedOn {
    signals: Signals,
    stop: bool,
}

impl PassedOn {
    /// From now on SIGINT, SIGTERM, SIGUSR1 and (unless it is ignored, as under `nohup`) SIGHUP wait to be passed on.
    pub(crate) fn install() -> io::Result<Self> {
        #[cfg(unix)]
        let signals = {
            let hangup = (!ignores_hangup()).then_some(SIGHUP);
            Signals::new([SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hangup))?
        };
        #[cfg(not(unix))]
        let signals = Signals::new([SIGINT, SIGTERM])?;
        Ok(Self { signals, stop: false })
    }

    /// Sends what has come to the process `id`.
    pub(crate) fn pass_on(&mut self, id: u32) {
        for signal in self.take() {
            send(id, signal);
        }
    }

    /// A signal to stop has come, passed on or not.
    pub(crate) fn asked_to_stop(&mut self) -> bool {
        self.take();
        self.stop
    }

    fn take(&mut self) -> Vec<sysinfo::Signal> {
        let come: Vec<i32> = self.signals.pending().collect();
        #[cfg(unix)]
        let saves = |signal: i32| signal == SIGUSR1;
        #[cfg(not(unix))]
        let saves = |_: i32| false;
        self.stop |= come.iter().any(|&signal| !saves(signal));
        let named = |signal| match signal {
            SIGINT => sysinfo::Signal::Interrupt,
            // Also for a terminal that has gone: the run is to stop with a checkpoint, not to be cut off.
            signal if !saves(signal) => sysinfo::Signal::Term,
            _ => sysinfo::Signal::User1,
        };
        come.into_iter().map(named).collect()
    }
}

/// SIGHUP was set to be ignored by whoever started this process. Where that cannot be told, it counts as ignored.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 != 0)
}

/// A process that is gone needs no signal.
fn send(id: u32, signal: sysinfo::Signal) {
    let id = sysinfo::Pid::from_u32(id);
    if let Ok(mut system) = sysinfo::System::new() {
        system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[id]), true);
        system.process(id).map(|process| process.kill_with(signal));
    }
}
