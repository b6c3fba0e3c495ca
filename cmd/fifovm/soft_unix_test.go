//go:build unix

package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"fifovm/vmm/boot/tiny"
)

// An instruction that the CPU lacks: where it is, what it is, and the registers.
func TestLackingInstruction(t *testing.T) {
	const before = 0x10 // bytes of start, and 5 of a MOV in lacking
	for _, test := range []struct {
		name string
		code []byte
		line string
	}{
		{"VZEROUPPER", []byte{0xc5, 0xf8, 0x77}, `"vzeroupper" (c5 f8 77)`},
		{"VPADDD", []byte{0xc5, 0xf5, 0xfe, 0xc2}, `"vpaddd ymm0, ymm1, ymm2" (c5 f5 fe c2)`},
		{"RDRAND", []byte{0x0f, 0xc7, 0xf0}, `"rdrand eax" (0f c7 f0)`},
		{"XSAVE", []byte{0x0f, 0xae, 0x20}, `"xsave ptr [rax]" (0f ae 20)`},
		{"XGETBV", []byte{0x0f, 0x01, 0xd0}, `"xgetbv" (0f 01 d0)`},
		{"VMCALL", []byte{0x0f, 0x01, 0xc1}, `bytes that the disassembler doesn't know (0f 01 c1 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := bytes.Repeat([]byte{0x90}, before)             // nop
			code = append(code, 0xb8, 0x34, 0x12, 0, 0)            // mov eax, 0x1234
			code = append(code, test.code...)                      // at 0x100015
			code = append(code, bytes.Repeat([]byte{0xf4}, 16)...) // hlt
			symbols := []tiny.Symbol{{Name: "start", Size: before}, {Name: "lacking", Offset: before, Size: 16}}
			for where, symbols := range map[string][]tiny.Symbol{", in lacking+0x5": symbols, "": nil} {
				r := execute(t, program, "", "run", "-e", "soft", "-k", file(t, "kernel", tiny.Image(code, symbols...)))
				if r.status != statusFailed || r.stdout != "" {
					t.Errorf("status %d, standard output %q", r.status, r.stdout)
				}
				_, text, _ := strings.Cut(r.stderr, "\n") // behind the engine's line
				line, registers, _ := strings.Cut(text, "\n")
				if want := "fifovm: CPU 0: the soft CPU lacks this instruction: " + test.line + " at 0x100015, CPL 0" + where; line != want {
					t.Errorf("it says\n%s\nwant\n%s", line, want)
				}
				for _, want := range []string{"rip 0000000000100015", "rax 0000000000001234"} {
					if !strings.Contains(registers, want) {
						t.Errorf("%q is missing in %q", want, registers)
					}
				}
			}
		})
	}
}

func TestStats(t *testing.T) {
	forEngines(t, func(t *testing.T, engine string) {
		pattern := regexp.MustCompile(`(?m)^fifovm: (\d+) instructions in [\d.]+ s: \d+ million a second$`)
		if engine == "kvm" {
			pattern = regexp.MustCompile(`(?m)^fifovm: the guest ran for [\d.]+ s; engine (kvm) does not count instructions$`)
		}
		count := ""
		for range 2 {
			r := execute(t, program, "", "run", "-e", engine, "-k", kernel(t, "hellop"), "--stats")
			m := pattern.FindStringSubmatch(r.stderr)
			if r.status != 0 || m == nil {
				t.Fatalf("%+v", r)
			}
			if count != "" && m[1] != count {
				t.Errorf("%s instructions, and %s with the same seed", count, m[1])
			}
			count = m[1]
		}
	})
}

func TestSeed(t *testing.T) {
	for text, want := range map[string]seed{"0": 0, "7": 7, "0x10": 16, "18446744073709551615": 1<<64 - 1} {
		var s seed
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s is %d, %v", text, s, err)
		}
	}
	if !bytes.Equal(seed(1).bytes(), seed(1).bytes()) || bytes.Equal(seed(1).bytes(), seed(2).bytes()) {
		t.Error("the kernel's random numbers don't depend on the seed, or not alone")
	}
	forEngines(t, func(t *testing.T, engine string) {
		r := execute(t, program, "", "run", "-e", engine, "-k", kernel(t, "p"), "--seed", "7")
		if r.status != 0 || strings.Contains(r.stderr, "--seed") != (engine == "kvm") {
			t.Errorf("%+v", r)
		}
	})
}

// The help of `fifovm run` names the date.
func TestSoftWallClock(t *testing.T) {
	date := time.Unix(0, softWallClock).UTC().Format(time.DateTime)
	if date != "2026-01-01 00:00:00" {
		t.Errorf("guests find themselves on %s", date)
	}
	if r := execute(t, program, "", "run", "--help"); !strings.Contains(r.stdout, date[:10]) {
		t.Errorf("%q is missing in %q", date[:10], r.stdout)
	}
}
