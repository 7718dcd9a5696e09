"""HumanEval put to a chat model, and the function in what it says: the rules of the Qwen-1.8B card's chat script.

QwenLM/Qwen, eval/evaluate_chat_humaneval.py at 2df8e8a. The function's body is looked for in a fenced block, then
behind the `def` of the function, then behind any `def`; what is found goes behind the problem's own header. So imports
and helpers in front of the `def` are lost, what follows it in the block is run, and a tab or one blank is no
indentation. `whole_block` keeps the block as it stands instead.
"""

import re
import textwrap

from evalkit.data import Row

_DOCSTRING = re.compile(r"(?:\"\"\"|''')(.*?)(?:\"\"\"|''')", re.DOTALL)
_BODY_BEHIND = ":\n"
_FENCE = "```"
# A line end behind which, blank lines passed over, no line begins with two blanks or a tab; or the end.
_BODY_ENDS = re.compile(r"\n(?!\n*(?:  |\t))|$")
_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_FIRST_LINE = re.compile(r"(?:async |def |class |import |from \w+ import|@)")
_CODE_LINE = re.compile(r"(?:async |def |class |import |from |@|#|[ \t)\]}])|\s*$")


def signature(row: Row) -> str:
    """The function's name, parameters and result, out of its `def` line."""
    found = re.search(rf"def ({re.escape(row['entry_point'])}.*?):\s*\n", row["prompt"])
    assert found, row["entry_point"]  # every problem that is pinned has one
    return found[1]


def description(row: Row, *, own: bool) -> str:
    """The first docstring of a problem, each line without white space around it; own: the function's own."""
    start = row["prompt"].index(f"def {row['entry_point']}") if own else 0
    found = _DOCSTRING.search(row["prompt"], start) or _DOCSTRING.search(row["prompt"])
    assert found, row["entry_point"]
    return "\n".join(line.strip() for line in found[1].split("\n"))


def question(row: Row, *, own_description: bool = False) -> str:
    """What the model is asked."""
    told = description(row, own=own_description)
    return f"Write a Python function `{signature(row)}` to solve the following problem:\n{told}\n{row['prompt']}"


def chat_code(answer: str, row: Row) -> str:
    """What goes behind the problem's header, by the script's rule."""
    name = rf"def\s+{re.escape(row['entry_point'])}"
    if (fence := answer.find(_FENCE)) >= 0 and (start := _body(answer, name, fence + len(_FENCE))) is not None:
        end = answer.find(f"\n{_FENCE}", start)
        if end >= 0:
            return answer[start:end]
    for header in (name, "def"):
        if (start := _body(answer, header, 0)) is not None:
            ends = _BODY_ENDS.search(answer, start)
            assert ends  # at the latest at the end
            return answer[start : ends.start()]
    return textwrap.indent(answer, " " * 4)


def _body(answer: str, header: str, start: int) -> int | None:
    """Where the body begins behind the first place of a header; None without one."""
    found = re.compile(header).search(answer, start)
    end = answer.find(_BODY_BEHIND, found.end()) if found else -1
    return end + len(_BODY_BEHIND) if end >= 0 else None


def whole_block(answer: str, row: Row) -> str:
    """The same with the block kept whole, imports and helpers included, as a function of its own behind the header.

    Of several fenced blocks that define the function the last; without a fence, from the first line that looks like
    code on. Where nothing defines it, as `chat_code`.
    """
    text = answer.replace("\r\n", "\n")
    defines = re.compile(rf"^[ \t]*(?:async )?def\s+{re.escape(row['entry_point'])}\b", re.MULTILINE)
    blocks = [block for block in _BLOCK.findall(text) if defines.search(block)]
    if not blocks and defines.search(text):
        blocks = [_code_in(text)]
    if not blocks:
        return chat_code(answer, row)
    return f"    pass\n\n{textwrap.dedent(blocks[-1])}\n"


def _code_in(text: str) -> str:
    """From the first line that looks like code, up to the first that does not."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if _FIRST_LINE.match(line)), 0)
    end = next((i for i in range(first, len(lines)) if not _CODE_LINE.match(lines[i])), len(lines))
    return "\n".join(lines[first:end])
