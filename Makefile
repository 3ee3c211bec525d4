# Everything starts here: `make help`. Only git, make and a Python from 3.11.5 to 3.14 are assumed.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV    := .venv
BIN     := $(VENV)/bin
# The tested versions need 3.11.5 or newer; constriction has no wheel for 3.15 yet.
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14
# The stamp carries the checksum of what decides the environment, so that time stamps (a fresh checkout) do not.
LOCKED  := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
READY   := $(VENV)/.ready-$(LOCKED)

# uv does not read pip's settings: hand over the ones that say where packages are.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifneq ($(strip $(PIP_INDEX_URL)),)
UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
export UV_DEFAULT_INDEX
endif
ifneq ($(strip $(UV_FIND_LINKS)),)
export UV_FIND_LINKS
endif
UV_HTTP_TIMEOUT ?= 180
export UV_HTTP_TIMEOUT

BOOK    := $(BIN)/python -m diffusion_codec.book
# Passed through the environment, so that quotes in a parameter need no escaping.
export NB P DATASET
DATASET ?= kodak
SMOKE_FLAG := $(if $(filter-out 0,$(SMOKE)),--smoke)
SAVE_FLAG  := $(if $(SMOKE_FLAG),,--save)
FORCE_FLAG := $(if $(filter-out 0,$(FORCE)),--force)
PYTEST  ?= -q -n 2 --dist loadfile
ROBUSTNESS := tests/conformance tests/fuzz tests/attacks tests/faults tests/test_limits.py

help:  ## Show this list
	@echo "Usage: make TARGET [NAME=value ...]"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-13s %s\n", $$1, $$2}'
	@echo
	@echo "SMOKE=1 takes the small parameters of notebooks/params/smoke/ (book, run, bench, results, audit)."
	@echo "Example: make run NB=03 P='bitrates: [0.1, 0.2]' && make book"

setup: | $(READY)  ## Make .venv with the tested versions (all other targets do this first)
	@echo "Ready: $(BIN)/diffusion-codec"

test: | $(READY)  ## Run the tests; PYTEST='-k header -x' passes other options
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

lint: | $(READY)  ## Check style, types and that notebooks carry no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(wildcard notebooks/*.ipynb),$(BIN)/nbstripout --keep-id --verify $(wildcard notebooks/*.ipynb))

format: | $(READY)  ## Bring code and notebooks into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(wildcard notebooks/*.ipynb),$(BIN)/nbstripout --keep-id $(wildcard notebooks/*.ipynb))

book: | $(READY)  ## Run the notebooks that are out of date and build the book: build/html/index.html
	@$(BOOK) build $(SMOKE_FLAG)

check-site: | $(READY)  ## Open every page of the built book in headless Chromium; screenshots go to build/screenshots/
	@$(BOOK) browse

pdf: book  ## Print the whole book into one file by headless Chromium: build/book.pdf
	@$(BOOK) pdf

run: | $(READY)  ## Run one notebook, NB=03, with other parameters, P='bitrates: [0.1, 0.2]' (FORCE=1: even if up to date)
	@$(BOOK) run "$${NB}" --parameters="$${P}" $(SMOKE_FLAG) $(FORCE_FLAG)

bench: | $(READY)  ## Measure seconds by stage and memory of compress and decompress
	$(BIN)/python -m diffusion_codec.bench $(SMOKE_FLAG)

# CompressAI and OpenVINO live in an environment of their own, laid over the tested one.
PEERS    := build/peers
PACKAGES := compressai==1.2.8 einops==0.8.2 torch-geometric==2.8.1 openvino==2026.4.1 openvino-telemetry==2025.2.0
bench-records: | $(READY)  ## Measure all records of speed again, peers and engines included: data/results/bench*.json
	@test -x $(PEERS)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(PEERS)
	@$(BIN)/uv pip install --quiet --no-deps --python $(PEERS)/bin/python $(PACKAGES)
	@$(BIN)/python -c 'import sys, sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tested.pth
	$(BIN)/python -m diffusion_codec.bench $(SMOKE_FLAG) $(SAVE_FLAG)
	$(if $(SMOKE_FLAG),,$(BIN)/python -m diffusion_codec.bench --growth --largest --save)
	$(BIN)/python -m diffusion_codec.bench.folders $(SMOKE_FLAG) $(SAVE_FLAG)
	$(PEERS)/bin/python -m diffusion_codec.bench.engines $(SMOKE_FLAG) $(SAVE_FLAG)
	$(PEERS)/bin/python -m diffusion_codec.bench.peers $(SMOKE_FLAG) $(SAVE_FLAG)
	$(if $(SMOKE_FLAG),,@$(MAKE) --no-print-directory seal)

# Large buffers are kept, not fetched from the kernel page by page each time; read by glibc only.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000
results: | $(READY)  ## Measure this codec and its rivals again, DATASET=kodak: data/results/
	$(KEEP_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m diffusion_codec.evaluation --jobs 0 $(SMOKE_FLAG)
	$(if $(SMOKE_FLAG),,@$(MAKE) --no-print-directory seal)

realism: | $(READY)  ## Measure FID and KID, DATASET=kodak or coco-val2017-128: data/results/
	OMP_NUM_THREADS=1 $(BIN)/python -m diffusion_codec.evaluation.realism
	@$(MAKE) --no-print-directory seal

evidence: | $(READY)  ## Measure what the ledger of claims needs beside the sweeps: data/results/claims/
	$(BIN)/python -m diffusion_codec.evaluation.evidence $(SMOKE_FLAG)
	$(if $(SMOKE_FLAG),,@$(MAKE) --no-print-directory seal)

claims: | $(READY)  ## Print the ledger of claims; fails where a number left its tolerance (ACCEPT=1 writes it down)
	@$(BIN)/python -m diffusion_codec.evaluation.claims $(if $(filter-out 0,$(ACCEPT)),--accept)

numbers: | $(READY)  ## Write the README's table of numbers from the stored results
	@$(BIN)/python -m diffusion_codec.evaluation.numbers

seal: | $(READY)  ## Write the hashes of data/results/, after measuring
	@$(BIN)/python -m diffusion_codec.evaluation.seal

study: | $(READY)  ## Run a forced-choice study in the browser; its votes appear in notebook 05 (make run NB=05)
	$(BIN)/diffusion-codec study design study --keep
	$(BIN)/diffusion-codec study serve study

robustness: | $(READY)  ## Attack and kill the program in full: data/results/robustness.json (a part runs in `make test`)
	DIFFUSION_CODEC_ROBUSTNESS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile \
	  --robustness-report data/results/robustness.json $(ROBUSTNESS)
	@$(MAKE) --no-print-directory seal

FUZZ_SECONDS ?= 60
fuzz: | $(READY)  ## Fuzz the decoder, guided by coverage, FUZZ_SECONDS=60 each target (installs atheris; Python 3.11 to 3.13)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt atheris==3.0.0
	@mkdir -p build/fuzz/info build/fuzz/symbols
	$(BIN)/python -m tests.fuzz.fuzz_info -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -rss_limit_mb=2048 \
	  -timeout=10 -artifact_prefix=build/fuzz/ build/fuzz/info tests/conformance/1.0/good tests/attacks/kept
	$(BIN)/python -m tests.fuzz.fuzz_symbols -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -rss_limit_mb=2048 \
	  -timeout=20 -artifact_prefix=build/fuzz/ build/fuzz/symbols tests/conformance/1.0/good

audit-packages: | $(READY)  ## Look the tested versions up in the database of known vulnerabilities (needs the network)
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip -r constraints.txt

audit: | $(READY)  ## Measure again what decoders make up (text, faces, patterns; installs the extra audit)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[audit]'
	OMP_NUM_THREADS=1 $(BIN)/python -m diffusion_codec.audit $(SMOKE_FLAG)
	$(if $(SMOKE_FLAG),,@$(MAKE) --no-print-directory seal)

lock: | $(READY)  ## Write the installed versions to constraints.txt (after changing pyproject.toml)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[audit,book,dev]'
	@{ echo "# Tested versions of everything installed; written by 'make lock' (ranges: pyproject.toml)."; \
	  $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | sed -e 's/+[a-z0-9.]*$$//' -e '/^pip==/d'; } > constraints.tmp
	@mv constraints.tmp constraints.txt

clean:  ## Remove what was built (not .venv)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY):
	@test -x $(BIN)/python || { for python in $(PYTHONS); do \
	  if $$python -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV) && break; rm -rf $(VENV); \
	  fi; done; }
	@test -x $(BIN)/python || { echo "error: no Python from 3.11.5 to 3.14 among: $(PYTHONS); install one, or make $(VENV) yourself" >&2; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "Installing the tested versions (constraints.txt) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[book,dev]'
	@rm -f $(VENV)/.ready-* && touch $@

.PHONY: help setup test lint format book check-site pdf run bench bench-records results realism evidence claims numbers seal study robustness fuzz audit-packages audit lock clean
