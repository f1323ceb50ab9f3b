"""CLIP's slow tokenizer files, small: its byte alphabet and the merges of the words that OneFormer's task texts use."""

from __future__ import annotations

import json

_WORDS = ("the", "task", "is", "panoptic", "semantic", "instance")
_SPECIAL = {
    name: {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    for name, content in (("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"))
}


def _alphabet() -> list[str]:
    """The printable characters that CLIP (as GPT-2) writes for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(code) for code in printable] + [chr(0x100 + place) for place in range(256 - len(printable))]


def tokenizer_files(size: int) -> dict[str, str]:
    """vocab.json with `size` entries, merges.txt, tokenizer_config.json, special_tokens_map.json, as transformers 4.26.1 wrote them."""
    letters = _alphabet()
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        tokens = [*word[:-1], word[-1] + "</w>"]
        while len(tokens) > 1:
            pair = (tokens[0], tokens[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            tokens = ["".join(pair), *tokens[2:]]
    vocabulary += [f"<filler{place}>" for place in range(size - 2 - len(vocabulary))]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    special = _SPECIAL | {"pad_token": "<|endoftext|>"}
    typed = {name: ({"__type": "AddedToken", **value} if isinstance(value, dict) else value) for name, value in special.items()}
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "name_or_path": ""}
    config |= {"special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer"}
    return {
        "vocab.json": json.dumps({token: index for index, token in enumerate(vocabulary)}, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n",
        "tokenizer_config.json": json.dumps(config | typed, indent=2),
        "special_tokens_map.json": json.dumps(special, indent=2),
    }
