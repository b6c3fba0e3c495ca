package harness

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// What a test prints, as the kernel's Documentation/dev-tools/ktap.rst has it.
var (
	ktapPlan   = regexp.MustCompile(`^1\.\.(\d+)(?: #.*)?$`)
	ktapResult = regexp.MustCompile(`^(not )?ok (\d+)\b(?: - )? ?([^#]*?)(?: # (SKIP|TODO|XFAIL)\b.*| #.*)?$`)
)

// ktap is the result lines of a test.
type ktap struct {
	planned, seen int      // planned is -1 without a plan
	failed        []string // names
}

// parseKTAP reads the result lines in what a test printed. Subtests of checks
// are indented and so not looked at: their check tells their result.
func parseKTAP(output []string) ktap {
	k := ktap{planned: -1}
	for _, line := range output {
		if m := ktapPlan.FindStringSubmatch(line); m != nil && k.planned < 0 {
			if n, err := strconv.Atoi(m[1]); err == nil {
				k.planned = n
			}
		} else if m := ktapResult.FindStringSubmatch(line); m != nil {
			k.seen++
			if m[1] != "" && m[4] == "" {
				name := m[3]
				if name == "" {
					name = m[2]
				}
				k.failed = append(k.failed, name)
			}
		}
	}
	return k
}

// passed says what is wrong with the results of a test that says that it
// passed: a program that ends well has not shown yet that it tested anything.
func (k ktap) passed() error {
	switch {
	case k.planned < 0:
		return errors.New("it ended well without a plan (\"1..N\") of its checks")
	case k.seen != k.planned:
		return fmt.Errorf("it ended well after %d of %d checks", k.seen, k.planned)
	case k.planned == 0:
		return errors.New("it ended well without a check")
	case len(k.failed) > 0:
		return fmt.Errorf("it ended well, but failed: %s", k.failed[0])
	}
	return nil
}
