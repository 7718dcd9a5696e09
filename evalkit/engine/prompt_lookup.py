"""Guesses at a row's next tokens, which the model checks in the step that decodes them: prompt lookup.

Texts repeat their prompts and themselves. What followed the longest earlier occurrence of a row's last tokens is
guessed to follow again (Saxena 2023, prompt lookup decoding), and one step computes the guessed tokens with the
newest one. A guess is kept as far as the model's own choice is the same (Leviathan et al. 2023), the likeliest token
or the one that its draw falls on (engine.draws), so the text is the one without guesses; a wrong guess has cost the
tokens computed for it. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from evalkit.engine.plan import Plan

MAX_GUESSED = 3  # tokens
_SHORTEST, _LONGEST = 2, 8  # tokens that an occurrence has in common with the row's end
_MAX_OCCURRENCES = 8  # looked at, the latest first
_PRIOR_WEIGHT = 4.0  # guessed tokens that the first estimate counts for


@dataclass
class _Text:
    """A row's tokens, prompt and all, and where each pair of them stood before."""

    ids: list[int] = field(default_factory=list)
    latest: dict[tuple[int, int], int] = field(default_factory=dict)  # pair -> place of its second token
    earlier: list[int] = field(default_factory=list)  # by place: of the same pair before, or -1
    above: dict[tuple[int, int], int] = field(default_factory=dict)  # as `latest`, of a shared part in front; not ours
    num_prompt: int = 0  # tokens of the prompt
    shared: int = 0  # tokens that the last guess's occurrence had in common

    def below(self) -> "_Text":
        """The beginning of a longer text: this one's pairs are looked up, not indexed again."""
        return _Text(
            self.ids.copy(), {}, self.earlier.copy(), {**self.above, **self.latest} if self.above else self.latest
        )

    def extend(self, tokens: Sequence[int]) -> None:
        place, latest = len(self.ids), self.latest
        last = self.ids[-1] if place else None
        for token in tokens:
            if last is None:
                self.earlier.append(-1)
            else:
                pair = (last, token)
                before = latest.get(pair)
                self.earlier.append(self.above.get(pair, -1) if before is None else before)
                latest[pair] = place
            last = token
            place += 1
        self.ids.extend(tokens)

    def occurrence(self) -> tuple[int, int]:
        """Tokens in common with the longest earlier occurrence of the end, and the place behind it; 0 for none."""
        ids, last = self.ids, len(self.ids) - 1
        best = (0, 0)
        place = self.earlier[last]
        if place < 0:
            return best
        for _ in range(_MAX_OCCURRENCES):
            if place < 0 or best[0] == _LONGEST:
                break
            shared = _SHORTEST
            while shared < min(_LONGEST, place + 1) and ids[place - shared] == ids[last - shared]:
                shared += 1
            if shared > best[0]:
                best = (shared, place + 1)
            place = self.earlier[place]
        return best


class PromptLookup:
    """Guesses for the rows of one plan. How often guesses are right is learnt as they are judged."""

    def __init__(self, plan: Plan, step_cost: float) -> None:
        """step_cost: what a decoding step costs besides its tokens, in tokens (see partition.Rates)."""
        self._plan = plan
        self._step_cost = step_cost
        self._texts: dict[int, _Text] = {}
        self._above: dict[int, _Text] = {}  # by node: the text of what the rows begun last share
        # By tokens in common: guessed tokens that were right, and all that were guessed.
        chances = {shared: 0.4 + 0.06 * shared for shared in range(_SHORTEST, _LONGEST + 1)}
        self._right = {shared: _PRIOR_WEIGHT * chance for shared, chance in chances.items()}
        self._tried = dict.fromkeys(chances, _PRIOR_WEIGHT)

    def guess(self, sequence: int, generated: Sequence[int], num_tokens: int, most: int) -> tuple[int, ...]:
        """At most `most` tokens to follow those generated, for a step that has `num_tokens` without them.

        A right guess saves its own token in a later step and that token's share of the step's other cost; one is
        made while that, times its chance, is worth the token that it costs.
        """
        if sequence not in self._texts:
            self._texts[sequence] = self._prompt(sequence)
        text = self._texts[sequence]
        text.extend(generated[len(text.ids) - text.num_prompt :])
        text.shared, place = text.occurrence()
        if not text.shared:
            return ()
        chance = self._right[text.shared] / self._tried[text.shared]
        worth, length = (1 + self._step_cost / num_tokens) * chance, 0
        while length < MAX_GUESSED and length < most and worth >= 1:
            length, worth = length + 1, worth * chance
        return tuple(text.ids[place : place + length]) if length else ()

    def _prompt(self, sequence: int) -> _Text:
        """A prompt's text. What it shares with the prompts begun before it is not indexed again: rows begin in the
        plan's order, so the nodes above the newest one are all that is kept."""
        leaf, *above = self._plan.leaves[sequence].path()
        self._above = {node.index: self._above[node.index] for node in above if node.index in self._above}
        text = _Text()
        for node in reversed(above):
            if node.index not in self._above:
                self._above[node.index] = text.below()
                self._above[node.index].extend(self._plan.ids(node, 0, len(node)))
            text = self._above[node.index]
        text = text.below()
        text.extend(self._plan.ids(leaf, 0, len(leaf)))
        text.num_prompt = len(text.ids)
        return text

    def judge(self, sequence: int, num_guessed: int, num_right: int) -> None:
        """Of a sequence's last guess, so many tokens were right; behind a wrong one nothing was tried."""
        if num_guessed:
            shared = self._texts[sequence].shared
            self._right[shared] += num_right
            self._tried[shared] += min(num_guessed, num_right + 1)

    def forget(self, sequence: int) -> None:
        """The sequence has ended."""
        self._texts.pop(sequence, None)
