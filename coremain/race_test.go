//go:build race

package coremain

const raceDetector = true
