package report

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"fifovm/harness"
)

// The file is valid by the schema in testdata, which is that of CI systems.
func TestJUnitSchema(t *testing.T) {
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("needs xmllint: apt-get install libxml2-utils")
	}
	for name, test := range map[string]struct {
		results []*harness.Result
		err     error
	}{
		"all": {results(), nil}, "stopped": {results(), errors.New("stopped")}, "none": {nil, errors.New("no guest")},
	} {
		path := filepath.Join(t.TempDir(), "report.xml")
		j := NewJUnit(path, nil)
		tell(j, test.results, test.err)
		if j.Err() != nil {
			t.Fatal(j.Err())
		}
		if out, err := exec.Command(xmllint, "--noout", "--schema", filepath.Join("testdata", "junit.xsd"), path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
