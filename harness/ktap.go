package harness

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What a test prints, as the kernel's Documentation/dev-tools/ktap.rst has it.
var (
	ktapPlan   = regexp.MustCompile(`^1\.\.(\d+)(?:\s|$)`)
	ktapResult = regexp.MustCompile(`^(not )?ok\b *(\d*)(?: +(?:- )?(.*))?$`)
	// ktapDirective is at the end of a result line: a name may have a # in it, but
	// not behind a space.
	ktapDirective = regexp.MustCompile(`\s# (SKIP|TODO|XFAIL)\b.*$`)
)

// ktap is what the result lines of a program say. A line counts that has the number
// which comes next and, where it is known which checks there are, the name of one of
// those that are left. All others are output, as when a check runs what prints results
// of its own.
type ktap struct {
	due     []string // the names of the checks that have not ended, in order
	named   bool     // due is known
	planned int      // checks; 0 without a plan
	hasPlan bool
	seen    int
	passes  int
	failed  []string // names
	stray   string   // the first line like a result that does not count
	bailOut string   // the line in which the program gives up
}

// newKTAP is for a program that is to make these checks, nil if that isn't known.
func newKTAP(checks []string) ktap {
	return ktap{due: slices.Clone(checks), named: len(checks) > 0}
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
		if n, err := strconv.Atoi(m[1]); err == nil {
			k.hasPlan, k.planned = true, n
		}
		return nil
	}
	if strings.HasPrefix(line, "Bail out!") && k.bailOut == "" {
		k.bailOut = line
		return nil
	}
	m := ktapResult.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	c, directive := parseResult(m)
	if m[2] != strconv.Itoa(k.seen+1) || !k.isDue(c.name) {
		if k.stray == "" {
			k.stray = line
		}
		return nil
	}
	k.seen++
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

// isDue is whether the check with that name may be the next to end, which it is then.
func (k *ktap) isDue(name string) bool {
	if !k.named {
		return true
	}
	i := slices.Index(k.due, name)
	if i < 0 {
		return false
	}
	k.due = slices.Delete(k.due, i, i+1)
	return true
}

// short is whether checks of the plan are missing.
func (k *ktap) short() bool { return k.hasPlan && k.seen < k.planned }

// parseResult takes a result line apart, as ktapResult has matched it.
func parseResult(m []string) (c *check, directive string) {
	c = &check{name: " " + m[3]}
	if d := ktapDirective.FindStringSubmatchIndex(c.name); d != nil {
		directive = c.name[d[2]:d[3]]
		c.reason, c.name = strings.TrimLeft(c.name[d[3]:], ": "), c.name[:d[0]]
	}
	name, diagnosis, _ := strings.Cut(c.name, " # ")
	if c.name = strings.TrimSpace(name); c.reason == "" {
		c.reason = diagnosis
	}
	if c.name == "" {
		c.name = m[2]
	}
	return c, directive
}

// complete says what is wrong with the results of a test that ended well: its
// status alone does not show that it tested anything.
func (k *ktap) complete() error {
	switch {
	case !k.hasPlan:
		return errors.New("it ended well without a plan (\"1..N\") of its checks")
	case k.bailOut != "":
		return fmt.Errorf("it ended well, but said %q", k.bailOut)
	case k.seen != k.planned:
		return fmt.Errorf("it ended well after %d of %d checks%s", k.seen, k.planned, k.why())
	case len(k.failed) > 0:
		return fmt.Errorf("it ended well, but failed: %s", strings.Join(k.failed, ", "))
	}
	return nil
}

// why says what may be the cause where results are missing.
func (k *ktap) why() string {
	switch {
	case k.stray == "" || !k.short():
		return ""
	case !k.named:
		return fmt.Sprintf("; %q was not result %d", k.stray, k.seen+1)
	case len(k.due) == 0:
		return ""
	}
	return fmt.Sprintf("; %q was not result %d, of check %s", k.stray, k.seen+1, k.due[0])
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
