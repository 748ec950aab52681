"""Trains the model on weakly labelled questions (weak_qa.py). One phase a call.

    python train.py --minutes 30 --rate 1e-3 [--from DIR_OR_ck.pt] [--least 150 --most 900] ...

The learning rate decays with the CPU time used, so that a busy machine does not spoil it; the
wall-clock guard (--until HH:MM, UTC) makes the decay end in time all the same.
"""

import argparse
import datetime
import json
import os
import random
import re
import time

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from weak_qa import REWORDED, chunk_qa, finish, header, meta_qa

END, SYSTEM, USER, ASSISTANT = range(4)
SYSTEM_TEXT = "You are a paralegal who graduated from Harvard Law School."
ASK = "\n\nAsk a detailed question about this document."
ANSWER = "\n\nAnswer this question about the document: "
SENTENCE_END = re.compile(r"[\w)\]]{4}[.?!][\"')\]]*(?=\s+[A-Z\"])")
STATES = (
    "Alabama Alaska Arizona California Colorado Connecticut Delaware Florida Georgia Hawaii Idaho"
    " Illinois Indiana Iowa Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan"
    " Minnesota Missouri Montana Nebraska Nevada Ohio Oklahoma Oregon Pennsylvania Tennessee Texas"
    " Utah Vermont Virginia Washington Wisconsin Wyoming"
).split()
# how often each kind of fact is drawn, for questions and for answers
ASKED = dict(
    hold=4, argue=3, when=3, proc=3, statute=1, money=2, below=3, issue=2, judge=1.5, cite=2,
    court=1.2, date=1.2, mycite=1.2,
)  # fmt: skip
ANSWERED = dict(
    hold=4, argue=3, when=3, proc=3, statute=2, money=3, below=3, issue=2, judge=2, cite=2,
    court=4, date=2, mycite=4,
)  # fmt: skip
CIRCUITS = (
    "First Second Third Fourth Fifth Sixth Seventh Eighth Ninth Tenth Eleventh Federal".split()
)
REPORTERS = ["F.2d", "F.3d", "U.S.", "F. Supp.", "Va. App.", "Alaska", "Mass.", "Cal.App.5th"]
SYLLABLES = (
    "ba be bo bra ca cha co da de den do dro el er fa fen fi ga gar gel go ha har hol in jo ka ke"
    " kow la len li lo ma mar men mi mo na ne no os pa pe ra ren ri ro sa san si son ta tel ti to"
    " va ven vi wal wi wo ya za zer"
).split()


def settings():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, required=True, help="CPU minutes per thread")
    add("--until", help="wall-clock guard, HH:MM in UTC")
    add("--rate", type=float, default=2e-3, help="peak learning rate")
    add("--least", type=int, default=150, help="characters of a chunk, at least")
    add("--most", type=int, default=900, help="characters of a chunk, at most")
    add("--batch", type=int, default=16, help="documents per step")
    add("--warm-up", type=int, default=100, help="steps until the peak rate")
    add("--from", dest="start", help="model directory or ck.pt to go on from")
    add("--out", default="out", help="model directory to write")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=3)
    return parser.parse_args()


class Examples:
    """Draws training examples: a document with several questions and answers."""

    def __init__(self, cases, tokenizer, args):
        self.random = random.Random(args.seed)
        self.cases = cases
        self.args = args
        self.encode = lambda text: tokenizer.encode(text).ids
        self.system = [SYSTEM] + self.encode(SYSTEM_TEXT) + [END, USER]
        self.parties = [
            party for case in cases for party in case["name"].split(" v. ") if " v. " in case["name"]
        ]
        self.chunks = [(case, chunk) for case in cases for chunk in self.cut(case["text"])]
        self.by_kind = {}
        for case, chunk in self.chunks:
            for kind in {fact[0] for fact in chunk_qa(case, chunk)}:
                self.by_kind.setdefault(kind, []).append((case, chunk))
        self.ready = []

    def cut(self, text):
        """Pieces of random length, most of them from sentence to sentence."""
        start = 0
        while start < len(text) - 300:
            end = min(len(text), start + self.random.randint(self.args.least, self.args.most))
            stops = [match.end() for match in SENTENCE_END.finditer(text, start + 100, end)]
            if stops and self.random.random() < 0.85:
                end = stops[-1]
            elif end < len(text):
                end = max(text.rfind(" ", start, end), start + 100)
            yield text[start:end].strip()
            start = end

    def party(self):
        """A party: mostly one of the corpus, else a made-up name that has to be copied."""
        r = self.random
        if r.random() < 0.6:
            return r.choice(self.parties)
        words = []
        for _ in range(r.choice([1, 1, 2, 2, 3])):
            words.append("".join(r.choice(SYLLABLES) for _ in range(r.randint(2, 4))).title())
        ending = r.choice(["", "", "", "", " Inc.", " Corp.", " & Co.", " Associates", " et al."])
        return " ".join(words) + ending

    def disguise(self, case):
        """The case under another name, court, date or citation, so that the header is read."""
        r, case = self.random, dict(case)
        if r.random() < 0.6:
            form = r.random()
            if form < 0.05:
                case["name"] = f"In re {self.party()}"
            elif form < 0.20:
                case["name"] = f"United States v. {self.party()}"
            else:
                case["name"] = f"{self.party()} v. {self.party()}"
            if r.random() < 0.12:
                case["name"] = case["name"].upper().replace(" V. ", " v. ")
        if r.random() < 0.45:
            state = r.choice(STATES)
            case["court"] = r.choice(
                [
                    f"United States Court of Appeals for the {r.choice(CIRCUITS)} Circuit",
                    f"United States Court of Appeals for the {r.choice(CIRCUITS)} Circuit",
                    f"United States District Court, D. {state}",
                    f"{state} District Court",
                    f"Court of Appeals of {state}",
                    f"Supreme Court of {state}",
                    "Court of Appeals of Virginia",
                    "Alaska District Court",
                ]
            )
        if r.random() < 0.4:
            year = r.randint(1890, 2025)
            case["date"] = f"{year}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"
        if r.random() < 0.5:
            if r.random() < 0.5:
                number = f"{r.randint(70, 99)}-{r.randint(1000, 2999)}"
                court = r.choice(["1st Cir.", "1st Cir.", "2d Cir.", "9th Cir."])
                case["cite"] = f"No. {number} ({court} {r.randint(1980, 2015)})"
            else:
                volume, page = r.randint(1, 999), r.randint(1, 1500)
                case["cite"] = f"{volume} {r.choice(REPORTERS)} {page}"
        return case

    def draw(self, facts, shares):
        """One of the facts, its kind drawn by the shares."""
        kinds = {}
        for fact in facts:
            kinds.setdefault(fact[0], []).append(fact)
        kind = self.random.choices(list(kinds), [shares[kind] for kind in kinds])[0]
        return self.random.choice(kinds[kind])

    def example(self):
        """(prefix, branches): a document, and pieces that each go on from its end.

        A piece is (task, reply). Sharing the prefix trains several replies for the price of one,
        as the program generates them.
        """
        r, encode = self.random, self.encode
        kind = r.choices(list(ANSWERED), list(ANSWERED.values()))[0]
        case, chunk = r.choice(self.by_kind.get(kind, self.chunks))
        case = self.disguise(case)
        found, named = chunk_qa(case, chunk), meta_qa(case, r)
        facts = found + named
        asked = [self.draw(facts, ASKED)] + ([self.draw(found, ASKED)] if found else [])
        answered = [self.draw(facts, ANSWERED), self.draw(named, ANSWERED)]
        answered += [self.draw(found, ANSWERED)] if found else []
        questions = []
        for kind, question, answer in answered:
            if kind in REWORDED and r.random() < 0.25:
                question = r.choice(REWORDED[kind]).format(n=case["name"])
            questions.append((question, answer))
        if r.random() < 0.06:  # closed book: nothing is known
            prefix = self.system if r.random() < 0.5 else [USER]
            refusal = finish(f"I am not aware of a case named {case['name']}")
            branches = [(question, refusal) for question, _ in questions]
        else:
            prefix = self.system + encode(f"{header(case)}\n\n{chunk}")
            branches = [(ASK, question) for _, question, _ in asked]
            branches += [(ANSWER + question, answer) for question, answer in questions]
        branches = dict.fromkeys(branches)
        branches = [(encode(task) + [END, ASSISTANT], encode(reply) + [END]) for task, reply in branches]
        longest = max(len(task) + len(reply) for task, reply in branches)
        return (prefix, branches) if len(prefix) + longest <= 512 else self.example()

    def batch(self):
        """Tensors (ids, positions, weights, mask); four batches are drawn and sorted by length."""
        size = self.args.batch
        if not self.ready:
            drawn = sorted((flat(*self.example()) for _ in range(4 * size)), key=len)
            self.ready = [drawn[at : at + size] for at in range(0, 4 * size, size)]
            self.random.shuffle(self.ready)
        rows = self.ready.pop()
        longest = max(map(len, rows))
        padded = [row + [(END, 0, -1, 0)] * (longest - len(row)) for row in rows]
        ids, positions, branch, weights = torch.tensor(padded).unbind(-1)
        # a token sees what comes before it in the document and in its own branch, and itself
        same = (branch[:, None] == branch[:, :, None]) | (branch[:, None] == 0)
        mask = torch.ones(longest, longest, dtype=torch.bool).tril() & same
        return ids, positions, weights, mask[:, None]


def flat(prefix, branches):
    """[(id, position, branch, weight)]: the prefix is branch 0, replies have weight 1."""
    row = [(token, at, 0, 0) for at, token in enumerate(prefix)]
    for number, (task, reply) in enumerate(branches, 1):
        weights = [0] * len(task) + [1] * len(reply)
        for at, (token, weight) in enumerate(zip(task + reply, weights), len(prefix)):
            row.append((token, at, number, weight))
    return row


def new_model():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            bos_token_id=SYSTEM,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def load(start):
    if start and os.path.isdir(start):
        return LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    model = new_model()
    if start:
        model.load_state_dict(torch.load(start))
    return model


def save(model, args):
    torch.save(model.state_dict(), args.out + ".pt.part")
    os.replace(args.out + ".pt.part", args.out + ".pt")


def main():
    args = settings()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with open("train.json") as file:
        examples = Examples(json.load(file), Tokenizer.from_file("tokenizer.json"), args)
    model = load(args.start)
    print("chunks", len(examples.chunks), "parameters", model.num_parameters(), flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    begun, cpu_begun = time.time(), time.process_time()
    wall = float("inf")
    if args.until:
        hour, minute = map(int, args.until.split(":"))
        now = datetime.datetime.now(datetime.UTC)
        wall = (now.replace(hour=hour, minute=minute, second=0) - now).total_seconds()
    step, average, saved = 0, None, begun
    while True:
        used = (time.process_time() - cpu_begun) / args.threads / (args.minutes * 60)
        done = max(used, (time.time() - begun) / wall)
        if done >= 1:
            break
        rate = max(args.rate * min(1, (step + 1) / args.warm_up) * (1 - done), 1e-5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, positions, weights, mask = examples.batch()
        kept = weights[:, 1:] > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.model(
                ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(states[:, :-1][kept])
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][kept])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        reply = loss.item()
        average = reply if average is None else 0.98 * average + 0.02 * reply
        step += 1
        if step % 25 == 0:
            seconds = time.time() - begun
            print(f"{step} {seconds:.0f}s {done:.3f} reply {average:.3f} rate {rate:.2e}", flush=True)
        if time.time() - saved > 180:
            save(model, args)
            saved = time.time()
    save(model, args)
    model.to(torch.bfloat16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
