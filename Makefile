# fifovm's commands. `make` lists them; each does all it needs to be done before.
SHELL := /bin/bash

# Pure Go everywhere, the tests too.
export CGO_ENABLED := 0

# Which guest kernels: of 6.12, 6.1, debug and debian, one or several.
KERNEL ?= 6.12
# What runs the guest's CPUs in `make vm-test`: auto, kvm (in the lab where this host's KVM can't) or soft; how many, and
# which seeds, one guest for each; more words for the kernel's command line, such as fifovm.long.
ENGINE ?= auto
export CPUS   ?= 1
export SEEDS  ?= 1
export APPEND ?=
# Which kernels' builds, headers or both `make driver-lint` takes: of the above and debian-6.12.
LINT_KERNELS ?= 6.12 6.1 debug debian debian-6.12
# Arguments of `make lab` and `make fuzz`.
CMD      ?= uname -a
FUZZTIME ?= 30s

B     := build
IMAGE := $(B)/guest.cpio

# Debian packages, by what they are for: the guest's programs, its kernels, the driver, tests of what others read, the lab.
PACKAGES := gcc libc6-dev make libaio-dev liburing-dev dpkg-dev \
	flex bison bc libelf-dev xz-utils lz4 zstd kmod cpio rsync \
	linux-source-6.12 linux-source-6.1 \
	sparse perl patch \
	gdb libxml2-utils python3 \
	qemu-system-x86

.DEFAULT_GOAL := help
.PHONY: help deps fifovm guest kernel driver driver-lint teeth image lab vm-test test-soft test-lab vm-test-all console example test lint fuzz bench-boot bench-aio bench-device bench-snapshot bench-kvm bench-exit cross clean

help: ## list the targets
	@awk -F ': *[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

deps: ## install the Debian packages that are missing (as root; else print the command)
	@command -v go >/dev/null || { echo "make deps: there is no go command: install Go 1.26 or newer and put it in PATH" >&2; exit 1; }
	@command -v dpkg-query >/dev/null || { echo "make deps: this is not a Debian machine: install what these packages have: $(PACKAGES)" >&2; exit 0; }; \
	missing=; for p in $(PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "make deps: missing packages; run: sudo apt-get install --no-install-recommends$$missing" >&2; exit 1; \
	fi; \
	mkdir -p $(B); echo "installing$$missing"; \
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; } >$(B)/deps.log 2>&1 || \
		{ tail -20 $(B)/deps.log >&2; echo "make deps: apt-get failed; the whole log is in $(B)/deps.log" >&2; exit 1; }

fifovm: deps ## build build/fifovm
	@go build -o $(B)/fifovm ./cmd/fifovm

guest: deps ## build the guest's C programs
	@$(MAKE) --no-print-directory -s -C guest

kernel: deps ## build the guest kernel: KERNEL=6.12 (default), 6.1 or debug; of debian there is nothing to build
	@for k in $(filter-out debian,$(KERNEL)); do kernel-config/build $$k || exit 1; done

driver: kernel ## build the driver for KERNEL
	@guest/driver/build $(KERNEL)

driver-lint: deps ## the driver with W=1 and sparse on the kernels of LINT_KERNELS, by default all, and checkpatch
	@for k in $(filter-out debian%,$(LINT_KERNELS)); do kernel-config/build $$k || exit 1; done
	@guest/driver/build --lint $(LINT_KERNELS)

teeth: fifovm guest ## break the driver on purpose, a rule of docs/driver.md at a time: the checks have to notice
	@$(MAKE) --no-print-directory kernel KERNEL="6.12 6.1 debug"
	@guest/driver/teeth/run

image: guest driver ## build the guest's root file system, with agent, tests, and the driver for all kernels that it was built for
	@go run ./initramfs/cmd/mkinitramfs -o $(IMAGE) --files $(B)/guest/agent:/bin/uinit --files $(B)/guest/tests:/tests \
		--files $(B)/modules:/lib/modules

lab: deps fifovm ## run CMD in the KVM lab, where KVM is real: make lab CMD="fifovm doctor"
	@go build -o $(B)/fifovm-lab ./harness/lab/cmd/lab
	@$(B)/fifovm-lab --file $(B)/fifovm:/bin/fifovm -- $(CMD)

vm-test: fifovm image ## boot a guest and run its tests: ENGINE=auto (default), kvm or soft; CPUS, SEEDS; JUnit in build/vm-test.xml
	@harness/vm-test $(ENGINE) $(KERNEL)

console: fifovm image ## a guest to type into, with the driver loaded: Ctrl-A c opens the monitor, Ctrl-A h helps
	@$(B)/fifovm console --cpus 2

example: fifovm ## build examples/edu, a bench outside of this tree, and run its tests
	@$(MAKE) --no-print-directory image KERNEL=6.12
	@$(MAKE) --no-print-directory -C examples/edu test

test-soft: fifovm ## Go tests of whole guests on engine soft, on 6.12 and on Debian's kernel
	@$(MAKE) --no-print-directory image KERNEL="6.12 debian"
	@harness/vm-test --go soft 6.12

test-lab: fifovm ## the same, and the KVM engine's tests, on KVM; in the lab where this host's can't
	@$(MAKE) --no-print-directory image KERNEL="6.12 debian"
	@harness/vm-test --go kvm 6.12

vm-test-all: fifovm ## vm-test, test-soft and test-lab on every kernel: 6.12, 6.1, debug and Debian's; 1 and 4 CPUs, three seeds
	@$(MAKE) --no-print-directory image KERNEL="6.12 6.1 debug debian"
	@CPUS="1 4" SEEDS="1 2 3" harness/vm-test soft 6.12 6.1 debian debug
	@CPUS="1 4" SEEDS=4 APPEND="$(APPEND) fifovm.long" harness/vm-test soft 6.12 6.1
	@CPUS="1 4" harness/vm-test kvm 6.12 6.1 debian debug
	@harness/vm-test --go soft 6.12 6.1 debug
	@FIFOVM_TEST_LONG=1 harness/vm-test --go kvm 6.12 6.1 debug

test: deps ## unit tests, on engine soft and on this host's KVM where it opens
	@go vet ./... && go test $$(go list ./... | grep -v /harness$$) && go test -short ./harness

lint: deps ## vet, staticcheck and gofmt
	@f=$$(git ls-files -z '*.go' | xargs -0 gofmt -l); [ -z "$$f" ] || { echo "not gofmt'ed: $$f" >&2; exit 1; }
	@go vet ./... && go tool staticcheck ./...

cross: deps ## build and vet for the other systems
	@GOOS=darwin GOARCH=arm64 go build ./... && GOOS=darwin GOARCH=arm64 go vet ./...
	@GOOS=windows GOARCH=amd64 go build ./... && GOOS=windows GOARCH=amd64 go vet ./...

fuzz: deps ## each fuzz test for FUZZTIME
	@go list -f '{{$$d := .Dir}}{{range .TestGoFiles}}{{$$d}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$$d}}/{{.}} {{end}}' ./... | tr ' ' '\n' | \
	xargs grep -Eo '^func Fuzz[A-Za-z0-9]+' /dev/null | sort | while IFS=: read -r f name; do \
		go test -run '^$$' -fuzz "^$${name#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname $$f)" || exit 1; \
	done

bench-boot: fifovm $(B)/boot.cpio ## boot to power-off on engine soft, beside QEMU's emulation
	@$(MAKE) --no-print-directory kernel KERNEL=6.12
	@go run ./harness/bootbench -engine soft -kernel $(B)/kernel/6.12/vmlinux -image $(B)/boot.cpio

# Without tests, whose size costs time.
$(B)/boot.cpio: guest
	@go run ./initramfs/cmd/mkinitramfs -o $@ --files $(B)/guest/agent:/bin/uinit

bench-aio: fifovm guest ## synchronous and asynchronous I/O through the driver, on engine soft, with CPUS CPUs; and fio
	@$(MAKE) --no-print-directory driver KERNEL=6.12
	@guest/bench/fio
	@go run ./initramfs/cmd/mkinitramfs -o $(B)/bench.cpio --files $(B)/guest/agent:/bin/uinit --files $(B)/guest/bench:/tests \
		--files $(B)/fio/fio:/bin/fio --files $(B)/modules:/lib/modules
	@set -o pipefail; for c in $(CPUS); do echo "cpus: $$c"; $(B)/fifovm test --engine soft --kernel $(B)/kernel/6.12/vmlinux --initrd $(B)/bench.cpio \
		--cpus $$c --device fifo --verbose --timeout 30m | sed -n -e 's/^  | # bench: //p' -e '/FAILED/,$$p' || exit 1; done

bench-device: deps ## the FIFO's model alone, beside a plain copy
	@go run ./device/fifo/bench

bench-snapshot: fifovm image ## restore, reset and a worker's memory, beside QEMU's -loadvm; whole tests a second with two guests at a time
	@go run ./harness/snapshotbench
	@set -o pipefail; s=$$(date +%s%N); n=$$($(B)/fifovm test --engine soft --jobs 2 boot devices fifo_aio | sed -n 's/^\([0-9]*\) passed.*/\1/p') && \
		awk -v n=$$n -v ns=$$(($$(date +%s%N) - s)) 'BEGIN { printf "tests_per_second: %.1f\n", n * 1e9 / ns }'

bench-kvm: fifovm $(B)/boot.cpio ## boot to power-off on KVM, beside QEMU's; in the lab where this host's can't
	@kernel-config/build kvmguest
	@harness/vm-test --bench

bench-exit: deps ## exits beside a C loop's, on this host's KVM
	@go run ./vmm/kvm/exitbench

clean: ## remove all that was built
	rm -rf $(B)
