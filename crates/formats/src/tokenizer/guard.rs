//! The crate `tokenizers` panics on some files that parse but contradict themselves (a template that names a special
//! token it does not define, for one). A stranger's file must not bring the program down: here panics become errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether a call into the crate is under way on this thread.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of the calling thread would be turned into an error by this crate: a panic hook should then say
/// nothing. (The crate `tokenizers` works on the calling thread for single texts, which is all that is asked of it.)
pub fn panic_is_guarded() -> bool {
    GUARDED.get()
}

/// Calls into code of others that may panic on hostile files; an error or a panic comes back as its message. What the
/// call changed must not be relied on after an error.
pub fn guarded<T, E: ToString>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // Unwind safety: after an error the tokenizer is only read again or dropped, and its caches hold no invariants
    // beyond their own entries.
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an internal error");
            Err(message.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_inside_are_marked_as_guarded() {
        assert_eq!(guarded(|| Ok::<_, String>(panic_is_guarded())), Ok(true));
        assert!(!panic_is_guarded());
        assert_eq!(
            guarded(|| -> Result<(), String> { panic!("contradiction") }),
            Err("contradiction".to_owned())
        );
        assert!(!panic_is_guarded());
    }
}
