"""Items on which the figures of benchmarks are held against their reference implementations: made, seeded, no data."""

from __future__ import annotations

from random import Random

COUNT = 200

_PARTS = {
    "who": "a man|A young woman|two dogs|The children|a group of people|an old-fashioned train|Mr. Smith|a boy's dog|"
    "the girls'|St. Bernard puppies|someone|3 zebras|a 10-year-old|the U.S. team|Dr. No|a T-shirt-clad surfer|"
    "M&M's|a café owner|señor Núñez|a black/white cat|people",
    "does": "is riding|are standing on|doesn't hold|isn't looking at|can't catch|cannot see|won't eat|is gonna throw|"
    "plays|'s holding|they're pulling|wanna buy|has been painting|sits down in front of|jumps, turns and lands on|"
    "could've left|leaning on",
    "what": 'a red/blue bike|the bench|an umbrella.|a $5.99 hot-dog|50% of a pizza|a "STOP" sign|a sign (in Chinese)|'
    "a 3.5mm camera|1,000 balloons|a 1/2 eaten sandwich|the o'clock tower|a C++ book|a sign that says 'no parking'|"
    "rock 'n' roll records|ice-cream; and cake|a piece of … something|a laptop - and a mouse|e-mail@example.com|"
    "www.example.com|a 日本語 sign|a crème brûlée|the “best” cake|an A&W mug|a #1 flag|the '90s TV set",
    "where": "in the park|on Main St. at night|at 10:30 a.m.|near L.A.|by the sea|under an open sky|in the 1950's|"
    "in front of McDonald's|on a dead-end street|at 5pm|in b/w|with a dog's toy|on 12-25-2010|next to No. 5|"
    "in Washington, D.C.|on the boat...|over there!!|, isn't it?|– far away|—alone|[blurry]|{cropped}",
}
_ORDERS = (
    ("who", "does", "what", "where"),
    ("where", "who", "does", "what"),
    ("what", "where"),
    ("who", "does", "what"),
)
_ENDS = ("", ".", " .", "!", "?", "...", ' "', ";", " :")


def captions() -> list[tuple[str, list[str]]]:
    """An answer and one to six references each, which share words."""
    random = Random(1)
    items = []
    for _ in range(COUNT):
        parts = {name: random.sample(values.split("|"), 3) for name, values in _PARTS.items()}
        references = [_caption(random, parts) for _ in range(random.randint(1, 6))]
        answer = random.choice((*[_caption(random, parts)] * 6, random.choice(references), ""))
        items.append((answer, references))
    return items


def _caption(random: Random, parts: dict[str, list[str]]) -> str:
    text = " ".join(random.choice(parts[name]) for name in random.choice(_ORDERS))
    return text + random.choice(_ENDS)


_ANSWERS = (
    "yes|no|Yes.|NO!|a dog|the dogs|dog|two|2|2.|2.5|ten|10|none|0|dont know|don't know|cant tell|can't tell|"
    "red and white|red, white|red/white|red-white|1,000|1000|it's a cat|its a cat| white |white|(white)|10:30|"
    "10.30|10:30 a.m.|mcdonald's|mcdonalds|U.S.A.|usa|on the table|on table|unanswerable|black & white|"
    "left;right|somebodys|somebody's|somebody'd|twas|lets|let's|couldnt've|T-shirt|t shirt|what? no|new\nline|"
    "a\tb|..|e.g. it"
)


def answers() -> list[tuple[str, list[str]]]:
    """An answer to a question and those of ten people."""
    random, known = Random(2), _ANSWERS.split("|")
    items = []
    for _ in range(COUNT):
        few = random.sample(known, random.randint(1, 4))
        given = [random.choice(few) for _ in range(10)]
        items.append((random.choice((*given, random.choice(known))), given))
    return items


_WORDS = (
    "the|a|cat|sat|on|mat|and|Mr.|O'Brien|paid|$20|twenty|one|million|isn't|colour|color|um|[noise]|(laughs)|ten|"
    "percent|o'clock|I'm|gonna|won't|naïve|twenty-first|1960s|double|oh|two|point|five|£3.50|realise|realize"
)


def transcriptions() -> list[tuple[str, str]]:
    """What was said, and what was heard: with words replaced, left out and put in."""
    random, known = Random(3), _WORDS.split("|")
    items = []
    for _ in range(COUNT):
        wanted = [random.choice(known) for _ in range(random.randint(1, 20))]
        said = [random.choice((word, word, word, word.upper(), random.choice(known))) for word in wanted]
        for _ in range(random.randint(0, 4)):
            place = random.randrange(len(said) + 1)
            said[place:place] = [random.choice(known)] if random.random() < 0.5 or place == len(said) else []
            del said[place : place + random.randint(0, 1)]
        items.append((" ".join(said) + random.choice(("", ".", "!")), " ".join(wanted)))
    return items
