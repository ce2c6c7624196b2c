//go:build !race

package coremain

const raceDetector = false
