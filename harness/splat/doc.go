// Package splat reads what a kernel prints when something is wrong with it: a
// warning, an oops, a report of KASAN or lockdep. It finds where in the lines of a
// console a report begins and ends, makes one line of it that names function,
// file and line, and adds file and line, and what the compiler has inlined, to
// each address of code, from the DWARF debug information of the kernel and its
// modules.
//
// It reads text and files and runs nothing. It does not judge: whether a report
// fails a test is harness's to say.
package splat
