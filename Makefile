# Every command of the project.  `make` alone lists them; docs/install.md says more.
.DEFAULT_GOAL := help
.SUFFIXES:
.NOTPARALLEL:

# The packages' tools (ninja, which DeepSpeed calls by name) live beside the interpreter.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.sdpo := .venv/bin/sdpo
PYTHON_IN_VENV := .venv/bin/python

# Asked for torch's CPU build when the configured package index does not carry it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# ---- key=value on make's command line ------------------------------------------------------------------------------
# make takes every such word for a variable.  Those in upper case that are listed here are its own; all others are
# overrides of the recipe and go on to the command, each quoted for the shell with its value untouched.  Names that begin
# with a dot are this file's: no option begins with one, so that no option can take the place of a variable here.
.common := ARGS PROFILE PYTHON TORCH_INDEX CC CXX
.own-train := RECIPE ALGORITHM SEEDS DRY_RUN
.own-plan := RECIPE ALGORITHM GPUS GPU_MEMORY
.own-submit := RECIPE ALGORITHM SEEDS ADDRESS
.own-profile := RECIPE ALGORITHM
.own-discover := RECIPE ALGORITHM
.own-eval := MODEL RECIPE OUT
.own-compare := RECIPE RUNS
.own-inspect := RUN
.own-export := RUN OUT
.own-results := PARTS DRY_RUN
.own-faults := KIND
.own-test := TESTS
.own-bench := BENCH
.own-lock := UPGRADE
.goals := train plan submit profile discover eval compare inspect export results faults test bench lock
.own := $(sort $(.common) $(foreach .goal,$(.goals),$(.own-$(.goal))))
.used = $(.common) $(foreach .goal,$(MAKECMDGOALS),$(.own-$(.goal)))

.quote := '
.squote = '$(subst $(.quote),'\'',$(1))'
define .newline


endef
# A variable that was assigned with := has a colon there; words of a value with spaces are no variables.
.words := $(patsubst %:,%,$(foreach .word,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(.word)))))
.given := $(foreach .name,$(sort $(.words)),$(if $(filter command,$(firstword $(origin $(.name)))),$(.name)))
.keys := $(filter-out $(.own),$(.given))
.unused = $(filter-out $(.used),$(filter $(.own),$(.given)))
$(if $(filter command,$(firstword $(origin MAKEOVERRIDES))),$(error MAKEOVERRIDES is make's own and no option))
$(foreach .key,$(.keys),$(if $(findstring $(.newline),$(value $(.key))),$(error the value of $(.key) has a line break)))
.overrides = $(foreach .key,$(.keys),$(call .squote,$(.key)=$(value $(.key))))

.flag = $(if $(value $(1)),$(2) $(call .squote,$(value $(1))))
.choice = $(call .flag,ALGORITHM,--algorithm) $(call .flag,PROFILE,--profile) $(if $(DRY_RUN),--dry-run)
.recipes = $(sort $(notdir $(patsubst %/,%,$(wildcard recipes/*/))))

##@ The main job
.PHONY: train plan submit compare inspect eval export profile discover
train: nothing-unused recipe-given setup  ## train a policy: RECIPE=livecodebench [ALGORITHM=grpo] [PROFILE=cpu|gpu] [SEEDS=0,1,2] [DRY_RUN=1] [key=value …]
	@$(.sdpo) train $(.choice) $(call .flag,SEEDS,--seeds) $(call .squote,$(RECIPE)) $(.overrides) $(ARGS)
plan: nothing-unused recipe-given setup  ## what a run takes of GPUs, time and money, and whether it fits: RECIPE=livecodebench [ALGORITHM=grpo] [GPUS=1] [GPU_MEMORY=80] [key=value …]
	@$(.sdpo) plan $(.choice) $(call .flag,GPUS,--gpus) $(call .flag,GPU_MEMORY,--gpu-memory) \
	    $(call .squote,$(RECIPE)) $(.overrides) $(ARGS)
submit: nothing-unused setup  ## train as a job of a Ray cluster, and follow it: RECIPE=… ADDRESS=http://head:8265 [ALGORITHM=grpo] [key=value …], ARGS='--stop JOB'
	@$(.sdpo) submit $(call .flag,ADDRESS,--address) $(.choice) $(call .flag,SEEDS,--seeds) \
	    $(if $(RECIPE),$(call .squote,$(RECIPE))) $(.overrides) $(ARGS)
compare: nothing-unknown runs-given setup  ## draw pass@k against generations for comparable runs: RECIPE=livecodebench | RUNS="a b:label c*"
	@set -f; $(.sdpo) compare $(if $(RECIPE),$(call .squote,$(RECIPE))) $(RUNS) $(ARGS)
profile: nothing-unused recipe-given setup  ## run a few steps, print where time and memory go: RECIPE=livecodebench [ALGORITHM=grpo] [key=value …]
	@$(.sdpo) profile $(.choice) $(call .squote,$(RECIPE)) $(.overrides) $(ARGS)
discover: nothing-unused recipe-given setup  ## search hard questions one by one, by training on each and by sampling: RECIPE=discover-livecodebench [key=value …]
	@$(.sdpo) discover $(.choice) $(call .squote,$(RECIPE)) $(.overrides) $(ARGS)
eval: nothing-unused model-given setup  ## pass@k of a run, a checkpoint or a Hugging Face folder: MODEL=path [RECIPE=…] [OUT=path] [key=value …]
	@$(.sdpo) eval $(call .flag,RECIPE,--recipe) $(call .flag,PROFILE,--profile) $(call .flag,OUT,--out) \
	    $(call .squote,$(MODEL)) $(.overrides) $(ARGS)
inspect: nothing-unknown run-named setup  ## a page that shows what the teacher thinks of every token: RUN=runs/name [ARGS='--text --step 5']
	@$(.sdpo) inspect $(call .squote,$(RUN)) $(ARGS)
export: nothing-unknown run-given setup  ## write a run's policy as a Hugging Face folder: RUN=runs/name OUT=path
	@$(.sdpo) export $(call .squote,$(RUN)) $(call .squote,$(OUT)) $(ARGS)

##@ The evidence behind the claims
.PHONY: results faults
results: nothing-unknown setup  ## make the studies of docs/results/evidence (hours; resumes): [PARTS="comparison ablations"] [DRY_RUN=1]
	@$(PYTHON_IN_VENV) -m studies results $(PARTS) $(if $(DRY_RUN),--dry-run) $(ARGS)
faults: nothing-unknown setup  ## disturb a run on purpose and compare it with an undisturbed one (an hour): [KIND=short|grid|random]
	@$(PYTHON_IN_VENV) -m studies faults $(KIND) $(ARGS)

##@ The bundled problems and policy
.PHONY: policy tasks
policy: nothing-unused setup  ## pre-train the bundled policy from scratch (under an hour on 2 cores)
	@$(PYTHON_IN_VENV) -m studies pretrain $(.overrides) $(ARGS)
tasks: nothing-unknown setup  ## print some of the bundled problems: [ARGS='--n 3 --seed 7']
	@$(.sdpo) tasks show minicode $(ARGS)

##@ Checks and measurements
.PHONY: test test-all lint docs doctor bench
# Two processes at a time, which most machines have the memory for; ARGS='-n 0' is one, for a debugger, say.
.side-by-side := -n 2 --no-loadscope-reorder
test: nothing-unknown setup  ## run all tests but the slow ones: [TESTS=tests/packaging] [ARGS='-k lock']
	@$(PYTHON_IN_VENV) -m pytest -q $(.side-by-side) -m "not slow" $(TESTS) $(ARGS)
test-all: nothing-unknown setup  ## run all tests, including the slow ones: [TESTS=…] [ARGS=…]
	@$(PYTHON_IN_VENV) -m pytest -q $(.side-by-side) $(TESTS) $(ARGS)
lint: nothing-unknown setup  ## check style, format and types; a minute at most
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
docs: nothing-unknown setup  ## write the documents as a site, build/site; a dead link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build $(ARGS)
	@echo build/site/index.html
doctor: nothing-unknown setup  ## what is installed, which devices there are, and how to fix what is missing
	@$(.sdpo) doctor $(ARGS)
# In order of what they need: memory of its own first, then processor time.
BENCHES := linear_divergence learner_step packing training_step_trl weight_update startup busy overlap whole_step evaluation continuous scaling reward_functions safeguards checkpoint sandbox
bench: nothing-unknown setup $(if $(filter-out sandbox reward_functions safeguards checkpoint startup busy,$(or $(BENCH),$(BENCHES))),build/bench/.done)  ## run the benchmarks that need no GPU, one by one: [BENCH="overlap scaling"] [ARGS=--small]
	@set -e; for name in $(or $(BENCH),$(BENCHES)); do \
	    echo "== $$name"; $(PYTHON_IN_VENV) -m benchmarks.$$name $(ARGS); done
	@$(PYTHON_IN_VENV) -m benchmarks.page
build/bench/.done: requirements/bench.txt
	@rm -rf build/bench
	@$(PYTHON_IN_VENV) requirements/uv.py .venv/bin/uv pip install --quiet --no-deps --target build/bench -r $<
	@touch $@

##@ Housekeeping
.PHONY: setup lock clean help recipe-given runs-given model-given run-given run-named nothing-unused nothing-unknown
setup: $(if $(filter setup,$(MAKECMDGOALS)),nothing-unknown)  ## make .venv hold what the lock file says; at once when nothing changed: [PROFILE=cpu|gpu] [PYTHON=…]
	@PROFILE=$(call .squote,$(PROFILE)) PYTHON=$(call .squote,$(PYTHON)) TORCH_INDEX=$(call .squote,$(TORCH_INDEX)) \
	    GOAL=$(firstword $(MAKECMDGOALS)) requirements/setup.sh
lock: nothing-unknown setup  ## resolve the lock files again; UPGRADE=1 takes the newest versions that fit
	@TORCH_INDEX=$(call .squote,$(TORCH_INDEX)) UPGRADE=$(UPGRADE) requirements/lock.sh
clean: nothing-unknown  ## remove caches and build output, but neither .venv nor runs
	@rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	@find sandbox sdpo studies tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
help: nothing-unknown  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	    /^[a-z-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-9s %s\n", $$1, $$2}' Makefile

recipe-given:
	@$(if $(RECIPE),:,echo "error: say which recipe: make $(MAKECMDGOALS) RECIPE=<one of: $(.recipes)>" >&2; exit 2)
runs-given:
	@$(if $(RECIPE)$(RUNS),:,echo "error: say what: make compare RECIPE=<one of: $(.recipes)>, or RUNS=\"<run> <run>:<label> …\"" >&2; exit 2)
model-given:
	@$(if $(MODEL),:,echo "error: say which: make eval MODEL=<runs/name, a checkpoint in it, or a model folder>" >&2; exit 2)
run-given:
	@$(if $(and $(RUN),$(OUT)),:,echo "error: say which and where to: make export RUN=runs/<name> OUT=<new folder>" >&2; exit 2)
run-named:
	@$(if $(RUN),:,echo "error: say which: make inspect RUN=runs/<name>" >&2; exit 2)
# Nothing that was given may go unnoticed: neither a variable of another goal, nor, where there is no recipe to refuse it, a
# misspelt one.
nothing-unused:
	@$(if $(.unused),echo "error: make $(MAKECMDGOALS) makes no use of $(.unused); it uses $(.used)" >&2; exit 2,:)
nothing-unknown: nothing-unused
	@$(if $(.keys),echo "error: make $(or $(MAKECMDGOALS),help) does not know $(.keys); it knows $(.used)" >&2; exit 2,:)
