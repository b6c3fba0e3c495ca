package gdb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"fifovm/vmm/debug"
	"fifovm/vmm/x86"
)

// server talks to one gdb.
type server struct {
	w       io.Writer
	cfg     Config
	session *debug.Session
	events  <-chan debug.Event
	noAck   bool // gdb wants no acknowledgements
	swbreak bool // gdb knows the stop reason swbreak
	running bool // gdb waits for a stop
	closed  bool
	cpu     int    // for memory and registers
	last    string // stop reply
	points  []point
	loaded  map[string]loaded // of modules by name, what gdb has been told
}

// loaded is a module whose symbols gdb has.
type loaded struct {
	text    uint64 // address of .text
	command string
}

// point is a breakpoint or watchpoint that gdb has set: the fields of its packet.
type point struct {
	kind       byte
	addr, size uint64
}

func newServer(w io.Writer, cfg Config) *server {
	s := &server{w: w, cfg: cfg, session: cfg.Session, loaded: map[string]loaded{}}
	s.session.Pause()
	s.events = s.session.Stopped()
	s.last = s.reply(debug.Event{})
	if e, ok := s.session.Last(); ok {
		s.last = s.reply(e)
		s.cpu = e.CPU
	}
	return s
}

// leave lets the guest go on without a trace of gdb.
func (s *server) leave() {
	for _, p := range slices.Clone(s.points) {
		_ = s.clear(p) // the guest may have ended
	}
	s.session.Forget(s.events)
	s.session.Continue()
}

func (s *server) send(payload string) {
	// A gdb that has gone is noticed by its reader.
	_, _ = s.w.Write(encode([]byte(payload)))
}

// message does what gdb says.
func (s *server) message(m message) {
	switch {
	case m.interrupt:
		if s.running {
			s.session.Pause() // and the event comes
		}
		return
	case m.bad:
		if !s.noAck {
			_, _ = io.WriteString(s.w, "-")
		}
		return
	case !s.noAck:
		_, _ = io.WriteString(s.w, "+")
	}
	if reply, ok := s.handle(string(m.packet)); ok {
		s.send(reply)
	}
}

// stopped tells gdb of a stop that it waits for.
func (s *server) stopped(e debug.Event) {
	s.last = s.reply(e)
	if e.Reason != debug.Paused {
		s.cpu = e.CPU
	}
	if s.running {
		s.running = false
		s.send(s.last)
	}
}

// reply is the stop reply of an event (appendix E.3).
func (s *server) reply(e debug.Event) string {
	const sigint, sigtrap = 2, 5
	if e.Reason == debug.Paused {
		return fmt.Sprintf("T%02xthread:%x;", sigint, s.cpu+1)
	}
	t := fmt.Sprintf("T%02xthread:%x;", sigtrap, e.CPU+1)
	switch {
	case e.Reason == debug.Breakpoint && s.swbreak:
		t += "swbreak:;"
	case e.Reason == debug.Watchpoint:
		name := map[x86.WatchKind]string{x86.WatchWrite: "watch", x86.WatchRead: "rwatch", x86.WatchAccess: "awatch"}
		t += fmt.Sprintf("%s:%x;", name[e.Watch.Kind], e.Address)
	}
	return t
}

const (
	ok          = "OK"
	unsupported = "" // what gdb takes for: this packet is not there
	failed      = "E01"
)

// fault is an error with its text.
func fault(err error) string {
	// The text ends where gdb's framing would begin.
	return "E." + strings.NewReplacer("\n", " ", "#", " ", "$", " ").Replace(err.Error())
}

func result(err error) string {
	if err != nil {
		return fault(err)
	}
	return ok
}

// handle does what a packet says, and gives the reply, if there is one now.
func (s *server) handle(packet string) (reply string, now bool) {
	if packet == "" {
		return unsupported, true
	}
	args := packet[1:]
	switch packet[0] {
	case '?':
		return s.last, true
	case 'g':
		return s.readRegisters(), true
	case 'G':
		return s.writeRegisters(args), true
	case 'p':
		return s.readRegister(args), true
	case 'P':
		return s.writeRegister(args), true
	case 'm':
		return s.readMemory(args), true
	case 'M', 'X':
		return s.writeMemory(args, packet[0] == 'X'), true
	case 'Z', 'z':
		return s.point(args, packet[0] == 'Z'), true
	case 'H':
		return s.selectThread(args), true
	case 'T':
		if _, err := s.thread(args); err != nil {
			return failed, true
		}
		return ok, true
	case 'c', 's', 'C', 'S':
		if args != "" && (packet[0] == 'c' || packet[0] == 's') {
			return unsupported, true // an address; gdb uses vCont
		}
		return s.resume(packet[0] == 's' || packet[0] == 'S', s.cpu)
	case 'v':
		return s.verbose(packet)
	case 'q', 'Q':
		return s.query(packet), true
	case 'D':
		s.closed = true
		return ok, true
	case 'k':
		s.closed = true
		if s.cfg.Kill != nil {
			s.cfg.Kill()
		}
		return "", false
	}
	return unsupported, true
}

// thread gives the CPU of a thread ID; -1 and 0 are any: the present one.
func (s *server) thread(id string) (cpu int, err error) {
	if id == "-1" || id == "0" {
		return s.cpu, nil
	}
	n, err := strconv.ParseUint(id, 16, 31)
	if err != nil || n < 1 || int(n) > s.session.CPUs() {
		return 0, fmt.Errorf("there is no thread %s", id)
	}
	return int(n) - 1, nil
}

func (s *server) selectThread(args string) string {
	if args == "" {
		return fault(errPacket)
	}
	cpu, err := s.thread(args[1:])
	if err != nil {
		return fault(err)
	}
	s.cpu = cpu
	return ok
}

// resume lets the guest go on, or a CPU make a step.
func (s *server) resume(step bool, cpu int) (string, bool) {
	select {
	case <-s.events: // that gdb knows
	default:
	}
	if !step {
		s.running = true
		s.session.Continue()
		return "", false
	}
	if err := s.session.StartStep(cpu); err != nil {
		return fault(err), true
	}
	s.running = true
	return "", false
}

// verbose is vCont and its like.
func (s *server) verbose(packet string) (string, bool) {
	if packet == "vCont?" {
		return "vCont;c;C;s;S;t", true
	}
	actions, found := strings.CutPrefix(packet, "vCont;")
	if !found {
		return unsupported, true // of vMustReplyEmpty too
	}
	cpu, step := s.cpu, false
	for i, action := range strings.Split(actions, ";") {
		what, id, has := strings.Cut(action, ":")
		if what == "" || !strings.Contains("cCsSt", what[:1]) {
			return fault(errPacket), true
		}
		n := s.cpu
		if has {
			var err error
			if n, err = s.thread(id); err != nil {
				return fault(err), true
			}
		}
		// The first action for a thread is the one that counts. All CPUs go on, or
		// one makes a step.
		if what[0] == 's' || what[0] == 'S' {
			if has || i == 0 {
				cpu, step = n, true
			}
			break
		}
	}
	return s.resume(step, cpu)
}

// numbers takes hexadecimal numbers apart.
func numbers(s string, separators ...string) (list []uint64, rest string, err error) {
	for _, separator := range separators {
		var field string
		found := true
		if separator == "" {
			field, s = s, ""
		} else {
			field, s, found = strings.Cut(s, separator)
		}
		v, err := strconv.ParseUint(field, 16, 64)
		if err != nil || !found {
			return nil, "", errPacket
		}
		list = append(list, v)
	}
	return list, s, nil
}

func (s *server) readRegisters() string {
	c, err := s.session.Registers(s.cpu)
	if err != nil {
		return failed
	}
	var b []byte
	for i := range registers {
		b = append(b, registers[i].read(c)...)
	}
	return hex.EncodeToString(b)
}

func (r *register) read(c *x86.CPU) []byte {
	b := make([]byte, r.size)
	r.get(c, b)
	return b
}

func (s *server) writeRegisters(args string) string {
	b, err := hex.DecodeString(args)
	if err != nil {
		return fault(errPacket)
	}
	c, err := s.session.Registers(s.cpu)
	if err != nil {
		return fault(err)
	}
	for i := range registers {
		r := &registers[i]
		if len(b) < r.size {
			return fault(errPacket)
		}
		if r.set != nil {
			r.set(c, b[:r.size])
		}
		b = b[r.size:]
	}
	return result(s.session.SetRegisters(s.cpu, c))
}

func (s *server) readRegister(args string) string {
	n, _, err := numbers(args, "")
	if err != nil || n[0] >= uint64(len(registers)) {
		return failed
	}
	c, err := s.session.Registers(s.cpu)
	if err != nil {
		return failed
	}
	return hex.EncodeToString(registers[n[0]].read(c))
}

func (s *server) writeRegister(args string) string {
	n, value, err := numbers(args, "=")
	if err != nil || n[0] >= uint64(len(registers)) {
		return fault(errPacket)
	}
	r := &registers[n[0]]
	b, err := hex.DecodeString(value)
	if err != nil || len(b) != r.size {
		return fault(errPacket)
	}
	if r.set == nil {
		return fault(fmt.Errorf("register %s can't be written", r.name))
	}
	c, err := s.session.Registers(s.cpu)
	if err != nil {
		return fault(err)
	}
	r.set(c, b)
	return result(s.session.SetRegisters(s.cpu, c))
}

func (s *server) readMemory(args string) string {
	n, _, err := numbers(args, ",", "")
	if err != nil {
		return failed
	}
	b := make([]byte, min(n[1], maxPacket/2))
	have, err := s.session.ReadSome(s.cpu, n[0], b)
	if err != nil && have == 0 {
		return failed
	}
	return hex.EncodeToString(b[:have])
}

func (s *server) writeMemory(args string, binary bool) string {
	n, data, err := numbers(args, ",", ":")
	if err != nil {
		return fault(errPacket)
	}
	var b []byte
	if binary {
		b, err = unescape([]byte(data))
	} else {
		b, err = hex.DecodeString(data)
	}
	if err != nil || uint64(len(b)) != n[1] {
		return fault(errPacket)
	}
	if len(b) == 0 {
		return ok // gdb asks whether there is the packet
	}
	return result(s.session.Write(s.cpu, n[0], b))
}

// Types of points: both kinds of breakpoints are the same here.
const (
	pointSoftware = '0'
	pointHardware = '1'
	pointWrite    = '2'
	pointRead     = '3'
	pointAccess   = '4'
)

// point sets or clears a breakpoint or watchpoint.
func (s *server) point(args string, set bool) string {
	if len(args) < 2 || args[1] != ',' {
		return fault(errPacket)
	}
	list, _, _ := strings.Cut(args[2:], ";") // conditions stay gdb's
	n, _, err := numbers(list, ",", "")
	if err != nil {
		return fault(errPacket)
	}
	p := point{args[0], n[0], n[1]}
	if p.kind < pointSoftware || p.kind > pointAccess {
		return unsupported
	}
	// Setting and clearing have to be idempotent.
	if have := slices.Contains(s.points, p); have == set {
		return ok
	}
	if !set {
		return result(s.clear(p))
	}
	if p.kind <= pointHardware {
		err = s.session.SetBreakpoint(p.addr)
	} else {
		err = s.session.SetWatchpoint(p.addr, p.size, p.watch())
	}
	if err == nil {
		s.points = append(s.points, p)
	}
	return result(err)
}

func (p point) watch() x86.WatchKind {
	return map[byte]x86.WatchKind{pointWrite: x86.WatchWrite, pointRead: x86.WatchRead, pointAccess: x86.WatchAccess}[p.kind]
}

func (s *server) clear(p point) error {
	s.points = slices.DeleteFunc(s.points, func(x point) bool { return x == p })
	if p.kind <= pointHardware {
		return s.session.ClearBreakpoint(p.addr)
	}
	return s.session.ClearWatchpoint(p.addr, p.size, p.watch())
}

// query is what begins with q or Q.
func (s *server) query(packet string) string {
	name, args, _ := strings.Cut(packet, ":")
	switch name {
	case "qSupported":
		s.swbreak = slices.Contains(strings.Split(args, ";"), "swbreak+")
		return fmt.Sprintf("PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak-", maxPacket)
	case "QStartNoAckMode":
		s.noAck = true
		return ok
	case "qXfer":
		return s.transfer(args)
	case "qC":
		return fmt.Sprintf("QC%x", s.cpu+1)
	case "qfThreadInfo":
		ids := make([]string, s.session.CPUs())
		for i := range ids {
			ids[i] = strconv.FormatInt(int64(i+1), 16)
		}
		return "m" + strings.Join(ids, ",")
	case "qsThreadInfo":
		return "l"
	case "qAttached":
		return "1" // gdb leaves the guest, and does not kill it
	case "qOffsets":
		return "Text=0;Data=0;Bss=0"
	case "qSymbol":
		return ok
	}
	if id, found := strings.CutPrefix(packet, "qThreadExtraInfo,"); found {
		return s.threadInfo(id)
	}
	if line, found := strings.CutPrefix(packet, "qRcmd,"); found {
		return s.monitor(line)
	}
	return unsupported
}

// transfer reads a part of the description.
func (s *server) transfer(args string) string {
	rest, found := strings.CutPrefix(args, "features:read:target.xml:")
	if !found {
		if strings.HasPrefix(args, "features:read:") {
			return "E00" // there is no such document
		}
		return unsupported
	}
	n, _, err := numbers(rest, ",", "")
	if err != nil {
		return failed
	}
	from := min(n[0], uint64(len(description)))
	to := min(from+min(n[1], maxPacket-1), uint64(len(description)))
	if to == uint64(len(description)) {
		return "l" + string(description[from:to])
	}
	return "m" + string(description[from:to])
}

// threadInfo is what "info threads" says of a CPU.
func (s *server) threadInfo(id string) string {
	cpu, err := s.thread(id)
	if err != nil {
		return failed
	}
	c, err := s.session.Registers(cpu)
	if err != nil {
		return failed
	}
	text := fmt.Sprintf("CPU %d", cpu)
	switch c.Activity {
	case x86.Running:
		text += fmt.Sprintf(", CPL %d", c.Seg[x86.SS].DPL)
	case x86.Halted:
		text += ", halted"
	default:
		text += ", not started"
	}
	return hex.EncodeToString([]byte(text))
}

// monitor is gdb's command of that name.
func (s *server) monitor(line string) string {
	b, err := hex.DecodeString(line)
	if err != nil {
		return fault(errPacket)
	}
	var out bytes.Buffer
	switch line := strings.TrimSpace(string(b)); {
	case line == "modules":
		err = s.modules(&out)
	case s.cfg.Monitor != nil:
		err = s.cfg.Monitor(line, &out)
	case line == "help":
		out.WriteString("modules  where the guest's modules are; writes gdb's commands for their symbols\n")
	default:
		err = fmt.Errorf("there is no command %q: try \"monitor help\"", line)
	}
	if err != nil {
		fmt.Fprintf(&out, "%v\n", err)
	}
	const part = maxPacket/2 - 1
	for text := out.Bytes(); len(text) > 0; text = text[min(part, len(text)):] {
		s.send("O" + hex.EncodeToString(text[:min(part, len(text))]))
	}
	return ok
}

// modules tells where the guest's modules are, and writes the commands for their
// symbols: those that gdb does not have. Where that fails, the file is empty: an
// old one would be wrong.
func (s *server) modules(w io.Writer) error {
	if s.cfg.Linux == nil || s.cfg.ModuleScript == "" {
		return errors.New("there are no files of modules that this server knows")
	}
	list, err := s.cfg.Linux.Modules(s.session)
	var script strings.Builder
	for _, m := range list {
		command, e := m.GDB()
		if err = errors.Join(err, e); e != nil {
			continue
		}
		told := "no file with symbols"
		if command != "" {
			told = m.File
		}
		fmt.Fprintf(w, "%s: .text at %#x, %s\n", m.Name, m.Section(".text"), told)
		old := s.loaded[m.Name]
		if command == "" || command == old.command {
			continue
		}
		if old.command != "" {
			fmt.Fprintf(&script, "remove-symbol-file -a %#x\n", old.text)
		}
		script.WriteString(command + "\n")
		s.loaded[m.Name] = loaded{m.Section(".text"), command}
	}
	if err == nil && len(list) == 0 {
		fmt.Fprintln(w, "no module is loaded")
	}
	return errors.Join(err, os.WriteFile(s.cfg.ModuleScript, []byte(script.String()), 0o644))
}
