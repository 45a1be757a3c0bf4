# make sweep    the component study on the embedded task, its table and figures (seven minutes on two cores, after the set-up)
# make test     everything that can be checked in minutes
# make figures  redraw from results/, or from RESULTS=DIR
# The first call of any makes .venv and installs; later ones reuse it.

PYTHON ?= python3
RESULTS ?= results
OUT ?= runs
WORKERS ?= 2
SEEDS ?= 2
READY := .venv/.ready
RUN := .venv/bin

.PHONY: sweep figures test setup clean

sweep: $(READY)
	$(RUN)/vcppo sweep components --workers $(WORKERS) --seeds $(SEEDS) --out $(OUT)

figures: $(READY)
	$(RUN)/vcppo figures --results $(RESULTS)

test: $(READY)
	$(RUN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vcppo needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
