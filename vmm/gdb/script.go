package gdb

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// Script gives commands for gdb that connect it to a server: gdb -x FILE. kernel
// is the guest's vmlinux, empty for none; source, if not empty, is the folder of
// its sources; modules is Config.ModuleScript, empty if there is none.
func Script(address net.Addr, kernel, source, modules string) (string, error) {
	var b strings.Builder
	b.WriteString("# Written by fifovm: gdb -x THIS_FILE\n")
	for _, p := range []*string{&kernel, &source, &modules} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return "", err
		}
		if strings.ContainsAny(abs, "\"\\\n") {
			return "", fmt.Errorf("gdb: a script can't have the path %q", abs)
		}
		*p = abs
	}
	if kernel != "" {
		fmt.Fprintf(&b, "file \"%s\"\n", kernel)
	} else {
		b.WriteString("set architecture i386:x86-64\n")
	}
	if source != "" {
		fmt.Fprintf(&b, "directory \"%s\"\n", source)
	}
	if modules != "" {
		fmt.Fprintf(&b, `define modules
  monitor modules
  set confirm off
  source %s
  set confirm on
end
document modules
Load the symbols of the modules that the guest has loaded.
end
`, modules)
	}
	fmt.Fprintf(&b, "target remote %s\n", address)
	return b.String(), nil
}
