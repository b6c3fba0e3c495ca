package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	output := filepath.Join(t.TempDir(), "out")
	tests := []struct {
		args []string
		want string
	}{
		{nil, "no output file"},
		{[]string{"-o", output, "extra"}, `unexpected argument "extra"`},
		{[]string{"-o", output, "--frobnicate"}, "-frobnicate"},
		{[]string{"-o", output, "--compress", "lzma"}, "unknown compression"},
		{[]string{"-o", output, "--files", "nocolon"}, "SOURCE:PATH"},
		{[]string{"-o", output, "--base", "b", "--commands", "ls"}, "--base"},
	}
	for _, tt := range tests {
		err := run(context.Background(), tt.args, io.Discard, io.Discard)
		var bad usageError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want a usage error with %q", tt.args, err, tt.want)
		}
	}
	if _, err := os.Stat(output); err == nil {
		t.Error("an output was written")
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if err := run(context.Background(), []string{"--help"}, &out, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
	for _, want := range []string{"--files", "insmod"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help doesn't mention %s", want)
		}
	}
}
