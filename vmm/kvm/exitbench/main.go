//go:build linux && amd64

// exitbench measures what the engine adds to an exit of the guest: port write,
// MMIO write, MMIO read, doorbell (ioeventfd), message-signalled interrupt
// (irqfd), and both together (kick), as ratios to a minimal loop in C over the same ioctls (loop/loop.c),
// built and run in the same benchmark, in turn.
//
// It prints a line "name: value" for each figure: the ratios, the nanoseconds
// of both sides, and the allocations of an exit. A ratio is the median of those
// of the pairs.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/kvm"
	"fifovm/vmm/memory"
)

//go:embed loop/loop.c
var source string

func main() {
	var (
		prebuilt = flag.String("loop", "", "run this C program, built before by -build, instead of building it")
		build    = flag.String("build", "", "build the C program, statically linked, as this file and do nothing else")
		pairs    = flag.Int("pairs", 15, "how often each side runs, in turn with the other")
		span     = flag.Duration("time", 60*time.Millisecond, "how long a run should take")
		only     = flag.String("only", "", "measure only this: "+names())
		bar      = flag.Float64("bar", 0, "fail where a ratio, but for the kick's, is above this; 0: never")
	)
	flag.Parse()
	if flag.NArg() > 0 || *pairs < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*prebuilt, *build, *pairs, *span, *only, *bar); err != nil {
		fmt.Fprintln(os.Stderr, "exitbench:", err)
		os.Exit(1)
	}
}

func names() string {
	var list []string
	for _, k := range kinds {
		list = append(list, k.name)
	}
	return strings.Join(list, ", ")
}

func run(prebuilt, build string, pairs int, span time.Duration, only string, bar float64) error {
	if build != "" {
		return compile(build)
	}
	dir, err := os.MkdirTemp("", "exitbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := kvm.Look(""); err != nil {
		return err
	}
	b := &bench{program: prebuilt, file: filepath.Join(dir, "image"), pairs: pairs, span: span}
	if prebuilt == "" {
		b.program = filepath.Join(dir, "loop")
		if err := compile(b.program); err != nil {
			return err
		}
	}
	var above []string
	for i := range kinds {
		k := &kinds[i]
		if only != "" && only != k.name {
			continue
		}
		ratio, err := b.compare(k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if bar > 0 && ratio > bar && !k.rings { // a kick is for information

			above = append(above, fmt.Sprintf("%s %.3f", k.name, ratio))
		}
	}
	// The runtime's own few, for its timers and threads, are less than the
	// thousandth that this is rounded to.
	fmt.Printf("allocs_per_exit: %v\n", math.Round(float64(b.allocations)/float64(b.exits)*1000)/1000)
	if above != nil {
		return fmt.Errorf("above %v: %s", bar, strings.Join(above, ", "))
	}
	return nil
}

// compile builds the C program. It is statically linked, so that it runs where
// there is no C library.
func compile(out string) error {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return errors.New("needs gcc to build the C program: apt-get install gcc libc6-dev, or give a built one with -loop")
	}
	cmd := exec.Command(gcc, "-O2", "-Wall", "-static", "-pthread", "-x", "c", "-o", out, "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(source), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("gcc of the C program: %w", err)
	}
	return nil
}

// patience is how long a run may take.
const patience = 20 * time.Second

// tscKHz is in the CPUID table of the C side's guest, which does not ask.
const tscKHz = 2_000_000

type bench struct {
	program string // the C side
	file    string // what the C side is given
	pairs   int
	span    time.Duration

	allocations, exits uint64 // of the Go side, in all runs
}

// compare measures both sides in turn, prints, and gives the ratio.
func (b *bench) compare(k *kind) (float64, error) {
	// A first run says how many rounds there are in the time.
	const trial = 1000
	ns, err := b.runC(k, trial)
	if err != nil {
		return 0, err
	}
	rounds := max(trial, uint64(float64(b.span)/ns))
	var ratios, c, g []float64
	for range b.pairs {
		nsC, err := b.runC(k, rounds)
		if err != nil {
			return 0, err
		}
		nsGo, err := b.runGo(k, rounds)
		if err != nil {
			return 0, err
		}
		c, g, ratios = append(c, nsC), append(g, nsGo), append(ratios, nsGo/nsC)
	}
	r := median(ratios)
	// The fastest runs are those that a busy host disturbed least.
	best := slices.Min(g) / slices.Min(c)
	fmt.Printf("%[1]s_ratio: %.3[2]f\n%[1]s_best_ratio: %.3[3]f\n%[1]s_c_ns: %.0[4]f\n%[1]s_go_ns: %.0[5]f\n", k.name, r, best, median(c), median(g))
	return r, nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// runC gives the ns of a round in C.
func (b *bench) runC(k *kind, rounds uint64) (float64, error) {
	if err := writeFile(b.file, k, rounds, tscKHz); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.program, b.file).Output()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("the C program's guest did not end within %v", patience)
	}
	if err != nil {
		var e *exec.ExitError
		if errors.As(err, &e) {
			return 0, fmt.Errorf("the C program: %w: %s", err, e.Stderr)
		}
		return 0, fmt.Errorf("the C program: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// runGo gives the ns of a round in Go: the engine as a machine uses it, with
// buses, lock and clock.
func (b *bench) runGo(k *kind, rounds uint64) (_ float64, err error) {
	ram, err := memory.New(ramSize)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ram.Close()) }()
	if err := image(ram, k); err != nil {
		return 0, err
	}
	cfg := kvm.Config{CPUs: 1, RAM: ram, Ports: bus.NewPorts(), MMIO: bus.NewMMIO(), Clock: clock.New(clock.NewHost()), Lock: new(sync.Mutex)}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	d := &device{}
	m := &measurement{stop: stop}
	raiser := &raiser{}
	if err := errors.Join(
		cfg.Ports.Map(port, 4, "device", d),
		cfg.MMIO.Map(window, 0x2000, "device", d),
		cfg.Ports.Map(startPort, 1, "start", start{m}),
		cfg.Ports.Map(endPort, 1, "end", end{m}),
		cfg.Ports.Map(msiPort, 1, "raise", raiser),
	); err != nil {
		return 0, err
	}
	e, err := kvm.New(cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	bell, err := e.NewDoorbell(doorbell, 4, func() {
		d.last++
		if k.rings {
			raiser.Write(0, nil)
		}
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bell.Close()) }()
	if raiser.vector, err = e.NewVector(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, raiser.vector.Close()) }()
	if err := errors.Join(raiser.vector.Route(localAPIC, vector), e.SetState(state(k, rounds))); err != nil {
		return 0, err
	}
	if err := e.Run(ctx); err != nil {
		return 0, err
	}
	if m.end.IsZero() || raiser.err != nil {
		return 0, errors.Join(fmt.Errorf("the guest did not end within %v", patience), raiser.err)
	}
	b.allocations += m.after.Mallocs - m.before.Mallocs
	b.exits += rounds
	return float64(m.end.Sub(m.start)) / float64(rounds), nil
}

// device keeps what it gets.
type device struct{ last uint64 }

func (d *device) Read(_ uint64, data []byte) {
	for i := range data {
		data[i] = 0x5a
	}
}

func (d *device) Write(_ uint64, data []byte) { d.last = uint64(data[0]) }

// measurement is from the guest's write to startPort to its last one.
type measurement struct {
	before, after runtime.MemStats
	start, end    time.Time
	stop          context.CancelFunc
}

type start struct{ *measurement }

func (s start) Read(uint64, []byte) {}

func (s start) Write(uint64, []byte) {
	runtime.ReadMemStats(&s.before)
	s.start = time.Now()
}

type end struct{ *measurement }

func (e end) Read(uint64, []byte) {}

func (e end) Write(uint64, []byte) {
	e.end = time.Now()
	runtime.ReadMemStats(&e.after)
	e.stop()
}

// raiser raises an interrupt for each write.
type raiser struct {
	vector *kvm.Vector
	err    error
}

func (r *raiser) Read(uint64, []byte) {}

func (r *raiser) Write(uint64, []byte) {
	if err := r.vector.Raise(); err != nil {
		r.err = err
	}
}
