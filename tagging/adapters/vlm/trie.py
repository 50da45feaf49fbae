"""A list of terms as paths of tokens, and the automaton that an answer made of them follows. Pure Python.

An answer is term, separator, term, … end. The first term may begin with or without a space, the others follow the
separator; so there are two tries, over the same terms. What may come next depends on the node, on the terms that were
said, and on the tokens that are left: a term is only begun when it can be finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

#: texts → token ids of each, without special tokens. Called with all terms at once, which is what is fast.
Encode = Callable[[list[str]], list[list[int]]]
Decode = Callable[[Sequence[int]], str]
#: What stands before a term when its tokens are looked up; the first ones are the likeliest beginnings of an answer.
_BEFORE_FIRST = ("", "\n", " ")


@dataclass(slots=True)
class Trie:
    """Nodes are numbers, 0 is the root."""

    children: list[dict[int, int]] = field(default_factory=lambda: [{}])
    term: list[int] = field(default_factory=lambda: [-1])  # index of the term that ends here
    paths: list[int] = field(default_factory=lambda: [0])  # paths that go through the node
    shortest: list[int] = field(default_factory=lambda: [0])  # fewest tokens from here to the end of a term
    longest: int = 0  # tokens of the longest path
    nodes_of: dict[int, list[list[int]]] = field(default_factory=dict)  # term → its paths as nodes

    def add(self, tokens: Sequence[int], term: int) -> bool:
        """False when the same tokens are another term already (texts that the tokenizer does not tell apart)."""
        node, path = 0, [0]
        for token in tokens:
            below = self.children[node].get(token)
            if below is None:
                below = self.children[node][token] = len(self.children)
                self.children.append({})
                self.term.append(-1)
                self.paths.append(0)
                self.shortest.append(0)
            node = below
            path.append(node)
        if self.term[node] >= 0:
            return self.term[node] == term
        self.term[node] = term
        for step in path:
            self.paths[step] += 1
        self.nodes_of.setdefault(term, []).append(path)
        self.longest = max(self.longest, len(tokens))
        return True

    def close(self) -> None:
        """Compute `shortest`. Nodes are numbered so that children come after their parents."""
        for node in range(len(self.children) - 1, -1, -1):
            if self.term[node] >= 0:
                self.shortest[node] = 0
            else:
                self.shortest[node] = 1 + min((self.shortest[c] for c in self.children[node].values()), default=0)


@dataclass(frozen=True, slots=True)
class State:
    """Where an answer is: in a trie at a node, or `separator` tokens into the separator (-1: not in it)."""

    first: bool = True
    node: int = 0
    separator: int = -1
    said: tuple[int, ...] = ()  # terms that were ended by a separator or by the end
    done: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may come next. `node` names the trie's node whose children may, but for `without`; `extra` are others."""

    first: bool = True
    node: int = -1
    without: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    held_back: tuple[int, ...] = ()  # the separator, where only the lack of tokens forbids it


class Vocabulary:
    """The terms of one list in the tokens of one tokenizer."""

    def __init__(
        self,
        terms: Sequence[str],
        encode: Encode,
        decode: Decode,
        ends: Iterable[int],
        *,
        most: int = 50,
        repeat: bool = False,
    ) -> None:
        """`ends` are the tokens that end an answer. ValueError when no term can be written with this tokenizer."""
        self.ends = tuple(ends)
        self.most, self.repeat = most, repeat
        clean = list(dict.fromkeys(" ".join(term.split()) for term in terms if term.strip()))
        self.separator_text = "\n" if any("," in term for term in clean) else ", "
        written = self.separator_text.rstrip(" ")
        before = [*_BEFORE_FIRST[1:], "a", "a" + written, written]
        alone = dict(zip(before, encode(before), strict=True))
        self.separator = tuple(_rest(alone["a"], alone["a" + written])) or tuple(alone[written])
        self.terms: list[str] = []
        self.left_out: list[str] = []
        self.first, self.next = Trie(), Trie()
        self._said: dict[tuple[bool, tuple[int, ...]], frozenset[int]] = {}
        space = "" if self.separator_text == "\n" else " "
        ways = [*((text, "") for text in _BEFORE_FIRST), ("\n", " "), ("a" + written, space), ("", space)]
        encoded = iter(encode([start + gap + term for term in clean for start, gap in ways]))
        for term in clean:
            found = [_rest(alone.get(start, []), next(encoded)) for start, _ in ways]
            self._add(term, found[:-2], found[-2] or found[-1], decode)
        if not self.terms:
            raise ValueError("none of the terms can be written with this model's tokenizer")
        self.first.close()
        self.next.close()

    def _add(self, term: str, firsts: Sequence[list[int]], following: list[int], decode: Decode) -> None:
        index = len(self.terms)
        good = [tokens for tokens in firsts if self._spelled(tokens, term, decode)]
        if not good or not self._spelled(following, term, decode) or not self.next.add(following, index):
            self.left_out.append(term)
            return
        for tokens in good:
            self.first.add(tokens, index)
        self.terms.append(term)

    def _spelled(self, tokens: Sequence[int], term: str, decode: Decode) -> bool:
        """Do the tokens say the term? Case and spaces apart, which some tokenizers lose."""
        said = "".join(decode(tokens).split()).casefold()
        return bool(tokens) and said == "".join(term.split()).casefold() and not set(tokens) & set(self.ends)

    @property
    def fewest_tokens(self) -> int:
        """Tokens of the shortest possible answer."""
        return self.first.shortest[0]

    def trie(self, first: bool) -> Trie:
        return self.first if first else self.next

    # -- the automaton ------------------------------------------------------------------------------------------------
    def step(self, state: State, token: int) -> State:
        """The state after a token that was allowed (an end token ends)."""
        if state.done:
            return state
        if state.separator >= 0:
            at = state.separator + 1
            if at == len(self.separator):
                return State(first=False, said=state.said)
            return replace(state, separator=at)
        trie = self.trie(state.first)
        below = trie.children[state.node].get(token)
        if below is not None:
            return replace(state, node=below)
        said = state.said
        if trie.term[state.node] >= 0:
            said = (*said, trie.term[state.node])
        if token in self.ends:
            return State(first=state.first, said=said, done=True)
        if self.separator and token == self.separator[0]:
            if len(self.separator) == 1:
                return State(first=False, said=said)
            return State(first=state.first, said=said, separator=1)
        return State(first=state.first, said=state.said, done=True)

    def allowed(self, state: State, left: int) -> Allowed:
        """What may follow `state` when `left` more tokens may be said, this one counted."""
        if state.done:
            return Allowed(extra=self.ends)
        if state.separator >= 0:
            return Allowed(extra=(self.separator[state.separator],))
        trie, node = self.trie(state.first), state.node
        without = self._used_up(trie, node, state.said)
        if not state.said:
            children = trie.children[node].items()
            without = (*without, *(t for t, below in children if 1 + trie.shortest[below] > left))
        extra: tuple[int, ...] = ()
        held: tuple[int, ...] = ()
        term = trie.term[node]
        if term >= 0 and (self.repeat or term not in state.said):
            extra = self.ends
            count = len(state.said) + 1
            if count < self.most and (self.repeat or count < len(self.terms)):
                if left >= len(self.separator) + self.next.longest:
                    extra = (*extra, self.separator[0])
                else:
                    held = (self.separator[0],)
        return Allowed(state.first, node, without, extra, held)

    def _used_up(self, trie: Trie, node: int, said: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens of the node's children below which every term was said already."""
        if self.repeat or not said:
            return ()
        full, children = self._full(trie, said), trie.children[node]
        if not full:
            return ()
        return tuple(token for token, below in children.items() if below in full)

    def _full(self, trie: Trie, said: tuple[int, ...]) -> frozenset[int]:
        """Nodes below which every term was said; the root never counts. Kept for the answers under way."""
        key = (trie is self.first, said)
        found = self._said.get(key)
        if found is None:
            counts: dict[int, int] = {}
            for term in set(said):
                for path in trie.nodes_of[term]:
                    for step in path:
                        counts[step] = counts.get(step, 0) + 1
            found = frozenset(step for step, count in counts.items() if step and count == trie.paths[step])
            if len(self._said) > 4096:
                self._said.clear()
            self._said[key] = found
        return found

    def read(self, tokens: Iterable[int]) -> list[str]:
        """The terms that a sequence of tokens says; one that was not ended by anything is left out."""
        state = State()
        for token in tokens:
            state = self.step(state, token)
            if state.done:
                break
        said = state.said
        if not state.done and state.separator < 0:
            term = self.trie(state.first).term[state.node]
            if term >= 0 and (self.repeat or term not in said):
                said = (*said, term)
        return [self.terms[term] for term in said]


def _rest(alone: list[int], both: list[int]) -> list[int]:
    """The tokens of a text where it follows another one, whose tokens are `alone`; empty when the two are joined."""
    return both[len(alone) :] if both[: len(alone)] == alone else []
