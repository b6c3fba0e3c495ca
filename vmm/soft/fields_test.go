package soft

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// notState are the fields that a state needs nothing of, and why. All others have
// to be in it.
var notState = map[string]string{
	"cpu.i": "0 between turns", "cpu.jumped": "between blocks", "cpu.entered": "within an instruction", "cpu.yield": "between turns",
	"cpu.taken": "which link to follow: there are none after SetState", "cpu.now": "set for each turn", "cpu.limit": "set for each turn",
	"cpu.block": "nil between turns", "cpu.rd": "follows from cpl and flags", "cpu.wr": "as rd", "cpu.gens": "of links, which are not kept",
	"cpu.cpl": "in SS", "cpu.aligned": "follows from cpl, flags and CR0", "cpu.mode": "follows from segments and control registers",
	"cpu.irq": "asked of the local APIC", "cpu.engine": "wiring", "cpu.index": "wiring", "cpu.apic": "its own state",
	"cpu.initPending": "acted upon at the end of a turn", "cpu.stops": "a debugger's", "cpu.access": "within an instruction",
	"cpu.fault": "within an instruction", "cpu.tlbs": "a cache", "cpu.execTLB": "a cache", "cpu.walked": "within an instruction",
	"cpu.jumps": "a cache", "cpu.fetched": "about a cache", "cpu.fKind": "how flags are kept: in RFLAGS", "cpu.fB": "as fKind",
	"cpu.fRes": "as fKind",

	"Engine.cfg": "wiring", "Engine.cpus": "their own states", "Engine.apics": "their own states", "Engine.cpuid": "constant",
	"Engine.low": "RAM", "Engine.high": "RAM", "Engine.code": "a cache", "Engine.generation": "of links", "Engine.running": "nil between turns",
	"Engine.err": "the end of a run", "Engine.wake": "wiring", "Engine.retired": "a count for the host", "Engine.idleFrom": "of a paced wait",
	"Engine.idleSince": "of a paced wait", "Engine.held": "vmm.State.Held", "Engine.debug": "a debugger's",
}

// TestEveryFieldIsInTheState: a change of any field is seen in the state, unless
// it is known why not.
func TestEveryFieldIsInTheState(t *testing.T) {
	g := newGuest(t, 2, hlt)
	known := map[string]bool{}
	for _, v := range []any{g.cpu, g.engine} {
		s := reflect.ValueOf(v).Elem()
		for i := range s.NumField() {
			name := s.Type().Name() + "." + s.Type().Field(i).Name
			known[name] = true
			if notState[name] != "" {
				continue
			}
			f := s.Field(i)
			f = reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem() // unexported ones as well
			scalars := 0
			eachScalar(f, func(path string, flip func()) {
				scalars++
				if what := name + path; notPart[what] == "" && !strings.HasPrefix(what, "cpu.fpu.env.") { // of the instruction that is executed
					was := g.state()
					flip()
					if g.state() == was {
						t.Errorf("%s is not in the state", what)
					}
					flip()
				}
			})
			if scalars == 0 {
				t.Errorf("%s has nothing to look at: say why it is not in the state", name)
			}
		}
	}
	for name := range notState {
		if !known[name] {
			t.Errorf("there is no field %s", name)
		}
	}
}

// notPart is notState for what is inside of a field.
var notPart = func() map[string]string {
	parts := map[string]string{
		"cpu.r[17]": "always 0", "cpu.fpu.stackFault": "within an instruction",
	}
	for i := 24; i < 32; i++ {
		parts["cpu.r["+strconv.Itoa(i)+"]"] = "not used"
	}
	for i := range 6 {
		parts["cpu.seg["+strconv.Itoa(i)+"].Base"] = "in r"
	}
	return parts
}()

// eachScalar calls f for each number and truth value in v, with a way to change its
// lowest bit, and to change it back.
func eachScalar(v reflect.Value, f func(path string, flip func())) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Field(i)
			field = reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
			name := v.Type().Field(i).Name
			eachScalar(field, func(path string, flip func()) { f("."+name+path, flip) })
		}
	case reflect.Array:
		for i := range v.Len() {
			eachScalar(v.Index(i), func(path string, flip func()) { f("["+strconv.Itoa(i)+"]"+path, flip) })
		}
	case reflect.Pointer:
		if !v.IsNil() {
			eachScalar(v.Elem(), f)
		}
	case reflect.Bool:
		f("", func() { v.SetBool(!v.Bool()) })
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		f("", func() { v.SetUint(v.Uint() ^ 1) })
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Int:
		f("", func() { v.SetInt(v.Int() ^ 1) })
	}
}
