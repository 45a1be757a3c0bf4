# make try      two runs, a table and figures: PPO collapses, VC-PPO does not (2 minutes on two cores, after the set-up)
# make sweep    the component study on the embedded task, its table and figures (13 minutes on two cores, after the set-up)
# make figures  redraw from results/, or from RESULTS=DIR
# make test     all tests but the longest (14 minutes on two cores)
# make test-long  the longest: kills, faults, a full disk, the wheel, a whole model
# make check    style, types, which way imports run, spelling: seconds (also one by one: make lint types imports spelling)
# make docs     the documentation as a site, in site/; a warning is an error
# make ci       all of these, then the real verl, vLLM and Ray in environments of their own
# The first call of any makes .venv and installs; later ones reuse it.

PYTHON ?= python3
RESULTS ?= results
OUT ?= runs
WORKERS ?= 2
SEEDS ?= 2
READY := .venv/.ready
RUN := .venv/bin

.PHONY: try sweep figures test test-long check lint types imports spelling docs ci setup clean

try: $(READY)
	$(RUN)/vcppo sweep try --workers $(WORKERS) --out $(OUT)

sweep: $(READY)
	$(RUN)/vcppo sweep components --workers $(WORKERS) --seeds $(SEEDS) --out $(OUT)

figures: $(READY)
	$(RUN)/vcppo figures --results $(RESULTS)

test: $(READY)
	$(RUN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "not long"

test-long: $(READY)
	$(RUN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m long

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

ci: check docs test test-long
	$(RUN)/nox --sessions verl vllm ray

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vcppo needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf .venv build site *.egg-info
