//! Token files of any content: an error, or documents that add up to what the header says.

use foundry_formats::TokenFile;

use crate::scratch;

/// The input is the file.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("some.tokens", data, |path| {
        let Ok(file) = TokenFile::open(path) else { return };
        assert_eq!(file.size(), data.len() as u64);
        let mut tokens = 0;
        for index in 0..file.documents() {
            let document = file.document(index).expect("a file that was opened is sound");
            assert_eq!(document.learned.is_some(), file.has_mask());
            assert!(document.learned.is_none_or(|learned| learned.len() == document.tokens.len()));
            assert_eq!(document.tokens.len(), file.document_tokens(index).expect("sound"));
            tokens += document.tokens.len() as u64;
        }
        assert_eq!(tokens, file.tokens());
        assert!(file.document(file.documents()).is_err());
    });
}
