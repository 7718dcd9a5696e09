"""The engine against the plain path, on tiny random networks of every family."""

import copy
import dataclasses
from collections.abc import Iterable

import pytest
import torch
from transformers import PreTrainedModel

from evalkit.engine.engine import Continued, Engine, Scored
from evalkit.engine.expanded import MAX_PADDING, ExpandedRunner
from evalkit.engine.forwards import FastForwards
from evalkit.engine.plan import Node, Plan, TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import PackedRunner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import TOLERANCES, choose_runner
from evalkit.engine.slots import Slots, slot_length
from evalkit.engine.spelling import Generated
from evalkit.engine.step import Step
from evalkit.errors import EngineError

pytestmark = pytest.mark.xdist_group("tiny networks")

PACKED = ("llama", "qwen2", "gpt_neox", "opt", "gpt2")
EXPANDED = ("bloom", "gpt_neo", "llama4", "mistral")
BUDGETS = (Budget(4096, 8, 100), Budget(64, 3, 10), Budget(7, 2, 3))


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", [*PACKED, *EXPANDED])
def test_every_family_gives_what_one_by_one_gives(networks, few_shot, agrees, family: str, budget: Budget) -> None:
    if budget.num_tokens < 10 and family not in ("llama", "bloom"):
        pytest.skip("the smallest steps are tried on one family of each path")
    model = networks(family)
    plan = make_plan(few_shot)
    engine = Engine(plan, choose_runner(model)[0](model, plan, budget.num_rows), budget)
    agrees(model, few_shot, dict(engine.run()))
    counters = engine.counters
    assert counters.num_prompt_tokens == plan.num_computed_tokens
    assert counters.num_prompt_tokens < sum(len(sequence.ids) for sequence in few_shot) / 2
    assert counters.num_padding <= MAX_PADDING * (counters.num_prompt_tokens + counters.num_decoded_tokens)


@pytest.mark.parametrize("family", [*PACKED, *EXPANDED])
def test_the_path_is_chosen_by_what_the_network_is(networks, family: str) -> None:
    model = networks(family)
    before = model.config._attn_implementation
    path, reason = choose_runner(model)
    assert path is (PackedRunner if family in PACKED else ExpandedRunner)
    assert (reason is None) is (path is PackedRunner)
    assert model.config._attn_implementation == before


def test_a_network_on_several_devices_takes_the_expanded_path(networks) -> None:
    model = copy.deepcopy(networks("llama"))
    model.lm_head.to("meta")
    assert choose_runner(model) == (ExpandedRunner, "several devices hold it")


@pytest.mark.parametrize("runner", [PackedRunner, ExpandedRunner])
def test_keys_and_values_are_given_up_at_the_end(networks, few_shot, runner: type) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    engine = Engine(plan, runner(model, plan, 3), BUDGETS[1])
    results = engine.run()
    next(results)
    store = engine.runner._store  # type: ignore[attr-defined]
    assert store._nodes or store._slots
    for _ in results:
        pass
    assert not store._nodes
    assert not store._slots


def test_the_expanded_path_is_right_for_a_network_that_could_take_the_other(networks, few_shot, agrees) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    agrees(model, few_shot, dict(Engine(plan, ExpandedRunner(model, plan, 3), BUDGETS[1]).run()))


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", PACKED)
def test_guessed_tokens_change_no_text(networks, few_shot, agrees, foreseen, family: str, budget: Budget) -> None:
    model = networks(family)
    plan = make_plan(few_shot)
    plainly = Engine(plan, PackedRunner(model, plan, budget.num_rows), budget)
    texts = dict(plainly.run())
    agrees(model, few_shot, texts)
    engine = Engine(plan, PackedRunner(model, plan, budget.num_rows), budget, lookup=foreseen(plan, texts))
    agrees(model, few_shot, dict(engine.run()))
    counters = engine.counters
    assert 0 < counters.num_right_guesses < counters.num_guessed_tokens
    assert counters.num_decoded_tokens == plainly.counters.num_decoded_tokens
    if budget.num_tokens > 1000:
        assert counters.num_steps < plainly.counters.num_steps


@pytest.mark.parametrize("family", [*PACKED, "bloom"])
def test_slots_of_several_lengths_change_no_text(networks, few_shot, agrees, foreseen, family: str) -> None:
    model = networks(family)
    plan = make_plan(few_shot)
    longest = slot_length(plan)
    lengths = sorted({len(node) + 4 for node in plan.nodes if node.generates})[:3]
    slots = Slots((*((length, 1) for length in lengths if length < longest), (longest, 2)))
    for budget in (Budget(4096, slots.num_slots, 100, slots), Budget(40, slots.num_slots, 6, slots)):
        engine = Engine(plan, choose_runner(model)[0](model, plan, slots), budget)
        texts = dict(engine.run())
        agrees(model, few_shot, texts)
        again = Engine(plan, choose_runner(model)[0](model, plan, slots), budget, lookup=foreseen(plan, texts))
        agrees(model, few_shot, dict(again.run()))


def test_the_expanded_path_is_asked_for_no_guesses(networks, few_shot, agrees) -> None:
    model = networks("bloom")
    plan = make_plan(few_shot)
    engine = Engine(plan, ExpandedRunner(model, plan, 8), BUDGETS[0], lookup=PromptLookup(plan, 1e6))
    agrees(model, few_shot, dict(engine.run()))
    assert not engine.counters.num_guessed_tokens


def test_packed_linears_change_nothing_and_leave_the_network_as_it_was(networks, few_shot, agrees) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    linears = FastForwards(model)
    with linears, linears:
        results = dict(Engine(plan, PackedRunner(model, plan, 8), BUDGETS[0]).run())
    assert linears.num_packed == 2 * 7 + 1 + 2  # all matrices, and each layer's MLP in one piece
    assert not any("forward" in module.__dict__ for module in model.modules())
    agrees(model, few_shot, results)


class Reluctant(PackedRunner):
    """Refuses steps of more than some tokens, as a device without memory would, in the middle of the work."""

    def __init__(self, model: PreTrainedModel, plan: Plan, num_slots: int, most: int) -> None:
        super().__init__(model, plan, num_slots)
        self.most = most
        self.released: list[Node] = []

    def run(self, step: Step, generated: Generated) -> StepResult:
        result = super().run(step, generated)
        if step.num_tokens > self.most:
            raise StepTooLargeError
        return result

    def release(self, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        self.released += nodes
        super().release(nodes)


def test_running_out_of_memory_halves_the_steps_and_loses_nothing(networks, few_shot, agrees) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    runner = Reluctant(model, plan, 8, most=100)
    engine = Engine(plan, runner, BUDGETS[0])
    agrees(model, few_shot, dict(engine.run()))
    assert engine.counters.num_back_offs >= 1
    assert sorted(node.index for node in runner.released) == list(range(len(plan.nodes)))


def test_what_torch_says_of_memory_is_understood(networks) -> None:
    plan = make_plan([TokenSequence((1, 2, 3), targets=((2, 4),))])

    class Full(PackedRunner):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            self._network = lambda **_: torch.empty(1 << 60)  # type: ignore[assignment,return-value]
            self._network.device, self._network.dtype = torch.device("cpu"), torch.float32  # type: ignore[attr-defined]

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None: ...

    with pytest.raises(EngineError, match="out of memory"):
        list(Engine(plan, Full(networks("llama"), plan, 1), Budget(8, 1, 8)).run())


def test_a_row_ends_with_its_stop_its_end_of_text_or_its_length(networks, few_shot) -> None:
    model = networks("llama")
    ids = next(sequence.ids for sequence in few_shot if sequence.max_new_tokens)
    free = make_plan([TokenSequence(ids, max_new_tokens=10)])
    [(_, whole)] = Engine(free, PackedRunner(model, free, 1), BUDGETS[0]).run()
    assert isinstance(whole, Continued)
    assert (whole.finish_reason, len(whole.token_ids)) == ("length", 10)
    end = next(token for place, token in enumerate(whole.token_ids) if place and token not in whole.token_ids[:place])
    place = whole.token_ids.index(end)

    [(_, ended)] = Engine(free, PackedRunner(model, free, 1), BUDGETS[0], frozenset([end])).run()
    assert isinstance(ended, Continued)
    assert (ended.finish_reason, ended.token_ids) == ("end_of_text", whole.token_ids[:place])

    watchers = {0: lambda tokens: tokens[-1] == end}
    [(_, stopped)] = Engine(free, PackedRunner(model, free, 1), BUDGETS[0], watchers=watchers).run()
    assert isinstance(stopped, Continued)
    assert (stopped.finish_reason, stopped.token_ids) == ("stop", whole.token_ids[: place + 1])


def test_the_attention_setting_comes_back_when_a_run_is_given_up(networks, few_shot) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    before = model.config._attn_implementation
    running = Engine(plan, PackedRunner(model, plan, 3), BUDGETS[1]).run()
    next(running)
    assert model.config._attn_implementation != before
    running.close()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_stay_within_their_stated_tolerance(networks, few_shot, dtype: torch.dtype) -> None:
    model = copy.deepcopy(networks("llama")).to(dtype)
    sequences = [dataclasses.replace(sequence, max_new_tokens=0, targets=((9, 5),)) for sequence in few_shot[:6]]
    plan = make_plan(sequences)
    found = dict(Engine(plan, choose_runner(model)[0](model, plan, 1), BUDGETS[1]).run())
    for number, sequence in enumerate(sequences):
        with torch.inference_mode():
            logits = model(torch.tensor([sequence.ids])).logits[0, 9].float()
        result = found[number]
        assert isinstance(result, Scored)
        assert result.logprobs[0] == pytest.approx(float(logits.log_softmax(-1)[5]), abs=TOLERANCES[dtype])
