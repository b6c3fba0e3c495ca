package splat

import (
	"path"
	"regexp"
	"strings"
)

// What titles become in a reason. Behind it, the place follows.
var reasons = []struct {
	title *regexp.Regexp
	short string
}{
	{regexp.MustCompile(`^BUG: kernel NULL pointer dereference, address: 0*([0-9a-f]+)$`), "NULL pointer dereference at 0x$1"},
	{regexp.MustCompile(`^BUG: unable to handle page fault for address: 0*([0-9a-f]+)$`), "page fault at 0x$1"},
	{regexp.MustCompile(`^(?:Oops: )*([a-z][\w ]*?)(?:, probably for.*|: [0-9a-f]{4} \[#.*)$`), "$1"},
	{regexp.MustCompile(`^kernel BUG at \S+$`), "BUG"},
	{regexp.MustCompile(`^WARNING: CPU: \d+ PID: \d+ at \S+ .*$`), "WARNING"},
	{regexp.MustCompile(`^WARNING: \S+:\d+ at .*$`), "WARNING"},
	{regexp.MustCompile(`^BUG: (sleeping function called from invalid context) at \S+$`), "$1"},
	{regexp.MustCompile(`^BUG: (scheduling while atomic): .*$`), "$1"},
	{regexp.MustCompile(`^(?:watchdog: )?BUG: soft lockup - (CPU#\d+ stuck for \d+s)! .*$`), "soft lockup: $1"},
	{regexp.MustCompile(`^(?:watchdog: )?.*hard LOCKUP (on cpu \d+).*$`), "hard lockup $1"},
	{regexp.MustCompile(`^INFO: task (.*) (?:blocked for more than|in I/O wait for more than) (.*)\.$`), "hung task: $1 blocked for more than $2"},
	{regexp.MustCompile(`^(?:rcu: )?INFO: (.*?):?(?: \{.*)?$`), "RCU stall: $1"},
	{regexp.MustCompile(`^Kernel panic - not syncing: (.*)$`), "kernel panic: $1"},
	{regexp.MustCompile(`^WARNING: (.*)$`), "lockdep: $1"},
	{regexp.MustCompile(`^BUG: (.*)$`), "$1"},
}

var (
	// instruction is where the kernel was when it was stopped.
	instruction = regexp.MustCompile(`^RIP: 0010:`)
	// heldAt is how lockdep names a lock and where it was taken.
	heldAt = regexp.MustCompile(`\((\S+?)\)\{.*\}.*, at: `)
	// shadow is what KASAN makes of an address that can't be.
	shadow = regexp.MustCompile(`^KASAN: (\S+) in range `)
	// unsure begins an address in a backtrace that may be left from before.
	unsure = regexp.MustCompile(`^\s*\? `)
	// selfSaying are reasons to which the first function on the stack adds nothing.
	selfSaying = regexp.MustCompile(`^(?:UBSAN|DMA-API|kernel panic): `)
	// dmaAPI are those of the DMA API's debugging, which are about a mapping.
	dmaAPI = regexp.MustCompile(`^DMA-API: `)
	// foundAt is a file and line that UBSAN gives.
	foundAt = regexp.MustCompile(`^(UBSAN: .* in )(/\S+):(\d+):\d+$`)
)

// mappedAt is what the DMA API's debugging puts before the backtrace of who made a
// mapping.
const mappedAt = "DMA-API: Mapped at:"

// maxReason bounds a reason.
const maxReason = 300

// Reason says in one line what the kernel complained about and where, as
// "KASAN: slab-use-after-free in fifo_request_put, request.c:123". s may be nil.
// Where the kernel's own code found it, the first function of a module on the
// stack is named as well.
func (r *Report) Reason(s *Symbols) string {
	if len(r.Lines) == 0 {
		return ""
	}
	title := r.title
	if title == "" {
		title, _ = text(r.Lines[min(1, len(r.Lines)-1)])
	}
	var site, driver, first, lock, message, mapper string
	site, title = s.cutSite(title)
	tracing, mapped := false, false
	for i, line := range r.Lines {
		t, _ := text(line)
		if i == 1 && message == "" && t != r.title {
			if begin, _ := text(r.Lines[0]); begin == cut {
				message = t
			}
		}
		if m := shadow.FindStringSubmatch(t); m != nil {
			title = "KASAN: " + m[1]
		}
		at := s.site(t)
		switch {
		case t == "Call Trace:":
			tracing = true
		case t == mappedAt:
			mapped = true
		case at == "":
		case mapped:
			if mapper == "" && reference.FindStringSubmatch(t)[4] != "" {
				mapper = at
			}
		case lock == "" && heldAt.MatchString(t):
			lock = heldAt.FindStringSubmatch(t)[1] + " at " + at
		case instruction.MatchString(t):
			if site == "" {
				site = at
			}
		case tracing && !unsure.MatchString(t):
			if first == "" {
				first = at
			}
			if driver == "" && reference.FindStringSubmatch(t)[4] != "" {
				driver = at
			}
		}
	}
	reason := title
	for _, x := range reasons {
		if x.title.MatchString(title) {
			reason = x.title.ReplaceAllString(title, x.short)
			break
		}
	}
	if m := foundAt.FindStringSubmatch(title); m != nil {
		reason = m[1] + s.short(m[2]) + ":" + m[3]
	}
	if dmaAPI.MatchString(reason) {
		site = "" // in the debugging itself
	}
	if mapper != "" {
		return clip(reason+", mapped by "+mapper, maxReason)
	}
	if site == "" && driver == "" && lock == "" && !selfSaying.MatchString(reason) {
		site = first
	}
	switch {
	case strings.HasPrefix(reason, "lockdep: ") && lock != "":
		reason += ": " + lock
	case site != "":
		reason += " in " + site
	}
	if message != "" {
		reason += ": " + message
	}
	if driver != "" && !strings.Contains(reason, driver) && !r.inModule(strings.HasPrefix(reason, "lockdep: ")) {
		reason += ", from " + driver
	}
	return clip(reason, maxReason)
}

// inModule tells whether a report's own place is in a module. Of locks, only
// lockdep's own reports are about the place where they were taken.
func (r *Report) inModule(lockdep bool) bool {
	for _, line := range r.Lines {
		t, _ := text(line)
		m := reference.FindStringSubmatch(t)
		if m == nil || m[4] == "" {
			continue
		}
		if t == r.title || instruction.MatchString(t) || lockdep && heldAt.MatchString(t) {
			return true
		}
	}
	return false
}

// cutSite takes the address out of a title: "KASAN: use-after-free in ADDRESS".
func (s *Symbols) cutSite(title string) (site, rest string) {
	m := reference.FindStringSubmatchIndex(title)
	if m == nil {
		return "", title
	}
	rest = title[:m[0]]
	if strings.HasPrefix(title, "WARNING: ") {
		return s.site(title), rest + title[m[0]:]
	}
	return s.site(title), strings.TrimSuffix(rest, " in ")
}

// site is the first address in a line, as function and place. Of what is inlined
// there it is the innermost that is not in a header of the kernel: those are
// what all use.
func (s *Symbols) site(t string) string {
	m := reference.FindStringSubmatchIndex(t)
	if m == nil {
		return ""
	}
	places := s.matched(t, m)
	for _, p := range places {
		if !strings.HasPrefix(p.File, "include/") && !strings.HasPrefix(p.File, "arch/") {
			return p.String()
		}
	}
	if len(places) > 0 {
		return places[0].String()
	}
	site := t[m[2]:m[3]]
	if m[8] >= 0 {
		site += " [" + t[m[8]:m[9]] + "]"
	}
	return site
}

// Sites replaces each address of code in a line by its function and place, as
// reasons have them.
func (s *Symbols) Sites(line string) string {
	return reference.ReplaceAllStringFunc(line, s.site)
}

// short leaves out of a file's name the folders of the kernel and of the modules.
func (s *Symbols) short(file string) string {
	if s == nil {
		return path.Base(file)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.modules {
		m.readUnits()
		if short := m.short(file); short != path.Clean(file) {
			return short
		}
	}
	if s.kernel != nil {
		s.kernel.readUnits()
		return s.kernel.short(file)
	}
	return path.Base(file)
}

// clip cuts off what is too long for a line.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 { // not in a character
		most--
	}
	return s[:most] + "..."
}

var (
	// noise are lines that nobody reads before all else has failed.
	noise = regexp.MustCompile(`^(?:` +
		`R(?:[A-D]X|[SD]I|[SB]P|\d\d): |Code: |[CDEFG]S: |CR\d: |DR\d: |PKRU: |Modules linked in: |Tainted: |Hardware name: |` +
		`irq event stamp: |(?:hard|soft)irqs last |` +
		`(?:page|flags|page_type|raw): |page dumped because: |Memory state around |[ >][0-9a-f]{16}: |\s*\^$|` +
		`---\[ |-----|=====|\s*$|\s*\? |\s*</?[A-Z]+>$` +
		`)`)
	user = regexp.MustCompile(`^RIP: 0033:`)
)

// Condense leaves out of a report, decoded or not, what a first look needs not:
// times, registers, bytes of code, addresses that the kernel is not sure of.
func Condense(lines []string) []string {
	var c []string
	again := false // an oops shows its registers again at its end
	for _, line := range lines {
		t, _ := text(line)
		again = again || ended.MatchString(t)
		if !noise.MatchString(t) && !user.MatchString(t) && !(again && instruction.MatchString(t)) {
			c = append(c, t)
		}
	}
	return c
}
