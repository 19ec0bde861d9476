"""Writes ter.json: sacrebleu's translation edit rate of texts made at random from few words.

    python crates/eval/tests/goldens/make_ter.py

Needs `pip install sacrebleu` (2.6 wrote it). A case is [text, references, score]; `corpus` is the score of all cases
that have two references.
"""
import json
import random
from pathlib import Path

import sacrebleu

WORDS = "the river Stone under old mill, and a bridge. Œuvre".split()


def text(rnd, longest):
    return " ".join(rnd.choice(WORDS) for _ in range(rnd.randint(0, longest)))


def varied(rnd, text):
    """The text with words moved, left out, put in and changed."""
    words = text.split()
    for _ in range(rnd.randint(0, 4)):
        kind, at = rnd.randrange(4), rnd.randint(0, len(words))
        if kind == 0 and words:
            count, start = rnd.randint(1, 4), rnd.randrange(len(words))
            moved, words[start:start + count] = words[start:start + count], []
            at = rnd.randint(0, len(words))
            words[at:at] = moved
        elif kind == 1:
            words[at:at + 1] = []
        elif kind == 2:
            words.insert(at, rnd.choice(WORDS))
        elif at < len(words):
            words[at] = words[at].upper()
    return "  ".join(words)


def main():
    rnd = random.Random(5)
    cases = [["", [""]], ["", ["a b"]], ["a b", [""]], ["a\u00a0b\nc \u2003", [" A b  C"]]]
    for longest in [4, 8, 12, 20, 40] * 10:
        reference = text(rnd, longest)
        references = [reference] if rnd.random() < 0.5 else [reference, varied(rnd, reference)]
        cases.append([varied(rnd, reference) if rnd.random() < 0.8 else text(rnd, longest), references])
    # Longer than the beam, and more shifts than are tried.
    long = text(random.Random(1), 160)
    cases += [[" ".join(long.split()[::-1]), [long]], [long[:40], [long]], [long, [" ".join(long.split()[60:])]]]
    scored = [[text, refs, sacrebleu.corpus_ter([text], [[ref] for ref in refs]).score] for text, refs in cases]
    pairs = [(text, refs) for text, refs in cases if len(refs) == 2]
    corpus = sacrebleu.corpus_ter([text for text, _ in pairs], list(zip(*(refs for _, refs in pairs)))).score
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in scored)
    written = f'{{"corpus": {corpus!r}, "cases": [\n{lines}\n]}}\n'
    (Path(__file__).resolve().parent / "ter.json").write_text(written, encoding="utf-8")


main()
