package boot

import (
	"encoding/hex"
	"testing"
)

// TestAML compares terms with what iasl makes of their source.
func TestAML(t *testing.T) {
	for _, c := range []struct {
		source string
		got    term
		want   string
	}{
		{`Zero`, integer(0), "00"},
		{`One`, integer(1), "01"},
		{`0x10`, integer(0x10), "0a10"},
		{`0x1234`, integer(0x1234), "0b3412"},
		{`0x12345678`, integer(0x12345678), "0c78563412"},
		{`0x123456789A`, integer(0x123456789a), "0e9a78563412000000"},
		{`EisaId ("PNP0A08")`, eisaID("PNP0A08"), "0c41d00a08"},
		{`Name (_S5, Package () {5, 0})`, name("_S5", pkg(integer(5), integer(0))), "085f53355f1205020a0500"},
		{`Scope (\_SB) {}`, scope(`\_SB`), "10065c5f53425f"},
		{`Scope (\_SB.PCI0) {}`, scope(`\_SB.PCI0`), "100b5c2e5f53425f50434930"},
		{`Device (RTC) {}`, device("RTC"), "5b82055254435f"},
		{`Method (A, 1) { Return (Arg0) }`, method("A", 1, giveBack(arg(0))), "1408415f5f5f01a468"},
		{`Buffer () {1, 2}`, buffer([]byte{1, 2}), "11050a020102"},
		{`ToUUID ("00112233-4455-6677-8899-aabbccddeeff")`, uuid("00112233-4455-6677-8899-aabbccddeeff"), "11130a1033221100554477668899aabbccddeeff"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.source, got, c.want)
		}
	}
}

// TestPkgLength decodes what it encodes, around each change of width.
func TestPkgLength(t *testing.T) {
	for _, c := range []struct{ n, width int }{
		{0, 1}, {62, 1}, {63, 2}, {1<<12 - 3, 2}, {1<<12 - 2, 3}, {1<<20 - 4, 3}, {1<<20 - 3, 4}, {1<<28 - 5, 4},
	} {
		b := pkgLength(c.n)
		n := int(b[0] & 0x3f)
		for i, v := range b[1:] {
			n |= int(v) << (4 + 8*i)
		}
		if len(b) != c.width || int(b[0]>>6) != c.width-1 || n != c.n+c.width {
			t.Errorf("%d bytes: % x says %d in %d", c.n, b, n, len(b))
		}
	}
}
