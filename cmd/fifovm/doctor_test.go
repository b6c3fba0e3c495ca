package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// healthy is a host where all is well.
func healthy(extension, module string) *facts {
	return &facts{Version: "test", OS: "linux", Arch: "amd64", Kernel: "6.12.0", Processor: "A processor", CPUs: 8,
		Memory: 32 << 30, Available: 24 << 30, Extension: extension, Modules: []string{"kvm", module},
		KVM: kvmFacts{Device: "/dev/kvm", Exists: true, Mode: "crw-rw----", Owner: "root", Group: "kvm", API: 12,
			Ring0: speed{NS: 0.31, Verdict: native}, Ring3: speed{NS: 0.3, Verdict: native}},
		Engine: "kvm", Reason: "it runs ring-0 code natively, 0.31 ns an instruction"}
}

func TestDoctorReport(t *testing.T) {
	for _, test := range []struct {
		name     string
		facts    func() *facts
		problems int
		want     []string // in this order
		not      []string
	}{
		{"healthy Intel", func() *facts { return healthy("VMX", "kvm_intel") }, 0,
			[]string{"linux/amd64, kernel 6.12.0", "A processor, 8 CPUs\n", "32.0 GiB, of which 24.0 are available", "VMX (Intel VT-x)\n",
				"kvm, kvm_intel", "/dev/kvm crw-rw---- root:kvm, opens", "version 12", "all that fifovm needs", "0.31 ns an instruction: native",
				"Conclusion: guests run here on engine kvm: it runs ring-0 code natively"}, []string{"wrong", "->", "soft"}},
		{"healthy AMD", func() *facts { return healthy("SVM", "kvm_amd") }, 0, []string{"SVM (AMD-V)\n", "Conclusion: guests run here on engine kvm"}, []string{"wrong"}},
		{"nested", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.Virtual = true
			return f
		}, 0, []string{"this host is itself a virtual machine", "VMX (Intel VT-x), nested"}, []string{"wrong"}},
		{"no device, extension", func() *facts {
			f := healthy("SVM", "")
			f.Modules, f.KVM, f.Engine, f.Reason = nil, kvmFacts{Device: "/dev/kvm"}, "soft", "why not"
			return f
		}, 1, []string{"none is listed", "/dev/kvm does not exist", "What is wrong with KVM here\n  1. ", "not loaded", "-> load it: sudo modprobe kvm_amd", "firmware",
			"Conclusion: guests run here on engine soft: why not.\n", "repeatable"}, []string{"kernel code", "2. "}},
		{"no device, container", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM, f.Engine = kvmFacts{Device: "/dev/kvm"}, "soft"
			return f
		}, 1, []string{"container", "--device /dev/kvm"}, []string{"modprobe"}},
		{"no device, virtual machine", func() *facts {
			f := healthy("", "")
			f.Modules, f.Virtual, f.KVM, f.Engine = nil, true, kvmFacts{Device: "/dev/kvm"}, "soft"
			return f
		}, 1, []string{"neither VMX", "does not exist", "nested virtualization switched on", "make lab"}, nil},
		{"no device, no extension", func() *facts {
			f := healthy("", "")
			f.Modules, f.KVM, f.Engine = nil, kvmFacts{Device: "/dev/kvm"}, "soft"
			return f
		}, 1, []string{"shows no virtualization extension", "firmware"}, nil},
		{"other device", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM, f.Engine = kvmFacts{Device: "/nope"}, "soft"
			return f
		}, 1, []string{"/nope does not exist", "leave --kvm-device out"}, []string{"container", "modprobe"}},
		{"no permission, group kvm", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM, f.Engine = kvmFacts{Device: "/dev/kvm", Exists: true, Mode: "crw-rw----", Owner: "root", Group: "kvm", Denied: true, Problem: "no"}, "soft"
			return f
		}, 1, []string{"crw-rw---- root:kvm, can't be used", "You may not open /dev/kvm", "usermod -aG kvm $USER"}, []string{"chgrp", "kernel code"}},
		{"no permission, root's alone", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM, f.Engine = kvmFacts{Device: "/dev/kvm", Exists: true, Mode: "crw-------", Owner: "root", Group: "root", Denied: true, Problem: "no"}, "soft"
			return f
		}, 1, []string{"sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm", "usermod -aG kvm $USER"}, nil},
		{"busy", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM, f.Engine = kvmFacts{Device: "/dev/kvm", Exists: true, Mode: "crw-rw----", Owner: "root", Group: "kvm", Problem: "device or resource busy"}, "soft"
			return f
		}, 1, []string{"/dev/kvm can't be used: device or resource busy.", "->"}, []string{"usermod"}},
		{"emulated ring 0", func() *facts {
			f := healthy("", "")
			f.Virtual, f.Modules, f.KVM.Features, f.Engine = true, []string{"kvm"}, []string{"POPCNT", "SMEP"}, "soft"
			f.KVM.Ring0 = speed{NS: 900.4, Verdict: emulated}
			return f
		}, 1, []string{"neither VMX (Intel VT-x) nor SVM (AMD-V)", "lacks POPCNT, SMEP", "900 ns an instruction: emulated (ring 0)",
			"native (ring 3)", "unusual kind", "Linux does not boot", "nested virtualization", "make lab", "Conclusion: guests run here on engine soft"}, []string{"may fail", "2. "}},
		{"missing capability", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM.Capabilities, f.Engine = []string{"KVM_CAP_IRQFD"}, "soft"
			f.KVM.Ring0, f.KVM.Ring3 = speed{Problem: "lacks it"}, speed{Problem: "lacks it"}
			return f
		}, 1, []string{"lacks KVM_CAP_IRQFD", "could not be measured", "newer kernel"}, []string{"2. "}},
		{"missing feature", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM.Features = []string{"SMAP"}
			return f
		}, 1, []string{"lacks SMAP", "may fail", "-cpu host", "Conclusion: guests run here on engine kvm"}, nil},
		{"guest does not run", func() *facts {
			f := healthy("VMX", "kvm_intel")
			f.KVM.Ring0, f.Engine = speed{Problem: "it broke"}, "soft"
			return f
		}, 1, []string{"could not be measured", "did not run the kernel code of a small guest: it broke."}, nil},
		{"darwin", func() *facts {
			return &facts{Version: "test", OS: "darwin", Arch: "arm64", CPUs: 1, KVM: kvmFacts{Device: "/dev/kvm"}, Engine: "soft", Reason: "KVM can't be used: it is Linux's"}
		}, 1, []string{"darwin/arm64", "1 CPU\n", "not known", "KVM is Linux's on x86-64, and this host is darwin on arm64.", "Conclusion: guests run here on engine soft: KVM can't be used: it is Linux's."}, []string{"modprobe", "version 0"}},
		{"windows", func() *facts {
			return &facts{Version: "test", OS: "windows", Arch: "amd64", CPUs: 4, Engine: "soft", Reason: "it is not"}
		}, 1, []string{"this host is windows on amd64"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := test.facts()
			text := f.report()
			rest := text
			for _, s := range test.want {
				i := strings.Index(flat(rest), flat(s))
				if i < 0 {
					t.Errorf("%q is missing, or not in its place, in\n%s", s, text)
					continue
				}
				rest = flat(rest)[i:]
			}
			for _, s := range test.not {
				if strings.Contains(text, s) {
					t.Errorf("%q has no business in\n%s", s, text)
				}
			}
			for _, line := range strings.Split(text, "\n") {
				if strings.TrimRight(line, " ") != line || len(line) > 100 && strings.HasPrefix(line, "     ") {
					t.Errorf("ill-formed line %q", line)
				}
			}
			if n := len(f.problems()); n != test.problems {
				t.Errorf("%d problems, want %d", n, test.problems)
			}
			for _, p := range f.problems() {
				if len(p.Do) == 0 {
					t.Errorf("no way out of %q", p.What)
				}
			}
			var b bytes.Buffer
			if err := f.write(&b, true); err != nil {
				t.Fatal(err)
			}
			var back struct {
				facts
				Problems []problem
			}
			if err := json.Unmarshal(b.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if back.OS != f.OS || back.Engine != f.Engine || back.Reason != f.Reason || back.KVM.Device != f.KVM.Device || len(back.Problems) != test.problems {
				t.Errorf("as JSON it is %s", b.Bytes())
			}
		})
	}
}

// flat undoes the wrapping of lines, keeping a line's end as one space.
func flat(s string) string { return strings.Join(strings.Fields(s), " ") }
