//! Ctrl-C and SIGTERM: once means "finish the step, save, stop", twice means "stop now".

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the first signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// From now on the first signal sets the flag and the second ends the process with code 130.
    pub(crate) fn install() -> io::Result<Self> {
        let request = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: a signal that finds the flag set ends the process, else it sets the flag.
            flag::register_conditional_shutdown(signal, 130, request.0.clone())?;
            flag::register(signal, request.0.clone())?;
        }
        Ok(request)
    }

    /// A signal has come.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
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
