package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// checkTables walks the tables from the RSDP as an operating system does, and
// gives where they lie.
func checkTables(t testing.TB, read func(at, n uint64) []byte, at uint64) []area {
	t.Helper()
	le := binary.LittleEndian
	rsdp := read(at, 36)
	if string(rsdp[:8]) != "RSD PTR " || at%16 != 0 || at < 0xe0000 || at >= 1<<20 {
		t.Errorf("RSDP %q at %#x", rsdp[:8], at)
	}
	if sum(rsdp[:20]) != 0 || sum(rsdp) != 0 || rsdp[15] != 2 || le.Uint32(rsdp[20:]) != 36 {
		t.Errorf("RSDP % x", rsdp)
	}
	areas := []area{{"RSDP", at, at + 36}}
	table := func(at uint64) []byte {
		b := read(at, uint64(le.Uint32(read(at+4, 4))))
		name := string(b[:4])
		if sum(b) != 0 {
			t.Errorf("%s: checksum %#x", name, sum(b))
		}
		areas = append(areas, area{name, at, at + uint64(len(b))})
		return b
	}
	xsdt := table(le.Uint64(rsdp[24:]))
	for i := tableHeader; i < len(xsdt); i += 8 {
		b := table(le.Uint64(xsdt[i:]))
		if string(b[:4]) == "FACP" {
			if len(b) != 276 || b[8] != 6 {
				t.Errorf("FADT of %d bytes, revision %d", len(b), b[8])
			}
			dsdt := table(le.Uint64(b[140:]))
			if string(dsdt[:4]) != "DSDT" || uint64(le.Uint32(b[40:])) != le.Uint64(b[140:]) {
				t.Error("FADT without a DSDT")
			}
			checkAML(t, dsdt[tableHeader:])
		}
	}
	return areas
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// checkAML walks the blocks of a DSDT: each ends inside of the one around it.
func checkAML(t testing.TB, b []byte) {
	t.Helper()
	skipName := func(b []byte) []byte {
		if b[0] == rootPrefix {
			b = b[1:]
		}
		switch b[0] {
		case opDualName:
			return b[9:]
		case opMultiName:
			return b[2+4*int(b[1]):]
		}
		return b[4:]
	}
	contents := func(b []byte) (in, after []byte) {
		more := int(b[0] >> 6)
		n := int(b[0] & 0x3f)
		for i := range more {
			n |= int(b[1+i]) << (4 + 8*i)
		}
		if n > len(b) || n < 1+more {
			t.Fatalf("AML block of %d bytes in one of %d", n, len(b))
		}
		return b[1+more : n], b[n:]
	}
	var in []byte
	for len(b) > 0 {
		switch b[0] {
		case opName:
			b = skipName(b[1:])
		case opScope, opMethod:
			scope := b[0] == opScope
			in, b = contents(b[1:])
			if in = skipName(in); scope {
				checkAML(t, in)
			}
		case opExtended:
			in, b = contents(b[2:])
			checkAML(t, skipName(in))
		case opPackage:
			in, b = contents(b[1:])
			checkAML(t, in[1:])
		case opBuffer:
			in, b = contents(b[1:])
			if n := len(in); n < 4 || in[n-2] != 0x79 {
				t.Errorf("resource template without an end: % x", in)
			}
		case opZero, opOne:
			b = b[1:]
		case opByte:
			b = b[2:]
		case opWord:
			b = b[3:]
		case opDWord:
			b = b[5:]
		default:
			t.Fatalf("AML opcode %#x where none is", b[0])
		}
	}
}

func TestTables(t *testing.T) {
	wired := testPlatform()
	bare := Platform{LocalAPIC: wired.LocalAPIC, IOAPIC: wired.IOAPIC}
	for name, p := range map[string]*Platform{"all": &wired, "bare": &bare} {
		for _, cpus := range []int{1, 4, 255, 256, maxCPUs} {
			b := acpiTables(p, cpus, acpiBase)
			if len(b) > acpiEnd-acpiBase {
				t.Errorf("%s, %d CPUs: %d bytes", name, cpus, len(b))
				continue
			}
			checkDisjoint(t, checkTables(t, func(at, n uint64) []byte { return b[at-acpiBase:][:n] }, acpiBase))
		}
	}
}

// TestMADT holds that CPU 255, whose number means all of them in an xAPIC, and
// those beyond are listed by their x2APIC.
func TestMADT(t *testing.T) {
	p := testPlatform()
	b := madt(&p, 257)[tableHeader+8:]
	kinds := map[byte]int{}
	for len(b) > 0 {
		kinds[b[0]]++
		b = b[b[1]:]
	}
	if kinds[0] != 255 || kinds[9] != 2 || kinds[1] != 1 || len(kinds) != 3 {
		t.Errorf("MADT entries by type: %v", kinds)
	}
}

// iasl runs the reference compiler of ACPI's authors.
func iasl(t *testing.T, dir string, args ...string) string {
	path, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("no iasl: install acpica-tools")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("iasl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestIASL disassembles every table with the reference tool and compiles the
// DSDT again: it must find nothing to say, and come to the same bytes.
func TestIASL(t *testing.T) {
	p := testPlatform()
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"dsdt": dsdt(&p), "facp": fadt(&p, acpiBase), "apic": madt(&p, 257), "mcfg": mcfg(&p), "xsdt": xsdt([]uint64{acpiBase}),
	} {
		must(os.WriteFile(filepath.Join(dir, name+".aml"), b, 0o600))
		out := iasl(t, dir, "-d", name+".aml")
		source, err := os.ReadFile(filepath.Join(dir, name+".dsl"))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, bad := range []string{"Error", "Warning", "Invalid", "Unknown"} {
			if strings.Contains(out+string(source), bad) {
				t.Errorf("%s: %q in\n%s\n%s", name, bad, out, source)
			}
		}
	}
	source, err := os.ReadFile(filepath.Join(dir, "dsdt.dsl"))
	must(err)
	for _, want := range []string{
		`Name (\_S5, Package (0x04)`, `EisaId ("PNP0C02")`, `EisaId ("PNP0A08")`, `EisaId ("PNP0501")`, `EisaId ("PNP0B00")`,
		`Method (_OSC, 4, NotSerialized)`, `ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766")`, `Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive`,
	} {
		if !regexp.MustCompile(regexp.QuoteMeta(want)).Match(source) {
			t.Errorf("no %s in\n%s", want, source)
		}
	}
	// -oa: no optimizations, that we don't make either.
	out := iasl(t, dir, "-oa", "-p", "again", "dsdt.dsl")
	if !strings.Contains(out, "0 Errors, 0 Warnings, 0 Remarks") {
		t.Errorf("iasl has remarks:\n%s", out)
	}
	again, err := os.ReadFile(filepath.Join(dir, "again.aml"))
	must(err)
	// It puts its own name and version, and so another checksum, in the header.
	if ours := dsdt(&p); !bytes.Equal(again[tableHeader:], ours[tableHeader:]) {
		t.Errorf("compiled again, the DSDT has %d bytes, not our %d", len(again), len(ours))
	}
}
