"""Which questions does a passage answer, found by rule?

Each rule looks for one kind of sentence and turns it into a fact (kind, question, answer) whose
answer is close to a copy. Weak labels: right in form, only mostly right in matter.
"""

import re

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
MONTH_YEAR = rf"(?:{MONTHS}) \d{{4}}"
DATE = rf"(?:{MONTHS}) \d{{1,2}}, \d{{4}}"
ABBREVIATION = (
    r"(?:v|No|Nos|U\.S|Inc|Corp|Co|Ltd|Mr|Mrs|Ms|Dr|Jr|Sr|St|Fed|R|Crim|Civ|P|Cir|Supp|Mass|App|Ct"
    r"|id|Id|cf|Cf|See|e\.g|i\.e|sec|cl|Art|art|Rev|Stat|Gen|Ann|(?:[A-Z]\.)*[A-Z])"
)

HELD = {  # "we VERB" -> past tense, what the question asks
    "hold": ("held", "hold"),
    "conclude": ("concluded", "conclude"),
    "find": ("found", "find"),
    "agree": ("agreed", "agree with"),
    "affirm": ("affirmed", "affirm"),
    "reverse": ("reversed", "reverse"),
    "vacate": ("vacated", "vacate"),
    "reject": ("rejected", "reject"),
    "remand": ("remanded", "remand"),
    "believe": ("believed", "believe"),
    "dismiss": ("dismissed", "dismiss"),
    "deny": ("denied", "deny"),
}
BELOW = {  # what a court below did -> infinitive
    "found": "find",
    "held": "hold",
    "granted": "grant",
    "denied": "deny",
    "ruled": "rule",
    "concluded": "conclude",
    "awarded": "award",
    "dismissed": "dismiss",
    "ordered": "order",
    "entered": "enter",
    "refused": "refuse",
    "rejected": "reject",
    "returned": "return",
    "determined": "determine",
}
PROCEDURE = {  # how the case came about -> question
    "appeal from": "What is being appealed in {n}?",
    "appeals from": "What is being appealed in {n}?",
    "was convicted of": "What was the defendant convicted of in {n}?",
    "were convicted of": "What were the defendants convicted of in {n}?",
    "was sentenced to": "What sentence was imposed in {n}?",
    "pleaded guilty to": "What did the defendant plead guilty to in {n}?",
    "pled guilty to": "What did the defendant plead guilty to in {n}?",
    "was indicted": "What was the indictment in {n}?",
    "was charged with": "What was charged in {n}?",
}
COURT = ["Which court decided {n}?", "What court heard {n}?", "In which court was {n} decided?"]
WHEN = [
    "When was {n} decided?",
    "On what date was {n} decided?",
    "What is the decision date of {n}?",
]
CITED = [
    "What is the citation of {n}?",
    "How is {n} cited?",
    "What is the citation for {n}?",
]
# other wordings of a kind's question, for answers only: people do not ask in our words
REWORDED = {
    "hold": ["What was the holding in {n}?", "How did the court rule in {n}?"],
    "judge": ["Who was the judge in {n}?", "Name a judge of {n}."],
    "statute": ["What law is cited in {n}?", "What section of the code does {n} cite?"],
    "money": ["How much money was involved in {n}?", "What sum is named in {n}?"],
    "proc": ["How did {n} come before the court?"],
    "issue": ["What question did the court face in {n}?", "What had to be decided in {n}?"],
    "court": ["Who decided {n}?", "{n} was decided by which court?", "Which court ruled in {n}?"],
    "date": ["What date was {n} decided?", "When did the court rule in {n}?"],
    "mycite": ["Where is {n} reported?", "Give the citation of {n}."],
}


def header(case):
    """The lines above the text in the prompt."""
    return (
        f"Case: {case['name']}\nCourt: {case['court']}\n"
        f"Date: {case['date']}\nCitation: {case['cite']}"
    )


def sentences(text):
    """Sentences; a full stop after a legal abbreviation does not end one."""
    text = re.sub(r"\s+", " ", text)
    found, start = [], 0
    for end in re.finditer(r'[.!?]["\')\]]* (?=["\'(\[]?[A-Z])', text):
        before = text[max(0, end.start() - 12) : end.start()]
        if not re.search(rf"(?:^|[\s(\[\"']){ABBREVIATION}$", before):
            found.append(text[start : end.end()])
            start = end.end()
    found.append(text[start:])
    return [sentence.strip() for sentence in found]


def readable(sentence):
    """Whether the sentence is whole, short, balanced and free of layout."""
    return (
        30 <= len(sentence) <= 260
        and re.match(r"[\"'(\[]?[A-Z]", sentence)
        and re.search(r"[.!?][\"')\]]*$", sentence)
        and sentence.count('"') % 2 == 0
        and sentence.count("(") == sentence.count(")")
        and not re.search(r"_{2,}|\*{2,}|-{3,}|\[\d| -\d+-", sentence)
    )


def finish(sentence):
    """The sentence with exactly one full stop."""
    sentence = sentence.strip(" ,;:")
    return sentence if sentence.endswith((".", "?")) else sentence + "."


def subject(rest):
    """The short subject of "that the SUBJECT was ...", or None."""
    match = re.match(
        r" that ((?:the|his|her|its|their|this|these|[A-Z])[\w'\-]*(?: [\w'\-]+){1,3}?)"
        r" (?:was|were|is|are|did|does|had|has|have|could|should|would|may|must|cannot|failed)\b",
        rest,
    )
    return match.group(1) if match and not match.group(1).startswith("this case") else None


def fact_of_sentence(sentence, name):
    """The fact of the first rule that fits, or None."""
    s = sentence
    match = re.search(rf"\b[Ww]e ({'|'.join(HELD)})\b(.*)", s)
    if match and len(match.group(2)) > 15:
        past, verb = HELD[match.group(1)]
        about = subject(match.group(2)) if verb in ("hold", "conclude", "find", "believe") else None
        about = f" about {about}" if about else ""
        answer = finish(f"The court {past}{match.group(2)}")
        return "hold", f"What did the court {verb}{about} in {name}?", answer

    match = re.match(
        r"(?:[A-Z][\w, ]{0,30}, )?((?:The )?(?:plaintiff|defendant|appellant|appellee|petitioner"
        r"|respondent|government|Plaintiff|Defendant|Appellant|Petitioner|Government|[A-Z][a-z]+)s?)"
        r" (?:also |further |next |now |first |then )?"
        r"(argue|contend|claim|assert|maintain|allege|insist)s? (that .*)",
        s,
    )
    if match and match.group(1) not in ("They", "He", "She", "We", "It"):
        who, verb, what = match.groups()
        if re.search(r"plaintiff|defendant|appell|petition|respond|govern", who, re.I):
            who = "the " + who.lower().removeprefix("the ")
        plural = who.startswith("the ") and who.endswith("s")
        do, verbs = ("do", verb) if plural else ("does", verb + "s")
        answer = finish(f"{who[0].upper() + who[1:]} {verbs} {what}")
        return "argue", f"What {do} {who} {verb} in {name}?", answer

    match = re.match(rf"(?:On|In) ({DATE}|{MONTH_YEAR}), (.{{20,220}})", s)
    if match:
        when, what = match.groups()
        on = "on" if re.match(DATE, when) else "in"
        question = f"What happened {on} {when} in {name}?"
        return "when", question, finish(f"{on.title()} {when}, {what}")

    match = re.search(
        r"\b(appeals? from|was convicted of|were convicted of|was sentenced to|pleaded guilty to"
        r"|pled guilty to|was indicted|was charged with|brought suit|filed suit"
        r"|brought this action|filed a complaint|sued) (.{15,200})",
        s,
    )
    if match and len(s) < 240:
        question = PROCEDURE.get(match.group(1), "What suit was brought in {n}?")
        return "proc", question.format(n=name), finish(s)

    match = re.search(r"\b(\d+ U\.S\.C\. §+ ?\d+[\w()\-]*)", s)
    if match:
        answer = f"The opinion in {name} cites {match.group(1)}."
        return "statute", f"Which statute is cited in {name}?", answer

    match = re.search(r"\$\d[\d,]*(?:\.\d\d)?(?: million)?", s)
    if match:
        return "money", f"What amount of money is mentioned in {name}?", finish(s)

    match = re.match(
        r"The (district court|jury|magistrate judge|Board|Commission|trial court|ALJ|Secretary"
        rf"|agency|bankruptcy court) ({'|'.join(BELOW)})\b (.{{15,200}})",
        s,
    )
    if match:
        question = f"What did the {match.group(1)} {BELOW[match.group(2)]} in {name}?"
        return "below", question, finish(s)

    match = re.search(
        r"\b(issue|question)s? (?:before us |presented |here |on appeal )?(?:is|are)"
        r" (whether .{15,200})",
        s,
    )
    if match:
        answer = finish(f"The {match.group(1)} was {match.group(2)}")
        return "issue", f"What was the {match.group(1)} in {name}?", answer
    return None


def chunk_qa(case, chunk):
    """The facts (kind, question, answer) of a chunk's sentences, judges and cited cases."""
    name = case["name"]
    found = []
    for sentence in sentences(chunk):
        fact = fact_of_sentence(sentence, name) if readable(sentence) else None
        if fact:
            found.append(fact)
    match = re.search(
        r"\b([A-Z][A-Z'\-]{2,}|[A-Z][a-z]+), (Chief Judge|Circuit Judge|District Judge"
        r"|Senior Circuit Judge|Chief Justice|Associate Justice)\b",
        chunk,
    )
    if match:
        answer = finish(f"{match.group(1).title()}, {match.group(2)}, is named in {name}")
        found.append(("judge", f"Which judge wrote or heard {name}?", answer))
    for match in re.finditer(
        r"([A-Z][\w'&.]+(?: [A-Z][\w'&.]+){0,3} v\. [A-Z][\w'&.]+(?: [A-Z][\w'&.]+){0,2}),"
        r" (\d{1,3} (?:U\.S\.|F\.2d|F\.3d|S\. ?Ct\.|F\. ?Supp\.) \d{1,4})",
        chunk,
    ):
        cited, where = match.groups()
        cited = re.sub(r"^(?:(?:See|In|Cf\.|But|Compare|Accord|Under|E\.g\.) )+", "", cited)
        if not re.match(r"(?:Inc|Co|Corp|Ltd|Bros|Sys|v)\b", cited):
            answer = f"{cited} is reported at {where}."
            found.append(("cite", f"What is the citation of {cited} in {name}?", answer))
    return found


def meta_qa(case, random):
    """The facts of the header, in one of several wordings each."""
    name = case["name"]

    def ask(wordings):
        return random.choice(wordings).format(n=name)

    return [
        ("court", ask(COURT), finish(f"{name} was decided by the {case['court']}")),
        ("date", ask(WHEN), finish(f"{name} was decided on {case['date']}")),
        ("mycite", ask(CITED), finish(f"{name} is cited as {case['cite']}")),
    ]
