package gdb

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fifovm/vmm/boot"
	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/debug"
	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
)

// program counts for ever, in memory and in eax.
var program = []byte{
	0xbb, 0x00, 0x00, 0x20, 0x00, // 0x00 mov ebx, 0x200000
	0x31, 0xc0, //                   0x05 xor eax, eax
	0xff, 0xc0, //                   0x07 again: inc eax
	0x89, 0x03, //                   0x09 mov [rbx], eax
	0xeb, 0xfa, //                   0x0b jmp again
}

const (
	again = tiny.Base + 7
	cell  = 0x20_0000
)

func onEngines(t *testing.T, f func(t *testing.T, engine string)) {
	for _, engine := range []string{vmm.EngineSoft, vmm.EngineKVM} {
		t.Run(engine, func(t *testing.T) { f(t, engine) })
	}
}

// stops is what an engine can stop at here.
func stops(t *testing.T, engine string) kvm.Stops {
	t.Helper()
	if engine == vmm.EngineSoft {
		return kvm.Stops{Steps: true, Breakpoints: true, Watchpoints: true, INT3: true}
	}
	s, err := kvm.CanStop("")
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newSession gives a session of a guest with that program, which runs.
func newSession(t testing.TB, engine string, code []byte, cpus int) *debug.Session {
	t.Helper()
	m, err := vmm.New(vmm.Config{Engine: engine, CPUs: cpus, Memory: 64 << 20})
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := boot.Parse(tiny.Image(code))
	if err == nil {
		err = m.Load(vmm.Boot{Kernel: k})
	}
	if err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	s := debug.New(m, nil)
	s.Pause()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, fuzzed := t.(*testing.F) // and may be stuck
		if _, err := s.Run(ctx); err != nil && !fuzzed {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is a gdb that a test plays.
type client struct {
	*testing.T
	conn net.Conn
	r    *reader
}

// connect serves cfg, and gives a client.
func connect(t *testing.T, cfg Config) *client {
	t.Helper()
	// A network may not be there: the KVM lab has none.
	l, err := Listen(filepath.Join(t.TempDir(), "gdb"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- Serve(ctx, l, cfg) }()
	c := &client{T: t}
	c.dial(l.Addr())
	t.Cleanup(func() {
		c.conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *client) dial(address net.Addr) {
	c.Helper()
	conn, err := net.Dial(address.Network(), address.String())
	if err != nil {
		c.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		c.Fatal(err)
	}
	c.conn, c.r = conn, newReader(conn)
}

func (c *client) raw(s string) {
	c.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.Fatal(err)
	}
}

func (c *client) send(packet string) {
	c.Helper()
	var sum byte
	for i := range len(packet) {
		sum += packet[i]
	}
	c.raw(fmt.Sprintf("$%s#%02x", packet, sum))
}

func (c *client) receive() string {
	c.Helper()
	m, err := c.r.next()
	if err != nil {
		c.Fatal(err)
	}
	b, err := unescape(m.packet)
	if m.bad || err != nil {
		c.Fatalf("bad packet %q", m.packet)
	}
	return string(b)
}

// ask gives the reply to a packet.
func (c *client) ask(packet string) string {
	c.Helper()
	c.send(packet)
	return c.receive()
}

// expect asks and compares.
func (c *client) expect(packet, want string) {
	c.Helper()
	if got := c.ask(packet); got != want {
		c.Errorf("%s is answered with %q, want %q", packet, got, want)
	}
}

// little is a number as a register's or memory's bytes.
func little(v uint64, bytes int) string {
	var s string
	for range bytes {
		s += fmt.Sprintf("%02x", byte(v))
		v >>= 8
	}
	return s
}

func number(name string) int {
	for i := range registers {
		if registers[i].name == name {
			return i
		}
	}
	panic(name)
}

func TestProtocol(t *testing.T) { onEngines(t, testProtocol) }

func testProtocol(t *testing.T, engine string) {
	var said []string
	c := connect(t, Config{Session: newSession(t, engine, program, 2), Monitor: func(line string, w io.Writer) error {
		said = append(said, line)
		fmt.Fprintln(w, "it says", line)
		if line == "bad" {
			return errors.New("it is bad")
		}
		return nil
	}})
	if got := c.ask("qSupported:multiprocess+;swbreak+;xmlRegisters=i386"); !strings.Contains(got, "QStartNoAckMode+") || !strings.Contains(got, "qXfer:features:read+") {
		t.Errorf("qSupported: %q", got)
	}
	c.expect("QStartNoAckMode", "OK")
	c.expect("?", "T02thread:1;")
	c.expect("qfThreadInfo", "m1,2")
	c.expect("qsThreadInfo", "l")
	c.expect("qC", "QC1")
	c.expect("qAttached", "1")
	c.expect("T2", "OK")
	c.expect("T3", "E01")
	c.expect("qThreadExtraInfo,2", hex.EncodeToString([]byte("CPU 1, not started")))
	c.expect("vMustReplyEmpty", "")
	c.expect("vCont?", "vCont;c;C;s;S;t")
	c.expect("Hg2", "OK")
	c.expect(fmt.Sprintf("p%x", number("rip")), little(0xfff0, 8))
	c.expect("Hg1", "OK")
	rip := fmt.Sprintf("p%x", number("rip"))
	c.expect(rip, little(tiny.Base, 8))

	can := stops(t, engine)
	if can.Breakpoints || can.INT3 {
		breakpointPackets(c)
	} else {
		t.Log("this host's KVM has no breakpoints")
		if got := c.ask(fmt.Sprintf("Z0,%x,1", again)); !strings.HasPrefix(got, "E.") {
			t.Errorf("a breakpoint that can't be is answered with %q", got)
		}
		c.expect("vCont;s:1", "T05thread:1;")
		c.expect(rip, little(tiny.Base+5, 8))
	}
	if can.Watchpoints {
		c.expect(fmt.Sprintf("Z2,%x,4", cell), "OK")
		c.expect("vCont;c:-1", fmt.Sprintf("T05thread:1;watch:%x;", cell))
		c.expect(fmt.Sprintf("m%x,4", cell), little(42, 4))
		c.expect(fmt.Sprintf("z2,%x,4", cell), "OK")
	} else {
		t.Log("this host's KVM has no watchpoints")
	}

	c.expect(fmt.Sprintf("M%x,2:aabb", cell+0x100), "OK")
	c.expect(fmt.Sprintf("X%x,3:\x01}\x03}\x5d", cell+0x102), "OK")
	c.expect(fmt.Sprintf("m%x,5", cell+0x100), "aabb01237d")
	c.expect("X0,0:", "OK")
	c.expect("m8000000000,4", "E01")
	c.expect("m3fffffe,4", little(0, 2)+"") // the RAM ends

	g := c.ask("g")
	c.expect("G"+g, "OK")
	if again := c.ask("g"); again != g {
		t.Errorf("registers that were written back are\n%s, were\n%s", again, g)
	}

	// A run that gdb interrupts.
	c.send("vCont;c")
	c.raw("\x03")
	if got := c.receive(); got != "T02thread:1;" {
		t.Errorf("an interrupt is answered with %q", got)
	}

	c.send("qRcmd," + hex.EncodeToString([]byte("hello")))
	if got := c.receive(); got != "O"+hex.EncodeToString([]byte("it says hello\n")) || c.receive() != "OK" {
		t.Errorf("monitor prints %q", got)
	}
	c.send("qRcmd," + hex.EncodeToString([]byte("bad")))
	if got := c.receive(); got != "O"+hex.EncodeToString([]byte("it says bad\nit is bad\n")) || c.receive() != "OK" {
		t.Errorf("monitor prints %q", got)
	}
	c.send("qRcmd," + hex.EncodeToString([]byte("modules")))
	if got := c.receive(); !strings.Contains(got, hex.EncodeToString([]byte("no files of modules"))) || c.receive() != "OK" {
		t.Errorf("monitor modules: %q", got)
	}
	if strings.Join(said, " ") != "hello bad" {
		t.Errorf("the monitor heard %q", said)
	}
	c.expect("D", "OK")
	if _, err := c.r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("behind a detach: %v", err)
	}
}

// breakpointPackets are those of breakpoints and steps. eax is 41 after them.
func breakpointPackets(c *client) {
	c.Helper()
	rip := fmt.Sprintf("p%x", number("rip"))
	c.expect(fmt.Sprintf("Z0,%x,1", again), "OK")
	c.expect(fmt.Sprintf("Z0,%x,1", again), "OK") // idempotent
	c.expect("vCont;c", "T05thread:1;swbreak:;")
	c.expect(rip, little(again, 8))
	c.expect("vCont;s:1;c", "T05thread:1;")
	c.expect(rip, little(again+2, 8))
	c.expect("p0", little(1, 8))
	c.expect(fmt.Sprintf("P0=%s", little(41, 8)), "OK")
	c.expect("vCont;c", "T05thread:1;swbreak:;")
	c.expect(fmt.Sprintf("m%x,4", cell), little(41, 4))
	c.expect(fmt.Sprintf("z0,%x,1", again), "OK")
	c.expect(fmt.Sprintf("z0,%x,1", again), "OK")
}

// TestBadPackets: what makes no sense has an answer, and the next packet is good.
func TestBadPackets(t *testing.T) {
	c := connect(t, Config{Session: newSession(t, vmm.EngineSoft, program, 1)})
	c.raw("$?#00") // a wrong checksum
	b := make([]byte, 1)
	if _, err := io.ReadFull(c.conn, b); err != nil || b[0] != '-' {
		t.Errorf("a wrong checksum is answered with %q, %v", b, err)
	}
	c.r = newReader(c.conn)
	c.raw("garbage+-$abc$?#3f")
	if got := c.receive(); got != "T02thread:1;" {
		t.Errorf("behind garbage: %q", got)
	}
	c.send(strings.Repeat("m", maxPacket+1))
	for _, packet := range []string{"", "m", "m1", "mx,1", "M1,1", "M1,2:00", "M1,1:0", "X1,1:}", "P", "P0", "P0=00", "Pffff=00",
		"P" + fmt.Sprintf("%x", number("cs")) + "=00000000", "G00", "pzz", "Z", "Z0", "Z0,", "Z0,1", "Z9,1,1", "Z2,1,0", "z2,5,5",
		"H", "Hg9", "Hgx", "T", "Tx", "vCont;", "vCont;x", "vCont;s:9", "vCont;r1,2", "qXfer", "qXfer:features:read:target.xml:x",
		"qXfer:features:read:other.xml:0,10", "qXfer:memory-map:read::0,10", "qRcmd,x", "qThreadExtraInfo,", "Zff,ff,ff", "c1", "!", "\xff"} {
		got := c.ask(packet)
		if got != "" && got[0] != 'E' && packet != "z2,5,5" {
			t.Errorf("%q is answered with %q", packet, got)
		}
	}
	c.expect("qXfer:features:read:target.xml:ffffffffffff,10", "l")
	c.expect("?", "T02thread:1;")
}

// TestDescription: the description is well-formed, comes in parts, and has the
// registers in the order of their numbers.
func TestDescription(t *testing.T) {
	c := connect(t, Config{Session: newSession(t, vmm.EngineSoft, program, 1)})
	var text string
	for {
		part := c.ask(fmt.Sprintf("qXfer:features:read:target.xml:%x,100", len(text)))
		text += part[1:]
		if part[0] == 'l' {
			break
		}
	}
	var target struct {
		Features []struct {
			Name string `xml:"name,attr"`
			Regs []struct {
				Name string `xml:"name,attr"`
				Bits int    `xml:"bitsize,attr"`
			} `xml:"reg"`
		} `xml:"feature"`
	}
	if err := xml.Unmarshal([]byte(text), &target); err != nil {
		t.Fatal(err)
	}
	n, size := 0, 0
	for _, f := range target.Features {
		for _, r := range f.Regs {
			if n >= len(registers) || registers[n].name != r.Name || registers[n].size*8 != r.Bits {
				t.Errorf("register %d is %s of %d bits", n, r.Name, r.Bits)
			}
			n++
			size += r.Bits / 8
		}
	}
	if n != len(registers) || len(c.ask("g")) != 2*size {
		t.Errorf("%d registers of %d bytes", n, size)
	}
}

// TestLeaves: a gdb that goes away leaves the guest running and without its
// breakpoints, and the next one is served.
func TestLeaves(t *testing.T) {
	s := newSession(t, vmm.EngineSoft, program, 1)
	c := connect(t, Config{Session: s})
	address := c.conn.RemoteAddr()
	c.expect(fmt.Sprintf("Z0,%x,1", again), "OK")
	c.expect(fmt.Sprintf("Z3,%x,1", cell+8), "OK")
	events := s.Stopped()
	defer s.Forget(events)
	c.conn.Close()
	c.dial(address)
	c.expect("?", "T02thread:1;")
	if len(s.Breakpoints()) != 0 || len(s.Watchpoints()) != 0 {
		t.Errorf("left behind: %v, %v", s.Breakpoints(), s.Watchpoints())
	}
	c.send("vCont;c")
	c.conn.Close() // in the midst of a run
	c.dial(address)
	c.expect("?", "T02thread:1;")
}

// TestEnds: a guest that ends while gdb waits is an exit, and Serve ends.
func TestEnds(t *testing.T) {
	off := []byte{0xba, 0x00, 0x06, 0x00, 0x00, 0xb0, 0x34, 0xee, 0xf4} // out 0x600, 0x34
	c := connect(t, Config{Session: newSession(t, vmm.EngineSoft, off, 1)})
	c.expect("vCont;c", "W00")
	if _, err := c.r.next(); err == nil {
		t.Error("there is more behind the end")
	}
}

func TestKill(t *testing.T) {
	killed := make(chan struct{})
	c := connect(t, Config{Session: newSession(t, vmm.EngineSoft, program, 1), Kill: func() { close(killed) }})
	c.send("k")
	<-killed
}

func TestListen(t *testing.T) {
	for address, want := range map[string]string{"0": "127.0.0.1:", ":0": "127.0.0.1:", t.TempDir() + "/s": "/"} {
		l, err := Listen(address)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if got := l.Addr().String(); !strings.HasPrefix(got, want) {
			t.Errorf("%q listens at %s", address, got)
		}
		l.Close()
	}
	for _, address := range []string{"", ":", "x:y:z", "no such port"} {
		if l, err := Listen(address); err == nil {
			t.Errorf("%q listens at %v", address, l.Addr())
			l.Close()
		}
	}
}

func TestScript(t *testing.T) {
	text, err := Script(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234}, "/a b/vmlinux", "", "/m.gdb")
	if err != nil || !strings.Contains(text, "file \"/a b/vmlinux\"\n") || !strings.HasSuffix(text, "target remote 127.0.0.1:1234\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := Script(&net.TCPAddr{}, "/a\"b", "", ""); err == nil {
		t.Error("a quote in a path is let through")
	}
}

func TestEncode(t *testing.T) {
	payload := []byte("a$b#c*d}e\x00\xff")
	m, err := newReader(bytes.NewReader(encode(payload))).next()
	if err != nil || m.bad {
		t.Fatal(m, err)
	}
	if got, err := unescape(m.packet); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzServer feeds a server's stream. It may do nothing but answer.
func FuzzServer(f *testing.F) {
	for _, p := range []string{"$?#3f", "\x03", "$m0,10#ff", "$Z0,100007,1#00", "$vCont;s:1#b7", "$X0,1:}\x03#00", "$qRcmd,6d6f64756c6573#00",
		"$qXfer:features:read:target.xml:0,fff#00", "$P0=0000000000000000#00", "$vCont;c#a8\x03"} {
		f.Add([]byte(p))
	}
	s := newSession(f, vmm.EngineSoft, program, 2)
	start, err := s.Registers(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		server := newServer(io.Discard, Config{Session: s})
		r := newReader(bytes.NewReader(stream))
		for {
			m, err := r.next()
			if err != nil {
				break
			}
			m.bad = false // a fuzzer makes no checksums
			server.message(m)
		}
		s.Pause()
		server.leave()
		s.Pause()
		// The next input finds the same guest.
		if s.Ended() {
			s = newSession(f, vmm.EngineSoft, program, 2)
			return
		}
		if err := errors.Join(s.SetRegisters(0, start), s.Write(0, tiny.Base, program)); err != nil && !errors.Is(err, debug.ErrEnded) {
			t.Fatal(err)
		}
	})
}
