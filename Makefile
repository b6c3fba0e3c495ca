# fifovm's commands. `make` lists them; each does all it needs to be done before.
SHELL := /bin/bash

# Which guest kernel: 6.12, 6.1 or debug.
KERNEL ?= 6.12
# More words for the kernel's command line in `make vm-test`.
export APPEND ?=
# Arguments of `make lab` and `make fuzz`.
CMD      ?= uname -a
FUZZTIME ?= 30s

B     := build
IMAGE := $(B)/guest.cpio

# Debian packages, by what they are for: the C compiler, guest kernels, the lab.
PACKAGES := gcc libc6-dev make \
	flex bison bc libelf-dev xz-utils lz4 zstd kmod cpio rsync \
	linux-source-6.12 linux-source-6.1 \
	qemu-system-x86

.DEFAULT_GOAL := help
.PHONY: help deps fifovm guest kernel image lab vm-test test-lab vm-test-all test lint fuzz bench-kvm bench-exit cross clean

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
	@CGO_ENABLED=0 go build -o $(B)/fifovm ./cmd/fifovm

guest: deps ## build the guest's C programs
	@$(MAKE) --no-print-directory -s -C guest

kernel: deps ## build the guest kernel: KERNEL=6.12 (default), 6.1 or debug
	@kernel-config/build $(KERNEL)

image: guest ## build the guest's root file system, with agent and tests
	@go run ./initramfs/cmd/mkinitramfs -o $(IMAGE) --files $(B)/guest/agent:/bin/uinit --files $(B)/guest/tests:/tests

lab: deps fifovm ## run CMD in the KVM lab, where KVM is real: make lab CMD="fifovm doctor"
	@CGO_ENABLED=0 go build -o $(B)/fifovm-lab ./harness/lab/cmd/lab
	@$(B)/fifovm-lab --file $(B)/fifovm:/bin/fifovm -- $(CMD)

vm-test: fifovm kernel image ## boot a guest under KVM (in the lab where this host's can't) and run its tests
	@harness/vm-test $(KERNEL)

test-lab: fifovm image ## Go tests of whole guests and of the KVM engine, on 6.12 and on Debian's kernel; in the lab
	@$(MAKE) --no-print-directory kernel KERNEL=6.12
	@harness/vm-test --go 6.12

vm-test-all: fifovm image ## the same on every kernel: 6.12, 6.1, debug and Debian's
	@for k in 6.12 6.1 debug; do $(MAKE) --no-print-directory kernel KERNEL=$$k || exit 1; done
	@harness/vm-test --go 6.12 6.1 debug

test: deps ## unit tests, on this host's KVM where it opens
	@go vet ./... && go test ./...

lint: deps ## vet, staticcheck and gofmt
	@f=$$(git ls-files -z '*.go' | xargs -0 gofmt -l); [ -z "$$f" ] || { echo "not gofmt'ed: $$f" >&2; exit 1; }
	@go vet ./... && go tool staticcheck ./...

cross: deps ## the other systems still build
	@GOOS=darwin GOARCH=arm64 go build ./... && GOOS=darwin GOARCH=arm64 go vet ./...
	@GOOS=windows GOARCH=amd64 go build ./... && GOOS=windows GOARCH=amd64 go vet ./...

fuzz: deps ## each fuzz test for FUZZTIME
	@go list -f '{{$$d := .Dir}}{{range .TestGoFiles}}{{$$d}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$$d}}/{{.}} {{end}}' ./... | tr ' ' '\n' | \
	xargs grep -Eo '^func Fuzz[A-Za-z0-9]+' /dev/null | sort | while IFS=: read -r f name; do \
		go test -run '^$$' -fuzz "^$${name#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname $$f)" || exit 1; \
	done

bench-kvm: fifovm image ## boot to power-off beside QEMU's KVM, in the lab
	@kernel-config/build kvmguest
	@harness/vm-test --bench

bench-exit: deps ## exits beside a C loop's, on this host's KVM
	@go run ./vmm/kvm/exitbench

clean: ## remove all that was built
	rm -rf $(B)
