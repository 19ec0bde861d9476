//! The crate `tokenizers` panics on some files that parse but contradict themselves (a template that names a special
//! token it does not define, for one). A stranger's file must not bring the program down: here panics become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls into the crate; an error or a panic comes back as its message.
pub(super) fn guarded<T, E: ToString>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // Unwind safety: after an error the tokenizer is only read again or dropped, and its caches hold no invariants
    // beyond their own entries.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an internal error");
            Err(message.to_owned())
        }
    }
}
