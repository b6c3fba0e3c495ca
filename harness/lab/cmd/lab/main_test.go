//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"fifovm/harness/lab"
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

// TestFailed: what kept the lab from it has a status, which scripts rely on.
func TestFailed(t *testing.T) {
	tests := []struct {
		err  error
		want int
		help string
	}{
		{&lab.Error{Reason: "r"}, 125, "125 if the lab failed"},
		{&lab.Error{Reason: "r", Timeout: true}, 124, "124 if the time was up"},
		{&lab.Error{Reason: "r", Silent: true}, 123, "123 if the lab fell silent"},
		{errors.New("r"), 125, "125 if the lab failed"},
	}
	for _, tt := range tests {
		var stderr bytes.Buffer
		if got := failed(tt.err, &stderr); got != tt.want || stderr.String() != "lab: r\n" {
			t.Errorf("%#v: status %d, want %d; said %q", tt.err, got, tt.want, stderr.String())
		}
		if !strings.Contains(usage, tt.help) {
			t.Errorf("no %q in the usage", tt.help)
		}
	}
	var stderr bytes.Buffer
	failed(&lab.Error{Reason: "r", Silent: true, Console: "one\ntwo"}, &stderr)
	if got, want := stderr.String(), "lab: the end of the lab's console:\n  one\n  two\nlab: r\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}
