package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fifovm/harness"
	benches "fifovm/harness/bench"
	"fifovm/harness/report"
	"fifovm/harness/splat"
	"fifovm/vmm/vmm"
)

// tests is what the flags of the test command say, but for the guest.
type tests struct {
	guest
	verbose, list          bool
	run, skip              pattern
	repeat, jobs           int
	noSnapshot             bool
	bootTime, testTime     time.Duration
	junit, json, artifacts string

	// The file of the snapshot that guests begin at, empty where there is to be none;
	// and where they begin, if it is there already.
	base    string
	start   *vmm.Base
	unsaved error // why it could not be kept
}

func testCommand() *cobra.Command {
	var t tests
	c := &cobra.Command{
		Use:   "test [flags] [PROGRAM[/CHECK...]...]",
		Short: "Run tests in a guest and judge them",
		Long: `Boots a guest whose image has the test agent (guest/agent) and programs in /tests, runs those that
are named, or all, and judges each of their checks: by what it says itself, by the kernel's log, by the
faults that it armed, by the time it takes, and by what is left when the driver is unloaded. A test is a
check, PROGRAM/CHECK; PROGRAM/CHECK/CHECK runs two of them together. --run and --skip choose by regular
expressions, --list lists what there is.

Without --kernel, --initrd and --device the guest is what ` + "`make vm-test`" + ` builds: kernel 6.12, the tests
of the driver, and one of each device.

--module and --test-program bring a driver and tests of your own, without a new image; as in

  fifovm test --module card.ko,debug=1 --test-program card_test --device edu

harness/bench is the same for Go's tests.

Each test has a guest of its own: one is booted until its driver is loaded and its agent ready, and each
test begins there, --jobs of them at a time. What it begins at is kept in build/bases, and used as long as
nothing that went into it has changed. --snapshot FILE begins at another one. --no-snapshot boots a guest,
which runs tests as long as it lives.

A failure is told with its place, the kernel's report or the end of the console, and the command that
runs it again. What there is of it is kept in build/failures (--artifacts): fifovm replay repeats it from
there, to the instruction. The last line is "N passed, N failed, N skipped".

With --fault each program has a guest of its own, in which faults count from the boot on. If one never
fired, the run is invalid, and has failed. So has a test that armed a fault itself (guest/agent/README.md)
which never fired. --trace implies --no-snapshot; the trace of a second guest is in FILE-2, and so on.

On engine soft a guest stands still while its host thinks: with the same files and flags a run is the
same, tests included. --repeat repeats the tests with one seed after the other, and ends at the first
repetition in which one fails.

Exit status:
  0  all tests passed, or were skipped beside some that passed
  1  a test failed, a fault never fired, or a report could not be written
  2  wrong flags, files that can't be used, or a host that can't do it
  128+N  ended by signal N; what was done is reported`,
		Example: `  fifovm test
  fifovm test --list
  fifovm test -k debug -c 4 --run 'fifo_aio/cancel' --artifacts build/failures
  fifovm test -v boot/clock
  fifovm test --repeat 100 --seed 1 -c 4 fifo_stress
  fifovm test --fault "edu0/device:reset@3 on event" devices --junit build/report.xml`,
		RunE: func(c *cobra.Command, names []string) error { return t.main(c, names) },
	}
	f := c.Flags()
	t.guest.flags(f)
	f.BoolVarP(&t.verbose, "verbose", "v", false, "show the guest's console, and what the tests print, as it comes")
	f.BoolVarP(&t.list, "list", "l", false, "list the tests instead of running them")
	f.VarP(&t.run, "run", "r", "run the tests whose names match the regular `expression` only")
	f.Var(&t.skip, "skip", "leave out the tests whose names match the regular `expression`")
	f.IntVar(&t.repeat, "repeat", 1, "run all `times` times, until one fails, each time with the next seed")
	f.StringVar(&t.junit, "junit", "", "write a report for CI to the XML `file`")
	f.StringVar(&t.json, "json", "", "write the results to the JSON `file`")
	f.StringVar(&t.artifacts, "artifacts", "", "make a folder in `folder` for each failure, with all that there is of it (default build/failures, where there is a folder build)")
	f.IntVarP(&t.jobs, "jobs", "j", 0, "run this `number` of guests at a time (default: as many as there are processors; with --verbose, 1)")
	f.StringVar(&t.guest.snapshot, "snapshot", "", "have the tests begin at the guest in `file`, one of fifovm test's own; see fifovm snapshot info")
	f.BoolVar(&t.noSnapshot, "no-snapshot", false, "boot a guest, and another one when it has died, in place of a fresh one for each test")
	f.StringArrayVar(&t.modules, "module", nil, "load the kernel module `file`, as in card.ko or card.ko,parameter=value, in place of the image's driver; may be repeated")
	f.StringArrayVar(&t.programs, "test-program", nil, "run the static program `file` in place of the image's tests; may be repeated")
	f.DurationVar(&t.bootTime, "boot-timeout", 5*time.Minute, "bound on a boot")
	f.DurationVar(&t.testTime, "timeout", 3*time.Minute, "bound on a test")
	return c
}

// pattern is a flag's value: a regular expression, nil if not given.
type pattern struct{ *regexp.Regexp }

// Set reads a value from the command line.
func (p *pattern) Set(s string) (err error) {
	if p.Regexp, err = regexp.Compile(s); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

func (p *pattern) String() string {
	if p.Regexp == nil {
		return ""
	}
	return p.Regexp.String()
}

// Type is what help calls the value.
func (p *pattern) Type() string { return "expression" }

func (t *tests) main(c *cobra.Command, names []string) error {
	switch {
	case t.repeat < 1:
		return errors.New("--repeat: want 1 or more")
	case t.testTime <= 0 || t.bootTime <= 0:
		return errors.New("--timeout and --boot-timeout: want more than 0")
	case t.jobs < 0 || t.jobs == 0 && c.Flags().Changed("jobs"):
		return errors.New("--jobs: want 1 or more")
	case t.jobs > 1 && (t.noSnapshot || t.bench.trace != ""):
		return errors.New("--jobs: with --no-snapshot or --trace there is one guest at a time")
	case t.guest.snapshot != "" && (t.noSnapshot || t.bench.trace != "" || len(t.bench.faults) > 0 || t.repeat > 1):
		return errors.New("--snapshot: it goes with none of --no-snapshot, --trace, --fault and --repeat, which want a boot")
	}
	for _, name := range names {
		if strings.Contains("/"+name+"/", "//") {
			return fmt.Errorf("test %q: want PROGRAM or PROGRAM/CHECK", name)
		}
	}
	if t.guest.snapshot == "" {
		if err := t.defaults(); err != nil {
			return err
		}
	}
	if dir := buildDir(); dir != "" && !c.Flags().Changed("artifacts") {
		t.artifacts = filepath.Join(dir, "failures")
	}
	if err := errors.Join(writable("--junit", t.junit), writable("--json", t.json)); err != nil {
		return err
	}
	if err := t.open(); err != nil {
		return err
	}
	said := io.Writer(os.Stdout)
	if t.list {
		said = os.Stderr
	}
	if err := t.chooseEngine(said); err != nil {
		return err
	}
	if t.list {
		var all []string
		err := t.withBase(c.Context(), func(ctx context.Context) (err error) {
			all, err = harness.List(ctx, t.options(names, nil))
			return err
		})
		if err = errors.Join(stopped(c.Context()), err); err != nil {
			return err
		}
		_, err = fmt.Println(strings.Join(all, "\n"))
		return err
	}
	reporter, err := t.reporter()
	if err != nil {
		return err
	}
	results, err := t.repeated(c, names, reporter)
	if err = errors.Join(stopped(c.Context()), err); err != nil {
		return errors.Join(err, reporter.Err())
	}
	if err := reporter.Err(); err != nil {
		return &statusError{statusFailed, err}
	}
	if n := harness.Count(results, harness.Failed); n > 0 {
		return &statusError{statusFailed, fmt.Errorf("%d of %d tests failed", n, len(results))}
	}
	if harness.Count(results, harness.Passed) == 0 {
		return &statusError{statusFailed, errors.New("no test passed: all were skipped")}
	}
	return nil
}

// writable finds out early whether a report can be written in the end.
func writable(flag, path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", flag, err)
	case !info.IsDir():
		return fmt.Errorf("%s: %s is no folder", flag, filepath.Dir(path))
	}
	return nil
}

// reporter is all that wants to be told of results.
func (t *tests) reporter() (report.Tee, error) {
	decoder := report.NewDecoder(t.symbols())
	all := report.Tee{decoder}
	if t.artifacts != "" {
		a, err := report.NewArtifacts(t.artifacts, decoder.Whole, t.copyBase)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	width := 0
	if fd := int(os.Stdout.Fd()); term.IsTerminal(fd) && !t.verbose {
		if w, _, err := term.GetSize(fd); err == nil && w > 20 {
			width = w
		}
	}
	all = append(all, report.NewTerminal(os.Stdout, width, decoder.Short))
	if t.junit != "" {
		all = append(all, report.NewJUnit(t.junit, decoder.Short))
	}
	if t.json != "" {
		all = append(all, report.NewJSON(t.json))
	}
	return all, nil
}

// symbols are those of the kernel and of what is loaded into it, nil if there are
// none: then reports of the kernel name functions and no lines.
func (t *tests) symbols() *splat.Symbols {
	// Files that can't be read are an error where they are used.
	s, _ := splat.Open(builtKernel(t.kernel), t.moduleFiles()...)
	return s
}

// repeated runs the tests as often as is asked for. What is told at the end is
// told once, of all.
func (t *tests) repeated(c *cobra.Command, names []string, reporter report.Tee) (results []*harness.Result, err error) {
	for range t.repeat {
		var some []*harness.Result
		err = t.withBase(c.Context(), func(ctx context.Context) (err error) {
			some, err = harness.Run(ctx, t.options(names, during{reporter}))
			return errors.Join(err, t.bench.finish())
		})
		results = append(results, some...)
		if err != nil || harness.Count(some, harness.Failed) > 0 {
			break
		}
		t.seed++
	}
	reporter.Finished(results, errors.Join(stopped(c.Context()), err))
	return results, err
}

// during is a reporter that is not told of the end.
type during struct{ harness.Reporter }

func (during) Finished([]*harness.Result, error) {}

// agentWords are the kernel's parameters of a guest with tests, but for --append's.
func (t *tests) agentWords() string {
	words := benches.Words(harness.KernelWords, benches.MachineWords(t.cpus, uint64(t.memory), uint64(t.seed)))
	if len(t.bench.devices) > 0 {
		words += " fifovm.devices=" + t.bench.devices.models()
	}
	return words
}

// options is one run of the tests.
func (t *tests) options(names []string, reporter harness.Reporter) harness.Options {
	o := harness.Options{
		Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
			if err := t.bench.finish(); err != nil { // the guest before this one
				return nil, err
			}
			return t.machine(t.agentWords(), serial)
		},
		Jobs:       t.jobs,
		Tests:      names,
		Select:     t.run.Regexp,
		Skip:       t.skip.Regexp,
		Alone:      len(t.bench.faults) > 0,
		BootTime:   t.bootTime,
		TestTime:   t.testTime,
		AnswerTime: max(t.testTime, slowAnswer),
		Reporter:   reporter,
		Symbol:     t.image.Symbol,
		Plan:       t.bench.plan,
		Seed:       uint64(t.seed),
		Command:    t.again,
	}
	if t.verbose {
		o.Console, o.Output = os.Stdout, os.Stdout
	}
	if t.noSnapshot || t.bench.trace != "" {
		return o
	}
	if o.Jobs == 0 && !t.verbose {
		o.Jobs = runtime.NumCPU()
	}
	o.From, o.Ready = t.fromBase, t.saveBase
	if t.file != nil {
		o.Base, o.BaseConsole, o.Ready = t.start, t.file.Console, nil
	}
	return o
}

// slowAnswer bounds what is no test's: kmemleak's scans before the end take a debug
// kernel over a minute.
const slowAnswer = 5 * time.Minute

// notAgain are flags that do not make a test what it is.
var notAgain = []string{"run", "skip", "list", "repeat", "junit", "json", "artifacts", "trace", "verbose", "seed", "jobs", "no-snapshot"}

// again is the command that runs a test again.
func (t *tests) again(test string) string {
	words := []string{os.Args[0], "test"}
	t.set.Visit(func(f *pflag.Flag) {
		if slices.Contains(notAgain, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			values = many.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+f.Name, quoted(v))
		}
	})
	if t.engine == vmm.EngineSoft {
		words = append(words, "--seed", fmt.Sprint(t.seed))
	}
	if test != "" {
		words = append(words, quoted(test))
	}
	return strings.Join(words, " ")
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./,=:@%+-", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
