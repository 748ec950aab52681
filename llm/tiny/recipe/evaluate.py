"""How good are the model's questions and answers on opinions it never saw?

    python evaluate.py MODEL_DIR [--documents 30] [--temperature 0.8] [--show 20]

Four chunks of each held-out opinion: one sampled question each, answered greedily, judged by
strict rules; then greedy answers to questions found by rule, exact match by kind; then refusals
without a document.
"""

import argparse
import collections
import json
import random
import re

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from train import ANSWER, ASK, ASSISTANT, END, SENTENCE_END, SYSTEM, SYSTEM_TEXT, USER
from weak_qa import chunk_qa, header, meta_qa

LEANS = re.compile(r"\b(?:this|the) (?:case|document|text|passage|opinion)\b(?! in\b)", re.I)
STOPWORDS = set(
    "a an and are as at be been by court for from had has have he her his in is it its not of on or"
    " that the their this to was were which with what when did does do who how decided cited named"
    " reported opinion mentioned".split()
)


def words(text):
    return [w.strip(".,'-").lower() for w in re.findall(r"[\w$][\w.,'\-]*", text) if w.strip(".,'-")]


def supported(text, source, share):
    """Whether numbers and names, and the given share of content words, occur in the source."""
    known = set(words(source))
    known |= {part for word in known for part in re.split(r"[-'.]", word)}
    content = [w for w in words(text) if w not in STOPWORDS]
    names = re.findall(r"(?<!^)(?<![.?!] )\b[A-Z][\w'\-]+|\d[\w.,\-]*", text)
    strict = [w for name in names for w in words(name) if w not in STOPWORDS]
    if any(w not in known and w.removesuffix("'s") not in known for w in strict):
        return False
    return not content or sum(w in known for w in content) / len(content) >= share


def cut(text, at, least, most):
    """A chunk from the first sentence end after `at`, whole sentences where possible."""
    first = SENTENCE_END.search(text, at) if at else None
    start = first.end() if first else at
    stops = [m.end() for m in SENTENCE_END.finditer(text, start + least, start + most)]
    return text[start : stops[-1] if stops else start + most].strip()


class Model:
    def __init__(self, directory):
        self.model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file("tokenizer.json")

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def prompt(self, document, task):
        if document is None:
            return [USER] + self.encode(task) + [END, ASSISTANT]
        head = [SYSTEM] + self.encode(SYSTEM_TEXT) + [END, USER] + self.encode(document)
        return head + self.encode(task) + [END, ASSISTANT]

    @torch.no_grad()
    def generate(self, prompts, temperature=0.0, most=100, seed=0, batch=40):
        """(text, finished) for each prompt."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found = [None] * len(prompts)
        torch.manual_seed(seed)
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            longest = max(len(prompts[i]) for i in rows)
            ids = torch.tensor([[END] * (longest - len(prompts[i])) + prompts[i] for i in rows])
            mask = torch.tensor(
                [[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in rows]
            )
            sampling = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
            out = self.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=most,
                eos_token_id=END,
                pad_token_id=END,
                **(sampling if temperature else dict(do_sample=False)),
            )
            for i, row in zip(rows, out[:, longest:].tolist()):
                end = row.index(END) if END in row else None
                found[i] = (self.tokenizer.decode(row[:end]), end is not None)
        return found


def judge(case, chunk, question, answer, seen):
    """The reason against a pair, or 'ok'."""
    (question, asked), (answer, answered) = question, answer
    source = f"{header(case)}\n{chunk}"
    if not asked or not question.endswith("?"):
        return "not_a_question"
    if case["name"] not in question:
        return "unnamed"
    if LEANS.search(question.replace(case["name"], "")):
        return "leans"
    if question in seen:
        return "duplicate"
    seen.add(question)
    if not supported(question, source, 0.0):
        return "question_ungrounded"
    if not answered or not re.search(r"[.?!][\"')\]]*$", answer):
        return "truncated"
    if not supported(answer, source + " " + question, 0.7):
        return "answer_ungrounded"
    return "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--documents", type=int, default=30)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--least", type=int, default=350, help="characters of a chunk, at least")
    parser.add_argument("--most", type=int, default=700, help="characters of a chunk, at most")
    parser.add_argument("--pairs-only", action="store_true")
    parser.add_argument("--show", type=int, default=20)
    args = parser.parse_args()
    model = Model(args.model)
    with open("held.json") as file:
        held = json.load(file)
    held = random.Random(5).sample(held, args.documents)

    chunks = []
    for case in held:
        for quarter in range(4):
            chunks.append((case, cut(case["text"], len(case["text"]) * quarter // 4, args.least, args.most)))
    documents = [f"{header(case)}\n\n{chunk}" for case, chunk in chunks]
    questions = model.generate(
        [model.prompt(document, ASK) for document in documents], args.temperature, 64
    )
    answers = model.generate(
        [model.prompt(d, ANSWER + question) for d, (question, _) in zip(documents, questions)]
    )
    reasons, kinds, seen = collections.Counter(), collections.Counter(), {}
    for i, ((case, chunk), question, answer) in enumerate(zip(chunks, questions, answers)):
        reason = judge(case, chunk, question, answer, seen.setdefault(case["id"], set()))
        reasons[reason] += 1
        if reason == "ok":
            kinds[" ".join(question[0].replace(case["name"], "N").split()[:4])] += 1
        if i < args.show:
            print(f"{reason} | {question[0]} | {answer[0]}")
    print(f"pairs at {args.temperature}: {reasons['ok']}/{len(chunks)}", dict(reasons))
    print("accepted openings", kinds.most_common(20))

    if args.pairs_only:
        return

    facts, r = [], random.Random(9)
    for case in held:
        for quarter in range(8):
            chunk = cut(case["text"], len(case["text"]) * quarter // 8, args.least, args.most)
            for fact in chunk_qa(case, chunk) + meta_qa(case, r):
                facts.append((case, chunk, *fact))
    r.shuffle(facts)
    drawn = collections.defaultdict(list)
    for fact in facts:
        if len(drawn[fact[2]]) < 10:
            drawn[fact[2]].append(fact)
    facts = [fact for rows in drawn.values() for fact in rows]
    found = model.generate(
        [model.prompt(f"{header(c)}\n\n{chunk}", ANSWER + q) for c, chunk, _, q, _ in facts]
    )
    right, total = collections.Counter(), collections.Counter()
    for (_, _, kind, _, wanted), (answer, _) in zip(facts, found):
        total[kind] += 1
        right[kind] += answer == wanted
    print(f"exact match {sum(right.values())}/{len(facts)}", {k: f"{right[k]}/{total[k]}" for k in total})

    asked = [(case, *fact) for case in held[:20] for fact in meta_qa(case, r)[:1]]
    found = model.generate([model.prompt(None, q) for _, _, q, _ in asked])
    refused = sum(answer.startswith("I am not aware of a case named") for answer, _ in found)
    print(f"refused without a document {refused}/{len(asked)}")


if __name__ == "__main__":
    main()
