"""Writes ifeval.json: which of lm_eval 0.4.13's ifeval instructions texts of our own follow, strictly and loosely.

    python crates/eval/tests/goldens/make_ifeval.py

Needs `pip install lm_eval langdetect immutabledict` and nltk's `punkt_tab`. Every text is checked against every
instruction. langdetect draws at random; what is not the same under all of SEEDS is written as "?" and not compared.
"""
import json
from pathlib import Path

import langdetect
from lm_eval.tasks.ifeval import utils

SEEDS = range(12)


def counted(id, number, relation, *counts):
    return [(id, {number: count, relation: word}) for count in counts for word in ("at least", "less than")]


INSTRUCTIONS = [
    ("keywords:existence", {"keywords": ["river", "stone"]}),
    ("keywords:existence", {"keywords": ["gr[ae]y", "m.ll"]}),
    *[("keywords:frequency", {"keyword": word, "frequency": n, "relation": r})
      for word, n, r in (("the", 3, "at least"), ("river ", 2, "less than"), ("a.e", 1, "at least"), ("É", 1, "at least"))],
    ("keywords:forbidden_words", {"forbidden_words": ["water", "cold"]}),
    ("keywords:forbidden_words", {"forbidden_words": ["river", "नदी"]}),
    *[("keywords:letter_frequency", {"letter": letter, "let_frequency": n, "let_relation": r})
      for letter, n, r in (("e", 10, "at least"), ("Q", 1, "less than"), ("z", 1, "at least"))],
    *[("language:response_language", {"language": name}) for name in ("en", "de", "sw", "hi", "ru", "ja", "ar", "th", "fr")],
    *counted("length_constraints:number_sentences", "num_sentences", "relation", 1, 2, 3, 4, 5, 6, 7, 8, 10),
    *[("length_constraints:number_paragraphs", {"num_paragraphs": n}) for n in (1, 2, 3)],
    *counted("length_constraints:number_words", "num_words", "relation", 2, 5, 8, 12, 20),
    *[("length_constraints:nth_paragraph_first_word", {"num_paragraphs": n, "nth_paragraph": k, "first_word": w})
      for n, k, w in ((1, 1, "the"), (2, 2, "Second"), (3, 2, "it"), (3, 3, "third"))],
    *[("detectable_content:number_placeholders", {"num_placeholders": n}) for n in (1, 2, 3)],
    *[("detectable_content:postscript", {"postscript_marker": m}) for m in ("P.S.", "P.P.S", "N.B.")],
    *[("detectable_format:number_bullet_lists", {"num_bullets": n}) for n in (1, 2, 3)],
    ("detectable_format:constrained_response", {}),
    *[("detectable_format:number_highlighted_sections", {"num_highlights": n}) for n in (1, 2, 3, 4)],
    *[("detectable_format:multiple_sections", {"section_spliter": s, "num_sections": n})
      for s, n in (("Section", 2), ("SECTION ", 1), ("Day", 3))],
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": " Why is the river cold?\n"}),
    *[("startend:end_checker", {"end_phrase": p}) for p in ("Any other questions?", " That is ALL. ")],
    ("startend:quotation", {}),
    *counted("change_case:capital_word_frequency", "capital_frequency", "capital_relation", 1, 2, 3, 5, 7),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
]

TEXTS = [
    "", "  \n ", "The river is cold.", "the river is cold in the morning, and nobody wants to swim in it", "RIVER",
    "THE RIVER IS COLD IN THE MORNING AND NOBODY WANTS TO SWIM", "the stone lies in the grey mill near the river",
    "Der Fluss war am Morgen kalt, und niemand wollte schwimmen gehen.",
    "Mto ulikuwa baridi asubuhi, na hakuna mtu aliyetaka kuogelea ndani yake.",
    "नदी सुबह ठंडी थी और कोई तैरना नहीं चाहता था।", "Река утром была холодной, и никто не хотел купаться.",
    "朝の川は冷たくて、誰も泳ぎたがらなかった。", "كان النهر باردا في الصباح ولم يرغب أحد في السباحة.",
    "แม่น้ำเย็นในตอนเช้าและไม่มีใครอยากว่ายน้ำ", "La rivière était froide le matin, et personne ne voulait nager.",
    "12 + 3 = 15", "Why is the river cold?\nBecause it comes from the mountains.",
    "  WHY is the River cold? I do not know.", "My answer is yes.", "I think: My answer is maybe. That is all.",
    "First part *** Second part", "First\n***\n\n***\nThird", "*** one *** two ***", "one***two***three***",
    "The first.\n\nSecond, it goes on.\n\nThird paragraph", "\n\nIt begins late.\n\n'It' quotes.\n\n\"third\" is here",
    "One.\n\nit's two\n\n\n\nthird.", "Dear [name], your [item] costs [price].", "[ ] [] [a\nb] [c", "A note.\nP.S. One more.",
    "A note. p. s. one more", "Text\nP.P.S We forgot.", "P. P. S: also", "N.B. note this, n.b. twice",
    "* one\n* two\n- three", "  * one\n\n * two", "** bold **\n- x\n-y", "*a*\n*", "- only\n", "text - no bullet\n*  \n",
    "*one* and *two* and **three**", "** ** * * *x*", "***bold*** and *a\nb*", "Here is *my* stuff:\n**This** is it. *Yes*",
    "Section 1\nText\nSection 2\nMore", "SECTION1 a Section  2", "Day 1: rest. Day 2: work. Day 3: rest.", "Sections 1 and 2",
    "{\"river\": [1, 2.5, true, null]}", "```json\n{\"a\": \"b\"}\n```", "```\n[NaN, -Infinity]\n```", "```JSON {} ```",
    "{'a': 1}", "{\"a\": 1,}", "\"just text\"", "17", "Here it is: {\"a\": 1}", "<<Title>>\nText", "<< >>", "<<<a\n>>", "<<a>> <<b>>",
    "First answer\n******\nSecond answer", "same****** same", "******a******b******", "a******b******c", "a****** ******b",
    "That's it. Any other questions?", "\"Any other questions?\"", "This is it. that is all.", "  \"quoted\"  ", "\"", "\"open",
    "Quite an example of a text without that letter", "NASA AND ESA ARE AGENCIES", "NASA and ESA, the U.S. and I",
    "IT'S MINE. DON'T TOUCH!", "A-B C/D E:F \"G\" (H) I", "CANNOT STOP", "iPhone and McDonald, X Æ", "ß ẞ Ǆ ǅ",
    "Dr. Smith met Mrs. Jones at 5 p.m. on Fri. They talked.", "We live in the U.S. The climate is mild. J. K. Rowling wrote.",
    "1. First\n2. Second\n3. Third\n", "Wait... what? Well... The end.", "He said \"Stop!\" Then (at last.) We went.",
    "Really?! Yes!!! No.Yes. e.g. this, i.e. that, etc. And so on.", "It costs $3.50. That is 2. much more than 1.5.",
    "See https://example.org/a.b?c=d. It works. Mail a.b@example.org!", "No. 5 is alive. Vol. 3 is not. Fig. 2 shows it.",
    "He works at Foo Inc. in Paris. She works at Bar Ltd. However they met. In Jan. 2020 it ended.",
    "\u201cQuoted.\u201d Then \u2018another.\u2019 And \u00abthird.\u00bb End", "A. The first. B. The second. C. It is third.",
    "One sentence\nwithout an end\n\nAnother one\n", ". . . and so on . . . The end", "Hello!How are you?I am fine.",
    "I am tired.  \n\n  It is late.\tGood night.", "(One.) [Two.] {Three.} \"Four.\" 'Five.'", "A -- b. C--d. E...f. G",
    "The a\u0301ccent, naïve café, m² and x_1", "- The river\n- The stone\nP.S. cold", "*The river is cold.*\nSure, here it is:\nyes",
    "Sure! Here is the answer:\nthe river is cold in the morning and nobody wants to swim in it\nI hope that helps.",
    "Sure!\n{\"a\": 1}\nDone", "Sure!\n\"quoted\"", "\"quoted\"\nDone", "Sure:\n*\"quoted\"*\nDone", "\\n\\n\n\n\n", "a\rb\r\nc",
    "The mill. The grey gray mall, the Mill and the river: stones.", "É é e\u0301", "Zzz", "!!!", "...", "?", "1.", "a.", "A.",
    "Mr.", "Mr. Mr. The", "x\u00a0y. Z", "\u3000", "He left at 9 a.m. He came back at 5 p.m. in the U.K. Nobody knew.",
]


def checked(text, id, kwargs, function):
    example = utils.InputExample(key=0, instruction_id_list=[id], prompt="", kwargs=[kwargs])
    answers = set()
    for seed in SEEDS if id.startswith("language") or "english" in id else [0]:
        langdetect.DetectorFactory.seed = seed
        answers.add(function(example, text).follow_instruction_list[0])
    return "?" if len(answers) > 1 else str(int(answers.pop()))


def rows(function):
    return ["".join(checked(text, id, kwargs, function) for id, kwargs in INSTRUCTIONS) for text in TEXTS]


golden = {
    "instructions": [{"id": id, "kwargs": kwargs} for id, kwargs in INSTRUCTIONS],
    "texts": TEXTS,
    "strict": rows(utils.test_instruction_following_strict),
    "loose": rows(utils.test_instruction_following_loose),
}
path = Path(__file__).with_name("ifeval.json")
path.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
undecided = sum(row.count("?") for row in golden["strict"] + golden["loose"])
print(f"{len(TEXTS)} texts, {len(INSTRUCTIONS)} instructions, {undecided} answers that langdetect gives at random")
