//! How many sentences a text has, as nltk's `PunktTokenizer("english")` counts them: Kiss and Strunk 2006,
//! "Unsupervised Multilingual Sentence Boundary Detection".
//!
//! The rules are nltk's. What they look words up in is not: nltk has tables learnt from newspapers (20,000 words and
//! how each is written); here are short lists of everyday abbreviations and words, each one tried against nltk. Counts
//! differ where a rarer word in a capital follows an abbreviation or an initial ("Foo Inc. Trains run", "plan B. Trains
//! run").

use crate::python::text::is_space;

/// Abbreviations, without their last period.
const ABBREVIATIONS: &str = "mr mrs ms messrs dr prof st jr sr sen rep reps gen col lt adm maj inc ltd co corp bros cos cie jan feb aug \
     sep sept oct nov dec tues wed fri ave ft vs yr ga mg ok chg ala ariz calif colo conn fla ill kan ky mich \
     minn nev okla ore pa tenn va vt wash wis w.va u.s u.k u.n u.s.a u.s.s.r d.c n.y n.j n.c s.c n.h n.m n.d l.a \
     a.m p.m a.d m.b.a ph.d s.a n.v s.p.a j.p j.r g.k c d e f g h k l m n p r s t v w";
/// Words that, in a capital, begin a sentence after an abbreviation.
const STARTERS: &str = "the this these he it they i there here when which your her seven eight ten some many most both either \
     neither such same but nor so yet since although though while if unless whenever wherever whether in without \
     above along among behind beneath between beyond despite except inside into onto through throughout toward \
     under upon via within were does very even still always sometimes finally tomorrow yesterday meanwhile \
     however therefore thus hence moreover furthermore nevertheless nonetheless instead indeed similarly likewise \
     otherwise overall certainly unfortunately recently eventually initially please thank thanks yes remember \
     note think try ask need sales important someone anything nothing anyone";
/// Words that are also written small, and that so are no surname after an initial. Those of [`STARTERS`] belong to
/// them.
const WRITTEN_SMALL: &str = "a an that those she we you who what where why how whose my his its our their one two three four five six \
     nine any more several few all each every no none other another and or for because until as after before once \
     than on at by with from to of about across against around below during down like near off out outside over \
     past up is are was be been am do did has have had can could will would should may might must let not also \
     too just only again never often usually generally first second third next then now later today perhaps maybe \
     clearly obviously make take use go get see look give keep find tell say know want people time year years day \
     days way man woman child world life work school home house water food money company government country city \
     state good new old great big small long short high low large young everyone everybody something everything \
     nobody";
/// What ends a word, besides space and marks of several characters.
const AFTER_WORD: &str = "()\";}]*:@'{[\u{2018}\u{2019}\u{201c}\u{201d}\u{ab}\u{bb}?!";
/// What does not begin a word.
const NO_START: &str = "(\"`{[:;&#*@)}]-,";
/// What belongs to the sentence before it, though it follows the full stop.
const CLOSING: &str = "\"')]}\u{2018}\u{2019}\u{201c}\u{201d}\u{ab}\u{bb}";
/// Stands for all numbers.
const NUMBER: &str = "##number##";

/// A word and what is known of it.
struct Token {
    text: Vec<char>,
    /// In small letters, numbers all alike.
    kind: String,
    breaks: bool,
    is_abbreviation: bool,
    is_ellipsis: bool,
}

/// What the case of a word says about whether it begins a sentence.
#[derive(PartialEq)]
enum Starts {
    Yes,
    No,
    Unknown,
}

/// A full stop, question or exclamation mark that may end a sentence.
struct Candidate {
    at: usize,
    /// The word after it, where there is space between.
    next: Option<(usize, usize)>,
    /// Where the piece of text ends that decides.
    end: usize,
}

/// `len(PunktTokenizer("english").tokenize(text))`.
pub(super) fn count(text: &str) -> usize {
    let chars: Vec<char> = text.chars().collect();
    let mut slices = Vec::new();
    let mut last = 0;
    for (candidate, context) in contexts(&chars) {
        if has_break(&context) {
            slices.push((last, candidate.at + 1));
            last = candidate.next.map_or(candidate.at + 1, |(start, _)| start);
        }
    }
    let end = chars.iter().rposition(|c| !is_space(*c)).map_or(0, |at| at + 1);
    slices.push((last, end));
    realigned(&chars, &slices)
}

/// How many slices are left when closing marks go to the sentence before them.
fn realigned(chars: &[char], slices: &[(usize, usize)]) -> usize {
    let (mut count, mut moved) = (0, 0);
    for (at, &(start, end)) in slices.iter().enumerate() {
        let start = start + moved;
        let Some(&(next, next_end)) = slices.get(at + 1) else {
            count += usize::from(start < end);
            continue;
        };
        match closing(&chars[next.min(next_end)..next_end]) {
            Some(length) => {
                count += 1;
                moved = length;
            }
            None => {
                count += usize::from(start < end);
                moved = 0;
            }
        }
    }
    count
}

/// Length of closing marks and the space after them, at the beginning of a sentence.
fn closing(chars: &[char]) -> Option<usize> {
    let marks = chars.iter().take_while(|c| CLOSING.contains(**c)).count();
    for length in 1..=marks {
        let rest = &chars[length..];
        let spaces = rest.iter().take_while(|c| is_space(**c)).count();
        if spaces > 0 {
            return Some(length + spaces);
        }
        if rest.starts_with(&['-', '-']) || rest.is_empty() {
            return Some(length);
        }
    }
    None
}

/// Possible ends, each with the word before it, itself and what follows. Of several within one word the last counts.
fn contexts(chars: &[char]) -> Vec<(Candidate, Vec<char>)> {
    let mut found = Vec::new();
    let mut word = (0, 0);
    let mut previous: Option<Candidate> = None;
    let mut keep = |candidate: Candidate, word: (usize, usize)| {
        let mut context = chars[word.0..word.1].to_vec();
        context.extend_from_slice(&chars[candidate.at..candidate.end]);
        found.push((candidate, context));
    };
    for candidate in (0..chars.len()).filter_map(|at| candidate(chars, at)) {
        let before = &chars[word.1.min(candidate.at)..candidate.at];
        let space = before.iter().rposition(|c| " \t\n\r\x0b\x0c".contains(*c)).unwrap_or(0);
        let start = if space > 0 { word.1 + space + 1 } else { word.0 };
        if let Some(previous) = previous.take().filter(|_| word.1 <= start) {
            keep(previous, word);
        }
        word = (start, candidate.at);
        previous = Some(candidate);
    }
    if let Some(previous) = previous {
        keep(previous, word);
    }
    found
}

fn candidate(chars: &[char], at: usize) -> Option<Candidate> {
    let after = at + 1;
    let next = chars.get(after).filter(|_| ".?!".contains(chars[at]))?;
    if AFTER_WORD.contains(*next) {
        return Some(Candidate { at, next: None, end: after + 1 });
    }
    let space = chars[after..].iter().take_while(|c| is_space(**c)).count();
    let start = after + space;
    let length = chars[start..].iter().take_while(|c| !is_space(**c)).count();
    let end = start + length;
    (space > 0 && length > 0).then_some(Candidate { at, next: Some((start, end)), end })
}

/// Whether a sentence ends before the last word of a piece of text.
fn has_break(context: &[char]) -> bool {
    let mut tokens: Vec<Token> = context.split(|c| *c == '\n').flat_map(words).map(Token::new).collect();
    for at in 1..tokens.len() {
        let (before, after) = tokens.split_at_mut(at);
        before[at - 1].look_at(&after[0]);
    }
    let last = tokens.len().saturating_sub(1);
    tokens[..last].iter().any(|token| token.breaks)
}

/// The words of a line, and marks between them.
fn words(line: &[char]) -> Vec<Vec<char>> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < line.len() {
        if is_space(line[at]) {
            at += 1;
            continue;
        }
        let length = match marks(&line[at..]) {
            0 if NO_START.contains(line[at]) => 1,
            0 => (1..).find(|length| ends_word(&line[at + length..])).unwrap_or(1),
            marks => marks,
        };
        words.push(line[at..at + length].to_vec());
        at += length;
    }
    words
}

/// Length of a mark of several characters: dashes, dots, dots with space between.
fn marks(rest: &[char]) -> usize {
    let run = |mark: char| rest.iter().take_while(|c| **c == mark).count();
    let longest = run('-').max(run('.'));
    if longest >= 2 {
        return longest;
    }
    let spaced = rest.chunks_exact(2).take_while(|pair| pair[0] == '.' && is_space(pair[1])).count();
    // As many of the pairs as a last dot follows.
    let spaced = (2..=spaced).rev().find(|pairs| rest.get(2 * pairs) == Some(&'.'));
    spaced.map_or(0, |pairs| 2 * pairs + 1)
}

fn ends_word(rest: &[char]) -> bool {
    let ends = |rest: &[char]| {
        rest.first().is_none_or(|c| is_space(*c) || AFTER_WORD.contains(*c)) || marks(rest) > 0
    };
    ends(rest) || (rest[0] == ',' && ends(&rest[1..]))
}

fn listed(list: &str, word: &str) -> bool {
    list.split(' ').any(|listed| listed == word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Token {
    /// With what it says by itself.
    fn new(text: Vec<char>) -> Self {
        let lower: String = text.iter().collect::<String>().to_lowercase();
        let kind = if is_number(&text) { NUMBER.to_owned() } else { lower.clone() };
        let mut token = Self { text, kind, breaks: false, is_abbreviation: false, is_ellipsis: false };
        let is_dots = token.text.iter().all(|c| *c == '.');
        if matches!(token.text[..], ['.' | '?' | '!']) {
            token.breaks = true;
        } else if is_dots {
            token.is_ellipsis = true;
        } else if let Some(stem) = lower.strip_suffix('.').filter(|stem| !stem.ends_with('.')) {
            let last = stem.rsplit('-').next().unwrap_or(stem);
            token.is_abbreviation = listed(ABBREVIATIONS, stem) || listed(ABBREVIATIONS, last);
            token.breaks = !token.is_abbreviation;
        }
        token
    }

    fn without_period(&self) -> &str {
        self.kind.strip_suffix('.').filter(|stem| !stem.is_empty()).unwrap_or(&self.kind)
    }

    /// As the next word looks it up.
    fn looked_up(&self) -> &str {
        if self.breaks { self.without_period() } else { &self.kind }
    }

    fn is_capital(&self) -> bool {
        self.text[0].is_uppercase()
    }

    fn starts(&self) -> Starts {
        match self.text[0] {
            ';' | ':' | ',' | '.' | '!' | '?' if self.text.len() == 1 => Starts::No,
            first if first.is_uppercase() && listed(STARTERS, self.looked_up()) => Starts::Yes,
            first if first.is_lowercase() => Starts::No,
            _ => Starts::Unknown,
        }
    }

    /// Decides again in view of the next word.
    fn look_at(&mut self, next: &Self) {
        if !self.text.ends_with(&['.']) {
            return;
        }
        let is_initial = matches!(self.text[..], [letter, '.'] if is_word(letter) && !letter.is_numeric());
        let starts = next.starts();
        if (self.is_abbreviation || self.is_ellipsis) && !is_initial && starts == Starts::Yes {
            self.breaks = true;
            return;
        }
        if !is_initial && self.without_period() != NUMBER {
            return;
        }
        let is_name = || {
            let word = next.looked_up();
            let is_letter = word != "i" && word.chars().count() == 1;
            next.is_capital() && !is_letter && !listed(STARTERS, word) && !listed(WRITTEN_SMALL, word)
        };
        if starts == Starts::No || (starts == Starts::Unknown && is_initial && is_name()) {
            self.breaks = false;
        }
    }
}

/// `-?[.,]?\d[\d,.-]*`
fn is_number(text: &[char]) -> bool {
    let text = text.strip_prefix(&['-']).unwrap_or(text);
    let text = text.strip_prefix(&['.']).or(text.strip_prefix(&[','])).unwrap_or(text);
    let is_digit = |c: char| c.is_numeric();
    text.first().is_some_and(|c| is_digit(*c)) && text.iter().all(|c| is_digit(*c) || ",.-".contains(*c))
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn sentences_end_where_nltks_do() {
        // python: len(nltk.tokenize.PunktTokenizer("english").tokenize(text))
        let cases = [
            ("", 0),
            ("   \n", 0),
            ("No end", 1),
            ("One. Two! Three?", 3),
            ("Dr. Smith met Mrs. Jones at 5 p.m. on Fri. He left.", 2),
            ("The U.S. Army came. J. K. Rowling wrote it.", 2),
            ("He said \"Stop!\" Then (at last.) We went.", 3),
            ("Wait... what? Well... The end.", 3),
            ("1. First\n2. Second\n3. Third", 4),
            ("It costs 3.50. That is 2. much", 2),
            ("https://a.b/c.d?e=f is a link.It has no space.", 1),
            (". . . and so on . . . The end", 7),
            ("Version 2.0.1 is out!!! Really?! Yes.", 3),
        ];
        for (text, expected) in cases {
            assert_eq!(count(text), expected, "{text:?}");
        }
    }
}
