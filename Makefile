# SPDX-License-Identifier: GPL-2.0-or-later
# A thin front to configure, ninja and the scripts; `make help` lists what it can do.

BUILD ?= build
DESTDIR ?=

.PHONY: all check check-fast check-unit check-functional check-slow fuzz bench demo install \
	docs clean distclean help

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	./configure --build-dir=$(BUILD)

check:
	scripts/check

check-fast:
	scripts/check --fast

check-unit: all
	meson test -C $(BUILD) --no-rebuild --print-errorlogs

check-functional: all
	scripts/check --only functional

check-slow:
	FERRY_SLOW=1 scripts/check

fuzz:
	scripts/fuzz

bench:
	scripts/bench

demo:
	scripts/demo

install: all
	DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild

docs: all
	@echo "Guides: docs/*.md; generated: $(BUILD)/qapi/qmp-reference.md, $(BUILD)/docs/qemu-system-x86_64.1"

clean:
	[ ! -e $(BUILD)/build.ninja ] || ninja -C $(BUILD) clean

distclean:
	rm -rf $(BUILD) build-asan build-clang build-fuzz

help:
	@echo 'all               build (default)'
	@echo 'check             install what is missing, build, pass every test'
	@echo 'check-fast        the same without the sanitizer, clang and fuzz stages'
	@echo 'check-unit        unit tests only'
	@echo 'check-functional  tests of the real binary only'
	@echo 'check-slow        check with the long random schedules, all rows sanitized, and the analyzer'
	@echo 'fuzz              fuzz at length (FUZZ_SECONDS for each target, 600)'
	@echo 'bench             compare with stock QEMU (RUNS, CASES, FERRY_PEERS)'
	@echo 'demo              mirror a live disk, migrate a guest, and prove the copies'
	@echo 'install           install below the prefix (DESTDIR is honoured)'
	@echo 'docs              say where the documentation is'
	@echo 'clean, distclean  remove what was built, remove the build folders'
