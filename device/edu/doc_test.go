package edu

import (
	"os"
	"strings"
	"testing"
)

// TestGuide holds docs/writing-a-device.md to the code: what it shows must be
// there, to the letter.
func TestGuide(t *testing.T) {
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	code := read("edu.go") + read("edu_test.go") + read("../../cmd/fifovm/devices.go")
	blocks := strings.Split(read("../../docs/writing-a-device.md"), "```go\n")[1:]
	if len(blocks) < 10 {
		t.Errorf("the guide shows %d pieces of code", len(blocks))
	}
	for _, block := range blocks {
		block, _, ended := strings.Cut(block, "```\n")
		for piece := range strings.SplitSeq(block, "...\n") {
			if !ended || !strings.Contains(code, piece) {
				t.Errorf("the guide shows what is not in the code:\n%s", piece)
			}
		}
	}
}
