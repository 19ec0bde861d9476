//! Which language a text is in: langdetect's naive Bayes over one to three letters (Nakatani Shuyo 2010), of which
//! `langdetect-rs` is a port with the same profiles.
//!
//! langdetect disturbs its smoothing at random and lm_eval gives it no seed, so that its answers to short texts change
//! from run to run; here the seed is fixed.

use langdetect_rs::detector::Detector;
use langdetect_rs::detector_factory::DetectorFactory;
use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, PoisonError};

const SEED: u64 = 0;
/// End of the one profile that the port has and langdetect has not.
const ADDED: &str = "\"uz\"";

/// The detector, and what it said of the last texts: one is asked about for several instructions, in several readings.
struct Memory {
    detector: Detector,
    last: VecDeque<(String, Option<String>)>,
}

/// Texts that are remembered: the readings of one answer.
const REMEMBERED: usize = 8;

/// Made once: its table of letters is large.
static MEMORY: LazyLock<Mutex<Memory>> = LazyLock::new(|| {
    let all = DetectorFactory::get_default_profiles_json();
    let profiles: Vec<&str> = all.iter().copied().filter(|profile| !is_added(profile)).collect();
    let mut factory = DetectorFactory::new().build();
    factory.load_json_profile(&profiles).expect("the port's own profiles");
    let detector = Detector::new(factory.word_lang_prob_map, factory.langlist, Some(SEED));
    Mutex::new(Memory { detector, last: VecDeque::new() })
});

fn is_added(profile: &str) -> bool {
    profile.trim_end_matches(['}', '\n', ' ']).ends_with(ADDED)
}

/// The language's ISO 639-1 name (`zh-cn` and `zh-tw` for Chinese); `None`: nothing tells one.
pub(super) fn of(text: &str) -> Option<String> {
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let Memory { detector, last } = &mut *memory;
    if let Some((_, language)) = last.iter().find(|(known, _)| known == text) {
        return language.clone();
    }
    detector.text.clear();
    detector.langprob = None;
    detector.append(text);
    let language = detector.detect().ok();
    last.truncate(REMEMBERED - 1);
    last.push_front((text.to_owned(), language.clone()));
    language
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_langdetects() {
        // python: langdetect.detect(text)
        let cases = [
            ("The river was cold in the morning, and nobody wanted to swim.", "en"),
            ("Der Fluss war am Morgen kalt, und niemand wollte schwimmen.", "de"),
            ("Mto ulikuwa baridi asubuhi, na hakuna mtu aliyetaka kuogelea.", "sw"),
            ("नदी सुबह ठंडी थी और कोई तैरना नहीं चाहता था।", "hi"),
            ("Река утром была холодной, и никто не хотел купаться.", "ru"),
            ("朝の川は冷たくて、誰も泳ぎたがらなかった。", "ja"),
        ];
        for (text, language) in cases {
            assert_eq!(of(text).as_deref(), Some(language), "{text}");
        }
        assert_eq!((of(""), of("12 + 3 = 15!")), (None, None));
        assert_eq!(MEMORY.lock().unwrap().detector.langlist.len(), 55);
    }
}
