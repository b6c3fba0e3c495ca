package fault

import "fmt"

// State is a plan as plain data: its faults, and which are armed no more. What the
// armed ones have counted is in the states of their devices.
type State struct {
	Text    string
	Seeds   []uint64 // by fault: Arm may have come with another one
	Before  []uint64 // how often each had fired when it was cleared
	Cleared []bool
}

// State gives the state.
func (p *Plan) State() State {
	s := State{Text: p.String()}
	for _, f := range p.faults {
		s.Seeds, s.Before, s.Cleared = append(s.Seeds, f.seed), append(s.Before, f.before), append(s.Cleared, f.cleared)
	}
	return s
}

// FromState makes the plan that a state is of, bound to no device yet.
func FromState(s State) (*Plan, error) {
	p, err := Parse(s.Text)
	if err != nil {
		return nil, err
	}
	n := len(p.faults)
	if len(s.Seeds) != n || len(s.Before) != n || len(s.Cleared) != n {
		return nil, fmt.Errorf("fault: state of %d faults, the plan %q has %d", len(s.Seeds), s.Text, n)
	}
	for i, f := range p.faults {
		f.seed, f.before, f.cleared = s.Seeds[i], s.Before[i], s.Cleared[i]
	}
	return p, nil
}
