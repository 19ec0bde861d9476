//! The thread that computes: takes jobs as they come, steps all of them together, sends each its news.

use super::fields::ApiError;
use super::metrics::Metrics;
use crate::answer::Answerer;
use foundry_models::inference::{Answers, News, Request, RequestId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};

/// One text to continue, of a request that may have several.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) stops: Vec<String>,
    /// The answer is read as part of the prompt's text.
    pub(super) is_continuation: bool,
    /// Which of the request's choices it is.
    pub(super) choice: usize,
    pub(super) updates: Sender<Update>,
    /// The client has left: nobody waits for the news.
    pub(super) abandoned: Arc<AtomicBool>,
}

/// What a job's client hears.
pub(super) enum Update {
    /// News of a choice.
    News(usize, News),
    /// Nothing more will come.
    Failed(ApiError),
}

/// The way to the worker, of bounded length.
pub(super) struct Queue {
    jobs: Sender<Job>,
    open: Arc<AtomicUsize>,
    most: usize,
}

impl Queue {
    /// `most`: jobs that may be open at once, those that run included.
    pub(super) fn new(jobs: Sender<Job>, open: Arc<AtomicUsize>, most: usize) -> Self {
        Self { jobs, open, most }
    }

    /// Hands over all jobs of a request, or none.
    pub(super) fn submit(&self, jobs: Vec<Job>) -> Result<(), ApiError> {
        let (more, most) = (jobs.len(), self.most);
        let reserve = |open: usize| Some(open + more).filter(|open| *open <= most);
        if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_err() {
            let message = format!("{most} texts are being answered or wait already; try again later");
            return Err(ApiError::new(429, message));
        }
        for job in jobs {
            if self.jobs.send(job).is_err() {
                return Err(ApiError::new(503, "the server is stopping"));
            }
        }
        Ok(())
    }
}

/// Computes until nobody can send jobs any more.
pub(super) fn run(answerer: &mut Answerer, jobs: &Receiver<Job>, open: &AtomicUsize, metrics: &Metrics) {
    let (inference, decoder, backend, tokenizer) = answerer.parts();
    let mut answers = Answers::new(tokenizer);
    let mut running: HashMap<RequestId, Job> = HashMap::new();
    let mut news = Vec::new();
    let close = |count: usize| {
        open.fetch_sub(count, Ordering::AcqRel);
    };
    loop {
        let first = match running.is_empty() {
            true => match jobs.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            },
            false => None,
        };
        for job in first.into_iter().chain(jobs.try_iter()) {
            let request = job.request.clone();
            let submitted = match job.is_continuation {
                true => answers.submit_continuation(inference, request, &job.stops),
                false => answers.submit(inference, request, &job.stops),
            };
            match submitted {
                Ok(id) => {
                    running.insert(id, job);
                }
                Err(error) => {
                    close(1);
                    let _ = job.updates.send(Update::Failed(ApiError::new(400, error.to_string())));
                }
            }
        }
        running.retain(|id, job| {
            let stays = !job.abandoned.load(Ordering::Relaxed);
            if !stays {
                answers.cancel(inference, *id);
                close(1);
                metrics.cancelled();
            }
            stays
        });
        let stepped = answers.step(inference, decoder, backend, &mut news);
        for news in news.drain(..) {
            let Some(job) = running.get(&news.id) else { continue };
            metrics.tokens(usize::from(news.token.is_some()));
            let (id, is_last, choice) = (news.id, news.finish.is_some(), job.choice);
            if job.updates.send(Update::News(choice, news)).is_err() {
                job.abandoned.store(true, Ordering::Relaxed);
            }
            if is_last {
                running.remove(&id);
                close(1);
            }
        }
        if let Err(error) = stepped {
            close(running.len());
            for (id, job) in running.drain() {
                answers.cancel(inference, id);
                let _ = job.updates.send(Update::Failed(ApiError::new(500, error.to_string())));
            }
        }
        metrics.cache(inference.open_requests(), inference.free_tokens());
    }
}
