# Every target does its own set-up: a virtual environment in .venv with this checkout and its development tools.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: demo test test-slow test-comfyui lint clean

$(VENV)/.ready: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# A real photo through the whole pipeline; MODEL=BiRefNet_lite downloads and uses published weights.
MODEL ?=
demo: $(VENV)/.ready
	$(RUN) examples/demo.py --output demo_output $(if $(MODEL),--model $(MODEL))

lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m mypy

test: lint
	$(RUN) -m pytest -q

test-slow: $(VENV)/.ready
	$(RUN) -m pytest -q -m slow

# In a real ComfyUI: make test-comfyui COMFYUI_DIR=... [COMFYUI_PYTHON=...]; its own interpreter must have its requirements.
test-comfyui: $(VENV)/.ready
	@test -n "$(COMFYUI_DIR)" || { echo "set COMFYUI_DIR to a ComfyUI checkout"; exit 2; }
	COMFYUI_DIR="$(COMFYUI_DIR)" COMFYUI_PYTHON="$(COMFYUI_PYTHON)" $(RUN) -m pytest -q tests/comfyui

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache demo_output
