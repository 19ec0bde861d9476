//! A thread that takes what is told to a server: whoever tells never waits for the network.

use crate::http::HttpError;
use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// More than this is not kept in memory for a server that is away: the oldest is given up for the newest.
const MOST_WAITING: usize = 100_000;

/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often to try again at the end.
const LAST_TRIES: u32 = 1;

/// What a courier does.
pub(crate) trait Delivery: Send + 'static {
    /// One thing to be told.
    type Parcel: Send + 'static;

    /// Delivers parcels from the front and takes those out that have arrived.
    fn deliver(&mut self, waiting: &mut VecDeque<Self::Parcel>) -> Result<(), HttpError>;
}

/// How often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two deliveries.
    pub between: Duration,
    /// After the first failure; each further one doubles it, up to a minute.
    pub first_pause: Duration,
    /// How long the end of a run waits for what has not arrived.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            between: Duration::from_secs(5),
            first_pause: Duration::from_secs(2),
            patience: Duration::from_secs(20),
        }
    }
}

/// What became of a courier's parcels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Parcels that did not arrive.
    pub(crate) left: usize,
    /// Parcels that were given up for later ones, as a server was away for too long.
    pub(crate) dropped: usize,
    /// Why not.
    pub(crate) error: Option<HttpError>,
}

/// The end of a courier that is held by whoever tells.
pub(crate) struct Courier<P> {
    sender: Option<Sender<P>>,
    done: Receiver<()>,
    outcome: Arc<Mutex<Outcome>>,
    patience: Duration,
}

impl<P: Send + 'static> Courier<P> {
    /// Starts the thread.
    pub(crate) fn start<D: Delivery<Parcel = P>>(delivery: D, pace: Pace) -> std::io::Result<Self> {
        Self::with_room(delivery, pace, MOST_WAITING)
    }

    /// As [`Courier::start`], with room for `most` parcels that wait.
    fn with_room<D: Delivery<Parcel = P>>(delivery: D, pace: Pace, most: usize) -> std::io::Result<Self> {
        let (sender, parcels) = mpsc::channel();
        let (tell_done, done) = mpsc::channel();
        let outcome = Arc::<Mutex<Outcome>>::default();
        let shared = Arc::clone(&outcome);
        let work = move || {
            let mut round = Round { delivery, pace, most, waiting: VecDeque::new(), outcome: shared };
            round.work(&parcels);
            // What was on its way when the courier gave up.
            let late = parcels.try_iter().count();
            lock(&round.outcome).left += late;
            let _ = tell_done.send(());
        };
        std::thread::Builder::new().name("tracking".into()).spawn(work)?;
        Ok(Self { sender: Some(sender), done, outcome, patience: pace.patience })
    }

    /// Hands a parcel over; it is lost where the courier has given up.
    pub(crate) fn send(&self, parcel: P) {
        if let Some(sender) = &self.sender
            && sender.send(parcel).is_err()
        {
            lock(&self.outcome).left += 1;
        }
    }

    /// No more parcels: waits for those on their way, but not for ever.
    pub(crate) fn close(&mut self) -> Outcome {
        if self.sender.take().is_some() {
            let _ = self.done.recv_timeout(self.patience);
        }
        lock(&self.outcome).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The thread's side.
struct Round<D: Delivery> {
    delivery: D,
    pace: Pace,
    /// The most parcels that wait.
    most: usize,
    waiting: VecDeque<D::Parcel>,
    outcome: Arc<Mutex<Outcome>>,
}

impl<D: Delivery> Round<D> {
    fn work(&mut self, parcels: &Receiver<D::Parcel>) {
        let mut next = Instant::now();
        let mut failures = 0;
        // Failures after the last parcel: a server that is away then is not waited for.
        let mut last_failures = 0;
        loop {
            let is_open = self.collect(parcels, next);
            if self.waiting.is_empty() {
                if is_open { continue } else { return }
            }
            if is_open && Instant::now() < next {
                continue;
            }
            let result = self.delivery.deliver(&mut self.waiting);
            self.note(&result);
            failures = if result.is_ok() { 0 } else { failures + 1 };
            if result.is_err_and(|error| error.is_final()) {
                return;
            }
            let doubled = |n| self.pace.first_pause.saturating_mul(2u32.saturating_pow(n));
            next = Instant::now()
                + match failures {
                    0 => self.pace.between,
                    n => doubled(n - 1).min(LONGEST_PAUSE),
                };
            if !is_open && failures > 0 {
                last_failures += 1;
                if last_failures > LAST_TRIES {
                    return;
                }
                std::thread::sleep(self.pace.first_pause);
            }
        }
    }

    /// Takes parcels until `until`, or until none can come any more: then the answer is false.
    fn collect(&mut self, parcels: &Receiver<D::Parcel>, until: Instant) -> bool {
        loop {
            let wait = match self.waiting.is_empty() {
                // Nothing to do before one comes.
                true => Duration::from_secs(3600),
                false => until.saturating_duration_since(Instant::now()),
            };
            match parcels.recv_timeout(wait) {
                Ok(parcel) => self.waiting.push_back(parcel),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            let mut outcome = lock(&self.outcome);
            while self.waiting.len() > self.most {
                self.waiting.pop_front();
                outcome.dropped += 1;
            }
            outcome.left = self.waiting.len();
        }
    }

    fn note(&self, result: &Result<(), HttpError>) {
        let mut outcome = lock(&self.outcome);
        outcome.left = self.waiting.len();
        outcome.error = result.as_ref().err().cloned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A server that is away until the flag says otherwise, and keeps what arrives.
    struct Away(Arc<AtomicBool>, Arc<Mutex<Vec<u32>>>);

    impl Delivery for Away {
        type Parcel = u32;

        fn deliver(&mut self, waiting: &mut VecDeque<u32>) -> Result<(), HttpError> {
            if self.0.load(Ordering::Relaxed) {
                return Err(HttpError::Unreachable("away".into()));
            }
            lock(&self.1).extend(waiting.drain(..));
            Ok(())
        }
    }

    #[test]
    fn a_server_that_is_away_for_long_gets_the_newest_when_it_is_back() {
        let (is_away, arrived) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<u32>>>::default());
        let delivery = Away(Arc::clone(&is_away), Arc::clone(&arrived));
        let mut courier = Courier::with_room(delivery, crate::loopback::quick(), 10).expect("a thread");
        (0..35).for_each(|parcel| courier.send(parcel));
        while lock(&courier.outcome).dropped < 25 {
            std::thread::sleep(Duration::from_millis(1));
        }
        is_away.store(false, Ordering::Relaxed);
        let outcome = courier.close();
        assert_eq!(outcome, Outcome { left: 0, dropped: 25, error: None });
        assert_eq!(*lock(&arrived), (25..35).collect::<Vec<_>>());
    }
}
