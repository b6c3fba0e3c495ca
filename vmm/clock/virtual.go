package clock

// Virtual is time that its owner makes: it stands still between calls of Set.
type Virtual struct{ now int64 }

// Now is the time in ns.
func (v *Virtual) Now() int64 { return v.now }

// Set makes now the current time. But for a machine that takes a state, it
// never goes back.
func (v *Virtual) Set(now int64) { v.now = now }
