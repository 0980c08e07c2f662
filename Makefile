# make book   install, execute the chapters, build the HTML      make html   HTML from the committed outputs
# make test   install, lint and run every test                   make check  lint and the quick tests, in two minutes
# make lab    open the chapters in JupyterLab                    make picture  the picture of README.md, of the built pages
# make paper  run the chapters at the paper's sizes
# make bench  compare hesslib with other libraries               make cost   measure time and memory against size
# make soak   many more kills, runs into one store and cells, for as long as an hour
# make guards take out each line that keeps something from breaking, and see its test fail
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
HTML := _build/html/index.html
DOCTESTS = --doctest-modules hesslib/curvature hesslib/theory hesslib/experiments
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: book html lab picture paper run test check lint style bench cost soak guards clean

book: run html

run: .venv/book.stamp
	$(BIN)/python -m hesslib run --jobs $(JOBS)

html: .venv/html.stamp
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build . -W -n --keep-going > _build.log 2>&1 || { cat _build.log; rm -f _build.log; exit 1; }
	@rm -f _build.log
	@echo "The book is built: $(CURDIR)/$(HTML)"

lab: .venv/lab.stamp
	$(BIN)/jupyter lab --notebook-dir notebooks

picture: .venv/test.stamp
	$(BIN)/python -m tests.pages.picture

paper: .venv/book.stamp
	$(BIN)/python -m hesslib run --scale paper

test: .venv/test.stamp style
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(DOCTESTS) notebooks/*.ipynb --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout 600 --nbval-sanitize-with tests/nbval.cfg -p tests.patience

check: .venv/test.stamp lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(DOCTESTS) -m "not slow and not browser and not distributed"

lint: style
	$(BIN)/mypy

style: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/peers.stamp
	$(BIN)/python -m tests.benchmarks.peers

cost: .venv/book.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.scaling
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.chapters

soak: .venv/test.stamp
	HESSLIB_KILLS=1000 HESSLIB_CELLS=500 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 tests/kit/test_interrupted.py tests/kit/test_damaged.py tests/kit/test_sweep.py

guards: .venv/test.stamp
	$(BIN)/python -m tests.kit.guards

clean:
	rm -rf _build .venv

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# The HTML alone needs neither torch nor a kernel, so this installs the extra without the package.
.venv/html.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["html"], sep="\n")' > .venv/html.txt
	$(BIN)/pip install -q -r .venv/html.txt
	@touch $@

.venv/book.stamp: pyproject.toml .venv/html.stamp
	$(BIN)/pip install -q -e '.[book]'
	@touch $@

.venv/lab.stamp: pyproject.toml .venv/book.stamp
	$(BIN)/pip install -q -e '.[lab]'
	@touch $@

.venv/test.stamp: pyproject.toml .venv/book.stamp
	$(BIN)/pip install -q -e '.[book,test]'
	@touch $@

.venv/peers.stamp: pyproject.toml .venv/book.stamp
	$(BIN)/pip install -q -e '.[book,peers]'
	@touch $@
