//go:build linux

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestMistakes(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "no command"},
		{[]string{"--frobnicate"}, "-frobnicate"},
		{[]string{"--cpus", "0", "true"}, "--cpus 0"},
		{[]string{"--timeout", "-1s", "true"}, "--timeout -1s"},
		{[]string{"--memory", "-1", "true"}, "--memory -1"},
		{[]string{"--file", "nocolon", "true"}, "SOURCE:PATH"},
		{[]string{"--fetch", "relative:x", "true"}, "SRC:DST"},
		{[]string{"--env", "x", "true"}, "NAME=VALUE"},
	}
	for _, tt := range tests {
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), tt.args, &stdout, &stderr)
		if status != statusUsage || !strings.Contains(stderr.String(), tt.want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: status %d, %q, want %d and one line with %q", tt.args, status, stderr.String(), statusUsage, tt.want)
		}
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(context.Background(), []string{"--help"}, &stdout, &stderr); status != 0 || !strings.Contains(stdout.String(), "--fetch") {
		t.Errorf("status %d, %q", status, stdout.String())
	}
}
