"""Other rules for reading an answer, tried on the answers that a run has."""

from collections.abc import Callable, Mapping

from evalkit.evaluation.contract import request_for, score_for
from evalkit.evaluation.sharing import answers
from evalkit.task import Switched, with_protocol
from evalkit.types import Example, Output, Score

Grader = Callable[[Example, Output], Score]


def graders(task: Switched) -> Mapping[str, Grader]:
    """Every value of every switch that works on stored answers, the others kept: {"answer:strict": …}.

    task: as the run asked; its own values are among them. A grader scores an output of that run. Where the text ends
    before the place at which the other rule would cut it, the score's value is None, and its detail says so.
    """
    own = task.protocols.parse(task.protocol)
    return {
        f"{switch.name}:{value}": _grader(task, with_protocol(task, own.flip(switch.name, value)))
        for switch in own.offers
        if switch.stage == "score"
        for value in dict.fromkeys((*switch.values, *([own[switch.name]] if switch.values else [])))
    }


def _grader(task: Switched, other: Switched) -> Grader:
    def score(example: Example, output: Output) -> Score:
        if not answers(request_for(task, example), output, request_for(other, example)):
            unknown = "the text ends before this rule cuts it"
            return Score(example.id, example.group, None, example.target, None, {"unknown": unknown})
        return score_for(other, example, output)

    return score
