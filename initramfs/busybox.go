package initramfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/bb"
	"github.com/u-root/gobusybox/src/pkg/bb/findpkg"
	"github.com/u-root/gobusybox/src/pkg/golang"
)

const urootModule = "github.com/u-root/u-root"

// DefaultCommands is what somebody who develops a driver types, and no more:
// every command makes each boot a little longer.
var DefaultCommands = []string{
	"basename", "cat", "chmod", "cmp", "cp", "date", "dd", "dirname", "dmesg",
	"du", "echo", "false", "find", "free", "gosh", "grep", "head", "hexdump",
	"hostname", "id", "init", "insmod", "kill", "ln", "ls", "lsmod", "md5sum",
	"mkdir", "mknod", "more", "mount", "mv", "pci", "poweroff", "printenv",
	"ps", "pwd", "readlink", "rm", "rmmod", "seq", "shutdown", "sleep", "sort",
	"strace", "strings", "stty", "sync", "tail", "tee", "time", "timeout", "touch", "tr",
	"true", "umount", "uname", "uniq", "uptime", "wc", "which", "xargs",
}

// required are the commands without which an image doesn't come up.
var required = []string{"gosh", "init"}

// buildFlags go to the Go compiler. -l: a smaller program, which counts more
// at boot than a faster one.
var buildFlags = []string{"-trimpath", "-buildvcs=false", "-gcflags=all=-l", "-ldflags=-s -w -buildid="}

// buildTags: goshliner is gosh with history and completion, a sixth of the
// whole image smaller than its default editor, and plain enough in its output
// for a serial console and for a program at its other end.
var buildTags = []string{"goshliner"}

// commandSet returns the wanted commands and the required ones, sorted, once
// each.
func commandSet(wanted []string) ([]string, error) {
	if wanted == nil {
		wanted = DefaultCommands
	}
	for _, c := range wanted {
		if c == "" || strings.ContainsAny(c, "/\\*?[ ") || strings.HasPrefix(c, ".") || strings.HasPrefix(c, "-") {
			return nil, fmt.Errorf("bad command name %q: give a u-root command such as ls", c)
		}
	}
	set := slices.Concat(wanted, required)
	slices.Sort(set)
	return slices.Compact(set), nil
}

// busybox returns the path of one program that contains the commands. It is
// compiled when the cache has none for the same Go, u-root and commands.
func busybox(ctx context.Context, o Options, commands []string) (string, error) {
	goEnv, err := readGoEnv(ctx, o.ModuleDir)
	if err != nil {
		return "", err
	}
	uroot, err := findURoot(ctx, o.ModuleDir)
	if err != nil {
		return "", err
	}
	cache := o.CacheDir
	if cache == "" {
		cache = filepath.Join(filepath.Dir(goEnv.GOMOD), "build", "initramfs")
	}
	packages, err := findCommands(uroot, commands)
	if err != nil {
		return "", err
	}

	// The number stands for what this package itself does to the source.
	h := sha256.New()
	fmt.Fprintf(h, "2 %q %q %q %q", goEnv.GOVERSION, uroot.Version, packages, slices.Concat(buildFlags, buildTags))
	program := filepath.Join(cache, "bb-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}

	if o.Log != nil {
		o.Log("compiling %d u-root commands, about a minute", len(commands))
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	work, err := os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	defer os.RemoveAll(work)
	built := filepath.Join(work, "bb")
	if err := compile(ctx, goEnv, uroot.Dir, packages, work, built); err != nil {
		return "", err
	}
	// Whoever compiles the same at the same time makes the same program.
	if err := os.Rename(built, program); err != nil {
		return "", fmt.Errorf("keep program in cache: %w", err)
	}
	return program, nil
}

// compile rewrites the commands to one program with gobusybox and compiles it.
func compile(ctx context.Context, goEnv *goEnv, uroot string, packages []string, work, output string) error {
	env := golang.Default(
		golang.DisableCGO(),
		golang.WithGOOS("linux"),
		golang.WithGOARCH("amd64"),
		golang.WithGOROOT(goEnv.GOROOT),
		golang.WithGOPATH(goEnv.GOPATH),
		// In u-root's module and not in ours: u-root's go.sum, in the
		// module cache, vouches for all that its commands need.
		golang.WithWorkingDir(uroot),
		golang.WithGO111MODULE("on"),
		golang.WithMod(golang.ModReadonly),
		golang.WithBuildTag(buildTags...),
	)
	source := filepath.Join(work, "gopath")
	var log gobusyboxLog
	err := bb.BuildBusybox(&log, &bb.Opts{
		Env:          env,
		LookupEnv:    &findpkg.Env{},
		GenSrcDir:    source,
		CommandPaths: packages,
		BinaryPath:   output,
		GenerateOnly: true,
	})
	if err != nil {
		return fmt.Errorf("prepare u-root commands: %w", oneLine(err, log.String()))
	}
	main := filepath.Join(source, "src", "bb.u-root.com", "bb")
	if err := addShell(main); err != nil {
		return err
	}
	// Compiled here and not by BuildBusybox, which rebuilds the standard
	// library each time.
	args := slices.Concat([]string{"build", "-o", output, "-tags=" + strings.Join(buildTags, ",")}, buildFlags, []string{"."})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = main
	cmd.Env = append(os.Environ(), "GO111MODULE=off", "GOPATH="+source, "GOFLAGS=", "GOWORK=off",
		"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile u-root commands: %w", oneLine(err, string(out)))
	}
	return nil
}

// addShell makes gosh known as sh, too. gobusybox finds a command by the name
// that it is started by, and follows links only from a path, but system(3),
// and gosh itself, start /bin/sh by the name sh.
func addShell(main string) error {
	for name, text := range map[string]string{
		"pkg/bbmain/alias.go": "package bbmain\n\nfunc Alias(name, command string) { bbCmds[name] = bbCmds[command] }\n",
		"alias.go":            "package main\n\nimport \"bb.u-root.com/bb/pkg/bbmain\"\n\nfunc init() { bbmain.Alias(\"sh\", \"gosh\") }\n",
	} {
		if err := os.WriteFile(filepath.Join(main, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("prepare u-root commands: %w", err)
		}
	}
	return nil
}

// gobusyboxLog keeps what gobusybox says, for the case that it fails.
type gobusyboxLog struct{ bytes.Buffer }

func (l *gobusyboxLog) Printf(format string, args ...any) { fmt.Fprintf(l, format+"\n", args...) }
func (l *gobusyboxLog) Print(args ...any)                 { fmt.Fprintln(l, args...) }

type goEnv struct{ GOMOD, GOPATH, GOROOT, GOVERSION string }

func readGoEnv(ctx context.Context, dir string) (*goEnv, error) {
	out, err := runGo(ctx, dir, "env", "-json", "GOMOD", "GOPATH", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	var e goEnv
	if err := json.Unmarshal(out, &e); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	if e.GOMOD == "" || e.GOMOD == os.DevNull {
		return nil, errors.New("not in a Go module: run this in fifovm's source tree")
	}
	return &e, nil
}

type module struct{ Version, Dir, Error string }

// findURoot returns u-root's source, and gets it if need be.
func findURoot(ctx context.Context, dir string) (*module, error) {
	out, err := runGo(ctx, dir, "mod", "download", "-json", urootModule)
	var m module
	if json.Unmarshal(out, &m) == nil && m.Error != "" {
		// More to the point than the exit status.
		return nil, fmt.Errorf("get %s: %s", urootModule, m.Error)
	}
	if err != nil {
		return nil, err
	}
	if m.Dir == "" {
		return nil, fmt.Errorf("get %s: the go command names no folder", urootModule)
	}
	return &m, nil
}

// findCommands returns the commands' packages.
func findCommands(uroot *module, commands []string) ([]string, error) {
	var packages []string
	for _, c := range commands {
		found := false
		for _, set := range []string{"core", "exp"} {
			if _, err := os.Stat(filepath.Join(uroot.Dir, "cmds", set, c)); err == nil {
				packages = append(packages, urootModule+"/cmds/"+set+"/"+c)
				found = true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("u-root %s has no command %q: see %s", uroot.Version, c, filepath.Join(uroot.Dir, "cmds"))
		}
	}
	return packages, nil
}

func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("go %s: %w", strings.Join(args, " "), oneLine(err, stderr.String()))
	}
	return out, nil
}

// oneLine adds to err the line of a command's output that says most.
func oneLine(err error, output string) error {
	lines := strings.FieldsFunc(strings.TrimSpace(output), func(r rune) bool { return r == '\n' })
	for _, l := range lines {
		// "# package" lines only announce the message that follows.
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			return fmt.Errorf("%w: %s", err, l)
		}
	}
	return err
}
