package harness

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// What a test prints, as the kernel's Documentation/dev-tools/ktap.rst has it.
var (
	ktapPlan   = regexp.MustCompile(`^1\.\.(\d+)(?:\s|$)`)
	ktapResult = regexp.MustCompile(`^(not )?ok\b *(\d*) *(?:- )?(.*)$`)
	// ktapDirective is at the end of a result line, behind a space: a name may
	// have a # in it.
	ktapDirective = regexp.MustCompile(`\s# (SKIP|TODO|XFAIL)\b.*$`)
)

// ktap is what the result lines of a test say.
type ktap struct {
	planned    int // checks; 0 without a plan
	seen       int
	passes     int
	failed     []string // names
	unreadable string   // the first line that breaks the order or the form
	hasPlan    bool
}

// check is the result of one check.
type check struct {
	name    string // its number where it has none
	verdict Verdict
	reason  string // behind SKIP
}

// read reads a line that a test printed, and gives the result that it is, nil
// where it is none. Subtests of checks are indented and so not looked at: their
// check tells their result.
func (k *ktap) read(line string) *check {
	if m := ktapPlan.FindStringSubmatch(line); m != nil && !k.hasPlan {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			k.complain(line)
		}
		k.hasPlan, k.planned = true, n
		return nil
	}
	if strings.HasPrefix(line, "Bail out!") {
		k.complain(line)
		return nil
	}
	m := ktapResult.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	k.seen++
	if m[2] != strconv.Itoa(k.seen) {
		k.complain(line)
	}
	c := &check{name: m[3]}
	directive := ""
	if d := ktapDirective.FindStringSubmatchIndex(c.name); d != nil {
		directive = c.name[d[2]:d[3]]
		c.reason, c.name = strings.TrimLeft(c.name[d[3]:], ": "), c.name[:d[0]]
	}
	name, diagnosis, _ := strings.Cut(c.name, " # ")
	if c.name = name; c.reason == "" {
		c.reason = diagnosis
	}
	if c.name == "" {
		c.name = strconv.Itoa(k.seen)
	}
	switch {
	case directive == "SKIP":
		c.verdict = Skipped
	case m[1] == "":
		k.passes++
	case directive == "":
		c.verdict = Failed
		k.failed = append(k.failed, c.name)
	default: // TODO and XFAIL: known not to work, and so no news
		c.verdict, c.reason = Skipped, strings.TrimSpace("known to fail: "+c.reason)
	}
	return c
}

func (k *ktap) complain(line string) {
	if k.unreadable == "" {
		k.unreadable = line
	}
}

// complete says what is wrong with the results of a test that ended well: its
// status alone does not show that it tested anything.
func (k *ktap) complete() error {
	switch {
	case !k.hasPlan:
		return errors.New("it ended well without a plan (\"1..N\") of its checks")
	case k.unreadable != "":
		return fmt.Errorf("it ended well, but its results are out of order: %q", k.unreadable)
	case len(k.failed) > 0:
		return fmt.Errorf("it ended well, but failed: %s", strings.Join(k.failed, ", "))
	case k.seen != k.planned:
		return fmt.Errorf("it ended well after %d of %d checks", k.seen, k.planned)
	}
	return nil
}

// passed is complete for a test that says that it passed.
func (k *ktap) passed() error {
	if err := k.complete(); err != nil {
		return err
	}
	if k.passes == 0 {
		return errors.New("it ended well without a check that passed")
	}
	return nil
}

// skipped is complete for a test that says that it was skipped, before it began
// or check by check.
func (k *ktap) skipped() error {
	if !k.hasPlan && k.seen == 0 {
		return nil
	}
	return k.complete()
}
