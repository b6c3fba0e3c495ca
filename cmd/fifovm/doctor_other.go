//go:build !linux

package main

// KVM is Linux's, and what else there is to know of other hosts changes nothing.

func (*facts) host() {}

func (*kvmFacts) file() {}
