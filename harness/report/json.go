package report

import (
	"encoding/json"
	"fmt"

	"fifovm/harness"
)

// JSON writes a file for programs: an object with "format" (1), "passed",
// "failed", "skipped" and "not_run" (numbers), "error" (why the run ended early,
// where it did), and "results", of which each is a harness.Result by its JSON
// names; times are in ns.
type JSON struct {
	path string
	err  error
}

var _ Writer = (*JSON)(nil)

// NewJSON writes the file path when the run has finished.
func NewJSON(path string) *JSON { return &JSON{path: path} }

// Started, Running and Done implement harness.Reporter.
func (*JSON) Started(int) {}

// Running has nothing to tell.
func (*JSON) Running(string) {}

// Done has nothing to tell yet.
func (*JSON) Done(*harness.Result) {}

// Finished writes the file.
func (j *JSON) Finished(all []*harness.Result, err error) {
	doc := struct {
		Format  int               `json:"format"`
		Passed  int               `json:"passed"`
		Failed  int               `json:"failed"`
		Skipped int               `json:"skipped"`
		NotRun  int               `json:"not_run"`
		Error   string            `json:"error,omitempty"`
		Results []*harness.Result `json:"results"`
	}{1, harness.Count(all, harness.Passed), harness.Count(all, harness.Failed), harness.Count(all, harness.Skipped), harness.Count(all, harness.NotRun), "", all}
	if err != nil {
		doc.Error = err.Error()
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err == nil {
		err = writeFile(j.path, append(text, '\n'))
	}
	if err != nil {
		j.err = fmt.Errorf("--json: %w", err)
	}
}

// Err is why the file was not written.
func (j *JSON) Err() error { return j.err }
