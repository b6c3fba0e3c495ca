// Package float is the processor's floating point: IEEE 754 arithmetic in
// integers, with the results, exception flags and NaN rules of SSE (binary32,
// binary64) and of the x87 (80-bit double extended precision).
//
// It has no CPU: no registers, no stack, no memory, no faults. A value is its
// bits as they lie in memory, an [Env] is the control and status word's part that
// arithmetic needs. The results are the same on every host: the host's own
// operations are used only where IEEE 754 and Go leave them no choice.
//
// An instruction that finds an unmasked exception is the caller's matter: it
// looks at the flags that the operation added and drops or keeps the result, see
// [Env]. Only the transcendental functions allocate.
//
// Sections named in comments are those of Intel's Software Developer's Manual
// (SDM), volume 1, unless another volume is named.
package float

// Flags and masks have the order of bits of MXCSR and of the x87 status and
// control words (8.1.3.3, 10.2.3).
const (
	Invalid      = 1 << 0
	Denormal     = 1 << 1
	DivideByZero = 1 << 2
	Overflow     = 1 << 3
	Underflow    = 1 << 4
	Inexact      = 1 << 5
)

// Rounding modes, RC of MXCSR and of the x87 control word (4.8.4).
const (
	Nearest = 0 // to the nearest, a tie to the even one
	Down    = 1
	Up      = 2
	Zero    = 3
)

// Precision control of the x87 (8.1.5.2). The reserved value 1 acts as
// extended.
const (
	Single   = 0
	Double   = 2
	Extended = 3
)

// Env is what an operation depends on beside its operands, and what it reports
// beside its result.
//
// Flags is sticky. When an exception is unmasked, the caller clears Flags before
// an operation, so that Flags &^ Masks tells whether this one raised it, and adds
// the flags to its status afterwards. With all six masked it can leave them where
// they are, and should: with Inexact already set, the usual operations are fast.
//
// An unmasked Invalid, Denormal or DivideByZero ends an operation before it
// computes: no other flag is added and the result means nothing. With an unmasked
// Overflow or Underflow the 80-bit operations give the result that the x87 stores
// in a register, its exponent biased by 24576 (8.5.4, 8.5.5); for a conversion to
// binary32 or binary64 nothing is stored. An SSE instruction stores nothing.
type Env struct {
	Rounding  uint8
	Precision uint8 // x87: rounds the significand of 80-bit add, sub, mul, div and sqrt only
	DAZ, FTZ  bool  // MXCSR: denormals are zeros, flush to zero
	Masks     uint8 // exceptions masked
	Flags     uint8 // exceptions raised are or'ed in
	C1        bool  // x87: the last result was rounded up in magnitude
	// fromDenormal: the operand that Operand32 or Operand64 prepared was a
	// denormal of its own format. The next 80-bit operation reports and clears it.
	fromDenormal bool
}

// stop raises a pre-computation exception and tells whether the operation ends
// with it.
func (e *Env) stop(flag uint8) bool {
	e.Flags |= flag
	return e.Masks&flag == 0
}
