package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
)

// facts are what a host offers, as far as it matters here.
type facts struct {
	Version   string `json:"version"` // fifovm's
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	Kernel    string `json:"kernel,omitempty"`
	Processor string `json:"processor,omitempty"`
	CPUs      int    `json:"cpus"`
	Memory    uint64 `json:"memory_bytes,omitempty"`           // 0: not known
	Available uint64 `json:"memory_available_bytes,omitempty"` // 0: not known
	// Extension is what the processor has to run virtual machines with: "VMX"
	// (Intel), "SVM" (AMD), or nothing.
	Extension string   `json:"virtualization"`
	Virtual   bool     `json:"virtual_machine"` // this host is one itself
	Modules   []string `json:"kvm_modules,omitempty"`
	KVM       kvmFacts `json:"kvm"`

	Engine string `json:"engine"` // that auto takes
	Reason string `json:"reason"` // why it
}

// kvmFacts are what there is to say of KVM.
type kvmFacts struct {
	Device string `json:"device"`
	Exists bool   `json:"exists"`
	Mode   string `json:"mode,omitempty"` // as ls shows it
	Owner  string `json:"owner,omitempty"`
	Group  string `json:"group,omitempty"`
	Denied bool   `json:"permission_denied"`
	// Problem is why it can't be opened and asked; empty if it can.
	Problem      string   `json:"problem,omitempty"`
	API          int      `json:"api_version,omitempty"`
	Capabilities []string `json:"missing_capabilities,omitempty"`
	Features     []string `json:"missing_features,omitempty"`
	Ring0        speed    `json:"ring0"` // the guest's kernel
	Ring3        speed    `json:"ring3"` // the guest's programs
}

// speed is how long an instruction of a guest takes, or why that isn't known.
type speed struct {
	NS      float64 `json:"ns_per_instruction,omitempty"`
	Verdict string  `json:"verdict,omitempty"` // of those below
	Problem string  `json:"problem,omitempty"`
}

// The verdicts on a speed.
const (
	native   = "native"
	emulated = "emulated"
)

func doctorCommand() *cobra.Command {
	var device, engine string
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can run guests with",
		Long: `Looks at what this host has to run guests with and says which engine --engine auto takes here. Engine
soft works everywhere; for KVM, which is faster, it measures how it runs a guest's code, and says what
is wrong and what to do about it.

Exit status:
  0  guests can run here; with --engine kvm: on KVM
  1  with --engine kvm: this host's KVM is not there, or can't run Linux well
  2  wrong flags`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, _, err := vmm.ChooseEngine(engine, device); err != nil {
				return err
			}
			f := examine(device)
			if err := f.write(os.Stdout, asJSON); err != nil {
				return &statusError{statusFailed, err}
			}
			if engine == vmm.EngineKVM && f.Engine != vmm.EngineKVM {
				return &statusError{status: statusFailed} // the report has said it
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the facts as JSON")
	c.Flags().StringVarP(&engine, "engine", "e", vmm.EngineAuto, "`what` is wanted: kvm, soft or auto; see the exit status")
	kvmDeviceFlag(c.Flags(), &device)
	return c
}

// examine collects the facts.
func examine(device string) *facts {
	f := &facts{Version: version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	f.KVM.Device = cmp.Or(device, kvm.DefaultDevice)
	f.host()
	f.KVM.file()
	h, err := kvm.Look(device)
	if err != nil {
		f.KVM.Problem = plain(err)
	} else {
		f.KVM.API, f.KVM.Capabilities, f.KVM.Features = h.API, h.Capabilities, h.Features
		f.KVM.Ring0, f.KVM.Ring3 = measure(device, 0), measure(device, 3)
	}
	f.Engine, f.Reason, _ = vmm.ChooseEngine(vmm.EngineAuto, device) // auto has an answer for every host
	f.Reason = oneLine(f.Reason)
	return f
}

func measure(device string, ring uint8) speed {
	ns, err := kvm.Speed(device, ring)
	switch {
	case err != nil:
		return speed{Problem: plain(err)}
	case ns < kvm.NativeBelow:
		return speed{NS: ns, Verdict: native}
	}
	return speed{NS: ns, Verdict: emulated}
}

// plain is an error's text without the words that the report says itself.
func plain(err error) string {
	return strings.TrimPrefix(oneLine(err.Error()), kvm.ErrUnavailable.Error()+": ")
}

func (f *facts) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(struct {
			*facts
			Problems []problem `json:"problems"`
		}{f, f.problems()})
	}
	_, err := io.WriteString(w, f.report())
	return err
}

// report is the facts for people.
func (f *facts) report() string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "fifovm %s\n\nThis host\n", f.Version)
	row("system", "%s", f.system())
	row("processor", "%s", f.processor())
	row("memory", "%s", f.memory())
	if f.OS == "linux" && f.Arch == "amd64" {
		b.WriteString("\nKVM, the part of Linux that lets the processor run a guest's code\n")
		row("extension", "%s", f.extension())
		row("modules", "%s", cmp.Or(strings.Join(f.Modules, ", "), "none is listed in /sys/module"))
		row("device", "%s", f.KVM.device())
		if f.KVM.API != 0 {
			row("interface", "version %d", f.KVM.API)
			row("capabilities", "%s", lacks(f.KVM.Capabilities, "all that fifovm needs"))
			row("features", "%s", lacks(f.KVM.Features, "promises all that the guest's processor has"))
			row("kernel code", "%s", f.KVM.Ring0.text("ring 0"))
			row("program code", "%s", f.KVM.Ring3.text("ring 3"))
		}
	}
	problems := f.problems()
	for i, p := range problems {
		if i == 0 {
			b.WriteString("\nWhat is wrong with KVM here\n")
		}
		for j, line := range wrap(p.What) {
			fmt.Fprintf(&b, "  %-3s%s\n", map[bool]string{true: fmt.Sprintf("%d.", i+1)}[j == 0], line)
		}
		for _, do := range p.Do {
			for j, line := range wrap(do) {
				fmt.Fprintf(&b, "     %-3s%s\n", map[bool]string{true: "->"}[j == 0], line)
			}
		}
	}
	fmt.Fprintf(&b, "\nConclusion: guests run here on engine %s: %s.\n", f.Engine, f.Reason)
	if f.Engine == vmm.EngineSoft {
		b.WriteString("It needs nothing of the host, and its runs are repeatable; KVM would be faster.\n")
	}
	return b.String()
}

func (f *facts) system() string {
	if f.Kernel == "" {
		return f.OS + "/" + f.Arch
	}
	return fmt.Sprintf("%s/%s, kernel %s", f.OS, f.Arch, f.Kernel)
}

func (f *facts) processor() string {
	s := fmt.Sprintf("%d CPUs", f.CPUs)
	if f.CPUs == 1 {
		s = "1 CPU"
	}
	if f.Processor != "" {
		s = f.Processor + ", " + s
	}
	if f.Virtual {
		s += "; this host is itself a virtual machine"
	}
	return s
}

func (f *facts) memory() string {
	const gib = 1 << 30
	switch {
	case f.Memory == 0:
		return "not known"
	case f.Available == 0:
		return fmt.Sprintf("%.1f GiB", float64(f.Memory)/gib)
	}
	return fmt.Sprintf("%.1f GiB, of which %.1f are available", float64(f.Memory)/gib, float64(f.Available)/gib)
}

func (f *facts) extension() string {
	name := map[string]string{"VMX": "VMX (Intel VT-x)", "SVM": "SVM (AMD-V)"}[f.Extension]
	switch {
	case name == "":
		return "neither VMX (Intel VT-x) nor SVM (AMD-V)"
	case f.Virtual:
		return name + ", nested: passed on by the host of this virtual machine"
	}
	return name
}

func (k *kvmFacts) device() string {
	if !k.Exists {
		return k.Device + " does not exist"
	}
	s := fmt.Sprintf("%s %s %s:%s, ", k.Device, k.Mode, k.Owner, k.Group)
	if k.Problem != "" {
		return s + "can't be used"
	}
	return s + "opens"
}

func lacks(list []string, all string) string {
	if len(list) == 0 {
		return all
	}
	return "lacks " + strings.Join(list, ", ")
}

func (s speed) text(ring string) string {
	if s.Problem != "" {
		return "could not be measured (" + ring + ")"
	}
	t := fmt.Sprintf("%.2g ns an instruction: %s (%s)", s.NS, s.Verdict, ring)
	if s.NS >= 10 {
		t = fmt.Sprintf("%.0f ns an instruction: %s (%s)", s.NS, s.Verdict, ring)
	}
	return t
}

// problem is something that is wrong with the host's KVM, and the ways out.
type problem struct {
	What string   `json:"what"`
	Do   []string `json:"do"`
}

// elsewhere is the way to KVM where nothing can be mended.
const elsewhere = "for KVM use another host: a PC or server with Linux on it, or a cloud machine of a kind that offers nested virtualization or is bare metal"

const lab = "in a checkout of fifovm, `make lab CMD=...` runs a command where KVM works, in an emulator, slowly"

// problems are what is wrong with KVM, the worst first.
func (f *facts) problems() []problem {
	k := &f.KVM
	switch {
	case f.OS != "linux" || f.Arch != "amd64":
		return []problem{{fmt.Sprintf("KVM is Linux's on x86-64, and this host is %s on %s.", f.OS, f.Arch), []string{elsewhere}}}
	case !k.Exists:
		return []problem{f.noDevice()}
	case k.Problem != "":
		return []problem{f.noAccess()}
	}
	list := []problem{} // not null in JSON
	if len(k.Capabilities) > 0 {
		list = append(list, problem{fmt.Sprintf("This KVM lacks %s, without which fifovm can't work.", strings.Join(k.Capabilities, ", ")),
			[]string{"use a newer kernel: those since Linux 5.10 have all of them", elsewhere}})
	}
	switch {
	case k.Ring0.Verdict == emulated:
		list = append(list, f.emulating())
	case k.Ring0.Problem != "" && len(k.Capabilities) == 0:
		list = append(list, problem{fmt.Sprintf("KVM did not run the kernel code of a small guest: %s.", k.Ring0.Problem), []string{elsewhere}})
	case k.Ring3.Problem != "" && len(k.Capabilities) == 0:
		list = append(list, problem{fmt.Sprintf("KVM did not run the program code of a small guest: %s.", k.Ring3.Problem), []string{elsewhere}})
	case k.Ring3.Verdict == emulated:
		list = append(list, problem{"This KVM runs a guest's programs instruction by instruction, which makes them some hundred times slower.", []string{elsewhere}})
	}
	if len(k.Features) > 0 && k.Ring0.Verdict != emulated {
		list = append(list, problem{fmt.Sprintf("The guest's processor has %s, which KVM does not promise here: a guest that uses it may fail.", strings.Join(k.Features, ", ")),
			[]string{"use a host with a processor of the last ten years", "in a virtual machine: give it the host's own processor (-cpu host)"}})
	}
	return list
}

// noDevice is why there is no device file.
func (f *facts) noDevice() problem {
	p := problem{What: f.KVM.Device + " does not exist."}
	switch {
	case f.KVM.Device != kvm.DefaultDevice:
		p.Do = []string{"give the path of KVM's device, or leave --kvm-device out"}
	case slices.Contains(f.Modules, "kvm_intel") || slices.Contains(f.Modules, "kvm_amd"):
		p.What += " KVM is loaded, so this is likely a container that was not given the device."
		p.Do = []string{"start the container with --device /dev/kvm"}
	case f.Extension != "":
		module := map[string]string{"VMX": "kvm_intel", "SVM": "kvm_amd"}[f.Extension]
		p.What += " The processor could, but KVM is not loaded."
		p.Do = []string{"load it: sudo modprobe " + module,
			"if that says that the operation is not supported, switch virtualization on in the machine's firmware (BIOS)"}
	case f.Virtual:
		p.What += " This host is a virtual machine whose own host does not pass the processor's virtualization on."
		p.Do = []string{"have nested virtualization switched on for it", elsewhere, lab}
	default:
		p.What += " The processor shows no virtualization extension."
		p.Do = []string{"switch virtualization (VT-x, AMD-V, SVM) on in the machine's firmware (BIOS)", elsewhere, lab}
	}
	return p
}

// noAccess is why a device file that exists is of no use.
func (f *facts) noAccess() problem {
	k := &f.KVM
	why := strings.Replace(k.Problem, k.Device, "it", 1)
	p := problem{What: fmt.Sprintf("%s can't be used: %s.", k.Device, why)}
	if k.Denied {
		p.What = fmt.Sprintf("You may not open %s: it is user %s's and group %s's, with mode %s.", k.Device, k.Owner, k.Group, k.Mode)
		group := k.Group
		if group == "root" || !strings.HasPrefix(k.Mode[min(4, len(k.Mode)):], "rw") {
			group = "kvm"
			p.Do = []string{"let group kvm open it: sudo chgrp kvm " + k.Device + " && sudo chmod 660 " + k.Device}
		}
		p.Do = append(p.Do, "join the group: sudo usermod -aG "+group+" $USER, then log out and in again")
	}
	if k.Device != kvm.DefaultDevice {
		p.Do = append(p.Do, "leave --kvm-device out")
	}
	if len(p.Do) == 0 {
		p.Do = []string{elsewhere}
	}
	return p
}

// emulating is a KVM whose guests' kernels are emulated.
func (f *facts) emulating() problem {
	p := problem{What: fmt.Sprintf("This KVM emulates a guest's kernel instruction by instruction (%.0f ns each), and fails on some of them: Linux does not boot.", f.KVM.Ring0.NS)}
	if f.Extension == "" {
		p.What = "The processor has neither VMX nor SVM here, so KVM is of an unusual kind. " + p.What
	}
	if f.Virtual {
		p.Do = append(p.Do, "have nested virtualization switched on for this virtual machine")
	}
	p.Do = append(p.Do, elsewhere, lab)
	return p
}

// wrap breaks text into lines for a terminal.
func wrap(text string) []string {
	const width = 88
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
