package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"fifovm/device"
)

func sample() *Log {
	l := New(16)
	for _, c := range []device.Crossing{
		{Device: "fifo0", Seq: 1, Number: 1, Time: 5, Class: device.ClassMMIOWrite, BAR: 0, Addr: 0x1018, Size: 4, Data: 7},
		{Device: "edu0", Seq: 1, Number: 1, Time: 900, Class: device.ClassEvent, Addr: 2, Data: 0x10},
		// The read of number 2 brings 3 about.
		{Device: "fifo0", Seq: 3, Number: 1, Time: 1_000_001, Class: device.ClassINTxOff, Vector: device.INTx},
		{Device: "fifo0", Seq: 2, Number: 1, Time: 1_000_001, Class: device.ClassMMIORead, BAR: 2, Addr: 8, Size: 8, Data: 0xffff},
		{Device: "fifo0", Seq: 4, Number: 1, Time: 2_500_000_000, Class: device.ClassDMARead, Addr: 0x12345000, Size: 64, Data: 0x1122334455667788, Err: &device.Error{Op: "read", Err: device.ErrInjected}, Fault: "dma.read:error@1"},
		{Device: "fifo0", Seq: 5, Number: 1, Time: 2_500_000_000, Class: device.ClassDMAWrite, Addr: 0x10, Size: 3, Err: errors.New("broken \"so\"")},
		{Device: "fifo0", Seq: 6, Number: 9, Nth: 3, Time: 2_500_000_100, Class: device.ClassIRQ, Vector: 1, Fault: "irq[1]:drop@3"},
		{Device: "fifo0", Time: 2_500_000_200, Class: device.ClassIRQ, Vector: device.INTx, Note: "spurious", Fault: "irq:spurious@time 2.5s"},
		{Device: "fifo0", Seq: 7, Number: 1, Time: 2_500_000_300, Class: device.ClassReset},
		{Device: "fifo0", Time: 2_500_000_400, Class: device.ClassDevice, Note: "is removed"},
	} {
		l.Cross(c)
	}
	return l
}

const text = `   0.000000005       1 fifo0      mmio.write@1       [0:0x1018]                4 0x00000007
   0.000000900       1 edu0       event@1            [2]                         0x0000000000000010
   0.001000001       2 fifo0      mmio.read@1        [2:0x8]                   8 0x000000000000ffff
   0.001000001       3 fifo0      intx.off@1
   2.500000000       4 fifo0      dma.read@1         [0x12345000]             64                    fault dma.read:error@1: DMA read: fault injected
   2.500000000       5 fifo0      dma.write@1        [0x10]                    3                    broken "so"
   2.500000100       6 fifo0      irq[1]@3                                                          fault irq[1]:drop@3
   2.500000200       - fifo0      irq[intx]                                                         spurious fault irq:spurious@time 2.5s
   2.500000300       7 fifo0      reset@1
   2.500000400       - fifo0      device                                                            is removed
`

func TestText(t *testing.T) {
	var w bytes.Buffer
	if err := sample().WriteText(&w); err != nil {
		t.Fatal(err)
	}
	if w.String() != text {
		t.Errorf("got\n%swant\n%s", w.String(), text)
	}
}

// TestJSON reads it back as a viewer would.
func TestJSON(t *testing.T) {
	var w, again bytes.Buffer
	if err := sample().WriteJSON(&w); err != nil {
		t.Fatal(err)
	}
	if sample().WriteJSON(&again); w.String() != again.String() {
		t.Error("it is not the same each time")
	}
	var got struct {
		TraceEvents []struct {
			Name, Ph, S, Cat string
			TS               json.Number
			PID, TID         int
			Args             struct {
				Name, Where, Value, Note, Fault, Error, What string
				Number                                       int
			}
		}
	}
	if err := json.Unmarshal(w.Bytes(), &got); err != nil {
		t.Fatalf("%v in\n%s", err, w.String())
	}
	names := map[[2]int]string{}
	var lines []string
	for _, e := range got.TraceEvents {
		switch {
		case e.Ph == "M" && e.Name == "process_name":
			names[[2]int{e.PID, 0}] = e.Args.Name
		case e.Ph == "M" && e.Name == "thread_name":
			names[[2]int{e.PID, e.TID}] = e.Args.Name
		case e.Ph == "i":
			if e.S != "t" {
				t.Errorf("%+v has not the scope of its track", e)
			}
			lines = append(lines, strings.Join([]string{e.TS.String(), names[[2]int{e.PID, 0}], names[[2]int{e.PID, e.TID}], e.Name, e.Args.Where, e.Args.Value, e.Args.Note, e.Args.Fault + e.Args.What, e.Args.Error}, "|"))
		case e.Ph != "M":
			t.Errorf("an event of phase %q", e.Ph)
		}
	}
	want := []string{
		`0.005|fifo0|MMIO|mmio.write@1|[0:0x1018]|0x00000007|||`,
		`0.900|edu0|device|event@1|[2]|0x0000000000000010|||`,
		`1000.001|fifo0|MMIO|mmio.read@1|[2:0x8]|0x000000000000ffff|||`,
		`1000.001|fifo0|interrupts|intx.off@1|||||`,
		`2500000.000|fifo0|DMA|dma.read@1|[0x12345000]|||dma.read:error@1|DMA read: fault injected`,
		`2500000.000|fifo0|faults|dma.read:error@1||||dma.read@1|`,
		`2500000.000|fifo0|DMA|dma.write@1|[0x10]||||broken "so"`,
		`2500000.100|fifo0|interrupts|irq[1]@3||||irq[1]:drop@3|`,
		`2500000.100|fifo0|faults|irq[1]:drop@3||||irq[1]@3|`,
		`2500000.200|fifo0|interrupts|irq[intx]|||spurious|irq:spurious@time 2.5s|`,
		`2500000.200|fifo0|faults|irq:spurious@time 2.5s|||spurious|irq[intx]|`,
		`2500000.300|fifo0|device|reset@1|||||`,
		`2500000.400|fifo0|device|is removed|||is removed||`,
	}
	for i := range max(len(lines), len(want)) {
		if i >= len(lines) || i >= len(want) || lines[i] != want[i] {
			t.Fatalf("event %d: got\n%s\nwant\n%s", i, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestRing(t *testing.T) {
	l := New(3)
	n := testing.AllocsPerRun(1, func() {
		l.total = 0
		for i := range uint64(10) {
			l.Cross(device.Crossing{Device: "d", Seq: i + 1, Number: i + 1, Class: device.ClassReset})
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	if l.Dropped() != 7 {
		t.Errorf("%d dropped", l.Dropped())
	}
	var w bytes.Buffer
	if err := l.WriteText(&w); err != nil {
		t.Fatal(err)
	}
	want := `# 7 earlier crossings were dropped
   0.000000000       8 d          reset@8
   0.000000000       9 d          reset@9
   0.000000000      10 d          reset@10
`
	if w.String() != want {
		t.Errorf("got\n%swant\n%s", w.String(), want)
	}
	if New(0).Dropped() != 0 || len(New(5).Crossings()) != 0 {
		t.Error("an empty log is not empty")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestWriteErrors(t *testing.T) {
	if sample().WriteText(full{}) == nil || sample().WriteJSON(full{}) == nil {
		t.Error("a write that failed is no error")
	}
}
