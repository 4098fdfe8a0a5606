# Everything lives in .venv; each set-up runs once, and again when pyproject.toml changes.
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 7860

# The first Python of 3.10 to 3.13 that really starts and can make a virtual environment.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: app notebooks test test-all test-fast test-oldest lint format lint-js format-js bench failures screenshot clean gif docs course space

app: $(VENV)/.app-ready
	$(BIN)/robviz app --port $(PORT)

notebooks: $(VENV)/.notebooks-ready
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

# Two files at a time, in the order of tests/conftest.py. npm brings axe-core.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.test-ready $(if $(shell command -v npm),node_modules/.ready)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not long"

# With what takes minutes by itself, as CI does: the course in both modes, many visitors at once, second window sizes.
test-all: $(VENV)/.test-ready $(if $(shell command -v npm),node_modules/.ready)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# Without browser, notebooks and whatever takes more than a second: what to run while editing.
QUICK := $(SIDE_BY_SIDE) -m "not (app or browser or notebook or slow or long)"
test-fast: $(VENV)/.test-ready
	$(BIN)/python -m pytest $(QUICK)

# The same with the oldest release of everything that pyproject.toml allows: what to run when a range changes. Old
# releases warn of newer ones that they use, so warnings are no errors here.
OLDEST := $(VENV)/oldest
test-oldest: $(VENV)/.test-ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[test]'
	$(OLDEST)/bin/python -m pytest $(QUICK) -o filterwarnings=default

lint: $(VENV)/.test-ready lint-js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test-ready format-js
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Only the checks of the JavaScript and of the Dockerfiles need npm; what runs needs neither packages nor a build.
lint-js format-js: %-js: $(if $(shell command -v npm),node_modules/.ready)
	$(if $<,npm run --silent $*,@echo "no npm here: the JavaScript and the Dockerfiles are left out")

node_modules/.ready: package.json package-lock.json
	npm ci --no-audit --no-fund
	touch $@

bench: $(VENV)/.app-ready
	$(BIN)/robviz bench

# The evaluations that the app's view of failures shows.
failures: $(VENV)/.app-ready
	for model in photos-clean photos-robust; do OMP_NUM_THREADS=1 $(BIN)/robviz evaluate $$model --split photographs \
		--settings quick --precision fp32 --keep-masks --out checkpoints/failures/$$model || exit 1; done

# A picture of the running app, for the documentation.
screenshot: $(VENV)/.test-ready
	$(BIN)/python -m tests.screenshot

# The animated picture in the README, drawn from the shipped masks.
gif: $(VENV)/.app-ready
	$(BIN)/python docs/assets/make_gif.py

# The solved notebooks as pages of the documentation; takes minutes, so `docs` builds without them as well.
course: $(VENV)/.notebooks-ready
	$(BIN)/robviz course render docs/course

# The documentation, as a site in site/.
docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "robviz needs Python 3.10 to 3.13 with venv (on Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.app-ready: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.notebooks-ready: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebooks]'
	touch $@ $(VENV)/.app-ready

$(VENV)/.test-ready: $(VENV)/.created pyproject.toml tests/chromium.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python -m tests.chromium
	touch $@ $(VENV)/.app-ready $(VENV)/.notebooks-ready

$(VENV)/.docs-ready: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@ $(VENV)/.app-ready

# The wheel that the Hugging Face Space of `spaces/` installs.
space: $(VENV)/.test-ready
	rm -f spaces/*.whl
	$(BIN)/python -m build --wheel --outdir spaces .

clean:
	rm -rf $(VENV) node_modules build dist screenshots site
