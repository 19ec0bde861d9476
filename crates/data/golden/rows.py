"""Writes the four small data files of the goldens; all texts were written for this repository."""
import json
import os

ROWS = [
    ("Name a colour of the sky.", "", "Blue, on a clear day."),
    ("Turn the sentence into the past tense.", "She walks to the mill.", "She walked to the mill."),
    ("What is 17 plus 25?", "", "42."),
    ("List three things that float.", "", "1. A cork\n2. A dry leaf\n3. An empty bottle"),
    ("Which word does not belong?", "oak, birch, granite, elm", "Granite: it is a rock, the others are trees."),
    ("Write a haiku about rain.", "", "Grey drops on the roof\nthe gutter hums its one song\nsnails are glad tonight"),
    ("Translate into German.", "The kettle is hot.", "Der Kessel ist heiß."),
    ("Explain in one sentence why ice floats.", "", "Water widens when it freezes, so ice is lighter than the water it pushes aside."),
    ("Give the plural.", "mouse", "mice"),
    ("Describe how to sharpen a pencil with a knife.", "",
     "Hold the pencil in one hand with the point away from you. Lay the blade flat on the wood a thumb's width from the tip. "
     "Push the blade away from you with the thumb, taking off a thin curl. Turn the pencil a little and repeat until a cone has "
     "formed. Scrape the lead to a point at the end. Keep the fingers behind the blade at all times, and sweep up the curls."),
    ("Is the number prime?", "91", "No: 91 = 7 × 13."),
    ("Greet a visitor in Japanese.", "", "いらっしゃいませ"),
    ("Shorten the text to five words.", "The old lighthouse at the end of the pier has not been lit since the winter of the great storm.",
     "The lighthouse stays dark now."),
    ("What do bees make?", "", "Honey and wax."),
    ("Write a line of Python that prints the squares of 0 to 9.", "", "print([n * n for n in range(10)])"),
    ("Sort the words.", "pear fig apple", "apple fig pear"),
    ("Say something cheerful with an emoji.", "", "Good morning! ☀️🦜"),
    ("Complete the proverb.", "A stitch in time", "saves nine."),
    ("Count the vowels.", "onomatopoeia", "There are 8."),
    ("Tell a very short story about a fox and a well.", "",
     "A fox looked into a well and saw the moon. \"Cheese,\" thought the fox, climbed into the bucket and sank. A wolf came by. "
     "\"There is cheese for two,\" called the fox. The wolf jumped into the other bucket, went down, and the fox came up. "
     "\"Such is the world,\" said the fox at the rim, \"one goes up and one goes down,\" and trotted home without any cheese."),
    ("Convert to kilometres.", "5 miles", "About 8.05 km."),
    ("Answer yes or no: do whales breathe air?", "", "Yes."),
    ("Repair the spelling.", "recieve the seperate acomodation", "receive the separate accommodation"),
    ("What is the capital of Iceland?", "", "Reykjavík."),
    ("Give an antonym.", "generous", "stingy"),
    ("Summarise the paragraph.",
     "Peat forms where plants die under water and rot slowly. Over thousands of years the layers press together. People dried "
     "it and burned it for heat. Today many bogs are kept wet, because dry peat gives off the carbon that it has held for so long.",
     "Peat is slowly rotted plant matter; once a fuel, it is now kept wet to hold its carbon."),
    ("Say nothing.", "", ""),
    ("Count down from three.", "", "Three\nTwo\nOne"),
    ("Name the smallest of these.", "a barn, a thimble, a cart", "The thimble."),
    ("Thank the reader.", "", "Thank you for reading."),
]


def chats():
    for i in range(0, len(ROWS), 2):
        turns = [] if i % 3 else [{"role": "system", "content": "Answer in few words."}]
        for instruction, text, output in ROWS[i:i + 1 + i % 4 // 2 + 1]:
            turns += [{"role": "user", "content": instruction + ("\n" + text if text else "")},
                      {"role": "assistant", "content": output}]
        yield {"messages": turns}


def main():
    here = os.path.dirname(os.path.abspath(__file__))

    def lines(name, rows):
        with open(os.path.join(here, name), "w", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    with open(os.path.join(here, "alpaca.json"), "w", encoding="utf-8") as f:
        json.dump([{"instruction": a, "input": b, "output": c} for a, b, c in ROWS], f, ensure_ascii=False, indent=1)
        f.write("\n")
    lines("chats.jsonl", chats())
    lines("pairs.jsonl", ({"prompt": f"Q: {a} {b}\nA:", "completion": f" {c}"} for a, b, c in ROWS))
    lines("texts.jsonl", ({"text": f"{a} {b} {c}" + ("<|im_end|>" if i % 5 == 0 else "")} for i, (a, b, c) in enumerate(ROWS)))


if __name__ == "__main__":
    main()
