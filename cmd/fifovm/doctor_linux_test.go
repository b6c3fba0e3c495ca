package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDoctorCPU(t *testing.T) {
	for _, test := range []struct {
		name, info       string
		model, extension string
		virtual          bool
	}{
		{"Intel", "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu vmx sse\n\nprocessor\t: 1\nmodel name\t: other\n", "Intel(R) Xeon(R)", "VMX", false},
		{"AMD in a virtual machine", "model name\t: AMD EPYC\nflags\t\t: fpu svm hypervisor\n", "AMD EPYC", "SVM", true},
		{"neither", "model name\t: x\nflags\t\t: svmx hypervisors\n", "x", "", false},
		{"arm64", "processor\t: 0\nFeatures\t: fp asimd\n", "", "", false},
		{"nothing", "", "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var f facts
			f.cpu(test.info)
			if f.Processor != test.model || f.Extension != test.extension || f.Virtual != test.virtual {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestDoctorMemory(t *testing.T) {
	const info = "MemTotal:       24683656 kB\nMemFree:        1 kB\nMemAvailable:   2048 kB\nBad: x kB\n"
	for name, want := range map[string]uint64{"MemTotal": 24683656 << 10, "MemAvailable": 2 << 20, "Bad": 0, "Mem": 0} {
		if got := meminfo(info, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestDoctorFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	k := kvmFacts{Device: path}
	if k.file(); !k.Exists || k.Denied || k.Mode != "-rw-r-----" || k.Owner == "" || k.Group == "" {
		t.Errorf("%+v", k)
	}
	k = kvmFacts{Device: "/dev/null"}
	if k.file(); k.Mode != "crw-rw-rw-" {
		t.Errorf("%+v", k)
	}
	k = kvmFacts{Device: path + "not"}
	if k.file(); k.Exists {
		t.Errorf("%+v", k)
	}
}
