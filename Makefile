# SWE-Bench Runner. `make help` lists the targets; options are variables: make run -j8 DATASET=lite AGENT=gold
ifneq ($(filter 3.% 4.0 4.0.% 4.1 4.1.%,$(MAKE_VERSION)),)
$(error this is make $(MAKE_VERSION), and GNU make 4.2 or newer is needed (./bootstrap.sh says how to get it))
endif

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Values reach the recipes through the environment and are expanded nowhere: $, # and quotes survive
OPTIONS := ARTIFACTS DATASET SPLIT IDS WHERE START SAMPLE SEED AGENT MODEL EFFORT MAX_TURNS PROMPT RUN ITERATIONS FEEDBACK RESET BUDGET MAX_COST PATIENCE TIMEOUT \
  TEST_TIMEOUT TEST_JOBS MCP CONFIG REMOTE SPECS PREDICTIONS STAGE EMPTY_PATCH REPEAT LEDGER DISK_LIMIT KEEP DRY V
$(foreach v,$(OPTIONS),$(if $(filter-out undefined default,$(origin $v)),$(eval override export $v := $$(value $v))))

Q := $(if $(filter 1,$(V)),,@)
JOBS = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),4)
DEFAULT_JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j4)

.PHONY: help ready precache run run-sample evaluate validate redo stop doctor bench gc clean-temp clean test test-all tasks
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo "Options are variables (make run -j8 DATASET=lite AGENT=gold IDS='a b'); README.md has the table."

ready:
	@./bootstrap.sh

precache: ready ## fetch mirrors, seal histories, build environments for the chosen tasks (-j8)
	$(Q)bin/tasks | bin/precache --jobs $(JOBS) >/dev/null

# The tasks run in a make of their own, which goes on when one fails; then the results are gathered whatever came out
run: ready ## run the chosen tasks and grade them (-j8); the same command again goes on where it stopped
	$(Q)+plan=$$(scripts/plan) || exit; [ -n "$$plan" ] || exit 0; set -- $$plan; \
	$(MAKE) -k $(DEFAULT_JOBS) tasks RUN=$$1 PLAN=$$2 & make=$$!; stopped=; \
	trap 'stopped=1; kill -TERM $$make' TERM INT; \
	while wait $$make; code=$$?; kill -0 $$make 2>/dev/null; do :; done; \
	rm -f $$2; [ -z "$$stopped" ] || exit 130; bin/collect --run $$1 || code=2; scripts/stop --why --run $$1 || code=2; exit $$code

ifdef PLAN
include $(PLAN)
tasks: $(TASKS:%=$(RUN_DIR)/%/tests.json)

# an interrupt must not delete what was paid for
.PRECIOUS: $(RUN_DIR)/%/agent.json $(RUN_DIR)/%/tests.json

$(RUN_DIR)/%/agent.json:
	$(Q)[ -e $(RUN_DIR)/stop ] || exec bin/run-agent --run $(RUN) -- $* >/dev/null

$(RUN_DIR)/%/tests.json: | $(RUN_DIR)/%/agent.json
	$(Q)[ ! -e $(RUN_DIR)/$*/agent.json ] || { [ -e $(RUN_DIR)/stop ] && [ ! -s $(RUN_DIR)/stop ]; } || exec bin/run-tests --once --run $(RUN) -- $* >/dev/null
endif

run-sample: export override DATASET := sample
run-sample: export AGENT ?= gold
run-sample: run ## run the embedded sample, with AGENT=gold unless one is named: no GitHub, no Hugging Face, no model

evaluate: ## grade somebody's predictions: make evaluate PREDICTIONS=preds.jsonl DATASET=lite
	$(Q)+[ -n "$$PREDICTIONS" ] || { echo "evaluate: no PREDICTIONS (make evaluate PREDICTIONS=preds.jsonl DATASET=lite)" >&2; exit 2; }; \
	AGENT="replay:$$PREDICTIONS" exec $(MAKE) $(DEFAULT_JOBS) run

validate: ready ## run reference fixes and empty patches, say which instances this machine can grade, keep that in the ledger: REPEAT=3
	$(Q)+scripts/validate

redo: ready ## forget results so that the next run makes them again: STAGE=tests or agent, IDS='a b' or IDS=all
	$(Q)scripts/redo

stop: ready ## let a run finish what it is at, and start no more: RUN=name
	$(Q)scripts/stop

doctor: ready ## list what the chosen dataset needs of this machine, what is missing, and the command that gets it
	$(Q)scripts/doctor

bench: ready ## measure the cost of the machinery on this machine
	$(Q)scripts/bench

gc: ready ## free what no run and no dataset needs; with DATASET, IDS or WHERE, all that these tasks do not need: DRY=1 only says
	$(Q)scripts/gc

clean-temp: ready ## remove worktrees that no process works in, and what killed builds left behind
	$(Q)scripts/clean-temp

clean: clean-temp ## remove caches and the toolkit's own environment; runs and results stay
	$(Q)chmod -R u+w $${ARTIFACTS:-artifacts}/cache 2>/dev/null; rm -rf $${ARTIFACTS:-artifacts}/cache .venv

test: ready ## the test suite
	$(Q).venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal tests -m "not slow"

test-all: ready ## the test suite with the long tests in it
	$(Q).venv/bin/python -m pytest -q tests
