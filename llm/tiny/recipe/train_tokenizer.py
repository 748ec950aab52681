"""Trains the byte-level BPE of 4,096 tokens on train.json and writes tokenizer.json."""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from weak_qa import header

SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def main():
    with open("train.json") as file:
        cases = json.load(file)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (header(case) + "\n\n" + case["text"][:60000] for case in cases)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save("tokenizer.json")


if __name__ == "__main__":
    main()
