package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version says what this program was built from, by what and for what.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return fmt.Sprintf("%s, %s %s/%s", revision(info), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func revision(info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit, date := settings["vcs.revision"], settings["vcs.time"]
	switch {
	case commit == "" && (info.Main.Version == "" || info.Main.Version == "(devel)"):
		return "of unknown revision"
	case commit == "": // go install fifovm@version
		return info.Main.Version
	}
	s := commit[:min(len(commit), 12)]
	if date != "" {
		s += " of " + date
	}
	if settings["vcs.modified"] == "true" {
		s += " with changes"
	}
	return s
}
