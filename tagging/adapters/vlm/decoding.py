"""What steers generation beside the library's own knobs: sampling by rows, vocabulary, stop strings.

These are logits processors and stopping criteria as `generate` calls them, without its base classes, so that this
module imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from .trie import State, Vocabulary


def row_seed(seed: int, sample: int, image: str, attempt: int = 0) -> int:
    """A 63-bit number for one answer: the same for the same seed, sample, image (its sha256) and attempt, anywhere."""
    text = f"{seed}|{sample}|{image}|{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class RowSampler:
    """Draws each row's next token with that row's own random numbers, and leaves only that token for the greedy choice.

    The library draws all rows from one stream, so that an answer would depend on what else is in the batch. Here row i
    takes the token at which the cumulative probability first exceeds its own number u (inverse transform sampling).
    Runs after temperature, top-k, top-p and min-p.
    """

    def __init__(self, torch: Any, seeds: Sequence[int], steps: int, device: Any) -> None:
        self._torch = torch
        rows = [torch.rand(steps, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
        self._numbers = torch.stack(rows).to(torch.float32).to(device)
        self._start: int | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        torch = self._torch
        if self._start is None:
            self._start = input_ids.shape[1]
        step = min(input_ids.shape[1] - self._start, self._numbers.shape[1] - 1)
        cumulative = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        wanted = self._numbers[:, step : step + 1] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


class OnlyTerms:
    """Leaves the tokens with which each row's answer stays a list of the vocabulary's terms.

    Token indices of a node are made once per vocabulary and device and kept with it.
    """

    def __init__(self, torch: Any, vocabulary: Vocabulary, steps: int, indices: dict[Any, Any]) -> None:
        self._torch = torch
        self._vocabulary = vocabulary
        self._steps = steps
        self._indices = indices
        self._start: int | None = None
        self._states: dict[tuple[int, ...], State] = {(): State()}
        #: Rows that would have gone on with another term, had there been tokens left for one.
        self.cut: set[int] = set()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._start is None:
            self._start = input_ids.shape[1]
        left = self._steps - (input_ids.shape[1] - self._start)
        kept = self._torch.full_like(scores, -self._torch.inf)
        low = -1e6  # far below any logit, and finite also after a division by the temperature
        states: dict[tuple[int, ...], State] = {}
        for row, tokens in enumerate(input_ids[:, self._start :].tolist()):
            path = tuple(tokens)
            state = states[path] = self._state(path)
            allowed = self._vocabulary.allowed(state, left)
            index = self._index(allowed.first, allowed.node, allowed.extra, scores.device)
            # finite, so that an allowed token wins also where the library forbade it (repetition, discouraged words)
            kept[row, index] = scores[row, index].nan_to_num(low, neginf=low).clamp_min(low)
            if allowed.without:
                kept[row, list(allowed.without)] = -self._torch.inf
            if allowed.held_back and allowed.extra:
                ends = scores[row, list(allowed.extra)].max()
                if scores[row, allowed.held_back[0]] > ends:
                    self.cut.add(row)
        self._states = states
        return kept

    def _state(self, path: tuple[int, ...]) -> State:
        """One step on from the state of the last call; from the beginning where beams changed places."""
        known = self._states.get(path)
        if known is not None:
            return known
        before = self._states.get(path[:-1])
        if before is not None:
            return self._vocabulary.step(before, path[-1])
        state = State()
        for token in path:
            state = self._vocabulary.step(state, token)
        return state

    def _index(self, first: bool, node: int, extra: tuple[int, ...], device: Any) -> Any:
        key = (first, node, extra, str(device))
        found = self._indices.get(key)
        if found is None:
            tokens = list(self._vocabulary.trie(first).children[node]) if node >= 0 else []
            found = self._torch.tensor([*tokens, *extra], dtype=self._torch.long, device=device)
            self._indices[key] = found
        return found


class StopAtText:
    """Ends a row once its text has one of the stop strings. The caller cuts the text there."""

    def __init__(self, torch: Any, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self._torch = torch
        self._decode = decode
        self._stops = tuple(stops)
        self._tail = 2 * max(len(stop.encode()) for stop in stops) + 8
        self._start: int | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if self._start is None:
            self._start = input_ids.shape[1] - 1  # called after the first new token
        rows = input_ids[:, self._start :][:, -self._tail :].tolist()
        found = [any(stop in text for stop in self._stops) for text in map(self._decode, rows)]
        return self._torch.tensor(found, dtype=self._torch.bool, device=input_ids.device)
