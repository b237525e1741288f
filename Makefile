# Every target does its own set-up: a virtual environment in .venv with this checkout and what the target needs.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: demo test test-slow test-comfyui fuzz lint clean

$(VENV)/.ready: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# What nodes and library need, without development tools; torch's build for CPUs where Linux has no NVIDIA GPU.
CPU_BUILDS := https://download.pytorch.org/whl/cpu
$(VENV)/.demo: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	@pip="$(RUN) -m pip install --disable-pip-version-check"; \
	if [ "$$(uname)" = Linux ] && ! nvidia-smi -L 2>/dev/null | grep -q GPU \
	  && $(PYTHON) -c "import urllib.request as u; u.urlopen('$(CPU_BUILDS)/torch/', timeout=10)" 2>/dev/null; then \
	  echo "No NVIDIA GPU found: installing torch for CPUs and what the pack needs into $(VENV), a download of 0.3 GB."; \
	  $$pip --extra-index-url $(CPU_BUILDS) --editable .; \
	else \
	  echo "Installing torch and what the pack needs into $(VENV): a download of 3 GB on Linux, of 0.3 GB elsewhere."; \
	  $$pip --editable .; \
	fi
	@touch $@

# Photographs through the whole pipeline; MODEL=BiRefNet_lite downloads and uses published weights.
MODEL ?=
demo: $(VENV)/.demo
	$(RUN) examples/demo.py --output demo_output $(if $(MODEL),--model $(MODEL))

lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# JOBS processes, each of which needs up to 3 GB.
JOBS ?= 2
test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.ready
	$(RUN) -m pytest -q -m slow

# Damaged files and command lines at random (docs/reliability.md): make fuzz SEED=7 MINUTES=5 PART=images
SEED ?= 0
MINUTES ?= 5
PART ?=
fuzz: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(RUN) -m tools.fuzz --seed $(SEED) --minutes $(MINUTES) $(if $(PART),--part $(PART))

# In a real ComfyUI: make test-comfyui COMFYUI_DIR=... [COMFYUI_PYTHON=...]; its own interpreter must have its requirements.
test-comfyui: $(VENV)/.ready
	@test -n "$(COMFYUI_DIR)" || { echo "set COMFYUI_DIR to a ComfyUI checkout"; exit 2; }
	COMFYUI_DIR="$(COMFYUI_DIR)" COMFYUI_PYTHON="$(COMFYUI_PYTHON)" $(RUN) -m pytest -q tests/comfyui

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache demo_output fuzz_output
