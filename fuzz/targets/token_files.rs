//! Token files of any content: an error, or documents that add up to what the header says; of version 2 also an error
//! when a damaged block is read.

use foundry_formats::TokenFile;

use crate::scratch;

/// The input is the file.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("some.tokens", data, |path| {
        let Ok(file) = TokenFile::open(path) else { return };
        assert_eq!(file.size(), data.len() as u64);
        let mut tokens = 0;
        let is_sound = file.check_all().is_ok();
        assert!(is_sound || file.version() > 1, "version 1 has nothing to check");
        for index in 0..file.documents() {
            let continues = file.view().and_then(|view| view.continues(index)).expect("checked when it was opened");
            assert!(!continues || (index > 0 && file.version() > 1));
            let document = match file.document(index) {
                Ok(document) => document,
                Err(_) if !is_sound => return,
                Err(error) => panic!("a file that was checked is sound: {error}"),
            };
            let learned = document.learned.as_ref().map(|learned| learned.iter().filter(|l| **l).count());
            let counted = file.view().and_then(|view| view.learned(index, 0..usize::MAX)).expect("read before");
            assert_eq!(counted, learned.unwrap_or(document.tokens.len()));
            assert_eq!(document.learned.is_some(), file.has_mask());
            assert!(document.learned.is_none_or(|learned| learned.len() == document.tokens.len()));
            assert_eq!(document.tokens.len(), file.document_tokens(index).expect("sound"));
            tokens += document.tokens.len() as u64;
        }
        assert_eq!(tokens, file.tokens());
        assert!(file.document(file.documents()).is_err());
    });
}
