//go:build !race

package kvm

const raceDetector = false
