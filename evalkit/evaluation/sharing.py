"""When an answer that a model gave once is also the answer to another request."""

from dataclasses import replace

from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
)


def answers(asked: Request, output: Output, wanted: Request) -> bool:
    """Whether `output`, which answers `asked`, is provably the answer to `wanted` too.

    Log-probabilities: the same prompt and continuations, and a prompt that neither request truncates. Texts: decoding
    the same prompt, greedily or by the same draws, gives one and the same text, so what is wanted is there if the text
    holds a stop string of `wanted`, ends as the model ended it, or has exactly the wanted length; up to that cut the
    two are equal, behind it they may differ. An ErrorOutput answers nothing.
    """
    if isinstance(output, LoglikelihoodOutput):
        if not isinstance(asked, LoglikelihoodRequest) or not isinstance(wanted, LoglikelihoodRequest):
            return False
        return replace(asked, truncation=wanted.truncation) == wanted and (
            asked == wanted or _is_whole(asked, output, wanted)
        )
    if isinstance(output, GenerateOutput):
        if not isinstance(asked, GenerateRequest) or not isinstance(wanted, GenerateRequest):
            return False
        whole = asked.truncation == wanted.truncation or _is_whole(asked, output, wanted)
        same = _same_text(asked) == _same_text(wanted)
        return asked == wanted or (same and whole and _holds(asked, output, wanted))
    return False


def _same_text(request: GenerateRequest) -> tuple[object, ...]:
    """What two requests must have in common for the one text to be the beginning of the other."""
    same = request.prompt, request.turns, request.chat_format, request.sampling, request.end_of_text
    return *same, request.special_tokens


def _is_whole(asked: Request, output: LoglikelihoodOutput | GenerateOutput, wanted: Request) -> bool:
    """Did the whole prompt reach the model, and would it for `wanted`?"""
    return not output.truncated and (
        wanted.truncation is None or output.num_prompt_tokens <= wanted.truncation.longer_than
    )


def _holds(asked: GenerateRequest, output: GenerateOutput, wanted: GenerateRequest) -> bool:
    if output.num_tokens > wanted.max_new_tokens:
        return False
    if asked.special_tokens == "dropped" and not set(wanted.stop) <= set(asked.stop):
        return False  # where a special token spelled one of these cannot be seen in the text
    if any(stop in output.text for stop in wanted.stop):
        return True
    if output.finish_reason == "end_of_text":
        return True
    told = asked.without_last or not wanted.without_last
    return output.finish_reason == "length" and asked.max_new_tokens == wanted.max_new_tokens and told
